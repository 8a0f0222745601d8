"""What can be known of a model before it is served: are its files there and whole, does its chat template take our
prompts, and were they those that it was trained on? A server takes a minute to say less."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub.constants
import numpy as np
from huggingface_hub import try_to_load_from_cache

from alignxplore.errors import UserError
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import read_object
from alignxplore.serving.serve_options import has_option, last_value
from alignxplore.texts import stand_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WRITTEN = ("config.json", "tokenizer.json", "tokenizer_config.json")  # files that hold a JSON object
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
_OF_RL = "streaming.prompts (infer.jinja)"  # what OUT/run.json of RL, beside OUT/model, calls the policy's template
_SENTENCE = "two words and a third"


# Numbers as their bits: how they are stored, all but the sign, and infinity; what lies above that is NaN.
_BITS = {"F32": ("<u4", 0x7FFFFFFF, 0x7F800000), "BF16": ("<u2", 0x7FFF, 0x7F80), "F16": ("<u2", 0x7FFF, 0x7C00)}
_LOOKED_AT = 1 << 14  # bytes of each tensor


class ModelError(UserError):
    """A model that cannot be used as it is; the message names the file, or what its template refuses."""


def check_files(model: str, revision: str | None = None, arguments: Sequence[str] = ()) -> None:
    """Raise `ModelError` where configuration, tokenizer or weights are missing or cut, in a folder or, offline, in the
    hub's cache. What `arguments` of `vllm serve` take from elsewhere is not looked for."""
    folder, hint = Path(model), ""
    if model.endswith(".gguf"):
        raise ModelError(f"{model}: a GGUF file is not served here; convert it, or serve it and give the server's URL")
    if not folder.is_dir():
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            return
        hint = "; HF_HUB_OFFLINE=1 forbids to fetch it: unset it once, or download the model"
        config = try_to_load_from_cache(model, "config.json", revision=revision)
        if not isinstance(config, str):
            raise ModelError(f"{model}: no config.json in the hub's cache{hint}")
        folder = Path(config).parent
    if sentence := of_an_adapter(model):
        raise ModelError(sentence)
    if not any((folder / name).is_file() for name in ("config.json", "params.json")):
        raise ModelError(f"{model}: no config.json in {folder}{hint}")
    if not has_option(arguments, "--tokenizer") and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{model}: no tokenizer in {folder} (tokenizer.json or another form of it){hint}")
    _check_json(folder)
    if not has_option(arguments, "--load-format"):
        _check_weights(model, folder, hint)
    _check_window(model, folder, arguments)


def of_an_adapter(model: str) -> str:
    """What there is to say of a folder that holds an adapter (of `sft.py --use_peft`); empty: it holds none."""
    if not (Path(model) / "adapter_config.json").is_file():
        return ""
    return (
        f"'{model}' holds a LoRA adapter and not a model; merge it into its base first: "
        f"python sft/merge_adapter.py --adapter {model} --out {model.rstrip('/')}_merged"
    )


def _check_json(folder: Path) -> None:
    """Whoever reads one that is cut, or a pointer of Git LFS, does not say of which file."""
    for name in _WRITTEN:
        if (folder / name).is_file():
            read_object(folder / name, remedy="copy or download it again")


def _check_weights(model: str, folder: Path, hint: str) -> None:
    shards = {path for pattern in _WEIGHTS for path in folder.glob(pattern)}
    for index in folder.glob("*.index.json"):
        shards |= {
            folder / name
            for name in read_object(index, "weight_map", remedy="copy or download it again")["weight_map"].values()
        }
    if not shards:
        raise ModelError(f"{model}: no weights in {folder} (*.safetensors){hint}")
    for path in sorted(shards):
        if not path.is_file():
            raise ModelError(f"{model}: {path} is missing{hint}")
        with path.open("rb") as file:
            if problem := stand_in(file.read(512)):
                raise ModelError(f"{model}: {path}: {problem}")
        if path.suffix == ".safetensors" and not _is_whole(path):
            raise ModelError(f"{model}: {path} is cut or damaged; copy or download it again")
        if path.suffix == ".safetensors" and (tensor := _no_number(path)):
            raise ModelError(
                f"{model}: {tensor} in {path} holds values that are no numbers (NaN): the training that wrote them "
                "diverged; take an earlier checkpoint"
            )


def _check_window(model: str, folder: Path, arguments: Sequence[str]) -> None:
    """vLLM refuses a longer window than the model was made for, and takes a page to say so."""
    size, limit = last_value(arguments, "--max-model-len") or "", _window(folder)
    is_allowed = os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0") not in ("", "0")
    override = is_allowed or has_option(arguments, "--hf-overrides")
    if size.isdecimal() and limit and int(size) > limit and not override:
        problem = f"a window of {int(size):,} tokens is asked for, and the model was made for {limit:,}"
        raise ModelError(f"{model}: {problem}; lower --max_model_len to {limit} or less")


