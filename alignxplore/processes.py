"""Processes that are started, watched and ended: the steps of a pipeline, servers of models, the tests.

    family = Family(["bash", "train.sh"])    # and everything that it starts
    family.wait()
    family.end()                             # asked first, killed after `grace` seconds

    with own_family() as variables: ...      # what a library starts with these variables

A command begins a session of its own. Whatever it starts inherits a mark in its environment, so that all of it is
found again, also what has sessions of its own (torchrun, vLLM, Ray) or lost its parent. A guard beside it, a small
process, ends the family once its owner is gone, even by `kill -9`.

Python's trackers of resources are not killed: they end by themselves once all who use them are gone, and take away
the named semaphores and the shared memory that these leave in /dev/shm.
"""

import contextlib
import fcntl
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from alignxplore.errors import UserError

MARK = (
    "ALIGNXPLORE_FAMILIES"  # names of the families that a process belongs to, the innermost last, with colons between
)
GRACE = 5.0  # seconds in which a family may end by itself
_GUARD = """
import sys
from alignxplore.processes import watch
watch(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
"""
_OPEN_FILES = 65_535
_LOCK = ".lock"  # in a folder of sockets, held by the process that made it
_locks: list[int] = []  # of the folders of this process: files that stay open as long as it lives
_SOCKET_PATH = 107  # bytes that the kernel allows
_LAST = 30.0  # seconds after which even a kill is given up: a process may hang in its file system
_TRACKER = "resource_tracker import main"  # in the command of one
_CLEANING = 5.0  # seconds that trackers have for their work; one whose users are not of the family is killed then
# Titles that processes give themselves (vLLM, Ray) are written over their environment, and with it over the mark.
_KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}


class Family(subprocess.Popen[bytes]):
    """One command, the leader of a session, with everything that it starts; a `Popen` of the leader."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        grace: float = GRACE,
        keep: Sequence[int] = (),
        **options: Any,
    ):
        """Start it, and its guard before it.

        Args:
            environment: default: that of this process.
            grace: seconds between the request to end and the kill.
            keep: file descriptors that the guard holds open until the family is gone, such as that of a lock.
            options: those of `Popen`: stdout, cwd ...

        Raises:
            OSError: the command cannot be started.
        """
        self.name, self.grace = _new_name(), grace
        environment = dict(os.environ if environment is None else environment)
        self.guard = _start_guard(self.name, grace, keep)
        try:
            marked_environment = environment | _mark(self.name, environment)
            super().__init__(command, env=marked_environment, start_new_session=True, **options)
        except BaseException:
            _dismiss(self.guard)
            raise

    def end(self, *requests: tuple[signal.Signals, float]) -> list[str]:
        """End the whole family and reap its leader; a second time does no harm.

        Args:
            requests: the signals that ask for it, each with the seconds until the next or the kill; default: TERM,
                grace.

        Returns:
            A line (pid, seconds of age, command) for each process that had to be killed.
        """
        with undisturbed():
            kill_lines = _end([self.name], *(requests or ((signal.SIGTERM, self.grace),)))
            if self.poll() is None:  # it threw its environment away
                self.kill()
            self.wait()
            _dismiss(self.guard)
        return kill_lines


@contextlib.contextmanager
def own_family(grace: float = GRACE, keep: Sequence[int] = ()) -> Iterator[dict[str, str]]:
    """The variables of a family of its own, without a leader: for what a library starts. It is ended when this is
    left, and by a guard if this process is killed. `grace` and `keep`: see `Family`."""
    name = _new_name()
    guard = _start_guard(name, grace, keep)
    try:
        yield _mark(name, os.environ)
    finally:
        _end([name], (signal.SIGTERM, grace))  # interrupted, it leaves the rest to the guard
        _dismiss(guard)


def end_all(families: Sequence[Family]) -> None:
    """End several at the same time; the slowest one's `grace` counts."""
    with undisturbed():
        if families:
            _end([family.name for family in families], (signal.SIGTERM, max(family.grace for family in families)))
        for family in families:
            family.end()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What ends in here within some seconds is not left half done by a second Ctrl-C or TERM."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that Python did not set
                signal.signal(number, handler)


