"""Rows of text grouped by user in the engine."""

import hashlib
from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter

import numpy as np

from alignxplore.datasets.building import Job
from alignxplore.datasets.engine import Engine
from alignxplore.records import RecordError

_HELD = 1 << 24  # characters that wait to be handed over


class UserGroups:
    """Add all rows, then iterate (any number of times) over (user, rows in the order in which they were added).

    Users come in the order of their hash, whatever the order of the input, so that the first n are a fair sample.
    """

    def __init__(self, engine: Engine, job: Job):
        self.engine, self._job = engine, job
        self._queue: list[tuple[str, str]] = []
        self._size = 0
        self._users: int | None = None
        engine.run('CREATE TABLE rows ("user" VARCHAR, text VARCHAR)')

    def add(self, user: str, row: str) -> None:
        """Keep one row of a user."""
        self._queue.append((user, row))
        self._size += len(user) + len(row)
        if self._size > _HELD:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._queue:
            self.engine.insert("rows", dict(zip(("user", "text"), zip(*self._queue))))
        self._queue, self._size = [], 0

    def __len__(self) -> int:
        """How many users there are; all rows must be there."""
        if self._users is None:
            self._hand_over()
            self._users = rank_users(self.engine, "rows", self._job)
        return self._users

    def chunks(self, size: int) -> Iterator[list[tuple[str, list[str]]]]:
        """So many users with their rows at once."""
        users = iter(self)
        while chunk := list(islice(users, size)):
            yield chunk

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        len(self)
        rows = self.engine.rows('SELECT "user", text FROM rows JOIN users USING ("user") ORDER BY rank, rows.rowid')
        for user, texts in groupby(rows, itemgetter(0)):
            yield user, [text for _, text in texts]


def rank_users(engine: Engine, table: str, job: Job) -> int:
    """Fill the table `users` (user, rank, wanted: of the job's split) with those of a table, in the order of their
    hash. Returns how many there are."""
    engine.run('CREATE TABLE hashed ("user" VARCHAR, hash UINTEGER, wanted BOOLEAN)')
    for batch in engine.batches(f'SELECT DISTINCT "user" FROM {table}'):
        users = batch["user"].to_pylist()
        flags = [job.wanted(user) for user in users]
        engine.insert("hashed", {"user": users, "hash": user_hashes(job.seed, users), "wanted": flags})
    engine.run(
        'CREATE TABLE users AS SELECT "user", wanted, row_number() OVER (ORDER BY hash, "user")::INTEGER AS rank '
        "FROM hashed"
    )
    engine.run("DROP TABLE hashed")
    return engine.one("SELECT count(*) FROM users")[0]


def user_hashes(seed: int, users: list[str]) -> np.ndarray:
    """What users are put in order by: 32 bits each.

    Raises:
        RecordError: no id.
    """
    if (invalid_user := next((user for user in users if not user or "\t" in user or "\n" in user), None)) is not None:
        raise RecordError(f"user id {invalid_user!r} is empty or holds a tab or a line end; repair the raw file")
    prefix = f"{seed}\t"
    digests = [hashlib.blake2b(f"{prefix}{user}".encode(), digest_size=4).digest() for user in users]
    return np.frombuffer(b"".join(digests), ">u4").astype(np.uint32)
