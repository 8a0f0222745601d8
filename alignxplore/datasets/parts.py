"""From what users took to lines of files: in this process, or for many users in one for each processor.

A builder gives a `Drawer`, which makes the examples of some users, and the chunks of users that it works on. Parts
come in the order of the chunks, whichever process made them: the number of processes changes nothing.
"""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

from alignxplore.benchmark_files import user_row
from alignxplore.datasets.building import Example, Job, Popularity
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.sidecars import popularity_row
from alignxplore.datasets.workers import side_by_side
from alignxplore.records import HALF_CHARACTERS, as_json

CHUNK = 1024  # users that are drawn for at once
FEW = 8192  # users for whom no other process is started, which takes a second


class Part(NamedTuple):
    """Lines of the benchmark and of the popularity file, how many rows and persons these are, and what was counted."""

    lines: bytes
    popularity: bytes
    rows: int
    people: int
    counts: dict[str, int]


class Line(NamedTuple):
    """A row of the benchmark: whose it is, its line, and that of the popularity file ("" where it has none)."""

    person: str
    line: str
    popularity: str


class Drawer(ABC):
    """Makes the examples of users; other processes get a copy of it (by pickling)."""

    def __init__(self, job: Job):
        self.job = job

    @abstractmethod
    def examples(self, chunk: Any) -> Iterator[Example]:
        """The examples of some users. What is dropped is counted in `job.counts`."""

    def made(self, chunk: Any) -> Part:
        """The same as lines, without what is counted."""
        return part_of(map(line_of, self.examples(chunk)), {})

    def part(self, chunk: Any) -> Part:
        """The same, counted apart."""
        counts, self.job.counts = self.job.counts, defaultdict(int)
        try:
            return self.made(chunk)._replace(counts=self.job.counts)
        finally:
            self.job.counts = counts


def line_of(example: Example) -> Line:
    """The line of an example."""
    record, popularity = example
    line = as_json(user_row(record)) + "\n"
    return Line(record.person, line, popularity_line(record.user, popularity) if popularity else "")


def popularity_line(user: str, counts: Popularity) -> str:
    """The line of a row in the popularity file."""
    if counts.chosen_before is None or counts.offered is not None:
        return json.dumps(popularity_row(user, counts)) + "\n"
    chosen, rejected, chosen_before, rejected_before, _ = counts
    return (  # as `json` would write it
        f'{{"userid": {json.dumps(user)}, "chosen": {chosen}, "rejected": {rejected}, '
        f'"chosen_before": {chosen_before}, "rejected_before": {rejected_before}}}\n'
    )


def part_of(lines: Iterable[Line], counts: dict[str, int]) -> Part:
    """Lines as bytes; `counts` is what is counted while they are made."""
    rows = list(lines)
    text = "".join([line.line for line in rows]).encode("utf-8", HALF_CHARACTERS)
    popularity = "".join([line.popularity for line in rows]).encode()
    return Part(text, popularity, len(rows), len({line.person for line in rows}), counts)


class Records:
    """The examples of a benchmark whose raw rows lie in the engine, which is closed after them: one by one, or as
    parts of files.

    Args:
        chunks: what the drawer works on, at most once.
        users: how many there are.
    """

    def __init__(self, engine: Engine, job: Job, drawer: Drawer, chunks: Callable[[int], Iterator[Any]], users: int):
        self._engine, self._job, self._drawer, self._chunks, self._users = engine, job, drawer, chunks, users

    def __iter__(self) -> Iterator[Example]:
        try:
            for chunk in self._chunks(64 if self._job.users else CHUNK):
                yield from self._drawer.examples(chunk)
        finally:
            self._engine.close()

    def parts(self) -> Iterator[Part]:
        """The lines of all examples."""
        with tqdm(total=self._users, unit=" users", desc="drawing", disable=not self._job.progress) as bar:
            try:
                chunks, work = self._chunks(CHUNK), self._drawer.part
                is_small = self._users <= FEW
                for part in map(work, chunks) if is_small else side_by_side(work, chunks, self._job.processors):
                    bar.update(part.people)
                    yield part
            finally:
                self._engine.close()
