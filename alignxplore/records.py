"""The data contract: interactions and user records, and JSONL in and out. Every stage reads and writes through here
(rows as records: benchmark_files.py). Bad input raises `RecordError`, which names the file, the line, the field and
what to do.
"""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import logging
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from alignxplore.errors import UserError, naming
from alignxplore.texts import HalfId, loads, mistaken, no_object, not_json, not_utf_8, words_of

log = logging.getLogger(__name__)

# Half of a surrogate pair (see texts.py) has no UTF-8 form; "\udXXX" is its JSON escape.
HALF_CHARACTERS = "backslashreplace"
as_json = json.JSONEncoder(ensure_ascii=False).encode  # made once: `json.dumps` makes one for each value
_COMPACT = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_NUMBER_SIGN = re.compile("%(?=(?:25)*23)")  # the "%" of an escaped "#", escaped any number of times
NO_ALTERNATIVE = "null; a target needs an alternative to be told from"


class RecordError(UserError, ValueError):
    """Input that breaks the contract. The message carries file, line, field and the remedy."""

    def __init__(
        self, problem: str, path: str | Path | None = None, line: int | None = None, field: str | None = None
    ):
        place = ":".join(str(part) for part in (path, line) if part is not None)
        statement = f"field '{field}': {problem}" if field else problem
        super().__init__(f"{place}: {statement}" if place else statement)
        self.path, self.line, self.field = path, line, field


@dataclass(frozen=True)
class Interaction:
    """One choice of a user: what was asked, what was chosen, and what was passed over (None: nothing was shown)."""

    chosen: str
    rejected: str | None = None
    query: str | None = None

    @property
    def items(self) -> tuple[str, str]:
        """(chosen, passed over) of an interaction that has both, as every target has."""
        if self.rejected is None:
            raise RecordError(NO_ALTERNATIVE, field="rejected")
        return self.chosen, self.rejected

    @property
    def taken(self) -> tuple[str, ...]:
        """All that was chosen: one item, or of an `Offer` several."""
        return (self.chosen,)

    @property
    def candidates(self) -> tuple[str, ...]:
        """All items that there were, what was chosen first."""
        return self.items

    @property
    def same(self) -> bool:
        """Whether both are one text, but for white space: nobody can tell what was chosen."""
        return self.rejected is not None and words_of(self.chosen) == words_of(self.rejected)


@dataclass(frozen=True)
class Offer(Interaction):
    """A target among k items: `chosen` and `also_chosen` were taken, `passed_over` were not.

    `rejected` is None, so that whoever asks about pairs refuses it and never reads half of it.
    """

    also_chosen: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def items(self) -> NoReturn:
        raise RecordError("a list; here a pair is needed, so give one text", field="rejected")

    @property
    def taken(self) -> tuple[str, ...]:
        return self.chosen, *self.also_chosen

    @property
    def candidates(self) -> tuple[str, ...]:
        return *self.taken, *self.passed_over


@dataclass(frozen=True)
class UserRecord:
    """A user's history, oldest first, and the interaction to be predicted.

    `question_type` is what a data set calls the kind of its question (PersonaMem, HiCUPID): it groups rows in tables,
    no model is told, and the id is without it.
    """

    user: str
    history: tuple[Interaction, ...]
    target: Interaction
    persona: str | None = None
    source: str = field(default="", compare=False)  # "file:line", for messages only
    question_type: str | None = field(default=None, compare=False)

    @functools.cached_property
    def id(self) -> str:
        """Content hash of the whole record: the same record has the same id in any file, at any line."""
        return content_hash([self.user, [vars(x) for x in self.history], vars(self.target), self.persona])

    @property
    def person(self) -> str:
        """Who the user is, where several rows are of one person (see `person_of`)."""
        return person_of(self.user)

    @property
    def leaked(self) -> bool:
        """True when the target was chosen in the history, too (see `stands_in`)."""
        return stands_in(self.target, self.history)


def stands_in(target: Interaction, history: Iterable[Interaction]) -> bool:
    """True when what was taken was chosen before, in whatever white space, against whatever alternative and whatever
    was asked: it could be copied, not predicted."""
    taken = set(map(words_of, target.taken))
    return any(words_of(x.chosen) in taken for x in history)


def person_of(user: str) -> str:
    """The person behind a user id: builders name the rows of someone who has several `person#row`."""
    return user.partition("#")[0] or user


