"""The items of a recommendation set: numbered by key, their texts on disk."""

import hashlib
import os
from array import array
from collections.abc import Iterable
from functools import lru_cache
from itertools import filterfalse
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from alignxplore.datasets.building import Job
from alignxplore.records import HALF_CHARACTERS, as_json
from alignxplore.texts import words_of

_HELD = 1 << 25  # bytes of texts that are held in memory


class Catalogue:
    """Items by key, numbered as they are added, or at the end by their keys (`sort`).

    A copy that another process gets (by pickling) reads the same file, and has no `index`.

    Args:
        folder: where the file of texts lies; it outlives the catalogue.

    Attributes:
        index: key → number of the item.
        twin: number of the item → number of the first item with the same text but for white space, for no reader can
            tell these apart.
    """

    def __init__(self, folder: Path):
        self.index: dict[str, int] = {}
        self.twin = array("L")
        self._by_text: dict[int, int] = {}
        self._path = folder / "texts"
        self._file: BinaryIO = self._path.open("w+b")
        self._ends = array("Q", [0])
        self._places: np.ndarray | None = None
        self.text = lru_cache(maxsize=1 << 16)(self._text)

    def __len__(self) -> int:
        return len(self.twin)

    @property
    def bytes(self) -> int:
        """How long all texts are."""
        return self._ends[-1]

    def add(self, key: str, text: str, kind: str, job: Job) -> None:
        """Add an item. A key that is already there keeps its first text; the other one, of that `kind`, is counted."""
        if key in self.index:
            job.counts[f"dropped: a {kind} that is listed already"] += 1
            return
        item = self.index[key] = len(self)
        data = text.encode("utf-8", "surrogatepass")
        words = words_of(text).encode("utf-8", "surrogatepass")
        self.twin.append(
            self._by_text.setdefault(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big"), item)
        )
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def sort(self) -> None:
        """All items are known: number them by their keys, whole numbers by their size, so that the order in which they
        came decides nothing."""
        keys = [*sorted(filter(_is_number, self.index), key=_size), *sorted(filterfalse(_is_number, self.index))]
        places = np.fromiter((self.index[key] for key in keys), np.int64, len(keys))
        if (places == np.arange(len(keys))).all():
            return
        self._places = places
        numbers, twins = np.empty(len(keys), np.int64), np.asarray(self.twin, np.int64)
        numbers[self._places] = np.arange(len(keys))
        firsts = np.full(len(keys), len(keys))
        np.minimum.at(firsts, twins, numbers)  # the first item with each text is another one now
        self.twin = array("L", firsts[twins[self._places]].tolist())
        self.index = {key: number for number, key in enumerate(keys)}

    def close(self) -> None:
        """All items are known: give back what only adding needs."""
        self._file.flush()
        self._by_text.clear()

    def _text(self, item: int) -> str:
        place = item if self._places is None else int(self._places[item])
        start = self._ends[place]
        data = os.pread(self._file.fileno(), self._ends[place + 1] - start, start)
        return data.decode("utf-8", "surrogatepass")

    def __getstate__(self) -> dict:
        return {"twin": self.twin, "_ends": self._ends, "_places": self._places, "_path": self._path}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, index={})
        self._file = self._path.open("rb")
        self.text = lru_cache(maxsize=1 << 16)(self._text)


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdigit()


def _size(key: str) -> tuple[int, str, str]:
    """Where a whole number stands among others."""
    digits = key.lstrip("0")
    return len(digits), digits, key


class Quoted:
    """The texts of items as JSON writes them, between what stands before them and behind them. Those of a small
    catalogue are made once; of a large one, those that are asked for."""

    def __init__(self, catalogue: Catalogue, head: str, tail: str):
        self._catalogue, self._before, self._behind = catalogue, head, tail
        size = catalogue.bytes + len(catalogue) * len(head + tail)
        self._all = self._made(range(len(catalogue))) if size <= _HELD else None

    def take(self, items: np.ndarray) -> pa.LargeBinaryArray:
        """The text of each of these items."""
        if self._all is not None:
            return self._all.take(pa.array(items))
        distinct, places = np.unique(items, return_inverse=True)
        return self._made(distinct.tolist()).take(pa.array(places))

    def _made(self, items: Iterable[int]) -> pa.LargeBinaryArray:
        texts = (f"{self._before}{as_json(self._catalogue._text(item))}{self._behind}" for item in items)
        return pa.array([text.encode("utf-8", HALF_CHARACTERS) for text in texts], pa.large_binary())
