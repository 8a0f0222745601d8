"""What tells one model's weights from another's: a hash of a folder's files, the commit of a hub model; and one
tokenizer from another: a hash of what it does."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download

from alignxplore.records import content_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK, _BLOCKS = 1 << 16, 64  # bytes, and how many such blocks of a large file are hashed


def model_identity(model: str, revision: str | None) -> str:
    """What tells two models apart: for a folder its name and the fingerprint of its files, for a hub model its
    commit."""
    folder = Path(model)
    if folder.is_dir():
        return f"{folder.name}:{weights_fingerprint(folder)}"
    return f"{model}@{commit(model, revision or 'main')}"


def weights_fingerprint(folder: str | Path) -> str:
    """Hash of a model folder: names and sizes of its weights, configuration and tokenizer files, and what they hold.

    Of large files blocks at even distances are read, both ends among them: training moves all weights, and 16 GB take
    minutes to read.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in (".safetensors", ".bin", ".json", ".jinja") and path.name != "trainer_state.json":
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as file:
                if size <= _BLOCK * _BLOCKS:
                    digest.update(file.read())
                for block in range(_BLOCKS if size > _BLOCK * _BLOCKS else 0):
                    file.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]


def commit(hub_id: str, revision: str) -> str:
    """The commit that a revision of a hub model stands for today, offline as the cache has it; the revision where
    neither is to be had."""
    try:
        return Path(hf_hub_download(hub_id, "config.json", revision=revision)).parent.name
    except OSError:  # also what the hub's own errors are
        return revision


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> dict[str, str]:
    """Hashes of what decides a row's token ids: vocabulary with merges and added tokens (by a probe), and chat
    template."""
    probe = "Item A: 3.14 naïve café \n\n\t 東京 <think> </think> <|im_end|> preference_summary's"
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return {
        "tokenizer": content_hash([vocabulary, tokenizer(probe, add_special_tokens=False)["input_ids"]]),
        "chat_template": content_hash(tokenizer.chat_template),
    }
