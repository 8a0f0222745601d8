"""Rows of raw files in the forms that the hub serves: JSONL, one JSON array (read piece by piece), CSV, parquet."""

import ast
import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignxplore.datasets.building import DAMAGED, Job
from alignxplore.datasets.parquet import parquet_rows
from alignxplore.records import RecordError
from alignxplore.texts import no_object, not_json, table_id

_LONGEST = 1 << 24  # characters of a field of CSV; Python's reader takes 128 kB, and a description may be longer


def read_rows(path: Path, job: Job) -> Iterator[tuple[int, dict]]:
    """(number, row) of each row of a `.jsonl`, `.json`, `.csv` or `.parquet` file (also `.gz`), one in memory at a
    time."""
    form = path.name.removesuffix(".gz").rpartition(".")[2]
    if form == "parquet":
        rows = parquet_rows(path)
    elif form == "csv":
        rows = _csv(path, job)
    else:
        rows = _json(path, job)
    for number, row in rows:
        if not isinstance(row, dict):
            raise RecordError(f"expected an object, found {type(row).__name__}", path, number)
        yield number, row


def text_field(row: dict, key: str, path: Path, number: int) -> str:
    """A field that must hold text.

    Raises:
        RecordError: missing or of another type.
    """
    if not isinstance(row.get(key), str):
        raise RecordError(f"expected text, found {row[key]!r:.60}" if key in row else "missing", path, number, key)
    return row[key]


def identifier(row: dict, key: str, path: Path, number: int) -> str | int:
    """A field that must hold an id: text or a whole number (7.0 is 7, see `texts.table_id`).

    Raises:
        RecordError: missing or of another type.
    """
    value = row.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, str):
        value = table_id(value)
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        raise RecordError(f"expected an id, found {row[key]!r:.60}" if key in row else "missing", path, number, key)
    check_id(str(value), key, path, number)
    return value


def number_of_stars(value: object, scale: tuple[float, float], path: Path, number: int, field: str) -> float:
    """A field that must hold a number from scale[0] to scale[1], perhaps as text.

    Raises:
        RecordError: anything else; "nan" and "inf" are no numbers either.
    """
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            stars = float(value)
            if scale[0] <= stars <= scale[1]:
                return stars
    except (ValueError, OverflowError):
        pass
    minimum, maximum = scale
    problem = (
        f"expected a number of stars from {minimum:g} to {maximum:g}, found {value!r:.60}; repair or delete this line"
    )
    raise RecordError(problem, path, number, field)


def check_id(text: str, key: str, path: Path, number: int) -> None:
    """Raise RecordError for an id that rows on disk could not hold (`building.UserGroups`)."""
    if "\t" in text or "\n" in text:
        raise RecordError(f"an id with a tab or a line end, {text!r:.60}; repair the file", path, number, key)


def objects(path: Path, job: Job) -> Iterator[tuple[int, dict]]:
    """(line number, object) of each line of a JSONL file."""
    is_first = True
    for number, line in job.lines(path):
        row = job.parse(line, path, number, is_first)
        if not isinstance(row, dict):
            raise RecordError(no_object(row, is_first), path, number)
        is_first = False
        yield number, row


def literal(text: str, path: Path, number: int, field: str, job: Job, of: type = object) -> list:
    """A list, of values of the type `of`, written as JSON or as a Python literal inside a text field."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list) and all(isinstance(x, of) for x in value):
            return job.mended(value, path, number)
        raise RecordError(
            f"expected a list{'' if of is object else f' of {of.__name__}'}, found {text[:60]!r}", path, number, field
        )
    raise RecordError(f"neither JSON nor a Python literal: {text[:60]!r}", path, number, field)


def csv_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """(its first line, fields) of each row of a CSV file: a quoted field may go over several lines. Rows of blanks
    alone are passed over."""
    csv.field_size_limit(_LONGEST)
    reader, first_line = csv.reader(lines), 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise RecordError(f"not CSV ({error}); {DAMAGED}", path, first_line) from None
        if fields is None:
            return
        if "".join(fields).strip():
            yield first_line, fields
        first_line = reader.line_num + 1


def csv_table(path: Path, job: Job) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names of a CSV file's columns, and (line, fields) of each row. The header again, as in files put together,
    is counted."""
    rows = csv_rows((line + "\n" for _, line in job.lines(path, blank=True)), path)
    _, header = next(rows, (1, []))
    if not header:
        raise RecordError("an empty file; the download may have failed", path)
    return [name.strip() for name in header], _below(header, rows, path, job)


def _below(
    header: list[str], rows: Iterator[tuple[int, list[str]]], path: Path, job: Job
) -> Iterator[tuple[int, list[str]]]:
    for number, fields in rows:
        if fields == header:
            job.counts["dropped: the header again"] += 1
            continue
        if len(fields) != len(header):
            excerpt = " ".join(",".join(fields).split())[:60]
            quote = "; is a quotation mark not closed?" if any("\n" in field for field in fields) else ""
            problem = f"'{excerpt}' has {len(fields)} fields, expected {','.join(header)}{quote}"
            raise RecordError(problem, path, number)
        yield number, fields


def check_once(names: Iterable[str], header: Sequence[str], path: Path) -> None:
    """Raise RecordError for the first of the names that several columns have."""
    if twice := next((name for name in names if header.count(name) > 1), None):
        raise RecordError("two columns have this name; rename one of them", path, 1, twice)


def _csv(path: Path, job: Job) -> Iterator[tuple[int, Any]]:
    header, rows = csv_table(path, job)
    check_once(header, header, path)
    for number, fields in rows:
        yield number, dict(zip(header, fields))


def _json(path: Path, job: Job) -> Iterator[tuple[int, Any]]:
    """Objects of a JSON array or of JSONL."""
    lines = job.lines(path)
    number, line = next(lines, (1, ""))
    if line.lstrip().startswith("["):
        yield from _array(itertools.chain([(number, line.lstrip()[1:])], lines), path, job)
    elif line:
        yield number, job.parse(line, path, number, True)
        yield from ((number, job.parse(line, path, number, False)) for number, line in lines)


def _array(lines: Iterable[tuple[int, str]], path: Path, job: Job) -> Iterator[tuple[int, Any]]:
    """Objects of a JSON array, after its first bracket: each is cut off the front of a buffer as soon as it is
    complete."""
    decode, buffer, number, gap = json.JSONDecoder().raw_decode, "", 0, ""
    for _, line in lines:
        buffer += line + "\n"
        place = 0
        # An object of an indented array ends on a line with its bracket.
        while line.rstrip(" ,]").endswith("}"):
            tail = buffer[place:].lstrip(" ,\n\t]")
            gap += buffer[place : len(buffer) - len(tail)]
            place = len(buffer) - len(tail)
            if not tail:
                break
            try:
                row, place = decode(buffer, place)
            except (ValueError, RecursionError):
                break
            if "".join(gap.split()) != ("," if number else ""):
                raise RecordError(f"{gap.strip()[:20]!r} where one comma parts two rows; repair it", path, number + 1)
            number, gap = number + 1, ""
            yield number, job.mended(row, path, number)
        buffer = buffer[place:]
    if buffer.strip(" ,\n\t]") or "]" not in (end := gap + buffer):
        problem = not_json(buffer.strip().partition("\n")[0], not number)
        raise RecordError(problem or "ends in the middle of a row; the download may be cut short", path, number + 1)
    if "".join(end.split()) != "]":
        raise RecordError(f"{end.strip()[:20]!r} where ] ends the array; repair it", path, number)
