"""What scores.jsonl and results.json hold: scores of records, and results, each a cell of the tables. scoring.py
writes them, everything in `report/` and eval/compare.py reads them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

import alignxplore.evaluation.metrics  # noqa: F401  # registers all of them: rows are read by their names
from alignxplore.errors import UserError
from alignxplore.evaluation.registry import MEASURES, METRICS, PARTS, Metric
from alignxplore.evaluation.worth import KEY, Keyed, Score
from alignxplore.records import RecordError, read_json, read_jsonl, write_json, write_jsonl

SCORES, RESULTS = "scores.jsonl", "results.json"
REMEDY = "run evaluate.py again, which asks nothing anew"
OTHER = f"another version wrote this; {REMEDY}"

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Result(Keyed):
    """One number of the tables with all that is known of it; a row of results.json.

    `values` are those of the registered metrics, by name: `result[metric]`; `ends` the ends of the 95 % intervals of
    those that have one. `clusters` persons and `items` chosen items were counted; None for a bound that nobody
    measured. `seeds` are generation seeds, `seed_spread` the standard deviation between them; of several training
    `runs` that between runs.
    """

    __pydantic_config__: ClassVar = ConfigDict(allow_inf_nan=False)

    n: int
    accuracy: float | None
    ci_low: float | None
    ci_high: float | None
    clusters: int | None = None
    items: int | None = None
    two_way: bool = False
    design_effect: float = 1.0
    values: Mapping[str, float | None] = field(default_factory=dict)
    ends: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    seed_spread: float | None = None
    runs: int = 1

    def __getitem__(self, metric: Metric) -> float | None:
        return self.values.get(metric.name)

    @property
    def of_pair(self) -> bool:
        """False for choices among k items."""
        return "k" not in self.values

    def row(self) -> dict:
        """JSON form."""
        count_names = () if self.clusters is None else ("clusters", "items", "two_way", "design_effect")
        line: dict[str, Any] = {name: getattr(self, name) for name in (*KEY, *_NUMBER, *count_names)}
        for name, value in self.values.items():
            line[name] = value
            if name in self.ends:
                line[f"{name}_low"], line[f"{name}_high"] = self.ends[name]
        line |= {} if self.clusters is None else {"seeds": self.seeds, "seed_spread": self.seed_spread}
        return line | ({"runs": self.runs} if self.runs > 1 else {})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Result":
        """The result of a row of results.json.

        Raises:
            ValidationError: it is not one.
        """
        field_names = {x.name for x in fields(cls)}
        values = {name: row[name] for name in row if name in METRICS}
        ends = {name: (row[f"{name}_low"], row.get(f"{name}_high")) for name in values if f"{name}_low" in row}
        return _RESULT.validate_python(
            {name: value for name, value in row.items() if name in field_names} | {"values": values, "ends": ends}
        )


_NUMBER = ("n", "accuracy", "ci_low", "ci_high")
_SCORE, _RESULT = TypeAdapter(Score), TypeAdapter(Result)


def score_of(row: Mapping[str, Any]) -> Score:
    """The score of a JSON line.

    Raises:
        ValidationError: it is not one.
    """
    part_names = MEASURES.keys() | PARTS.keys()
    measures = {name: value for name, value in row.items() if name in part_names}
    others = {name: value for name, value in row.items() if name not in part_names}
    return _SCORE.validate_python(others | {"measures": measures})


def write_scores(folder: Path, scores: Iterable[Score]) -> None:
    """Write scores.jsonl."""
    write_jsonl(folder / SCORES, (score.row() for score in scores))


def read_scores(folder: Path) -> Iterator[Score]:
    """The scores that `evaluate.py` left in a folder.

    Raises:
        RecordError: a line that is no score, by line and field.
        UserError: there are none.
    """
    path = folder / SCORES
    if not path.is_file():
        raise UserError(
            f"{folder}: nothing is scored here (scores.jsonl: no such file); run evaluate.py --out {folder} first"
        )
    yield from rows_of(path, score_of)


def write_results(folder: Path, results: Iterable[Result]) -> None:
    """Write results.json."""
    write_json(folder / RESULTS, [result.row() for result in results])


def read_results(path: Path) -> list[Result]:
    """The results that `evaluate.py` left in a file.

    Raises:
        RecordError: one that is none, by its place and field.
    """
    rows = read_json(path, REMEDY)
    if not isinstance(rows, list):
        raise RecordError(f"expected a list, found {type(rows).__name__}; {REMEDY}", path)
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RecordError(f"expected an object, found {type(row).__name__}; {REMEDY}", path, place)
    return [checked(Result.of, row, path, place) for place, row in enumerate(rows, 1)]


def rows_of(path: Path, of: Callable[[dict], Row], remedy: str = OTHER) -> Iterator[Row]:
    """Each line of a JSONL file as what `of` makes of it.

    Raises:
        RecordError: a line that `of` refuses (a ValidationError), by line and field.
    """
    for line, row in read_jsonl(path):
        yield checked(of, row, path, line, remedy)


def checked(of: Callable[[Any], Row], value: Any, path: Path, line: int | None = None, remedy: str = OTHER) -> Row:
    """What `of` makes of a value that a command wrote; RecordError where it refuses it."""
    try:
        return of(value)
    except ValidationError as error:
        raise _named(error, path, line, remedy) from None


def _named(error: ValidationError, path: Path, line: int | None, remedy: str) -> RecordError:
    """The first thing that is wrong with a row, by file, line and field."""
    detail = error.errors()[0]
    problem = "missing" if detail["type"] == "missing" else detail["msg"].lower()
    return RecordError(f"{problem}: {remedy}", path, line, ".".join(map(str, detail["loc"])))
