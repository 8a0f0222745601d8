"""When items were taken: how many users took an item, over all time and before a given moment.

The engine puts the times in order, item after item, and they lie in a file; memory holds one of `BLOCK` of them, so
that it stays flat in the number of events (3 MB for 25 million). A question is a binary search and the reading of one
block; many are searched for at once.

Suffixes of arrays: `I` items, `Q` questions, `O` those of them that are still open, `B` a block or a batch.
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
        counts_I, first_I = np.zeros(items, np.uint64), np.full(items, np.iinfo(np.int64).max)
        query = f"SELECT item, count(*)::UBIGINT AS takings, min(time) AS first FROM {table} GROUP BY item"
        for batch in engine.batches(query):
            items_B = batch["item"].to_numpy()
            counts_I[items_B], first_I[items_B] = batch["takings"].to_numpy(), batch["first"].to_numpy()
        self.counts, self.first = array("L", counts_I.tobytes()), array("q", first_I.tobytes())
        self._starts = array("Q", (np.cumsum(counts_I) - counts_I).astype(np.uint64).tobytes())
        self._marks = array("q")  # each BLOCK-th of all times
        self._path = engine.folder / "times"
        count = 0
        with self._path.open("wb") as file:
            for batch in engine.batches(f"SELECT time FROM {table} ORDER BY item, time"):
                times = batch["time"].to_numpy()
                self._marks.frombytes(times[-count % BLOCK :: BLOCK].tobytes())
                file.write(times.tobytes())
                count += len(times)
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

    def before_all(self, items_Q: np.ndarray, times_Q: np.ndarray) -> np.ndarray:
        """The same of many items, each before a time of its own."""
        counts, starts, marks = (np.asarray(x).view(np.int64) for x in (self.counts, self._starts, self._marks))
        start_Q, size_Q = starts[items_Q], counts[items_Q]
        end_Q = start_Q + size_Q
        mark_Q, last_Q = -(-start_Q // BLOCK), (end_Q - 1) // BLOCK + 1
        while len(open_O := np.flatnonzero(mark_Q < last_Q)):
            middle_O = (mark_Q[open_O] + last_Q[open_O]) // 2
            earlier_O = marks[middle_O] < times_Q[open_O]
            mark_Q[open_O[earlier_O]], last_Q[open_O[~earlier_O]] = middle_O[earlier_O] + 1, middle_O[~earlier_O]
        low_Q = np.maximum(start_Q, BLOCK * (mark_Q - 1))
        size_Q = np.minimum(end_Q, BLOCK * mark_Q) - low_Q
        file, size = self._file.fileno(), 8 * BLOCK
        blocks = b"".join([os.pread(file, size, offset).ljust(size) for offset in (8 * low_Q).tolist()])
        times_QB = np.frombuffer(blocks, np.int64).reshape(-1, BLOCK)
        return low_Q - start_Q + ((times_QB < times_Q[:, None]) & (np.arange(BLOCK) < size_Q[:, None])).sum(1)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._file = self._path.open("rb")


class Others:
    """The takings of everybody but one user, who took the items of `own_times` (item → time)."""

    def __init__(self, takings: Takings, own_times: Mapping[int, int]):
        self.takings, self.own_times = takings, own_times

    def count(self, item: int) -> int:
        """How many others took the item, over all time."""
        return self.takings.counts[item] - (item in self.own_times)

    def before(self, item: int, time: int) -> int:
        """How many others had taken the item before that time."""
        return self.takings.before(item, time) - (self.own_times.get(item, time) < time)


class OthersOfMany:
    """The same for many users at once, of whom user i took the items from ends[i - 1] to ends[i].

    Args:
        ends: (users,)
        items: (events,), at least one, and `times`; nobody took one twice.
    """

    def __init__(self, takings: Takings, ends: np.ndarray, items: np.ndarray, times: np.ndarray):
        self.takings = takings
        keys = self._keys_of(np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), items)
        order = np.argsort(keys)
        self._keys, self._times = keys[order], times[order]

    def counted(self, users_Q: np.ndarray, items_Q: np.ndarray, times_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`count` and `before` of `Others`, of a user, an item and a time each."""
        keys_Q = self._keys_of(users_Q, items_Q)
        place_Q = np.searchsorted(self._keys, keys_Q) % len(self._keys)
        own_Q = self._keys[place_Q] == keys_Q
        before_Q = self.takings.before_all(items_Q, times_Q) - (own_Q & (self._times[place_Q] < times_Q))
        return np.asarray(self.takings.counts).view(np.int64)[items_Q] - own_Q, before_Q

    def _keys_of(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return users * len(self.takings.counts) + items
