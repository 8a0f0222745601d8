"""How scripts end when what they were given is at fault, or when they are interrupted: one sentence, no traceback.

    with one_sentence():
        run(arguments)

`alignxplore/command.py` does so for all of them. What a command imports takes seconds before that: `hear_interrupts`,
called by the package itself, makes Ctrl-C a sentence then, too. SIGTERM, as Slurm sends it, does what Ctrl-C does at
that moment, with exit code 143.
"""

import asyncio
import atexit
import contextlib
import errno
import functools
import math
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """What went wrong lies with what the program was given, or with its surroundings; the text says what, and what to
    do."""


# What these say is a sentence; a traceback would bury it. Wrong options are ValueErrors; what cannot be read or
# written is an OSError.
SAID = (UserError, ValueError, OSError)
# What a library says of a disk in an error of its own kind (safetensors, torch).
_DISK = (
    "No space left on device",
    "Read-only file system",
    "PytorchStreamWriter failed writing file",
    "unexpected pos ",
)
# What a process of several is told of another one that ended (gloo, NCCL).
_LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
_COMMANDS = ("sft", "verl", "eval", "figures", "studies", "benchmarks")  # folders of scripts
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR)  # a file, where a folder was to be made or looked into
_OF_A_PATH = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "this user has no right to it; change its rights, or name another",
    errno.EPERM: "this user has no right to it; change its rights, or name another",
    errno.ELOOP: "a link that leads back to itself; link it anew",
    errno.ENAMETOOLONG: "the name is too long for a file; choose a shorter one",
}


_INTERRUPTED: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end (SIGTERM)"}
_terms: list[int] = []  # SIGTERM, once this script has heard it


def program() -> str:
    """How the running script is called: `evaluate.py`, or `python -m alignxplore.world`."""
    package, path = Path(__file__).resolve().parent, Path(sys.argv[0]).resolve()
    if not path.is_relative_to(package):
        return path.name
    parts = path.relative_to(package.parent).with_suffix("").parts
    return "python -m " + ".".join(part for part in parts if part != "__main__")


def is_first_process() -> bool:
    """False for the second and later ones that torchrun started on this machine: what all of them find, one says."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _is_command() -> bool:
    """Whether what runs in this process is one of our commands, and not a program that imports the library."""
    if sys.argv[:1] == ["-m"]:  # Python is looking for a module of this package, to run it
        return True
    script = getattr(sys.modules["__main__"], "__file__", None)
    root = Path(__file__).resolve().parents[1]
    return script is not None and any(Path(script).resolve().is_relative_to(root / name) for name in _COMMANDS)


def ended_by() -> signal.Signals:
    """What a KeyboardInterrupt comes from: Ctrl-C, or SIGTERM. Exit codes are 128 and this."""
    return signal.SIGTERM if _terms else signal.SIGINT


def _interrupted(number: int) -> str:
    return f"{program()}: {_INTERRUPTED[number]}; run the same command again"


def _ends_at_once(number: int, _: object) -> NoReturn:
    """Ctrl-C or SIGTERM while a command imports. An exception would be swallowed, or turned into another, in some
    module."""
    signal.signal(number, signal.SIG_IGN)
    if is_first_process():
        os.write(2, f"{_interrupted(number)}\n".encode())
    atexit._run_exitfuncs()  # a module may have made a temporary folder
    os._exit(128 + number)


def _ends_as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """SIGTERM while a command works. In an event loop Ctrl-C does not raise, but cancels the tasks."""
    _terms.append(number)
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
        return
    try:  # in the background of a script Ctrl-C is ignored, and no event loop listens for it
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise KeyboardInterrupt from None
    loop.call_soon_threadsafe(_cancel_all, loop)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


@functools.cache  # once a process
def _mind_forks() -> None:
    os.register_at_fork(after_in_child=_hears_as_before)


def _hears_as_before() -> None:
    """In a fork: whoever ends its own workers by SIGTERM wants no sentence of each."""
    if signal.getsignal(signal.SIGTERM) in (_ends_at_once, _ends_as_ctrl_c):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def hear_interrupts() -> None:
    """In one of our commands, until its work begins (`one_sentence`): Ctrl-C or SIGTERM ends it with a sentence.
    Elsewhere this changes nothing."""
    if threading.current_thread() is not threading.main_thread() or not _is_command():
        return
    _mind_forks()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, _ends_at_once)


@contextlib.contextmanager
def _term_as_ctrl_c() -> Iterator[None]:
    """SIGTERM does in here what Ctrl-C does, where nothing else hears it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _ends_at_once):
        yield
        return
    _mind_forks()
    _terms.clear()
    signal.signal(signal.SIGTERM, _ends_as_ctrl_c)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _ends_as_ctrl_c:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_surroundings() -> None:
    """In one of our commands: standard files that were closed (`2>&-`, some schedulers) are empty ones. What it opens
    first would stand in their place, and libraries would print into it. Elsewhere this changes nothing."""
    if not _is_command():
        return
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode))
    try:
        os.getcwd()
    except FileNotFoundError:
        sys.exit("the folder that this was started in is gone; change to one that is there")


