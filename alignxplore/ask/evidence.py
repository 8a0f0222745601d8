"""Which choices of a history speak for a statement of a summary, and which against it; no model is asked.

Where the attributes of items are known (films, the simulated world), a statement about one of them is held against
each item, as `eval/faithfulness.py` does for its exact figures. Any other statement rests on the choices that share
its rarest words: a look at the text, no proof.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alignxplore.evaluation.known_items import KNOWN, Attributes, claim
from alignxplore.evaluation.statements import about, statements_of
from alignxplore.records import Interaction

MOST = 12  # choices that are named for a statement by its words, the ones with most in common
LONGEST = 40  # statements of a summary
_LEAST = 3  # letters of a word that can be rare
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Statement:
    """A part of a summary; `chosen` and `rejected`: places (from 0) of the items in the history that it is about.

    `sign` 1 says a liking, so that what was chosen speaks for it and what was passed over against it; -1 a dislike,
    the other way round; 0: by its words alone, all are for it.
    """

    text: str
    chosen: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    sign: int = 0


def statements(summary: str, history: Sequence[Interaction]) -> list[Statement]:
    """The statements of a summary in their order, each with its evidence."""
    parts = [(part.text, summary[part.start : part.end].strip(" .")) for part in statements_of(summary)]
    # A heading states nothing.
    parts = [(text, wording) for text, wording in parts if not wording.endswith(":")][:LONGEST]
    sides = [[_words(item.chosen) for item in history], [_words(item.rejected or "") for item in history]]
    counts = Counter(word for side in sides for words in side for word in words)
    attributes = next((reader for reader in KNOWN.values() if any(reader(item.chosen) for item in history)), None)
    return [
        (attributes and _known(attributes, text, wording, history))
        or Statement(wording, _shared(text, sides[0], counts), _shared(text, sides[1], counts))
        for text, wording in parts
    ]


def _known(attributes: Attributes, text: str, wording: str, history: Sequence[Interaction]) -> Statement | None:
    """None of a statement about no attribute that an item of the history has."""
    if (pair := claim(text)) is None:
        return None
    name, sign = pair
    chosen, rejected = (
        tuple(place for place, item in enumerate(items) if name in attributes(item))
        for items in ([x.chosen for x in history], [x.rejected or "" for x in history])
    )
    return Statement(wording, chosen, rejected, sign) if chosen or rejected else None


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if len(word) >= _LEAST}


def _shared(text: str, side: Sequence[set[str]], counts: Counter[str]) -> tuple[int, ...]:
    """Places of the items that share most words with a text; what stands in most items counts for nothing."""
    words, total = about(text)[0], len(side)
    weights = {word: math.log(total / count) for word in words if 0 < (count := counts[word]) < total}
    scores = [(sum(weights.get(word, 0.0) for word in words & item), place) for place, item in enumerate(side)]
    best = sorted((entry for entry in scores if entry[0] > 0), reverse=True)[:MOST]
    return tuple(sorted(place for _, place in best))
