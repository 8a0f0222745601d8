"""What a downstream model said of one question, as the journals of judgements hold it. judgements.py and hicupid.py
write these rows, scores.py makes scores of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from alignxplore.journal import OK, TOO_LONG
from alignxplore.judging.judgement import Judgement, PaperJudgement
from alignxplore.judging.ranking import Ranking


@dataclass(frozen=True)
class Rating:
    """What the evaluator of HiCUPID said of a written answer: `score` in [0, 1], a verdict (win, tie, lose; None: not
    read) for each question put to it, and how far the answer agrees with the reference in words. `kind`: of the
    question."""

    score: float
    verdicts: tuple[str | None, ...]
    unparsed: int
    kind: str = ""
    said: tuple[str, ...] = ()
    status: str = OK
    error: str | None = None
    bleu: float = 0.0
    rouge_l: float = 0.0

    def row(self) -> dict:
        """JSON form, without what is computed from the answer."""
        names = ("status", "kind", "verdicts", "score", "unparsed", "said")
        return {name: getattr(self, name) for name in names}

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def unread(self) -> tuple[str, ...]:
        """What it said that could not be read."""
        return tuple(text for text, verdict in zip(self.said, self.verdicts) if verdict is None)


@dataclass(frozen=True)
class NoReply:
    """A request that has no answer: it failed, or does not fit the window."""

    status: str
    error: str | None = None
    unread: tuple[str, ...] = ()
    ok: bool = False

    def row(self) -> dict:
        """JSON form."""
        return {"status": self.status, "error": self.error}


AnyReply = Judgement | PaperJudgement | Ranking | Rating | NoReply
# Which one a journal row is, by a field that no other has.
_KINDS: dict[str, type] = {
    "rotations": Ranking,
    "selection": PaperJudgement,
    "p_chosen_first": Judgement,
    "score": Rating,
}


@dataclass(frozen=True)
class Answer:
    """A reply, how many of the oldest interactions of a raw history did not fit (None: no history was read), and
    the fields of the request that the server does not know, so that it was asked without them."""

    reply: AnyReply
    dropped: int | None = None
    not_sent: tuple[str, ...] = ()

    @property
    def too_long(self) -> bool:
        return self.reply.status == TOO_LONG

    def row(self) -> dict:
        """JSON form."""
        extra = {} if self.dropped is None else {"dropped": self.dropped}
        return self.reply.row() | extra | ({"not_sent": self.not_sent} if self.not_sent else {})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The answer of a journal row."""
        kind = next((kind for name, kind in _KINDS.items() if name in row), NoReply)
        if kind is PaperJudgement:
            row = dict(row) | {"chosen_letter": row["letter"]}
        values = {field.name: row[field.name] for field in fields(kind) if field.name in row}
        reply = kind(**{name: _frozen(value) for name, value in values.items()})
        return cls(reply, row.get("dropped"), tuple(row.get("not_sent", ())))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