def _who() -> str:
    """The script, and which of its processes where it is not the first."""
    rank = "" if is_first_process() else f" (process {os.environ['LOCAL_RANK']} of this machine)"
    return f"{program()}{rank}"


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Errors of the kinds in `SAID` end the script with their own sentence and exit code 1, Ctrl-C with one and 130,
    SIGTERM with one and 143: what is done is kept."""
    if signal.getsignal(signal.SIGINT) is _ends_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with _term_as_ctrl_c():
        try:
            yield
            with naming("standard output"):
                sys.stdout.flush()  # or what was printed last would fail where nobody hears it
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
            sys.exit(128 + signal.SIGPIPE)
        except SAID as error:
            sys.exit(f"{_who()}: {in_a_sentence(error)}")
        except (KeyboardInterrupt, asyncio.CancelledError):
            if is_first_process():
                print(_interrupted(ended_by()), file=sys.stderr)
            sys.exit(128 + ended_by())
        except Exception as error:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(words in str(error) for words in _LOST):
                sys.exit(f"{_who()}: another process has ended, and says why")
            if not of_the_disk(error):
                raise
            sys.exit(f"{_who()}: {in_a_sentence(error)}")


def of_the_disk(error: BaseException) -> bool:
    """Whether it says that a disk is full, or cannot be written to, in whosever words."""
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK or any(words in str(error) for words in _DISK)


def in_a_sentence(error: BaseException) -> str:
    """What it says, and of a disk, or of a file in a folder's place, what to do."""
    if isinstance(error, OSError) and error.errno in _IN_THE_WAY and error.filename:
        problem = "a file, or a link to nowhere, stands where a folder is needed"
        return f"{error.filename}: {problem}; move it away, or name another folder"
    if isinstance(error, IsADirectoryError) and error.filename:
        return f"{error.filename2 or error.filename}: a folder stands where a file is needed; name a file"
    if isinstance(error, OSError) and error.errno in _OF_A_PATH and error.filename:
        return f"{error.filename}: {_OF_A_PATH[error.errno]}"
    return f"{error}; what is done is kept: make space, and run the same command again" if _full(error) else str(error)


def _full(error: BaseException) -> bool:
    return of_the_disk(error) and getattr(error, "errno", None) not in (errno.EROFS, errno.EIO)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """An error of the disk in here, also one that a library says in its own words, names the file, or the folder, that
    was being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_THE_DISK:
            error.filename = str(path)
        raise
    except Exception as error:
        if isinstance(error, SAID) or not of_the_disk(error):
            raise
        raise OSError(errno.ENOSPC, str(error).splitlines()[0], str(path)) from error


def not_empty(options: object, *names: str) -> None:
    """Raise a ValueError if one of these fields is an empty text, as a variable of the shell that is not set gives."""
    for name in names:
        if getattr(options, name) == "":
            raise ValueError(f"--{name} is empty; name something, or leave the option out")


def at_least_one(options: object, *names: str) -> None:
    """Raise a ValueError if one of these fields is a number below 1, or NaN; None, where it may stand, is not a
    number."""
    _refuse_unless(lambda value: value >= 1, "at least 1", options, names)


def above_zero(options: object, *names: str) -> None:
    """The same for fields that must be finite numbers above 0."""
    _refuse_unless(lambda value: 0 < value < math.inf, "a number above 0", options, names)


def not_negative(options: object, *names: str) -> None:
    """The same for fields that must be finite numbers, 0 or above."""
    _refuse_unless(lambda value: 0 <= value < math.inf, "0 or above", options, names)


def temperatures(options: object, *names: str) -> None:
    """The same for sampling temperatures: servers refuse what is above 2."""
    _refuse_unless(lambda value: 0 <= value <= 2, "a temperature from 0 to 2", options, names)


def shares(options: object, *names: str) -> None:
    """The same for fields that must be shares, from 0 to 1."""
    _refuse_unless(lambda value: 0 <= value <= 1, "a share from 0 to 1", options, names)


def shares_above_zero(options: object, *names: str) -> None:
    """The same for shares of which nothing would be left at 0."""
    _refuse_unless(lambda value: 0 < value <= 1, "a share above 0, up to 1", options, names)


def _refuse_unless(is_possible: Callable[[float], bool], demand: str, options: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not is_possible(value):
            raise ValueError(f"--{name} {value}: {demand}")


def once(option: str, names: Iterable[str]) -> None:
    """Raise a ValueError if an option gives one name two values: the last would hold, unnoticed."""
    if doubles := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"--{option}: {doubles[0]} is given twice; give it one value")


def check_folder(option: str, path: str | Path | None) -> None:
    """Raise a ValueError if what is to be a folder, or lies above it, is a file."""
    for place in (Path(path), *Path(path).parents) if path else ():
        if os.path.lexists(place):
            if not place.is_dir():
                raise ValueError(f"--{option} {path}: {place} is no folder; move it away, or name another folder")
            return


def check_port(port: int | None, least: int = 0, most: int = 65535) -> None:
    """Raise a ValueError if it is no port; 0 is any that is free, and None, where it may stand, too."""
    if port is not None and not least <= port <= most:
        raise ValueError(f"--port {port}: from {least} to {most}")
