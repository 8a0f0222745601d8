"""When items were taken: how many users took an item, over all time and before a given moment.

Eight bytes an event in memory (200 MB for 25 million ratings), and a binary search a question. Until all events are
known they lie on disk.
"""

import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_CHUNK = 1 << 17  # numbers held back before they are written, and read at a time: two an event


class Takings:
    """All events of all users. Add them, call `close`, then ask `before`.

    Attributes:
        counts: item → number of users who took it, over all time.
    """

    def __init__(self, items: int, scratch: Path | None):
        self.counts = array("L", [0]) * items
        self._file = tempfile.TemporaryFile("w+b", dir=scratch)  # noqa: SIM115 (closed by `close`)
        self._added = array("q")

    def add(self, item: int, time: int) -> None:
        """A user took the item at that time, for the first time."""
        self.counts[item] += 1
        self._added.extend((item, time))
        if len(self._added) >= _CHUNK:
            self._write()

    def _write(self) -> None:
        self._added.tofile(self._file)
        self._file.flush()
        self._added = array("q")

    def close(self) -> None:
        """All events are known: put the times of each item in order."""
        self._write()
        ends = np.cumsum(self.counts, dtype=np.int64)
        starts, times = np.concatenate([[0], ends]), np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
        free = starts.copy()  # the next empty place of each item
        self._file.seek(0)
        while data := self._file.read(_CHUNK * 8):
            items, moments = np.frombuffer(data, np.int64).reshape(-1, 2).T
            order = np.argsort(items, kind="stable")
            items = items[order]
            first = np.searchsorted(items, items)  # where this chunk's events of the same item begin
            times[free[items] + np.arange(len(items)) - first] = moments[order]
            np.add.at(free, items, 1)
        self._file.close()
        for start, end in zip(starts, ends):
            times[start:end].sort()
        self._starts, self._times = array("Q", starts.tobytes()), memoryview(times.data)

    def first(self, item: int) -> int:
        """When the item was first taken; the largest number where it never was."""
        start = self._starts[item]
        return self._times[start] if self._starts[item + 1] > start else np.iinfo(np.int64).max

    def before(self, item: int, time: int) -> int:
        """How many users had taken the item before that time."""
        start = self._starts[item]
        return bisect_left(self._times, time, start, self._starts[item + 1]) - start


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
