"""Events (user, item, time, stars) in the engine: who took what, in order, each item once, and the takings of all.

A builder's raw rows become the table `events` either by one statement that reads the raw file (`load`), or, where that
meets a row it cannot read, row by row in Python: then the row is read after all, or its file and line are named.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignxplore.datasets.building import Job
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.groups import rank_users
from alignxplore.datasets.takings import Takings

_ROWS = 1 << 16  # rows that are read in Python and handed over at once
_EVENTS = 1 << 16  # of the users who are worked on at once
_COLUMNS = '"user" VARCHAR, "key" VARCHAR, time BIGINT, stars DOUBLE'


class Raw(NamedTuple):
    """A row of a raw file: a user ("" where it names none, or no item) took the item of that key and gave it so many
    stars."""

    user: str
    key: str
    time: int
    stars: float


class RowCounts(NamedTuple):
    """How many rows a raw file has, how many of them name no user (see `Raw`), and how many an item that is not
    listed."""

    rows: int
    nameless: int
    unlisted: int


class Chunk(NamedTuple):
    """What some users took, in order: the events of user i are those from ends[i - 1] to ends[i]."""

    users: list[str]
    ends: np.ndarray
    items: np.ndarray
    times: np.ndarray
    stars: np.ndarray


def load(
    engine: Engine,
    catalogue: Catalogue,
    statement: str | None,
    rows: Callable[[], Iterable[Raw]],
    *,
    path: Path,
    ties: str,
) -> RowCounts:
    """Fill the table `events` with all that name a user and a listed item.

    Args:
        statement: SELECT of the columns of `Raw`, in the order of the raw file's rows; a NULL says that the row needs
            to be looked at. None: there is no such statement for this form of file.
        rows: the same rows, read one by one.
        path: the file.
        ties: what orders events of a user at the same time, "item" or "row".
    """
    _list_items(engine, catalogue)
    if statement is None or not _join(engine, statement, path, ties):
        engine.run(f"CREATE TABLE raw ({_COLUMNS})")
        row_iterator = iter(rows())
        while part := list(islice(row_iterator, _ROWS)):
            engine.insert("raw", dict(zip(Raw._fields, zip(*part))))
        _join(engine, "SELECT * FROM raw", None, ties)
        engine.run("DROP TABLE raw")
    counts = engine.one(
        "SELECT count(*), count(*) FILTER (\"user\" = ''), count(*) FILTER (\"user\" <> '' AND item IS NULL) "
        "FROM events"
    )
    if any(counts[1:]):
        engine.run("DELETE FROM events WHERE \"user\" = '' OR item IS NULL")
    return RowCounts(*counts)


def _list_items(engine: Engine, catalogue: Catalogue) -> None:
    engine.run('CREATE TABLE items ("key" VARCHAR, item INTEGER, twin INTEGER)')
    keys, start = iter(catalogue.index), 0
    while key_batch := list(islice(keys, _ROWS)):
        items = range(start, start + len(key_batch))
        engine.insert("items", {"key": key_batch, "item": items, "twin": catalogue.twin[start : items.stop]})
        start = items.stop


def _join(engine: Engine, statement: str, path: Path | None, ties: str) -> bool:
    """Make the table `events` of raw rows, which the statement reads from a file or from the table `raw`; False where
    the engine cannot read one of them."""
    fault = '"user" IS NULL OR time IS NULL OR stars IS NULL'
    columns = 'CASE WHEN "key" IS NOT NULL THEN "user" END AS "user", item, twin, time, stars'
    if ties == "item":
        query = f'SELECT {columns}, 0::TINYINT AS place FROM ({statement}) LEFT JOIN items USING ("key")'
        return engine.reads("events", query, fault, path)
    if not engine.reads("ordered", statement, f'"key" IS NULL OR {fault}', path):
        return False
    engine.run(
        f'CREATE TABLE events AS SELECT {columns}, ordered.rowid AS place FROM ordered LEFT JOIN items USING ("key")'
    )
    engine.run("DROP TABLE ordered")
    return True


class Ordered:
    """Users in the order of their hash, and what each took in order of time, nothing twice.

    Args:
        engine: with the table `events`.
        ties: what orders events of a user at the same time: "item" (the order of rows does not matter then) or "row".

    Attributes:
        takings: of all users, those that are left out among them.
        users: how many of the job's split have enough interactions.
    """

    def __init__(self, engine: Engine, catalogue: Catalogue, ties: str, job: Job):
        self._engine, self._tie = engine, "item" if ties == "item" else "place"
        job.counts["users read"] = rank_users(engine, "events", job)
        order = "time, item, stars" if ties == "item" else "time, place"
        engine.run(
            f'CREATE TABLE taken AS SELECT rank, item, time, stars, place FROM events JOIN users USING ("user") '
            f"QUALIFY row_number() OVER (PARTITION BY rank, twin ORDER BY {order}) = 1",
            "first takings",
        )
        repeats = engine.one("SELECT (SELECT count(*) FROM events) - (SELECT count(*) FROM taken)")[0]
        twins = repeats and any(item != twin for item, twin in enumerate(catalogue.twin)) and _twins(engine)
        job.counts["dropped: the user took the same item before"] += repeats - twins
        job.counts["dropped: the user took an item with the same text before"] += twins
        engine.run("DROP TABLE events")
        engine.run(
            'CREATE TABLE kept AS SELECT rank, "user", takings FROM users JOIN '
            "(SELECT rank, count(*) AS takings FROM taken GROUP BY rank) USING (rank) "
            f"WHERE wanted AND takings >= {job.least}"
        )
        split_users, self.users = engine.one(
            "SELECT (SELECT count(*) FROM users WHERE wanted), (SELECT count(*) FROM kept)"
        )
        if other_users := job.counts["users read"] - split_users:
            job.counts[f"users left out: {job.unwanted}"] += other_users
        if short_users := split_users - self.users:
            job.counts[f"users dropped: fewer than {job.least} interactions"] += short_users
        self.takings = Takings(engine, "taken", len(catalogue))

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The users, so many at once, or fewer of those who took much."""
        events = _Reader(
            self._engine,
            f"SELECT item, time, stars FROM taken JOIN kept USING (rank) ORDER BY rank, time, {self._tie}",
        )
        for batch in self._engine.batches('SELECT "user", takings FROM kept ORDER BY rank'):
            users, ends = batch["user"].to_pylist(), np.cumsum(batch["takings"].to_numpy())
            start = total = 0
            while start < len(users):
                limit = int(np.searchsorted(ends, total + _EVENTS, "right"))
                stop = min(start + size, max(start + 1, limit))
                chunk_ends = ends[start:stop] - total
                yield Chunk(users[start:stop], chunk_ends, *events.read(int(chunk_ends[-1])))
                start, total = stop, ends[stop - 1]


class _Reader:
    """The rows that answer a question, as many at once as are asked for."""

    def __init__(self, engine: Engine, question: str):
        self._batches = engine.batches(question)
        self._rest: list[np.ndarray] = []

    def read(self, count: int) -> list[np.ndarray]:
        """The columns of the next so many rows."""
        parts: list[list[np.ndarray]] = []
        while count:
            if not len(self._rest) or not len(self._rest[0]):
                self._rest = [column.to_numpy() for column in next(self._batches).columns]
            parts.append([column[:count] for column in self._rest])
            self._rest = [column[count:] for column in self._rest]
            count -= len(parts[-1][0])
        return [np.concatenate(columns) for columns in zip(*parts)]


def _twins(engine: Engine) -> int:
    """How many items users took after another one with the same text."""
    return engine.one(
        'SELECT count(*) - (SELECT count(*) FROM taken) FROM (SELECT DISTINCT "user", item FROM events)'
    )[0]
