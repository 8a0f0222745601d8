"""Tokenised rows as text, for reading. Used by `tokenised_set.py`."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

Tokens = Sequence[int] | np.ndarray


def marked(ids: Tokens, labels: Tokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row as text, control tokens and all, with what is trained between ⟦ and ⟧."""
    text = ""
    for is_trained, pairs in groupby(zip(ids, labels), key=lambda pair: pair[1] != -100):
        part = tokenizer.decode([token for token, _ in pairs], skip_special_tokens=False)
        text += f"⟦{part}⟧" if is_trained else part
    return text


def show(rows: Iterable[tuple[Tokens, Tokens]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Rows for reading, with their lengths in tokens."""
    return [
        f"row {number}: {len(ids)} tokens, {sum(label != -100 for label in labels)} of them trained\n"
        f"{marked(ids, labels, tokenizer)}\n"
        for number, (ids, labels) in enumerate(rows, 1)
    ]
