"""Where each of many named things stands: text → whole number, on disk beyond a few megabytes (SQLite).

The journal keeps the places of its lines here, and files of millions of persons which ids they have had. So neither
takes memory that grows with the number of persons. The table has no name and no future: it goes with the process.
"""

import errno
import sqlite3
import tempfile
from collections.abc import Iterator

_CACHE_KB = 8_192  # of each table; what is more goes to a temporary file


class Places:
    """Names and their places, in the order in which the names came."""

    def __init__(self) -> None:
        # "": a file of its own, which SQLite makes when the cache is full and removes with the connection.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KB}"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE places (name BLOB PRIMARY KEY, place INTEGER)")

    def get(self, name: str) -> int | None:
        """The place of a name; None of one that was never put."""
        row = self._table.execute("SELECT place FROM places WHERE name = ?", (_key(name),)).fetchone()
        return None if row is None else row[0]

    def put(self, name: str, place: int) -> None:
        """Set the place of a name, for the first time or anew.

        Raises:
            OSError: the disk of temporary files is full.
        """
        try:
            self._table.execute(
                "INSERT INTO places VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET place = excluded.place",
                (_key(name), place),
            )
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, f"an index of what is done ({error})", tempfile.gettempdir()) from None

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """(name, place) of all, one by one."""
        for name, place in self._table.execute("SELECT name, place FROM places ORDER BY rowid"):
            yield name.decode("utf-8", "surrogatepass"), place

    def close(self) -> None:
        self._table.close()


def _key(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
