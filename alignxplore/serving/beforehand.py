"""What can be known of a model before it is served: are its files there and whole, and does its chat template take our
prompts? A server takes a minute to say less."""

import json
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub.constants
import jinja2
from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.errors import UserError
from alignxplore.prompts import Messages
from alignxplore.records import read_object

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")


class ModelError(UserError):
    """A model that cannot be used as it is; the message names the file, or what its template refuses."""


def check_files(model: str, revision: str | None = None, arguments: Sequence[str] = ()) -> None:
    """Raise `ModelError` where configuration, tokenizer or weights are missing or cut, in a folder or, offline, in the
    hub's cache. What `arguments` of `vllm serve` take from elsewhere is not looked for."""
    folder, where = Path(model), ""
    if model.endswith(".gguf"):
        raise ModelError(f"{model}: a GGUF file is not served here; convert it, or serve it and give the server's URL")
    if not folder.is_dir():
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            return
        where = "; HF_HUB_OFFLINE=1 forbids to fetch it: unset it once, or download the model"
        config = try_to_load_from_cache(model, "config.json", revision=revision)
        if not isinstance(config, str):
            raise ModelError(f"{model}: no config.json in the hub's cache{where}")
        folder = Path(config).parent
    if not any((folder / name).is_file() for name in ("config.json", "params.json")):
        raise ModelError(f"{model}: no config.json in {folder}{where}")
    if "--tokenizer" not in arguments and not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{model}: no tokenizer in {folder} (tokenizer.json or another form of it){where}")
    if "--load-format" not in arguments:
        _check_weights(model, folder, where)


def _check_weights(model: str, folder: Path, where: str) -> None:
    shards = {path for pattern in _WEIGHTS for path in folder.glob(pattern)}
    for index in folder.glob("*.index.json"):
        shards |= {
            folder / name
            for name in read_object(index, "weight_map", remedy="copy or download it again")["weight_map"].values()
        }
    if not shards:
        raise ModelError(f"{model}: no weights in {folder} (*.safetensors){where}")
    for path in sorted(shards):
        if not path.is_file():
            raise ModelError(f"{model}: {path} is missing{where}")
        if path.suffix == ".safetensors" and not _is_whole(path):
            raise ModelError(f"{model}: {path} is cut or damaged; copy or download it again")


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


def load_tokenizer(
    name: str, source: str, revision: str | None = None, sample: Messages | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model called `name`, with a chat template that takes a prompt such as `sample`.

    Raises:
        ModelError: no tokenizer there, no chat template, or one that refuses the prompt.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        problem = f"{name}: no tokenizer at {source} ({said}); name another one behind a #, as TARGET#TOKENIZER"
        raise ModelError(problem) from None
    check_template(name, tokenizer, sample)
    return tokenizer


def check_template(name: str, tokenizer: PreTrainedTokenizerBase, sample: Messages | None = None) -> None:
    """Raise `ModelError` where there is no chat template, or none that can render `sample`."""
    if not tokenizer.chat_template:
        raise ModelError(f"{name}: its tokenizer has no chat template, so it cannot be asked; take a chat model")
    try:
        if sample:
            tokenizer.apply_chat_template(sample, add_generation_prompt=True, tokenize=False)
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        roles = ", ".join(message["role"] for message in sample or [])
        raise ModelError(
            f"{name}: its chat template refuses messages of {roles} ({error}); take another model, "
            "or a prompt set without the role that it does not know"
        ) from None
