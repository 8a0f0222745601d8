"""The locks of a folder that one process at a time writes into. Nothing here needs a package: the quick start locks
its folder before there is any."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of Lustre without -o flock, of some network disks


def take_lock(file: int, folder: Path) -> None:
    """Lock an open file for this process; where the file system of its folder knows no locks, say so and go on.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        problem = "%s: its file system knows no locks (%s); start no second command in this folder"
        log.warning(problem, folder, error.strerror)


@contextlib.contextmanager
def turn_in(folder: Path) -> Iterator[None]:
    """Puts files that belong together into a folder: other processes wait for the length of a with-block, so that all
    files are of one of them."""
    file = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (*_NO_LOCKS, errno.EBADF):  # of NFS, which locks no folders
                raise
        yield
    finally:
        os.close(file)
