"""What the rows of a table of one's own say, person by person: who had which item, when, and how much it was liked.

    python -m alignxplore.datasets import ratings.csv --user user_id --item title --time when --rating stars

Rows are grouped on disk by DuckDB; `importing.py` makes records of them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from alignxplore.datasets.own_tables import Times, number_of, own_rows, text_of, yes_of
from alignxplore.datasets.selection import from_messages
from alignxplore.records import RecordError, person_id
from alignxplore.texts import LOST, HalfId, mend, plain, table_id, words_of

_BATCH = 20_000  # rows that go to DuckDB at once
_EVENTS = pa.schema(
    [
        ("person", pa.string()),
        ("place", pa.int64()),
        ("time", pa.float64()),
        ("item", pa.string()),
        ("words", pa.string()),
        ("query", pa.string()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Import:
    """What is read of which columns. `rating` and `label` exclude each other; None: there is no such column."""

    file: Path
    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    label: str | None = None
    query: str | None = None
    test_share: float = 0.2
    seed: int = 42
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.user, self.item, self.time, self.rating, self.label) if name]


@dataclass(frozen=True)
class Event:
    """One interaction of a person. `value`: a rating, 1 or 0 of a label, None of a like."""

    item: str
    query: str | None
    time: float
    value: float | None


def new_database(scratch: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(scratch / "events.duckdb")
    database.execute(f"SET temp_directory = '{str(scratch).replace(chr(39), chr(39) * 2)}'")
    database.execute("SET memory_limit = '2GB'")
    columns = "person VARCHAR, place BIGINT, time DOUBLE, item VARCHAR, words VARCHAR, query VARCHAR, value DOUBLE"
    database.execute(f"CREATE TABLE events ({columns})")
    return database


def read_events(job: Import, database: duckdb.DuckDBPyConnection) -> None:
    """All rows of the file into the database, in the file's order."""
    batch, times = list[dict](), Times(job.file, job.time)
    for line, row in own_rows(job.file, job.columns):
        job.counts["rows read"] += 1
        batch += ({"place": line} | event for event in _events(job, times, line, row))
        if len(batch) >= _BATCH:
            _insert(database, batch)
            batch = []
    times.check()
    _insert(database, batch)


def _insert(database: duckdb.DuckDBPyConnection, rows: list[dict]) -> None:
    if rows:
        database.register("batch", pa.Table.from_pylist(rows, schema=_EVENTS))
        database.execute("INSERT INTO events SELECT * FROM batch")
        database.unregister("batch")


def _events(job: Import, times: Times, line: int, row: dict) -> Iterator[dict]:
    """The interactions of a row: one, or of a chat each answer (with a label the last one). None where it is left
    out, which is counted."""
    person = table_id(text_of(row, job.user, job.file, line))
    if not person:
        job.counts["left out: a row without a user"] += 1
        return
    if LOST in person:  # what was there before is not known, whatever replaced it
        raise RecordError(str(HalfId(job.user)), job.file, line, job.user)
    value = _value(job, line, row)
    if value is None and (job.rating or job.label):
        job.counts["left out: a row without a rating or label"] += 1
        return
    moment = times.of(row, line)
    if moment is None:
        job.counts["left out: a row without a time"] += 1
        return
    pairs = _items(job, line, row)
    if not pairs:
        job.counts["left out: a row without an item"] += 1
    for query, item in pairs[-1:] if value is not None else pairs:
        yield {
            "person": person_id(person),
            "time": moment,
            "item": item,
            "words": words_of(item),
            "query": query or job.query,
            "value": value,
        }


def _items(job: Import, line: int, row: dict) -> list[tuple[str | None, str]]:
    """(query, item) of a row: its text, or the answers of its chat."""
    messages = _chat(row.get(job.item))
    if messages is not None:
        pairs = from_messages(mend(messages)[0])
        return [(pair.query, pair.chosen) for pair in pairs if pair.query]
    text = text_of(row, job.item, job.file, line)
    clean_text = plain(text).strip()
    job.counts["cleaned: HTML in an item"] += clean_text != text
    return [(None, clean_text)] if clean_text else []


def _chat(value: Any) -> list[dict] | None:
    """The messages of a chat, also written as JSON inside a text field; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    is_chat = isinstance(value, list) and value and all(isinstance(x, dict) and "role" in x for x in value)
    return value if is_chat else None


def _value(job: Import, line: int, row: dict) -> float | None:
    """A rating as it is, a label as 1 or 0; None where there is none."""
    if job.label:
        return yes_of(row, job.label, job.file, line)
    return number_of(row, job.rating, job.file, line) if job.rating else None


def events_of_persons(job: Import, database: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[Event]]]:
    """(person, what the person had, each item once, oldest first), in hash order."""
    order = "ORDER BY md5(person), person, time, place"
    rows = database.execute(f"SELECT person, item, query, time, value FROM events {order}")
    for person, events in _grouped(rows):
        job.counts["persons read"] += 1
        yield person, _once(job, events)


def _grouped(rows: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[Event]]]:
    person, events = None, list[Event]()
    while batch := rows.fetchmany(_BATCH):
        for name, item, query, time, value in batch:
            if name != person:
                if person is not None:
                    yield person, events
                person, events = name, []
            events.append(Event(item, query, time, value))
    if person is not None:
        yield person, events


def _once(job: Import, events: list[Event]) -> list[Event]:
    """Each item once: the first time that it was taken, or the last word on it where it was rated."""
    event_of: dict[tuple[str | None, str], Event] = {}
    for event in events:
        key = event.query, words_of(event.item)
        if key in event_of:
            job.counts["left out: the person had the same item before"] += 1
            if event.value is None:
                continue
            del event_of[key]  # a later rating takes its place, and its time
        event_of[key] = event
    return list(event_of.values())
