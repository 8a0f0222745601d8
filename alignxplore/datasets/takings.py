"""When items were taken: how many users took an item, over all time and before a given moment.

The engine puts the times in order, item after item, and they lie in a file; memory holds one of `BLOCK` of them, so
that it stays flat in the number of events (3 MB for 25 million). A question is a binary search and the reading of one
block.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from alignxplore.datasets.engine import Engine

BLOCK = 64  # times between two that are held in memory


class Takings:
    """All events of all users.

    A copy that another process gets (by pickling) reads the same file.

    Args:
        table: of the engine, with an event a row, each user's first taking of an item: `item` and `time`.
        items: how many there are in the catalogue.

    Attributes:
        counts: item → number of users who took it, over all time.
        first: item → when it was first taken; the largest number where it never was.
    """

    def __init__(self, engine: Engine, table: str, items: int):
        counts, first = np.zeros(items, np.uint64), np.full(items, np.iinfo(np.int64).max)
        found = f"SELECT item, count(*)::UBIGINT AS takings, min(time) AS first FROM {table} GROUP BY item"
        for batch in engine.batches(found):
            taken = batch["item"].to_numpy()
            counts[taken], first[taken] = batch["takings"].to_numpy(), batch["first"].to_numpy()
        self.counts, self.first = array("L", counts.tobytes()), array("q", first.tobytes())
        self._starts = array("Q", (np.cumsum(counts) - counts).astype(np.uint64).tobytes())
        self._marks = array("q")  # each BLOCK-th of all times
        self._path = engine.folder / "times"
        written = 0
        with self._path.open("wb") as file:
            for batch in engine.batches(f"SELECT time FROM {table} ORDER BY item, time"):
                times = batch["time"].to_numpy()
                self._marks.frombytes(times[-written % BLOCK :: BLOCK].tobytes())
                file.write(times.tobytes())
                written += len(times)
        self._file: BinaryIO = self._path.open("rb")

    def before(self, item: int, time: int) -> int:
        """How many users had taken the item before that time."""
        if self.first[item] >= time:
            return 0
        start = self._starts[item]
        end = start + self.counts[item]
        mark = bisect_left(self._marks, time, -(-start // BLOCK), (end - 1) // BLOCK + 1)  # the first not before it
        low, high = max(start, BLOCK * (mark - 1)), min(end, BLOCK * mark)
        times = memoryview(os.pread(self._file.fileno(), 8 * (high - low), 8 * low)).cast("q")
        return low + bisect_left(times, time) - start

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._file = self._path.open("rb")


class Others:
    """The takings of everybody but one user, who took the items `own` (item → time)."""

    def __init__(self, takings: Takings, own: Mapping[int, int]):
        self.takings, self.own = takings, own

    def count(self, item: int) -> int:
        """How many others took the item, over all time."""
        return self.takings.counts[item] - (item in self.own)

    def before(self, item: int, time: int) -> int:
        """How many others had taken the item before that time."""
        return self.takings.before(item, time) - (self.own.get(item, time) < time)
