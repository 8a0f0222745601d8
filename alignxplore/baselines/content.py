"""Content tally: what the attributes of the items that a user chose and passed over foresee, without any model.

It reads the same part of a history as a policy and counts: +1 for each attribute of a chosen item, -1 for each of one
that was passed over. So it is the bar for a summary of items that tell their attributes (MovieLens: genres, decade).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from alignxplore.records import Interaction

_GENRES = re.compile(r"^Title: .*, Genres: (.*)$", re.DOTALL)
_YEAR = re.compile(r"\((\d{3})\d\)\s*, Genres: ")


@lru_cache(maxsize=1 << 16)
def attributes(text: str) -> tuple[str, ...]:
    """Genres and decade of a film as the MovieLens builder writes it; none of any other text."""
    genres = _GENRES.match(text)
    if genres is None:
        return ()
    names = [genre for genre in genres[1].split("|") if genre and not genre.startswith("(")]  # "(no genres listed)"
    decade = _YEAR.search(text)
    return (*names, f"{decade[1]}0s") if decade else tuple(names)


def tally(history: Iterable[Interaction]) -> Counter[str]:
    """How often each attribute was chosen less how often it was passed over."""
    counts: Counter[str] = Counter()
    for interaction in history:
        counts.update(attributes(interaction.chosen))
        counts.subtract(attributes(interaction.rejected or ""))
    return counts


def foresee(history: Iterable[Interaction], target: Interaction) -> float | None:
    """1 where the chosen item has the greater sum of counts (over the root of the number of its attributes, as their
    noise adds up), 0.5 where both are alike; None where neither item tells any attribute."""
    sums = scores(history, target.items)
    if sums is None:
        return None
    chosen, rejected = sums
    return 0.5 if abs(chosen - rejected) < 1e-9 else float(chosen > rejected)


def scores(history: Iterable[Interaction], items: Sequence[str]) -> tuple[float, ...] | None:
    """That sum of each of several items; None where none of them tells any attribute."""
    counts = tally(history)
    if not any(map(attributes, items)):
        return None
    return tuple(sum(counts[name] for name in names) / max(1, len(names)) ** 0.5 for names in map(attributes, items))
