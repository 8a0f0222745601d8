"""When items were taken: how many users took an item, over all time and before a given moment.

The times lie on disk in order, item after item; memory holds one of `BLOCK` of them, so that it stays flat in the
number of events (3 MB for 25 million). A question is a binary search and the reading of one block.
"""

import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 64  # times between two that are held in memory
BUCKETS = 64  # files that events are dealt to by item, each of which is sorted in memory
_HELD = 1 << 12  # numbers of a bucket that wait to be written, two an event


class Takings:
    """All events of all users. Add them, call `close`, then ask `before`.

    Attributes:
        counts: item → number of users who took it, over all time.
    """

    def __init__(self, items: int, scratch: Path | None):
        self.counts = array("L", [0]) * items
        self._scratch = scratch
        self._waiting: dict[int, array[int]] = {}
        self._files: dict[int, BinaryIO] = {}

    def add(self, item: int, time: int) -> None:
        """A user took the item at that time, for the first time."""
        self.counts[item] += 1
        waiting = self._waiting.setdefault(item % BUCKETS, array("q"))
        waiting.extend((item, time))
        if len(waiting) >= _HELD:
            self._write(item % BUCKETS)

    def _write(self, bucket: int) -> None:
        if bucket not in self._files:
            self._files[bucket] = tempfile.TemporaryFile("w+b", dir=self._scratch)
        self._files[bucket].write(self._waiting.pop(bucket, array("q")).tobytes())

    def close(self) -> None:
        """All events are known: put the times of each item in order."""
        self._times = tempfile.TemporaryFile("w+b", dir=self._scratch)
        self._starts, self._marks = array("Q", [0]) * len(self.counts), array("q")  # marks: each BLOCK-th of all times
        written = 0
        for bucket in sorted({*self._waiting, *self._files}):
            self._write(bucket)
            with self._files[bucket] as file:
                file.seek(0)
                items, times = np.frombuffer(file.read(), np.int64).reshape(-1, 2).T
            order = np.lexsort((times, items))
            times = times[order]
            for item, place in zip(*(found.tolist() for found in np.unique(items[order], return_index=True))):
                self._starts[item] = written + place
            self._marks.frombytes(times[-written % BLOCK :: BLOCK].tobytes())
            self._times.write(times.tobytes())
            written += len(times)
        self._times.flush()

    def _read(self, low: int, high: int) -> memoryview:
        return memoryview(os.pread(self._times.fileno(), 8 * (high - low), 8 * low)).cast("q")

    def first(self, item: int) -> int:
        """When the item was first taken; the largest number where it never was."""
        start = self._starts[item]
        return self._read(start, start + 1)[0] if self.counts[item] else np.iinfo(np.int64).max

    def before(self, item: int, time: int) -> int:
        """How many users had taken the item before that time."""
        if not self.counts[item]:
            return 0
        start = self._starts[item]
        end = start + self.counts[item]
        mark = bisect_left(self._marks, time, -(-start // BLOCK), (end - 1) // BLOCK + 1)  # the first not before it
        low, high = max(start, BLOCK * (mark - 1)), min(end, BLOCK * mark)
        return low + bisect_left(self._read(low, high), time) - start


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
