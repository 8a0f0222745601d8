"""Rows of a person's own file: CSV (comma, semicolon or tab), JSONL or Parquet. Each comes with its line.

Read by `datasets import` and by `alignxplore.ask`. One row is in memory at a time. What is wrong raises `RecordError`
with the file, the line, the field and what to do.
"""

import csv
import itertools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from alignxplore.datasets.parquet import parquet_rows
from alignxplore.records import RecordError, check_file, read_jsonl
from alignxplore.texts import HalfId, mend, mistaken, not_utf_8

log = logging.getLogger(__name__)

YES = frozenset(("1", "1.0", "true", "yes", "y", "like", "liked", "up", "chosen", "positive", "+1"))
NO = frozenset(("0", "0.0", "false", "no", "n", "dislike", "disliked", "down", "rejected", "negative", "-1", "-1.0"))
PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar")
DELIMITERS = ",;\t"
# What a number may be that says when; the sizes are those of moments from 1973 on.
UNITS = (
    (1e17, "nanoseconds since 1970"),
    (1e14, "microseconds since 1970"),
    (1e11, "milliseconds since 1970"),
    (1e8, "seconds since 1970"),
)
DATE, DIGITS, SMALL, BETWEEN = "a date", "a date in eight digits", "a number below 100,000", "a number of another size"
FORMS = "CSV (.csv, .tsv), JSONL (.jsonl, .ndjson) or Parquet (.parquet)"


def form_of(path: Path) -> str:
    """csv, jsonl or parquet, by the file's ending; RecordError for any other."""
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return "csv"
    if ending in (".jsonl", ".ndjson"):
        return "jsonl"
    if ending == ".parquet":
        return "parquet"
    if ending in PACKED:
        raise RecordError(f"packed, by its ending '{ending}'; unpack it", path)
    if ending in (".xls", ".xlsx", ".ods"):
        raise RecordError("a spreadsheet; save it as CSV", path)
    raise RecordError(f"its ending '{ending}' is of none that is read here: {FORMS}; rename it or convert it", path)


