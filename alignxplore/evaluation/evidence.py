"""evidence.jsonl: each statement of a summary with the interactions that bear it out or go against it. Written by
`eval/faithfulness.py`, read by the report page and by `eval/forgetting.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from alignxplore.evaluation.rows import rows_of
from alignxplore.evaluation.worth import STRICT
from alignxplore.records import write_jsonl

FILE = "evidence.jsonl"
SUPPORTED, CONTRADICTED, NOT_THERE = "supported", "contradicted", "not there"
VERDICTS = (SUPPORTED, CONTRADICTED, NOT_THERE)


@dataclass(frozen=True)
class Links:
    """The interactions that a statement rests on, and those against it: places in the record's history, from 0, oldest
    first."""

    supports: tuple[int, ...] = ()
    contradicts: tuple[int, ...] = ()

    @property
    def verdict(self) -> str:
        """What they come to: more for it than against it, more against it, or neither."""
        lead = len(self.supports) - len(self.contradicts)
        return SUPPORTED if lead > 0 else CONTRADICTED if lead < 0 else NOT_THERE

    def without(self, places: Sequence[int]) -> "Links":
        """What is left when these interactions are dropped."""
        return Links(
            tuple(x for x in self.supports if x not in places), tuple(x for x in self.contradicts if x not in places)
        )


@dataclass(frozen=True)
class LinkedStatement:
    """One statement, where it stands in the summary, and its links as the downstream model has them; `true` are those
    that are known from the items (None: not known)."""

    text: str
    start: int
    end: int
    links: Links
    true: Links | None = None

    __pydantic_config__: ClassVar = ConfigDict(extra="ignore")  # the verdict, which stands beside them


@dataclass(frozen=True)
class Evidence:
    """All statements of one summary. `seen` are the places of the interactions that its policy was shown, among all of
    the record's, with whatever fit. Where items are known, `strong` counts the attributes that should be told and
    `recalled` those that are."""

    policy: str
    setting: str
    benchmark: str
    seed: int
    record: str
    user: str
    judge: str
    seen: tuple[int, ...]
    statements: tuple[LinkedStatement, ...]
    strong: int | None = None
    recalled: int | None = None

    __pydantic_config__: ClassVar = STRICT


_EVIDENCE = TypeAdapter(Evidence)


def write_evidence(folder: Path, evidence: Sequence[Evidence]) -> None:
    """Write the file of a report's folder; verdicts stand beside the links, for who reads it without this code."""
    rows = []
    for entry in evidence:
        row = asdict(entry)
        for statement, statement_row in zip(entry.statements, row["statements"]):
            statement_row["verdict"] = statement.links.verdict
        rows.append(row)
    write_jsonl(folder / FILE, rows)


def read_evidence(folder: Path) -> list[Evidence]:
    """What faithfulness.py left in a folder; nothing where it was not run.

    Raises:
        RecordError: a line of another form.
    """
    path = folder / FILE
    remedy = "another version wrote this; run eval/faithfulness.py again"
    return list(rows_of(path, _EVIDENCE.validate_python, remedy)) if path.is_file() else []
