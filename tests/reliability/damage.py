"""Damage to files that were whole: values of a wrong kind, missing and repeated fields, cuts, and bytes that do not
belong there. Drawn by hypothesis, and what a reader may do with it."""

import contextlib
import copy
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from alignxplore.errors import SAID, UserError
from alignxplore.texts import mistaken

# What is said of a file that can be read, and has nothing in it that is of use.
OF_ALL = ("no row in it", "no row is left", "no person is left", "an empty file", "not a whole Parquet file")
SECONDS = 60  # a reader that takes longer than this for a few lines hangs
DERANDOMIZED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

WORST = st.sampled_from(
    [None, True, 0, -1, 7.0, 1.5, float("inf"), float("nan"), 2**80, "", " ", "\ud83d", "a\tb", "a\nb", "\0", "7.0"]
    + ["nan", "0", "-5", "<|im_end|>", "{", "[]", "{}", "é" * 300, [], {}, [None], [[]], [{}], {"a": None}, ["x", "x"]]
)
STRANGE = st.sampled_from(
    [
        b"\xff",
        b"\0",
        b"\n",
        b"\r",
        b'"',
        b"{",
        b"}",
        b"[",
        b"\\",
        b"\t",
        b",",
        b"\xef\xbb\xbf",
        b"\xed\xa0\xbd",
        b"9" * 5000,
    ]
    + [
        b"[" * 100_000,
        b"\\ud83d",
        b"NaN",
        b"null",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\x1f\x8b",
        b"::",
        b"|",
        b" ",
        b"-1",
        b"1e999",
    ]
)


def places(value: Any, trail: tuple = ()) -> Iterator[tuple]:
    """The way to each part of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*trail, key)
        yield from places(part, (*trail, key))


@st.composite
def damaged_value(draw: Callable, value: Any) -> Any:
    """A JSON value with one part replaced by something else, or taken out."""
    damaged = copy.deepcopy(value)
    ways = list(places(damaged))
    if not ways or draw(st.integers(0, 19)) == 0:
        return draw(WORST)
    *trail, last = draw(st.sampled_from(ways))
    holder = damaged
    for key in trail:
        holder = holder[key]
    if draw(st.integers(0, 3)) == 0:
        del holder[last]
    else:
        holder[last] = draw(WORST)
    return damaged


@st.composite
def damaged_lines(draw: Callable, rows: list) -> bytes:
    """JSONL of some rows, one of which is damaged or repeated; sometimes the bytes, too."""
    damaged_rows = list(rows)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(damaged_rows) - 1))
        if draw(st.integers(0, 9)) == 0:
            damaged_rows.insert(place, damaged_rows[place])
        else:
            damaged_rows[place] = draw(damaged_value(damaged_rows[place]))
    content = "".join(json.dumps(row) + "\n" for row in damaged_rows).encode()
    return draw(damaged_bytes(content)) if draw(st.integers(0, 2)) == 0 else content


@st.composite
def damaged_bytes(draw: Callable, content: bytes) -> bytes:
    """Bytes cut off, put in, taken out or repeated."""
    start = draw(st.integers(0, len(content)))
    how = draw(st.sampled_from(["cut", "put in", "take out", "repeat"]))
    if how == "cut":
        return content[:start]
    if how == "put in":
        return content[:start] + draw(STRANGE) + content[start:]
    end = draw(st.integers(start, min(len(content), start + 40)))
    return content[:start] + content[end:] if how == "take out" else content[:end] + content[start:]


class Heard(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def watched() -> Iterator[Heard]:
    """Ends what hangs; hears what is logged."""

    def too_slow(*_: object) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    messages, logger = Heard(), logging.getLogger("alignxplore")
    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    logger.addHandler(messages)
    try:
        yield messages
    finally:
        logger.removeHandler(messages)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[], Any], path: Path, whole: bool = False) -> tuple[Any, list[str]]:
    """(what a reader returns, what it logged); (None, the message) where it refuses the file as it should: an error
    of a kind that scripts say in one sentence, which names the file, and the line unless the file as a `whole` is of
    the wrong kind, or has nothing in it."""
    with watched() as messages:
        try:
            return read(), messages.said
        except SAID as error:
            message = str(error)
            assert path.name in message, f"the file is not named: {type(error).__name__}: {message}"
            assert isinstance(error, UserError), f"{type(error).__name__}: {message}"
            of_all = (
                whole or any(words in message for words in OF_ALL) or mistaken(path.read_bytes()[:512]) is not None
            )
            assert of_all or re.search(rf"{re.escape(path.name)}:\d+", message), f"no line is named: {message}"
            return None, [message]


def lines_of(path: Path) -> int:
    """Lines that hold something."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def dropped_last(messages: list[str]) -> int:
    """Torn last lines that a warning names."""
    return sum("dropped the last line" in line or "cut off the last line" in line for line in messages)
