"""What tiny models say about films: attributes, statements about them, and the reasoning that counts.

An attribute is a genre or a decade (all years before 1970 are one). A summary names attributes at four levels:

    Films: Comedy liked, Drama loved, Horror hated, 1990s loved.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from alignxplore.baselines import content
from alignxplore.records import Interaction

OLD = "pre-1970"
MOST = 5  # the largest count that is told
STRONG = 4  # count from which on a liking is a strong one
LEAD = "Films:"  # how a summary begins
NOTHING = "No strong preferences."
# Level -> its word in each phrasing. Two people who write about the same taste need not sound alike.
LEVEL_WORDS: dict[int, tuple[str, str]] = {
    2: ("loved", "adored"),
    1: ("liked", "enjoyed"),
    -1: ("disliked", "avoided"),
    -2: ("hated", "loathed"),
}
LEVELS = {word: level for level, words in LEVEL_WORDS.items() for word in words}
PAST_WEIGHT = {2: 4, 1: 2, -1: -2, -2: -4}  # what a statement of the past counts, in choices

Statements = Sequence[tuple[str, int]]  # (attribute, level), in the order in which they are told


@lru_cache(maxsize=1 << 16)
def attributes(item: str) -> tuple[str, ...]:
    """Decade and genres of a film as the builder writes it, in the order in which the tiny tokenizer shows them."""
    *genres, last = content.attributes(item) or ("",)
    if not re.fullmatch(r"\d{4}s", last):
        return tuple(name for name in (*genres, last) if name)
    return (OLD if last < "1970s" else last, *genres)


def tally(history: Iterable[Interaction], past: Statements = ()) -> Counter[str]:
    """How often each attribute was chosen less how often it was passed over; what was known before counts along."""
    counts: Counter[str] = Counter()
    for name, level in past:
        counts[name] += PAST_WEIGHT[level]
    for interaction in history:
        counts.update(attributes(interaction.chosen))
        counts.subtract(attributes(interaction.rejected or ""))
    return counts


def level_of(count: int) -> int:
    """2 or 1 for a liking, -1 or -2 for a dislike, 0 for neither."""
    return (count > 0) - (count < 0) + (count >= STRONG) - (count <= -STRONG)


def number(count: int) -> str:
    """A count as reasoning tells it."""
    count = max(-MOST, min(MOST, count))
    return f"{count:+d}" if count else "0"


def reasoning_text(counts: Mapping[str, int], names: Sequence[str]) -> str:
    """The count of each attribute, in a fixed order."""
    return "Counts: " + " ".join(f"{name} {number(counts.get(name, 0))}" for name in names)


def summary_text(statements: Statements, phrasing: int = 0) -> str:
    """Statements as a text, in their order."""
    text = ", ".join(f"{name} {LEVEL_WORDS[level][phrasing]}" for name, level in statements)
    return f"{LEAD} {text}." if text else NOTHING


def read_summary(text: str) -> list[tuple[str, int]]:
    """The statements of a text, in its order and with its repeats; what has another form tells nothing."""
    statements = []
    for statement in text.strip().removeprefix(LEAD).removesuffix(".").split(", "):
        name, _, word = statement.strip().rpartition(" ")
        if name and word in LEVELS:
            statements.append((name, LEVELS[word]))
    return statements


def true_statements(counts: Mapping[str, int], rng: random.Random, most: int, strongest: bool = False) -> Statements:
    """At most so many true statements, at their true levels: the strongest ones, or any."""
    statements = [(name, level_of(count)) for name, count in sorted(counts.items()) if count]
    rng.shuffle(statements)
    if strongest:
        statements.sort(key=lambda statement: -abs(counts[statement[0]]))
    return statements[:most]


def in_order(statements: Statements, names: Sequence[str]) -> Statements:
    """As a policy tells them: in the order of its reasoning, and nothing of what has no name there."""
    statements = [statement for statement in statements if statement[0] in names]
    return sorted(statements, key=lambda statement: names.index(statement[0]))
