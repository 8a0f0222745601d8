"""Rows of Parquet files that somebody else wrote: raw files of a data set (rows.py), tables of one's own
(own_tables.py). What cannot be read is named by file, row and column.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignxplore.records import RecordError
from alignxplore.texts import mistaken

_BATCH = 1024  # rows in memory at a time


def parquet_rows(
    path: Path, select: Callable[[list[str]], Sequence[str]] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, from 1, and row) of each row.

    Args:
        select: the columns to read, of those that there are; all of them by default.

    Raises:
        RecordError: no whole Parquet file, or a value that has no form in Python: a moment past the year 9999, an
            unknown time zone, text that is not UTF-8.
    """
    import pyarrow.parquet

    number = 0
    with path.open("rb") as raw:
        head = raw.read(512)
    if not head.startswith(b"PAR1") and (problem := mistaken(head)):
        raise RecordError(problem, path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = None if select is None else select(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                for row in _rows(batch, path, number):
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"not a whole Parquet file ({str(error)[:100]}); copy or download it again"
        raise RecordError(problem, path) from None


def _rows(batch: Any, path: Path, number: int) -> list[dict[str, Any]]:
    """The rows of a batch, `number` of them before it."""
    try:
        rows = batch.to_pylist()
    except (ValueError, ArithmeticError, LookupError):  # which value it is, Arrow does not say
        rows = [
            {name: _value(batch[name], place, path, number + place + 1, name) for name in batch.schema.names}
            for place in range(batch.num_rows)
        ]
    for place, row in enumerate(rows, number + 1):
        for name, value in row.items():
            if isinstance(value, bytes):  # text, as some programs write it
                row[name] = _text(value, path, place, name)
    return rows


def _value(column: Any, place: int, path: Path, number: int, name: str) -> Any:
    try:
        return column[place].as_py()
    except UnicodeDecodeError as error:
        raise _no_text(error, path, number, name) from None
    except (ValueError, ArithmeticError, LookupError) as error:
        problem = f"a {column.type} that cannot be read ({error}); write it as a number or as text"
        raise RecordError(problem, path, number, name) from None


def _text(value: bytes, path: Path, number: int, name: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_text(error, path, number, name) from None


def _no_text(error: UnicodeDecodeError, path: Path, number: int, name: str) -> RecordError:
    return RecordError(f"byte {error.start + 1} is not UTF-8; write this column as text", path, number, name)