def own_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of each row; of a Parquet file the row's number, from 1.

    Args:
        columns: names that the file must have; of JSONL every row is asked for them where they are used.
        optional: names that it may have.

    Raises:
        RecordError: a name that the file does not have, or a row that is damaged.
    """
    check_file(path)
    form = form_of(path)
    if form == "jsonl":
        yield from read_jsonl(path)
    elif form == "parquet":
        yield from _parquet_rows(path, columns, optional)
    else:
        yield from csv_rows(_lines(path), columns, path)


def check_columns(columns: Sequence[str], names: Sequence[str], path: Path, line: int | None = None) -> None:
    """Raise RecordError for the first of `columns` that is not there, or there twice."""
    for name in columns:
        if name not in names:
            there = ", ".join(names) or "none"
            raise RecordError(f"no such column; name one of these by its option (--help): {there}", path, line, name)
        if names.count(name) > 1:
            raise RecordError("two columns have this name; rename one of them", path, line, name)


def csv_rows(lines: Iterator[str], columns: Sequence[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of each row of CSV with a header.

    Args:
        lines: with their ends.
        columns: names that it must have.
        path: how errors name it.

    Raises:
        RecordError: see `own_rows`.
    """
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    blanks = 0
    for first_line in lines:
        if first_line.strip():
            break
        blanks += 1
    else:
        raise RecordError("an empty file; the download or the export may have failed", path)
    delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(itertools.chain([first_line], lines), delimiter=delimiter, strict=True)
    head: list[str] = []
    while True:
        line = blanks + reader.line_num + 1  # where the row begins: a quoted field may go over several lines
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise RecordError(f"not CSV ({error}); close the quotes of this row", path, line) from None
        if row is None:
            return
        if not head:
            head = [name.strip() for name in row]
            check_columns(columns, head, path, line)
            continue
        if not "".join(row).strip():
            continue
        if [name.strip() for name in row] == head:  # of files put together
            log.warning("%s:%d: the header again: left out", path, line)
            continue
        if len(row) != len(head):
            problem = f"{len(row)} fields, and the header has {len(head)}; quote fields that hold a '{delimiter}'"
            raise RecordError(problem, path, line)
        yield line, dict(zip(head, row))


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file in UTF-8, with or without a byte-order mark."""
    with path.open("rb") as raw:
        if problem := mistaken(raw.peek(512)):
            raise RecordError(problem, path)
        for number, line in enumerate(raw, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RecordError(not_utf_8(error), path, number) from None


def _parquet_rows(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    def wanted(names: list[str]) -> list[str]:
        check_columns(columns, names, path)
        return [name for name in dict.fromkeys([*columns, *optional]) if name in names]

    return parquet_rows(path, wanted)


def text_of(row: dict, name: str, path: Path, line: int) -> str:
    """A field as text without blanks at its ends; "" where there is none. Half a character is replaced.

    Raises:
        RecordError: no such field (JSONL), a list or an object, or half a character in what `mend` calls an id.
    """
    if name not in row:
        raise RecordError(f"missing; this row has: {', '.join(row) or 'nothing'}", path, line, name)
    value = row[name]
    if isinstance(value, (list, dict)):
        raise RecordError(f"expected text or a number, found a {type(value).__name__}", path, line, name)
    if value is None or value != value:  # NaN
        return ""
    try:
        return str(mend(str(value), name)[0]).strip()
    except HalfId as error:
        raise RecordError(str(error), path, line, name) from None


def yes_of(row: dict, name: str, path: Path, line: int) -> float | None:
    """A field of yes or no as 1 or 0; None where it is empty. RecordError for any other word."""
    text = text_of(row, name, path, line).lower()
    if text and text not in YES | NO:
        words = ", ".join(sorted(YES | NO))
        raise RecordError(f"'{text[:40]}' is neither yes nor no; write one of {words}", path, line, name)
    return float(text in YES) if text else None


def number_of(row: dict, name: str, path: Path, line: int) -> float | None:
    """A field as a number, also with a decimal comma; None where it is empty. RecordError for what is none."""
    text = text_of(row, name, path, line)
    if not text:
        return None
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(f"'{text[:40]}' is no number; repair or empty this field", path, line, name)
    return value


def time_of(row: dict, name: str, path: Path, line: int) -> float | None:
    """A moment: a number as it is, a date as seconds since 1970 (UTC where it names no zone); None where it is empty.

    Raises:
        RecordError: neither a number nor a date.
    """
    value = row.get(name)
    if isinstance(value, (datetime, date)):
        return _seconds(value)
    text = text_of(row, name, path, line)
    if not text:
        return None
    for parse in (float, lambda text: _seconds(datetime.fromisoformat(text))):
        try:
            moment = parse(text)
        except ValueError:
            continue
        if math.isfinite(moment):
            return moment
    problem = f"'{text[:40]}' is neither a number nor a date such as 2026-05-01 or 2026-05-01T12:00:00"
    raise RecordError(problem, path, line, name)


class Times:
    """The times of a column as numbers that can be compared; without a name the rows' own order.

    Dates beside numbers, or numbers in two units, would put a person's choices in a wrong order. Numbers below 1e8 may
    also count something else than time (days, rows): small ones and dates in eight digits are told apart only where
    nothing lies between them.
    """

    def __init__(self, path: Path, name: str | None):
        self._path, self._name = path, name
        self._firsts: dict[str, tuple[int, str]] = {}  # how a time is written → the first line that has it

    def of(self, row: dict, line: int) -> float | None:
        """The moment of a row; None where it is empty. RecordError for what is none."""
        if self._name is None:
            return float(line)
        moment = time_of(row, self._name, self._path, line)
        if moment is not None and (way := _way_of(row[self._name], moment)) not in self._firsts:
            self._firsts[way] = line, str(row[self._name]).strip()[:40]
        return moment

    def check(self) -> None:
        """RecordError for a column whose times are written in two ways; it names the first line of each."""
        ways = {way: first for way, first in self._firsts.items() if way != DIGITS or BETWEEN not in self._firsts}
        if SMALL in ways:
            ways.pop(BETWEEN, None)
        if len(ways) > 1:
            (way, (line, text)), (other_way, (other_line, other_text)) = list(ways.items())[:2]
            raise RecordError(
                f"'{other_text}' is {other_way}, and line {line} has {way}, '{text}': their order would be wrong; "
                "write all times of this column in one way",
                self._path,
                other_line,
                self._name,
            )


def _way_of(value: Any, moment: float) -> str:
    """How a time is written."""
    try:
        float(value)
    except (TypeError, ValueError):
        return DATE
    size = abs(moment)
    if unit := next((unit for least, unit in UNITS if size >= least), None):
        return unit
    year, month, day = int(size) // 10_000, int(size) // 100 % 100, int(size) % 100
    if 1900 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31 and moment.is_integer():
        return DIGITS
    return SMALL if size < 1e5 else BETWEEN


def _seconds(moment: datetime | date) -> float:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