def _window(folder: Path) -> int | None:
    """Tokens that a model was made for; None where that is not said, or where its positions are stretched."""
    limits: list[int] = []
    for name, field in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            config = config.get("text_config", config)
            if "factor" in json.dumps([config.get("rope_scaling"), config.get("rope_parameters")]):
                return None
            if isinstance(config.get(field), int):
                limits.append(config[field])
        except (OSError, ValueError, AttributeError):
            continue
    return min(limits, default=None)


def _is_whole(path: Path) -> bool:
    """Whether a file of weights is as long as its head says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 2 <= length <= size - 8:
            return False
        try:
            head = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return 8 + length + max(ends, default=0) <= size


def _no_number(path: Path) -> str | None:
    """The first tensor that has a NaN at its beginning; a training that diverges leaves them in all places."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(start - 8))
        for name, entry in head.items():
            if name == "__metadata__" or entry["dtype"] not in _BITS:
                continue
            kind, all_but_sign, infinity = _BITS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            values = np.frombuffer(file.read(min(end - begin, _LOOKED_AT)), kind)
            if ((values & all_but_sign) > infinity).any():
                return name
    return None


def load_tokenizer(
    name: str, source: str, revision: str | None = None, sample: Messages | None = None
) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model called `name`, with a chat template that takes a prompt such as `sample`.

    Raises:
        ModelError: no tokenizer there, no chat template, or one that refuses the prompt.
    """
    try:
        tokenizer = read_tokenizer(source, revision)
    except ModelError as error:
        raise ModelError(f"{name}: {error}; name another one behind a #, as TARGET#TOKENIZER") from None
    check_template(name, tokenizer, sample)
    return tokenizer


def read_tokenizer(source: str, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or hub model. A `ModelError` says in a sentence why there is none."""
    from transformers import AutoTokenizer  # imports torch: 200 MB for a process that only watches a server

    if Path(source).is_dir():
        _check_json(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except Exception as error:  # the library raises a dozen types, and plain ones
        cause = " ".join(str(error).split(":\n")[0].split()) or type(error).__name__
        raise ModelError(f"no tokenizer at {source} ({cause})") from None
    if _loses_spaces(tokenizer):
        raise ModelError(
            f"the tokenizer at {source} loses spaces and letters beyond a-z; write "
            '"tokenizer_class": "PreTrainedTokenizerFast" into its tokenizer_config.json'
        )
    return tokenizer


def _loses_spaces(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether words come back joined. transformers 5 reads a tokenizer.json of bytes (DeepSeek's distills) as one of
    SentencePiece where its class is LlamaTokenizer. Words that are not in a small vocabulary say nothing."""
    text = tokenizer.decode(tokenizer.encode(_SENTENCE, add_special_tokens=False))
    return all(word in text for word in _SENTENCE.split()) and not any(map(str.isspace, text))


def check_template(name: str, tokenizer: "PreTrainedTokenizerBase", sample: Messages | None = None) -> None:
    """Raise `ModelError` where there is no chat template, or none that can render `sample`."""
    if not tokenizer.chat_template:
        raise ModelError(f"{name}: its tokenizer has no chat template, so it cannot be asked; take a chat model")
    try:
        if sample:
            tokenizer.apply_chat_template(sample, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template is a program of somebody else's
        roles = ", ".join(message["role"] for message in sample or [])
        raise ModelError(
            f"{name}: its chat template refuses messages of {roles} ({error}); take another model, "
            "or a prompt set without the role that it does not know"
        ) from None


def other_wording(model: str, prompts: PromptSet) -> str | None:
    """What there is to say where the folder of a trained model names the wording it was trained on (summary.json of
    SFT, run.json of RL), and `prompts` ask a policy in another one; None where they agree or nothing is named."""
    folder, hashes = Path(model), set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        hashes = set(json.loads((folder / "summary.json").read_bytes())["data"]["prompt_templates"])
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        hashes.add(json.loads((folder.resolve().parent / "run.json").read_bytes())[_OF_RL])
    own_hash = PromptSet(prompts.folder).hash("infer")  # however short its summaries are to be
    if own_hash in hashes or not hashes - {"not recorded"}:
        return None
    return (
        f"{model} was trained on prompts of another infer.jinja ({', '.join(sorted(hashes))}) than that of the prompt "
        f"set {prompts.name} ({own_hash}), and may answer worse to it"
    )
