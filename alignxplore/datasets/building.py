"""What every builder shares: the job, its counts, and reading raw files with progress."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from alignxplore.datasets import Dataset
from alignxplore.datasets.packed import raw_lines
from alignxplore.records import RecordError, UserRecord, check_file, hash_seed
from alignxplore.texts import HalfId, loads, mend, not_json, not_utf_8, plain

CLEANED = "cleaned: a title or a description with HTML in it"
DAMAGED = "repair or delete this line; if it is the last one, the download was cut short"
OF_PAIRS = ("matched", "matched_both", "liked")  # protocols that match one item to one
DATA = (".csv", ".data", ".dat", ".gz", ".item", ".json", ".jsonl", ".parquet", ".tsv")
PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")  # that are to be unpacked first
LITTLE = 100  # MB with which the engine can work
MOST = 8  # processes; what one process writes to the file is no faster with more


class Popularity(NamedTuple):
    """How many other users took each of the target's two items (the target's own event is not counted).

    Over all time, events after the target among them; and before the target (None: its time is not known). Of a choice
    among k items `offered` counts each candidate over all time, as they stand in the `Offer`, and `rejected` is the
    most popular one of those that were passed over.
    """

    chosen: int
    rejected: int
    chosen_before: int | None = None
    rejected_before: int | None = None
    offered: tuple[int, ...] | None = None


class Example(NamedTuple):
    """One row of a benchmark in the making."""

    record: UserRecord
    popularity: Popularity | None = None


class DealtExample(Example):
    """One that its builder knows to be of the job's split and persons, which go by something else than its person."""


