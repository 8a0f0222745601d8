"""What a downstream model says of one question, however it was asked: its forms, and what is drawn or counted the same
way for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

from alignxplore.errors import UserError
from alignxplore.journal import OK
from alignxplore.records import hash_seed
from alignxplore.serving.endpoint import RequestError

TIE = 1e-6
Q = TypeVar("Q")
T = TypeVar("T")


class JudgeError(UserError):
    """A judge that cannot be used as one. The message shows what it answered instead of a letter."""


@dataclass(frozen=True)
class Reply:
    """What all forms of an answer say of themselves.

    `mass` is the mean probability of the letters together before renormalising (None: not known). `unparsed` counts
    the questions whose free-form answer named no item, which is no opinion; `unread` are those answers.
    """

    status: str = OK
    mass: float | None = field(default=None, kw_only=True)
    error: str | None = field(default=None, kw_only=True)
    unparsed: int = field(default=0, kw_only=True)
    unread: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def ok(self) -> bool:
        return self.status == OK

    def row(self) -> dict:
        """JSON form, the fields by name."""
        return {name: value for name, value in asdict(self).items() if name != "unread" or value}


@dataclass(frozen=True)
class Judgement(Reply):
    """How sure the downstream model is of the item the user chose.

    `p_chosen_first` is P(chosen) with the chosen item as A, `p_chosen_second` as B; None: that order was not asked.
    """

    p_chosen_first: float | None = None
    p_chosen_second: float | None = None

    @property
    def orders(self) -> tuple[float, ...]:
        return tuple(p for p in (self.p_chosen_first, self.p_chosen_second) if p is not None)

    @property
    def p(self) -> float:
        """Mean P(chosen) over the orders asked. Only a successful judgement has one."""
        if not self.ok:
            raise JudgeError(f"a failed judgement has no probability ({self.status}: {self.error})")
        return sum(self.orders) / len(self.orders)

    @property
    def correct(self) -> float:
        """1 if the chosen item is preferred, 0.5 within 1e-6 of a tie, else 0."""
        return correctness(self.p)

    @property
    def flipped(self) -> bool | None:
        """True if the two orders disagree about the item (position decided); None when only one was asked."""
        return None if len(self.orders) < 2 else (self.orders[0] > 0.5) != (self.orders[1] > 0.5)


def chosen_first(purpose: str, key: Any, seed: int) -> bool:
    """Does the chosen item come first where one order is drawn? (`purpose`: "judge order", or "paper order".)"""
    return hash_seed(purpose, key, seed) % 2 == 0


def mean_mass(masses: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known_masses = [mass for mass in masses if mass is not None]
    return sum(known_masses) / len(known_masses) if known_masses else None


def correctness(p: float) -> float:
    """P(chosen) → 1, 0.5 (tie) or 0."""
    return 0.5 if abs(p - 0.5) <= TIE else float(p > 0.5)


@dataclass(frozen=True)
class PaperJudgement:
    """One sampled answer of the published protocol; `selection` None means that it could not be parsed (counted
    wrong), and `unread` is then what was answered."""

    status: str = OK
    chosen_letter: str = "A"
    selection: str | None = None
    error: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def correct(self) -> float:
        """1 if the chosen item was selected, else 0. A failed request has no answer that could be wrong."""
        if not self.ok:
            raise JudgeError(f"a failed request has no answer ({self.status}: {self.error})")
        return float(self.selection == f"Item {self.chosen_letter}")

    def row(self) -> dict:
        """JSON form."""
        fields = {
            "status": self.status,
            "letter": self.chosen_letter,
            "selection": self.selection,
            "error": self.error,
        }
        return fields | ({"unread": self.unread} if self.unread else {})


class Reading(NamedTuple):
    """What one question gave: P(A) renormalised over A and B, and the mass of both before (None: not known); `unread`:
    an answer in free form that names no item."""

    p_a: float
    mass: float | None
    unread: str | None = None


class Said(NamedTuple):
    """What one question about several items gave.

    `scores`: the log-probability of each of its items up to a constant; of who is asked about one item, its P(Yes).
    `mass`: of all letters together (None: not known); `unread`: a free answer that names no item.
    """

    scores: list[float]
    mass: float | None
    unread: str | None = None


async def taken(questions: Sequence[Q], ask: Callable[[Q], Awaitable[T]]) -> tuple[list[Q], list[T]]:
    """The questions that the server takes, and what it answers to each. One that it refuses (an item longer than its
    window, say) tells nothing of the judge.

    Raises:
        RequestError: it takes none.
    """
    replies = await asyncio.gather(*map(ask, questions), return_exceptions=True)
    answers = [
        (question, reply) for question, reply in zip(questions, replies) if not isinstance(reply, BaseException)
    ]
    for reply in replies:
        if isinstance(reply, BaseException) and (not answers or not isinstance(reply, RequestError)):
            raise reply
    return [question for question, _ in answers], [reply for _, reply in answers]
