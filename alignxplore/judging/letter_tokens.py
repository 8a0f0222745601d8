"""Where a tokenizer has the letters of an answer: the start of the JSON that is written for the judge, and the token
that it reads next. `letters.py` asks at that place, for synthesis, reward and evaluation alike.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import JudgeError

MOST = len(ascii_uppercase)  # items in one question


@dataclass(frozen=True)
class Letters:
    """Where the prefill ends and which token each letter is, as the judge's own tokenizer cuts the full answer."""

    prefill: str
    tokens: tuple[int, ...]
    texts: tuple[str, ...]


def find_letters(tokenizer: PreTrainedTokenizerBase, names: str = "AB") -> Letters:
    """Split `{"selection": "Item A"}` where the answers first differ in tokens (Qwen, SmolLM2: before ` A`/` B`)."""
    answers = [json.dumps({"selection": f"Item {letter}"}) for letter in names]
    ids = [tokenizer.encode(answer, add_special_tokens=False) for answer in answers]
    place = next((i for i, tokens in enumerate(zip(*ids)) if len(set(tokens)) > 1), 0)
    prefill = tokenizer.decode(ids[0][:place])
    # Decoded with what stands before it: a SentencePiece tokenizer drops the space of a token decoded alone.
    texts = tuple(tokenizer.decode(row[: place + 1]).removeprefix(prefill) for row in ids)
    if not answers[0].startswith(prefill + texts[0]) or [text.strip() for text in texts] != list(names):
        raise JudgeError(f"this tokenizer has no token of its own for the letter after {prefill!r}: it reads {texts}")
    return Letters(prefill, tuple(row[place] for row in ids), texts)


letters_of = lru_cache(maxsize=64)(find_letters)


@lru_cache(maxsize=64)
def letters_known(tokenizer: PreTrainedTokenizerBase) -> int:
    """Letters that are tokens of their own: all 26, or A and B alone."""
    with suppress(JudgeError):
        return len(find_letters(tokenizer, ascii_uppercase).tokens)
    return 2
