"""The items of a recommendation set: numbered by key, their texts on disk."""

import hashlib
import os
from array import array
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from alignxplore.records import as_json

_HELD = 1 << 26  # bytes of texts that `Quoted` holds in memory


class Catalogue:
    """Items by key, numbered as they are added.

    A copy that another process gets (by pickling) reads the same file, and has no `index`.

    Args:
        folder: where the file of texts lies; it outlives the catalogue.

    Attributes:
        index: key → number of the item.
        twin: number of the item → number of the first item with the same text, for no reader can tell these apart.
    """

    def __init__(self, folder: Path):
        self.index: dict[str, int] = {}
        self.twin = array("L")
        self._by_text: dict[int, int] = {}
        self._path = folder / "texts"
        self._file: BinaryIO = self._path.open("w+b")
        self._ends = array("Q", [0])
        self.text = lru_cache(maxsize=1 << 16)(self._text)

    def __len__(self) -> int:
        return len(self.twin)

    def add(self, key: str, text: str) -> None:
        """Add an item; a key that is already there keeps its first text."""
        if key in self.index:
            return
        item = self.index[key] = len(self)
        data = text.encode("utf-8", "surrogatepass")
        self.twin.append(
            self._by_text.setdefault(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"), item)
        )
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def close(self) -> None:
        """All items are known: give back what only adding needs."""
        self._file.flush()
        self._by_text.clear()

    def _text(self, item: int) -> str:
        start = self._ends[item]
        data = os.pread(self._file.fileno(), self._ends[item + 1] - start, start)
        return data.decode("utf-8", "surrogatepass")

    def __getstate__(self) -> dict:
        return {"twin": self.twin, "_ends": self._ends, "_path": self._path}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, index={})
        self._file = self._path.open("rb")
        self.text = lru_cache(maxsize=1 << 16)(self._text)


class Quoted(dict[int, str]):
    """Item → its text as JSON writes it. What was read last is held, in bounded memory."""

    def __init__(self, catalogue: Catalogue):
        super().__init__()
        self._catalogue, self._bytes = catalogue, 0

    def __missing__(self, item: int) -> str:
        text = as_json(self._catalogue._text(item))
        self._bytes += 2 * len(text) + 100
        if self._bytes > _HELD:
            self.clear()
            self._bytes = 2 * len(text) + 100
        self[item] = text
        return text
