"""The engine of the builders: a DuckDB database on disk, in which raw rows are read, sorted and grouped.

It takes no more memory than the job's `--memory` allows and goes on in files where that is not enough. Its folder lies
beside the output; what a killed build left there, the next one takes away.
"""

import contextlib
import glob
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
from tqdm import tqdm

from alignxplore.datasets.building import Job
from alignxplore.datasets.packed import whole
from alignxplore.errors import UserError

_BATCH = 1 << 17  # rows that are handed over at once
_ROWS = 256  # rows of text
_SILENT = "SET enable_progress_bar = true; SET enable_progress_bar_print = false"  # it counts, and we tell
_WAIT = 0.2  # seconds between two looks at how far a statement is


class Engine:
    """The database of one build. As a context it is closed where something fails, and by whoever uses it up else.

    Attributes:
        folder: for other files of the build; it goes with the database.
    """

    def __init__(self, job: Job):
        self.folder = _new_folder(Path(job.scratch or tempfile.gettempdir()), ".build")
        self._progress = job.progress
        settings: dict[str, Any] = {
            "threads": job.processors,
            "memory_limit": f"{job.memory}MB",
            "temp_directory": str(self.folder / "spilled"),
        }
        self._database = duckdb.connect(":memory:", config=settings)  # tables that it has no room for go to the folder
        self._database.execute(_SILENT)

    def run(self, statement: str, label: str = "") -> None:
        """Run one statement; its `label` stands beside the progress bar.

        Raises:
            UserError: the memory is not enough.
            duckdb.Error: among others for rows of a raw file that cannot be read.
        """
        with _enough():
            self._run(statement, label)

    def _run(self, statement: str, label: str) -> None:
        if not (self._progress and label):
            self._database.execute(statement)
            return
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._database.execute(statement)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        with tqdm(total=100, unit="%", desc=label, mininterval=1) as bar:
            try:
                while thread.is_alive():
                    thread.join(_WAIT)
                    bar.update(max(0, round(self._database.query_progress()) - bar.n))
            except KeyboardInterrupt:
                self._database.interrupt()
                thread.join()
                raise
            bar.update(100 - bar.n if not errors else 0)
        if errors:
            raise errors[0]

    def reads(self, table: str, statement: str, odd: str, path: Path | None) -> bool:
        """Make a table of what a statement reads from a raw file (None: from another table).

        False where the engine cannot, or where `odd` holds of some row: then rows are to be read one by one.

        Raises:
            RecordError: the file is packed and damaged.
        """
        try:
            with whole(path):
                self.run(f"CREATE TABLE {table} AS {statement}", path.name if path else "")
        except duckdb.Error:
            return False
        if self.one(f"SELECT count(*) FROM {table} WHERE {odd}") == (0,):
            return True
        self.run(f"DROP TABLE {table}")
        return False

    def one(self, question: str) -> tuple:
        """The one row that answers a question."""
        with _enough():
            return self._database.execute(question).fetchall()[0]

    def batches(self, question: str) -> Iterator[pa.RecordBatch]:
        """The rows that answer a question, in batches, while the database goes on being used."""
        with _enough(), self._database.cursor() as cursor:
            cursor.execute(_SILENT)
            yield from cursor.sql(question).to_arrow_reader(_BATCH)

    def rows(self, question: str) -> Iterator[tuple]:
        """The same row by row, where they may be long."""
        with _enough(), self._database.cursor() as cursor:
            cursor.execute(_SILENT)
            cursor.execute(question)
            while rows := cursor.fetchmany(_ROWS):
                yield from rows

    def insert(self, table: str, columns: dict[str, Sequence | pa.Array]) -> None:
        """Add rows to a table, whose columns come in this order."""
        rows = pa.table(columns)
        self._database.register("rows_to_insert", rows)
        with _enough():
            self._database.execute(f"INSERT INTO {table} SELECT * FROM rows_to_insert")
        self._database.unregister("rows_to_insert")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.close()

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _enough() -> Iterator[None]:
    """What the engine says of its memory, with what to do."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        message = str(error).partition("\n")[0]
        raise UserError(f"--memory is not enough for this data set; give more ({message})") from None


def quoted(text: str | Path) -> str:
    """A text as a literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def quoted_path(path: Path) -> str:
    """The path of one raw file as a literal of SQL. The engine takes brackets, stars and question marks for patterns:
    `ml-[1]` would be its neighbour `ml-1`."""
    return quoted(glob.escape(str(path)))


@contextlib.contextmanager
def scratch_folder(place: Path, name: str) -> Iterator[Path]:
    """A folder for the files of a command, for the length of a with-block."""
    folder = _new_folder(place, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder(place: Path, name: str) -> Path:
    """A new folder of that name, and more. Those of killed commands of this machine are removed."""
    stem = f"{name}.{socket.gethostname()}."
    for old_folder in place.glob(f"{glob.escape(stem)}*"):
        owner = old_folder.name.removeprefix(stem).partition(".")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(old_folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{stem}{os.getpid()}.", dir=place))
