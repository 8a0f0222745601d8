"""What the answers to one question are worth, and whose they are: the score of a policy on a record under a judge. The
metrics read scores; rows.py writes and reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict

Outcome = Literal["ok", "bad_format", "parse_failure", "missing"]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)  # of rows that our own commands write


class Key(NamedTuple):
    """What makes a cell of the tables: score rows of one key are one number."""

    policy: str
    setting: str
    benchmark: str
    judge: str
    protocol: str


KEY = Key._fields


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """A row that says which cell it is of."""

    policy: str
    setting: str
    benchmark: str
    judge: str
    protocol: str

    @property
    def key(self) -> Key:
        return Key(self.policy, self.setting, self.benchmark, self.judge, self.protocol)


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What the answers to one question are worth.

    Attributes:
        value: in [0, 1]; of a choice among k items accuracy@1. None: missing.
        outcome: whether there was an answer, and if not, why.
        unread: answers that could not be parsed.
        p: mean P(chosen), where it was read. Then `orders` are P(chosen) with the chosen item first and second, of
            each judgement; `flips` says of each whether they disagree (None: one order; no list: the judge was asked
            about each item by itself); `mass` is that of the letters.
        k, chance, by_rule: of a choice among k items: how many, what saying nothing is worth, whether the value is
            that by rule and not by observation.
        measures: of a choice among k items those of `registry.MEASURES`, of a written answer its `PARTS`.
    """

    value: float | None
    outcome: Outcome
    unread: tuple[str, ...] = ()
    p: float | None = None
    orders: tuple[tuple[float | None, float | None], ...] = ()
    flips: tuple[bool | None, ...] | None = None
    mass: float | None = None
    k: int | None = None
    chance: float | None = None
    by_rule: bool | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Score(Keyed, Worth):
    """One policy's score on one record under one judge; the fields of a line of scores.jsonl.

    Attributes:
        seed: of the generation.
        dropped: the oldest interactions that did not fit the window of who read the history (None: nobody did, or it
            is not known).
        shown_otherwise: whether the other fit would have shown another part of it (None: not known).
        target, item: hashes of the pair or list, and of what was chosen.
        shown, popularity, question_type, persona: facts of the record (`segments.Facts`); `shown` None: not known.
    """

    __pydantic_config__: ClassVar = STRICT

    seed: int = 0
    record: str
    user: str
    dropped: int | None = None
    shown_otherwise: bool | None = None
    target: str
    item: str
    shown: int | None = None
    popularity: int | None = None
    question_type: str | None = None
    persona: str | None = None

    @property
    def of_pair(self) -> bool:
        """False for a choice among k items."""
        return self.k is None

    @property
    def written(self) -> bool:
        """Of an answer that was written and rated; nothing was chosen."""
        return self.k is None and bool(self.measures)

    def row(self) -> dict:
        """JSON form. What a kind of score does not have is not in its line."""
        line: dict[str, Any] = {name: getattr(self, name) for name in _ALWAYS}
        if self.k is not None:
            line |= {**self.measures, "k": self.k, "chance": self.chance}
            line |= {} if self.by_rule is None else {"by_rule": self.by_rule}
        line["outcome"] = self.outcome
        if self.k is None:
            line |= self.measures
        if self.p is not None:
            orders = {"orders": self.orders} if self.k is None else {}
            line |= {"p": self.p, **orders, "flips": self.flips, "mass": self.mass}
        return line | ({name: getattr(self, name) for name in _FACTS} if self.shown is not None else {})


_FACTS = ("shown", "popularity", "question_type", "persona")
_ALWAYS = (*KEY, "seed", "record", "user", "dropped", "shown_otherwise", "target", "item", "unread", "value")