@dataclass
class Job:
    """One build: what to make of which raw files, and what was seen on the way.

    Without a `protocol` it is the first that the data set has.
    `persons` keeps those whose hash in [0, 1) lies in that range: two ranges that do not meet share nobody.
    Rows that name no user go by their target, as for `split`. With
    `windows` a user has up to so many rows, `user#1` and so on, each the `length` choices before one of the user's
    choices; without, one row, the whole history before the last one. `items` makes targets choices among so many
    items, with `negatives` drawn uniformly or by popularity; `whole` makes them all that was offered (an impression of
    MIND, the options of PersonaMem). `markup` says whether HTML is "removed" from the texts of items or "kept".
    `memory` bounds what sorting and grouping take, in MB, and `processors` how much is done at once. `counts` holds
    what was read, kept and dropped, in the order in which a builder first names it; `edition` is set by the builders
    of data sets that come in several.
    """

    dataset: Dataset
    raw: Path
    protocol: str = ""
    min_interactions: int | None = None
    users: int | None = None
    split: str = "all"
    persons: tuple[float, float] = (0.0, 1.0)
    windows: int | None = None
    length: int = 12
    items: int | None = None
    negatives: str = "uniform"
    whole: bool = False
    seed: int = 42
    scratch: Path | None = None
    progress: bool = False
    memory: int = 400
    processors: int = field(default_factory=lambda: min(MOST, len(os.sched_getaffinity(0))))
    markup: str = "removed"
    edition: str = ""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.protocol = self.protocol or self.dataset.protocols[0]
        if self.protocol not in self.dataset.protocols:
            raise ValueError(
                f"{self.dataset.name} has no protocol '{self.protocol}'; it has {', '.join(self.dataset.protocols)}"
            )
        self.min_interactions = self.least
        if self.least < 2:
            raise ValueError("--min-interactions must be at least 2: one for the history and the target")
        if not 0 <= self.persons[0] < self.persons[1] <= 1:
            raise ValueError("--persons needs two shares from 0 to 1, the smaller one first, e.g. 0 0.6")
        if min(self.length, 1 if self.windows is None else self.windows) < 1:
            raise ValueError("--windows and --length must be at least 1")
        if self.windows and not self.dataset.windows:
            raise ValueError(f"--windows cuts histories in the order of time; {self.dataset.name} is not built so")
        self._check_items()
        if self.users is not None and self.users < 1:
            raise ValueError("--users must be at least 1")
        if self.memory < LITTLE:
            raise ValueError(f"--memory must be at least {LITTLE} (MB)")

    def _check_items(self) -> None:
        """ValueError for choices among k items that this data set, or protocol, cannot give."""
        if self.items is not None and not self.dataset.sampled:
            raise ValueError(
                f"--items draws items that were not taken, which {self.dataset.name} has not; see describe"
            )
        if self.whole and not self.dataset.whole:
            raise ValueError(f"--whole: {self.dataset.name} does not tell what else was offered; give --items")
        if self.items is not None and self.items < 3:
            raise ValueError("--items must be at least 3; without it targets are pairs")
        if self.negatives not in ("uniform", "popularity"):
            raise ValueError(f"--negatives {self.negatives}: uniform or popularity")
        if self.negatives != "uniform" and self.items is None:
            raise ValueError(
                "--negatives popularity says how the items of --items are drawn; give --items, or neither"
            )
        if (self.items or self.whole) and self.protocol in OF_PAIRS:
            raise ValueError(
                f"protocol {self.protocol} is of pairs; for choices among k items give --negatives popularity"
            )

    @property
    def least(self) -> int:
        """Fewest interactions of a user who is kept."""
        return self.dataset.min_interactions if self.min_interactions is None else self.min_interactions

    def wanted(self, user: str) -> bool:
        """Whether the user belongs to the split (one in five is a test user) and to the persons, whatever the seed."""
        low, high = self.persons
        if (low, high) != (0, 1) and not low <= hash_seed("persons", self.dataset.name, user) / 2**31 < high:
            return False
        if self.split == "all":
            return True
        return (hash_seed("split", self.dataset.name, user) % 5 == 0) == (self.split == "test")

    @property
    def unwanted(self) -> str:
        """What is said of users who are not `wanted`."""
        low, high = self.persons
        reasons = [f"not in split {self.split}"] if self.split != "all" else []
        if (low, high) != (0, 1):
            reasons.append(f"not of the persons from {low:g} to {high:g}")
        return ", or ".join(reasons)

    def rows(self, user: str, choices: int) -> list[tuple[str, int, int]]:
        """(name, place of the first choice shown, place of the target) of each row of a user with so many choices."""
        if self.windows is None:
            return [(user, 0, choices - 1)]
        places = range(self.length, choices)
        targets = sorted(places, key=lambda place: hash_seed(self.seed, "window", user, place))[: self.windows]
        return [(f"{user}#{row}", place - self.length, place) for row, place in enumerate(sorted(targets), 1)]

    def find(self, *patterns: str) -> list[Path]:
        """Raw files that match any of the glob patterns, sorted; searched in the folder and up to two levels below
        it."""
        all_patterns = (f"{prefix}{pattern}" for pattern in patterns for prefix in ("", "*/", "*/*/"))
        paths = {path for pattern in all_patterns for path in self.raw.glob(pattern) if path.is_file()}
        # A folder that a link leads to as well is one folder, by its shortest name.
        longest_first = sorted(paths, key=lambda path: (-len(path.parts), path))
        return sorted({path.parent.resolve() / path.name: path for path in longest_first}.values())

    def only(self, paths: list[Path], kind: str) -> Path:
        """The one raw file of that kind.

        Raises:
            FileNotFoundError: there is none.
            ValueError: there are several; the message names them.
        """
        if not paths:
            raise self.unknown_layout()
        if len(paths) > 1:
            names = ", ".join(str(path.relative_to(self.raw)) for path in paths)
            raise ValueError(f"{self.raw}: holds several {kind} ({names}); give the folder of one")
        return paths[0]

    def unknown_layout(self) -> FileNotFoundError:
        """What to raise when the raw folder holds no known layout.

        Raises:
            RecordError: it holds a folder or a pipe that is called like a file.
        """
        for path in sorted(self.raw.glob("*")):
            if path.suffix in DATA and not path.is_file():
                check_file(path)
        layouts = "; ".join(self.dataset.layouts)
        archive = next((path.name for path in self.find(*(f"*{ending}" for ending in PACKED))), None)
        remedy = f"unpack {archive}" if archive else f"expected {layouts}"
        return FileNotFoundError(f"{self.raw}: no raw files of {self.dataset.name} here; {remedy}")

    def plain(self, text: str) -> str:
        """An item's text without HTML, unless it is to be kept; counted where that changes it."""
        clean_text = plain(text) if self.markup == "removed" else text
        if clean_text != text:
            self.counts[CLEANED] += 1
        return clean_text

    def parse(self, text: str, path: Path, number: int, is_first: bool) -> Any:
        """The JSON value of one line of a raw file, mended; `is_first`: no other stood before it.

        Raises:
            RecordError: not JSON, or half a character in an id.
        """
        try:
            value, halves = loads(text)
        except HalfId as error:
            raise RecordError(str(error), path, number, error.field) from None
        except ValueError as error:
            problem = not_json(text, is_first) or f"not JSON ({error}); {DAMAGED}"
            raise RecordError(problem, path, number) from None
        return self._count(halves, value)

    def mended(self, value: Any, path: Path, number: int) -> Any:
        """A value out of a raw file. Half a character in a text is replaced and counted (`alignxplore/texts.py`).

        Raises:
            RecordError: half a character in an id.
        """
        try:
            value, halves = mend(value)
        except HalfId as error:
            raise RecordError(str(error), path, number, error.field) from None
        return self._count(halves, value)

    def _count(self, halves: int, value: Any) -> Any:
        if halves:
            self.counts["replaced: half a character in a text"] += halves
        return value

    def lines(self, path: Path, latin_1: bool = False, blank: bool = False) -> Iterator[tuple[int, str]]:
        """Number and text of each line of a text file (also gzip), with a progress bar over its bytes.

        Args:
            latin_1: read lines that are not UTF-8 as Latin-1 (old MovieLens files) instead of refusing them.
            blank: yield lines that hold nothing but white space, too (a quoted field of a CSV may go over several).
        """
        with (
            path.open("rb") as raw,
            tqdm(
                total=path.stat().st_size,
                unit="B",
                unit_scale=True,
                desc=path.name,
                mininterval=1,
                disable=not self.progress,
            ) as bar,
        ):
            for number, line in enumerate(raw_lines(raw, path), 1):
                if number % 4096 == 0:
                    bar.update(raw.tell() - bar.n)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    if not latin_1:
                        raise RecordError(not_utf_8(error), path, number) from None
                    text = line.decode("latin-1")
                if blank or text.strip():
                    yield number, text.rstrip("\r\n")
            bar.update(raw.tell() - bar.n)


