"""Tokenised rows as text, for reading. Used by `tokenised_set.py`."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

Tokens = Sequence[int] | np.ndarray


def marked(ids: Tokens, labels: Tokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row as text, control tokens and all, with what is trained between ⟦ and ⟧."""
    text = ""
    for trained, run in groupby(zip(ids, labels), key=lambda one: one[1] != -100):
        part = tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        text += f"⟦{part}⟧" if trained else part
    return text


def show(rows: Iterable[tuple[Tokens, Tokens]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Rows for reading, with their lengths in tokens."""
    return [
        f"row {number}: {len(ids)} tokens, {sum(label != -100 for label in labels)} of them trained\n"
        f"{marked(ids, labels, tokenizer)}\n"
        for number, (ids, labels) in enumerate(rows, 1)
    ]
