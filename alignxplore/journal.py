"""The one way a long job writes: an append-only JSONL journal with one line per finished unit, resumable by content
hash.

    with RunLock(out), Journal(out / "journal.jsonl") as journal:
        for unit in units:
            if unit.id not in journal:
                journal.append(unit.id, await work(unit))

Kill it at any moment and run the same command again: finished units are kept, at most those in flight are redone.
A row whose `status` is one of `FAILED` is kept for the record but not finished: the next run asks again.
"""

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from alignxplore.errors import UserError, naming
from alignxplore.locks import take_lock
from alignxplore.places import Places
from alignxplore.records import HALF_CHARACTERS, RecordError

log = logging.getLogger(__name__)

OK = "ok"
TRANSPORT_ERROR = "transport_error"  # no usable reply in the time given
# the server would not take the request: no credit, an expired key, a field it does not know, a longer prompt than it
# takes
REFUSED = "request_error"
FAILED = (
    TRANSPORT_ERROR,
    REFUSED,
)  # they say nothing about the model: counted as errors of the run, and asked again by the next one
TOO_LONG = "too_long"  # a prompt that cannot be made to fit the window: final


class RunLocked(UserError):
    """Another process writes into the same output folder."""


class RunLock:
    """Holds an output folder for one process; the kernel lets go of it when the process ends, however it ends. Where
    nothing was written into the folder, neither lock nor folder stays: the command was refused.

    Args:
        beside: for a folder that is replaced as a whole: its lock lies beside it.
    """

    def __init__(self, folder: str | Path, beside: bool = False):
        self.folder = Path(folder)
        self.path = self.folder.with_name(f".{self.folder.name}.lock") if beside else self.folder / ".lock"

    def __enter__(self) -> Self:
        place = self.path.parent.absolute()
        self._new_folders = [folder for folder in (place, *place.parents) if not folder.exists()]
        self._open()
        while not self._is_there():  # whoever had it has taken it away
            self._file.close()
            self._open()
        self._file.truncate(0)
        with naming(self.path):
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        return self

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+")
        try:
            take_lock(self._file.fileno(), self.folder)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            message = f"{self.folder}: {holder} is writing here; wait for it or choose another output folder"
            raise RunLocked(message) from None

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def fileno(self) -> int:
        """Of its open file, for a process that holds it, too."""
        return self._file.fileno()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a folder that has gone meanwhile, or that somebody else writes into
            if not any(path != self.path for path in self.folder.glob("*")):
                self.path.unlink()
                for folder in self._new_folders:
                    folder.rmdir()
        self._file.close()


class Journal:
    """Rows by unit id. The file is read once at the start; each `append` is one write of one line.

    Not even the places of the rows are all in memory (`places.py`), so that it does not grow with the units; a row is
    read when it is asked for.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> Self:
        self._places = Places()  # unit → offset of its newest line; ~offset of one that failed
        self._count = 0  # units that are finished
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._recover()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lines = self.path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        with naming(self.path):
            os.fsync(self._file)
        os.close(self._file)
        self._places.close()

    def _recover(self) -> None:
        """Find what earlier runs wrote, and cut off a last line torn by a kill, so that the next line starts clean."""
        if not self.path.exists():
            return
        end = 0
        with self.path.open("rb") as lines:
            for number, raw in enumerate(lines, 1):
                if not raw.endswith(b"\n"):
                    log.warning("%s:%d: cut off the last line: it is torn; its unit is done again", self.path, number)
                    break
                try:
                    row = json.loads(raw)
                    if not (isinstance(row["id"], str) and isinstance(row["status"], str)):
                        raise TypeError
                    self._note(row["id"], row["status"], end)
                except (ValueError, KeyError, TypeError, RecursionError):
                    remedy = "this line is damaged; delete it and run again: its unit is redone"
                    raise RecordError(remedy, self.path, number) from None
                end += len(raw)
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)

    def _note(self, unit: str, status: str, offset: int) -> None:
        was_finished, is_finished = unit in self, status not in FAILED
        self._places.put(unit, offset if is_finished else ~offset)
        self._count += is_finished - was_finished

    def append(self, unit: str, row: dict[str, Any]) -> dict:
        """Record a finished unit; it is in the file when this returns (kill -9 safe; `__exit__` also syncs the
        disk)."""
        row = {"id": unit, "status": OK} | row | {"id": unit}
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode(errors=HALF_CHARACTERS)
        with naming(self.path):
            count = os.write(self._file, line)
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        if count < len(line):  # take the stump away, or the next line would be appended to it
            os.ftruncate(self._file, end - count)
            raise OSError(errno.ENOSPC, "only a part of the line could be written; is the disk full?", str(self.path))
        self._note(unit, row["status"], end - count)
        return row

    def __contains__(self, unit: str) -> bool:
        place = self._places.get(unit)
        return place is not None and place >= 0

    def __getitem__(self, unit: str) -> dict:
        if (row := self.get(unit)) is None:
            raise KeyError(unit)
        return row

    def get(self, unit: str) -> dict | None:
        """The row of a unit, failed ones included; None if it was never recorded."""
        place = self._places.get(unit)
        return None if place is None else self._row(place)

    def _row(self, place: int) -> dict:
        self._lines.seek(max(place, ~place))
        return json.loads(self._lines.readline())

    def rows(self) -> Iterator[dict]:
        """All rows, the newest of each unit, failed ones included; read one by one."""
        return (self._row(place) for _, place in self._places)

    def finished(self) -> set[str]:
        """Ids of the units that are in the journal."""
        return {unit for unit, place in self._places if place >= 0}

    def __len__(self) -> int:
        return self._count