def person_id(name: str) -> str:
    """A name as the id of a person: '#' is written %23, and what reads so already %2523, so that no two names become
    one. All others stay as they are."""
    return _NUMBER_SIGN.sub("%25", name).replace("#", "%23")


def names_of(user: str) -> set[str]:
    """What a row may be called by: its own id, and the id of its person, which means all of the person's rows."""
    return {user, person_of(user)}


def content_hash(value: Any, length: int = 16) -> str:
    """Hex digest of a JSON-serialisable value. Ids, draws and seeds come from it, so a run can be repeated exactly."""
    return hashlib.sha256(_COMPACT.encode(value).encode("utf-8", "surrogatepass")).hexdigest()[:length]


def hash_seed(*parts: Any) -> int:
    """A 31-bit seed from the content of `parts` (accepted as a seed by NumPy, PyTorch and vLLM alike)."""
    return int(content_hash(list(parts), 8), 16) & 0x7FFFFFFF


def check_file(path: Path) -> None:
    """Raise RecordError unless it is a file that can be read more than once."""
    if path.is_dir():
        raise RecordError("a folder; name the file in it", path)
    if path.exists() and not path.is_file():
        raise RecordError("a pipe or a device, and data are read more than once; write it to a file first", path)
    if path.is_symlink() and not path.exists():
        raise RecordError("a link to a file that is not there; link it anew", path)
    if not path.is_file():
        raise RecordError("no such file", path)


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number, object) for each line of a JSONL file, reading one line at a time.

    A torn last line (a writer was killed) is dropped with a warning; a torn line anywhere else is an error, as are
    bytes that are not UTF-8 and lines that hold no object. A byte-order mark at the start is skipped, and half a
    character in a text is replaced, with a warning (`texts.py`).
    """
    path, is_first, halves = Path(path), True, 0
    check_file(path)
    with path.open("rb") as lines:
        if problem := mistaken(lines.peek(512)):
            raise RecordError(problem, path)
        for number, raw in enumerate(lines, 1):
            complete = raw.endswith(b"\n")
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not raw.strip():
                continue
            try:
                row, half_count = loads(raw.decode("utf-8"))
            except HalfId as error:
                raise RecordError(str(error), path, number, error.field) from None
            except ValueError as error:
                if not complete and _torn(raw, error, is_first):
                    log.warning("%s:%d: dropped the last line: it is torn (%s)", path, number, error)
                    return
                raise RecordError(_unreadable(raw, error, is_first), path, number) from None
            if not isinstance(row, dict):
                raise RecordError(no_object(row, is_first), path, number)
            if half_count and not halves:
                log.warning("%s:%d: half a character in a text: U+FFFD stands in for it", path, number)
            is_first, halves = False, halves + half_count
            yield number, row
    if halves > 1:
        log.warning("%s: half a character was replaced in %d texts", path, halves)


def _torn(raw: bytes, error: ValueError, is_first: bool) -> bool:
    """Whether a last line without an end was cut off. Not UTF-8 in its middle is a wrong encoding; what begins as no
    JSON object is another kind of file."""
    if isinstance(error, UnicodeDecodeError):
        return error.reason == "unexpected end of data"
    return not_json(raw.decode("utf-8"), is_first) is None


def _unreadable(raw: bytes, error: ValueError, is_first: bool) -> str:
    """Why a line is no JSON object, and what to do."""
    if isinstance(error, UnicodeDecodeError):
        return not_utf_8(error)
    return not_json(raw.decode("utf-8"), is_first) or f"not JSON ({error}); repair or delete this line"


def read_steps(path: str | Path, *fields: str, numbers: bool = False) -> list[dict]:
    """Rows of a log of training.

    Args:
        numbers: all fields are numbers, or null.

    Raises:
        RecordError: a line without the number of its step, or where another of the `fields` is no number.
    """
    rows = []
    for line, row in read_jsonl(path):
        names = [name for name, value in row.items() if value is not None] if numbers else ()
        for name in ("step", *fields, *names):
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, int if name == "step" else int | float):
                raise RecordError(f"expected a number, found {value!r}; delete this line", path, line, name)
        rows.append(row)
    return rows


def read_json(path: Path, remedy: str = "it may be cut short") -> Any:
    """The one JSON value of a file; `remedy` is what to do about one that is damaged.

    Raises:
        RecordError: not JSON in UTF-8.
    """
    check_file(path)
    raw = path.read_bytes()
    if problem := mistaken(raw[:512]):
        raise RecordError(problem, path)
    try:
        return loads(raw.decode("utf-8-sig"))[0]
    except HalfId as error:
        raise RecordError(str(error), path, field=error.field) from None
    except UnicodeDecodeError as error:
        raise RecordError(not_utf_8(error), path) from None
    except ValueError as error:
        raise RecordError(f"not JSON ({error}); {remedy}", path) from None


def read_object(path: Path, *fields: str, remedy: str = "run again what wrote it") -> dict[str, Any]:
    """The JSON object of a file that a command wrote, with at least these `fields`.

    Raises:
        RecordError: something else, by the file and, where one is missing, the field.
    """
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise RecordError(f"expected an object, found {type(value).__name__}; {remedy}", path)
    for name in fields:
        if name not in value:
            raise RecordError(f"missing; {remedy}", path, field=name)
    return value


def in_files(source: str | Path) -> bool:
    """Is it read from here (`read_source`), and not from the hub? A folder is left to the hub's own reader."""
    return str(source).endswith(".jsonl") or Path(source).exists() and not Path(source).is_dir()


