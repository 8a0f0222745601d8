"""Lines of raw files, also of those packed by gzip, and whether these are whole.

The engine unpacks without a look at the checksum: a file with a wrong one would be half another file. `whole` unpacks
it beside the engine, on another processor.
"""

import contextlib
import gzip
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

from alignxplore.records import RecordError
from alignxplore.texts import mistaken, not_packed

_BLOCK = 1 << 20  # bytes that are unpacked at once


def raw_lines(raw: BufferedReader, path: Path) -> Iterator[bytes]:
    """The lines of an open file, unpacked where its name ends in .gz.

    Raises:
        RecordError: another kind of file, or one that is damaged.
    """
    if path.suffix == ".gz":
        yield from _unpacked(raw, path)
        return
    if problem := mistaken(raw.peek(512)):
        raise RecordError(problem, path)
    yield from raw


def _unpacked(raw: BufferedReader, path: Path) -> Iterator[bytes]:
    with _named(path):
        if problem := not_packed(raw.peek(512)):
            raise RecordError(problem, path)
        lines = gzip.GzipFile(fileobj=raw)
        if problem := mistaken(lines.peek(512), in_gzip=True):
            raise RecordError(problem, path)
        yield from lines


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with a packed file, with the file's name and what to do."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        remedy = "the download may be cut short"
        if isinstance(error, gzip.BadGzipFile):  # of a file whose start was whole
            remedy = "it is damaged, or something else was added to it; download it again"
        raise RecordError(f"cannot be unpacked to its end ({error}); {remedy}", path) from None


@contextlib.contextmanager
def whole(path: Path | None) -> Iterator[None]:
    """While the engine reads a packed file: compare its checksum.

    Raises:
        RecordError: it is damaged.
    """
    if path is None or path.suffix != ".gz":
        yield
        return
    end = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        check = executor.submit(_check, path, end)
        try:
            yield
        except BaseException:
            end.set()
            raise
        check.result()


def _check(path: Path, end: threading.Event) -> None:
    with _named(path), gzip.open(path) as file:
        while not end.is_set() and file.read(_BLOCK):
            pass