def only_wanted(examples: Iterable[Example], job: Job) -> Iterator[Example]:
    """Those of the job's split and persons, with so many interactions as it asks for; what is left out is counted."""
    for example in examples:
        record = example.record
        if not isinstance(example, DealtExample) and not job.wanted(record.person):
            job.counts[f"left out: {job.unwanted}"] += 1
        elif len(record.history) + 1 < job.least:
            job.counts[f"dropped: fewer than {job.least} interactions"] += 1
        else:
            yield example


def take(examples: Iterable[Example], job: Job) -> Iterator[Example]:
    """The examples of the first `job.users` users (all without it), counted as kept.

    Raises:
        ValueError: none is left; the message says what was read and dropped.
    """
    rows, people = 0, set[str]()
    for example in examples:
        if example.record.person not in people and len(people) == job.users:
            break
        people.add(example.record.person)
        yield example
        rows += 1
    account(job, rows, len(people))


def account(job: Job, rows: int, people: int) -> None:
    """Count what was kept.

    Raises:
        ValueError: nothing; the message says what was read and dropped.
    """
    job.counts["users kept"] = people
    if job.windows:
        job.counts["rows, windows of these users"] = rows
    elif rows != people:
        job.counts["rows of these users"] = rows
    if not rows:
        counts = ((event, count) for event, count in job.counts.items() if count or event.endswith(" read"))
        summary = "; ".join(f"{count:,} {event}" for event, count in counts)
        raise ValueError(f"{job.raw}: no user of {job.dataset.name} is left ({summary or 'the files are empty'})")
