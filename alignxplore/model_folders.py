"""Folders of models as every stage leaves them: readable for whoever may read the rest."""

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: str | Path) -> None:
    """Write a model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share(Path(folder))


def share(folder: Path) -> None:
    """Give weights the rights of the JSON files beside them. safetensors 0.8 writes for the owner alone, and the
    judge's server or a colleague may be somebody else."""
    for weights in folder.glob("*.safetensors"):
        for other in itertools.islice(folder.glob("*.json"), 1):
            shutil.copymode(other, weights)
