"""Whether a line of a journal of summaries is one: the row of a user, and in it what each stage wrote. Asked by
`benchmarks.SummarySet` of each line that it reads.
"""

import typing
from collections.abc import Sequence
from pathlib import Path

from alignxplore.records import RecordError
from alignxplore.summarize import StageSummary

_ROW: dict[str, type] = {"run": str, "record": str, "user": str, "status": str, "stages": list}
_STAGE = typing.get_type_hints(StageSummary)
_ALWAYS = ("summary", "problem")  # versions differ in the others
_REMEDY = "this line is damaged; delete it and run gen_preference.py again"


def check_row(row: dict, path: Path, line: int, fields: Sequence[str] = ()) -> None:
    """Raise RecordError for the first field that is not there or of another kind.

    Args:
        fields: those of a stage that are asked for beside its summary and problem.
    """
    for name, kind in _ROW.items():
        if not isinstance(row.get(name), kind):
            raise RecordError(_REMEDY, path, line, name)
    for place, stage in enumerate(row["stages"]):
        if not isinstance(stage, dict):
            raise RecordError(_REMEDY, path, line, f"stages.{place}")
        for name, kind in _STAGE.items():
            sound = _is(stage[name], kind) if name in stage else name not in (*_ALWAYS, *fields)
            if not sound:
                raise RecordError(_REMEDY, path, line, f"stages.{place}.{name}")


def _is(value: object, kind: typing.Any) -> bool:
    """Whether a JSON value is of a field's type: 1 may stand for 1.0, and True is no number."""
    kinds = typing.get_args(kind) or (kind,)
    return type(value) in (*kinds, int) if float in kinds else type(value) in kinds
