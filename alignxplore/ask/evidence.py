"""Which choices of a history speak for a statement of a summary, by words: no model is asked.

A statement about films ("Horror liked") rests on the films that have the attribute: those that were chosen, or for a
dislike those that were passed over. Any other statement rests on the choices that share its rarest words. It is a
look at the text, no proof.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alignxplore.films.text import LEAD, attributes, read_summary
from alignxplore.records import Interaction

MOST = 12  # choices that are named for a statement, the ones with most in common
LONGEST = 40  # statements of a summary
_LEAST = 3  # letters of a word that can be rare
_FILLING = frozenset("and are but for has her his its not out the they this was with who you your".split())
_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")


@dataclass(frozen=True)
class Statement:
    """A part of a summary; `chosen` and `rejected`: places (from 0) of the items in the history that it rests on."""

    text: str
    chosen: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()


def statements(summary: str, history: Sequence[Interaction]) -> list[Statement]:
    """The statements of a summary in their order, each with its evidence."""
    if summary.strip().startswith(LEAD):
        return [_of_films(name, level, history) for name, level in read_summary(summary)[:LONGEST]]
    sides = [[_words(one.chosen) for one in history], [_words(one.rejected or "") for one in history]]
    seen = Counter(word for side in sides for words in side for word in words)
    parts = [part.strip() for part in _SENTENCE.split(summary) if part.strip()][:LONGEST]
    return [Statement(part, *(_shared(_words(part), side, seen) for side in sides)) for part in parts]


def _of_films(name: str, level: int, history: Sequence[Interaction]) -> Statement:
    """A film speaks for a liking where it was chosen, and for a dislike where it was passed over."""
    items = [one.chosen if level > 0 else one.rejected or "" for one in history]
    places = tuple(place for place, item in enumerate(items) if name in attributes(item))
    words = {2: "loved", 1: "liked", -1: "disliked", -2: "hated"}
    text = f"{name} {words[level]}"
    return Statement(text, chosen=places) if level > 0 else Statement(text, rejected=places)


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if len(word) >= _LEAST} - _FILLING


def _shared(words: set[str], side: Sequence[set[str]], seen: Counter[str]) -> tuple[int, ...]:
    """Places of the items that share most with these words; what stands in most items counts for nothing."""
    total = len(side)
    weights = {word: math.log(total / count) for word in words if 0 < (count := seen[word]) < total}
    scored = [(sum(weights.get(word, 0.0) for word in words & item), place) for place, item in enumerate(side)]
    best = sorted((one for one in scored if one[0] > 0), reverse=True)[:MOST]
    return tuple(sorted(place for _, place in best))