def read_source(source: str | Path, revision: str | None = None) -> Iterator[tuple[int, dict]]:
    """Yield (number, row), from 1, of a JSONL file or of the train split of a data set on the hub; one row in memory
    at a time."""
    if in_files(source):
        yield from read_jsonl(source)
        return
    from datasets import load_dataset  # takes a second, and only the hub needs it

    try:
        rows = load_dataset(str(source), split="train", revision=revision)
    except Exception as error:  # the hub client raises a dozen types: connection, missing, gated, bad name
        raise RecordError(
            f"neither a file here nor a readable data set on the hub ({type(error).__name__}: {error}); give a file",
            source,
        ) from error
    yield from enumerate(rows, 1)


def refuse_same_files(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path]) -> None:
    """Raise `RecordError` if a command would write two files to one place, or one over what it reads.

    Args:
        outputs: option → the file that it names; None: it is not written.
        inputs: option → a file; what is no file here, such as a hub id, is nobody's place.
    """
    option_by_place = {Path(os.path.realpath(path)): option for option, path in inputs.items()}
    for option, path in outputs.items():
        if path is None:
            continue
        if (other := option_by_place.setdefault(place_of(path), option)) != option:
            raise RecordError(f"{other} and {option} are the same file; name another one for {option}", path)


def place_of(path: str | Path) -> Path:
    """Where a file that is written goes: of a link, where it leads to.

    Raises:
        RecordError: a pipe or a device stands there, whose place no file may take; OSError: a folder does.
    """
    place, mode = Path(os.path.realpath(path)), stat.S_IFREG
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = place.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise RecordError("a pipe or a device stands where a file is written; name a file", path)
    return place


def aside_of(path: Path) -> Path:
    """The name of a file that is to be written and then renamed to `place_of(path)`, beside which it lies. Those that
    killed processes of this machine left of the same file are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = place_of(path)
    stem = f".{path.name}.{socket.gethostname()}."
    for old_file in path.parent.glob(glob.escape(stem) + "*.partial"):
        owner = old_file.name.removeprefix(stem).removesuffix(".partial")
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            old_file.unlink(missing_ok=True)
    return path.with_name(f"{stem}{os.getpid()}.partial")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the name to write to; the file takes the place of `path` at the end, and nothing stays after an error."""
    aside = aside_of(path)
    try:
        with naming(path):
            yield aside
        os.replace(aside, place_of(path))
    finally:
        aside.unlink(missing_ok=True)


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Write rows aside, then rename: the file is either absent or complete. Returns the number of rows."""
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for row in rows:
            yield (as_json(row) + "\n").encode("utf-8", HALF_CHARACTERS)
            count += 1

    with replacing(Path(path)) as aside:
        write_lines(aside, lines())
    return count


def write_lines(path: Path, parts: Iterable[bytes]) -> None:
    """Write lines, some at once, to a file that the caller renames; they are on the disk when this returns."""
    with path.open("wb") as out:
        for part in parts:
            out.write(part)
        out.flush()
        os.fsync(out.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value aside, then rename."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text aside, then rename: the file is either as it was before or complete."""
    with replacing(Path(path)) as aside:
        aside.write_text(text, encoding="utf-8", errors=HALF_CHARACTERS)
