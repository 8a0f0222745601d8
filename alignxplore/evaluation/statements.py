"""What a summary states, statement by statement, and whether two of them say the same. Used by faithfulness.py and
evidence_dropped.py.

A statement is a sentence, a line, or one part of a list (`Films: Comedy liked, Drama loved.` states two things).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_END = re.compile(r"(?<=[.!?;])\s+|\s*\n\s*")
_BULLET = re.compile(r"\s*(?:[-*•]\s+|\d+[.)]\s+)?")
_LIST = re.compile(r"([^:,]{1,40}):\s+(.+,\s+.+)", re.DOTALL)
_WORD = re.compile(r"[^\W_][\w'’-]{2,}")
_LIKES = re.compile(r"lov(e|es|ed|ing)|ador(e|es|ed)|lik(e|es|ed|ing)|enjoy(s|ed)?|prefer(s|red)?|favou?r(s|ed)?")
_DISLIKES = re.compile(r"hat(e|es|ed)|loath(e|es|ed)|dislik(e|es|ed)|avoid(s|ed)?|detest(s|ed)?|reject(s|ed)?")
_TURNS = {"not", "never", "doesn't", "doesn’t", "don't", "don’t", "without"}
_EMPTY = set(
    "the and for with that this user users they them their she her his him has have are was who does did".split()
)
ALIKE = 0.5  # share of common words from which on two statements are about the same


@dataclass(frozen=True)
class Statement:
    """`text` says it by itself; in the summary it stands from character `start` to `end`."""

    text: str
    start: int
    end: int


def statements_of(summary: str) -> list[Statement]:
    """The statements of a summary, in its order."""
    return [statement for statement in _pieces(summary) if _WORD.search(statement.text)]


def without(summary: str, statement: Statement) -> str | None:
    """A summary less one of its statements; None where nothing is left."""
    rest = summary[: statement.start] + summary[statement.end :]
    for pattern, replacement in ((r":\s*,\s*", ": "), (r",(\s*,)+", ","), (r",\s*([.;])", r"\1"), (r"  +", " ")):
        rest = re.sub(pattern, replacement, rest)
    return rest.strip() if any(about(x.text)[0] for x in statements_of(rest)) else None


def _pieces(summary: str) -> Iterator[Statement]:
    start = 0
    for end in [*_END.finditer(summary), None]:
        stop = end.start() if end else len(summary)
        begin = start + len(_BULLET.match(summary[start:stop])[0])  # type: ignore[index]  # matches the empty text
        yield from _parts(summary, begin, stop)
        start = end.end() if end else stop


def _parts(summary: str, start: int, stop: int) -> Iterator[Statement]:
    """A sentence, or the parts of a list, each with the word that leads it."""
    match = _LIST.fullmatch(summary, start, stop)
    parts = re.split(r",\s+", match[2].rstrip(".;")) if match else []
    if match is None or len(match[1].split()) > 3 or any(len(part.split()) < 2 for part in parts):
        yield Statement(summary[start:stop].strip(), start, stop)
        return
    place = match.start(2)
    for part in parts:
        place = summary.index(part, place)
        yield Statement(f"{match[1]}: {part}.", place, place + len(part))
        place += len(part)


@lru_cache(maxsize=1 << 16)
def about(text: str) -> tuple[frozenset[str], int]:
    """(the words that a statement is about, 1 for a liking, -1 for a dislike, 0 where it says neither)."""
    lead, colon, body = text.partition(": ")
    words = _WORD.findall((body if colon else lead).lower())
    sign = 1
    for word in words:
        if word in _TURNS:
            sign = -sign
    signs = [1 if _LIKES.fullmatch(word) else -1 for word in words if _is_verdict(word)]
    topic_words = (word for word in words if word not in _EMPTY and word not in _TURNS and not _is_verdict(word))
    return frozenset(topic_words), sign * signs[0] if signs else 0


def _is_verdict(word: str) -> bool:
    return bool(_LIKES.fullmatch(word) or _DISLIKES.fullmatch(word))


def same(first: str, second: str) -> bool:
    """Whether two statements say the same: mostly the same words, and not the one a liking and the other a dislike."""
    (words, sign), (others, other_sign) = about(first), about(second)
    common, every = len(words & others), len(words | others)
    return sign * other_sign >= 0 and bool(every) and common >= ALIKE * every