def allow_open_files() -> None:
    """Every request in flight is an open file, and 1,024 are a usual limit: raise it as far as an ordinary process
    may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def socket_folder(prefix: str, longest_name: str) -> Path:
    """A new folder for sockets, in the temporary folder or, where paths would be too long for the kernel, in /tmp.
    Those of processes that were killed are taken away.

    Args:
        prefix: "axp-ray": the folder is PREFIX-PID-random.
        longest_name: what stands behind the folder in the longest path of a socket.

    Raises:
        UserError: no place is short enough.
    """
    for parent in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):
        name = f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"
        if len(os.fsencode(f"{parent}/{name}{longest_name}")) > _SOCKET_PATH or not os.access(parent, os.W_OK):
            continue
        for old_folder in parent.glob(f"{prefix}-*-*"):
            if _is_abandoned(old_folder, old_folder.name.removeprefix(f"{prefix}-").partition("-")[0]):
                shutil.rmtree(old_folder, ignore_errors=True)
        aside = parent / f".{name}"  # until it is locked nobody takes it for an old one
        aside.mkdir(mode=0o700)
        _locks.append(os.open(aside / _LOCK, os.O_RDWR | os.O_CREAT, 0o600))
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(_locks[-1], fcntl.LOCK_EX)
        return aside.rename(parent / name)
    raise UserError(
        f"TMPDIR={tempfile.gettempdir()} is too long for sockets, whose paths have at most {_SOCKET_PATH} bytes, and "
        "/tmp cannot be written to; set TMPDIR to a shorter folder"
    )


def _is_abandoned(folder: Path, process: str) -> bool:
    """Whether the process that made a folder of sockets is gone. Another node or container may see the folder, but not
    the process: it holds a lock in it."""
    if not process.isdigit() or psutil.pid_exists(int(process)):
        return False
    try:
        with (folder / _LOCK).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # an earlier version made it
        return True
    except OSError:  # held, somebody else's, or a disk without locks
        return False
    return True


def temporary_files(folder: Path) -> dict[str, str]:
    """Variables with which a command and what it starts put temporary files into a new folder in `folder`, with which
    these go: libraries leave locks and sockets behind. What torch compiles stays where it is found again."""
    (folder / "tmp").mkdir()
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}"
    return {"TMPDIR": str(folder / "tmp"), "TORCHINDUCTOR_CACHE_DIR": cache}


def members(*families: str) -> list[psutil.Process]:
    """Everything alive that carries the mark of one of these families; a zombie is not alive."""
    return [process for process in psutil.process_iter() if not _families(process).isdisjoint(families)]


def _families(process: psutil.Process) -> set[str]:
    try:
        return set(process.environ().get(MARK, "").split(":"))
    except (psutil.Error, OSError):  # gone, a zombie, or somebody else's
        return set()


def _new_name() -> str:
    return f"{os.getpid()}-{secrets.token_hex(6)}"


def _mark(family: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that make what is started with them, and with `environment`, one of this family, too."""
    return _KEEP_ENVIRONMENT | {MARK: ":".join(filter(None, (environment.get(MARK), family)))}


def _end(families: Sequence[str], *requests: tuple[signal.Signals, float]) -> list[str]:
    """Ask families to end, then kill what is left of them; returns a line for each process that had to be killed.

    Who is asked: processes whose parent does not belong to them, and their groups, as Ctrl-C in a terminal does.
    The others are ended by their parents, or asked once these are gone.
    """
    for number, patience in requests:
        recipients: set[psutil.Process] = set()
        for survivors in _until_gone(families, time.monotonic() + patience):
            for process in set(_first(survivors)) - recipients:
                _send(process, number)
                recipients.add(process)
        if not survivors:
            return []
    kill_lines = [line for process in survivors if not _is_tracker(process) for line in _describe(process)]
    alone = None  # since when trackers alone were seen; looking round takes seconds on a machine under load
    for survivors in _until_gone(families, time.monotonic() + _LAST):
        users, now = [process for process in survivors if not _is_tracker(process)], time.monotonic()
        alone = None if users else alone or now
        for process in survivors if alone and now - alone > _CLEANING else users:
            _send(process, signal.SIGKILL)
    return kill_lines


def _until_gone(families: Sequence[str], deadline: float) -> Iterator[list[psutil.Process]]:
    """Who is alive, again and again, until nobody is (the last one is then empty) or time is up."""
    while survivors := members(*families) or _again(families):
        yield survivors
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
    yield []


def _again(families: Sequence[str]) -> list[psutil.Process]:
    time.sleep(0.02)  # a process that is just becoming another program has no environment for a moment
    return members(*families)


def _first(processes: Sequence[psutil.Process]) -> Iterator[psutil.Process]:
    """Those without a parent among them, and whoever shares a process group with one."""
    pids = {process.pid for process in processes}
    places = {}
    for process in processes:
        try:
            places[process] = process.ppid(), os.getpgid(process.pid)
        except (psutil.Error, ProcessLookupError):
            continue
    groups = {group for parent, group in places.values() if parent not in pids}
    return (process for process, (_, group) in places.items() if group in groups)


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any(_TRACKER in word for word in process.cmdline())
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil looks first whether the pid is still that process
    except psutil.Error:
        pass


def _describe(process: psutil.Process) -> Iterator[str]:
    try:
        command = " ".join(" ".join(process.cmdline()).split())
        yield f"{process.pid} {time.time() - process.create_time():.0f} s {command}"
    except psutil.Error:
        pass


def _start_guard(family: str, grace: float, keep: Sequence[int]) -> subprocess.Popen[bytes]:
    """The guard carries no mark, or it would be ended with a family around this one before its work is done."""
    library = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
    environment = {name: value for name, value in os.environ.items() if name != MARK} | {"PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _GUARD, str(os.getpid()), family, str(grace)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=keep,
    )


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()
    guard.wait()


def watch(owner: int, family: str, grace: float) -> None:
    """What a guard does: end the family once `owner` is no longer the parent of this process. No signal but a kill
    stops it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == owner:
        time.sleep(0.5)
    _end([family], (signal.SIGTERM, grace))
