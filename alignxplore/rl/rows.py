"""RL rows (JSONL, one user a line) to the parquet file that the trainer reads; each history is stored once.

`verl/examples/data_preprocess/upi_streaming_dataset.py` runs it and says what a row holds.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignxplore import datasets
from alignxplore.benchmark_files import check_target, parse_history, parse_interaction, parse_user_id
from alignxplore.command import Checkable, option, planned
from alignxplore.errors import at_least_one
from alignxplore.records import (
    RecordError,
    aside_of,
    hash_seed,
    person_of,
    place_of,
    read_source,
    refuse_same_files,
    stands_in,
)

PUBLISHED = "VanillaH1/AlignXplorePlus-RL"  # the authors' rows on the hub
OUTPUTS = Path(__file__).resolve().parents[2] / "outputs"  # where run_streaming_8p.sh looks for TRAIN and VAL

INTERACTION = pa.struct([("query", pa.string()), ("chosen", pa.string()), ("rejected", pa.string())])
SCHEMA = pa.schema([("user", pa.string()), ("history", pa.list_(INTERACTION)), ("positions", pa.list_(pa.int32()))])


@dataclass(kw_only=True)
class RowOptions(Checkable):
    """Which rows go where."""

    data: str = option("RL rows: a JSONL file or a data set on the hub", PUBLISHED)
    data_revision: str | None = option("revision of a data set on the hub", None)
    out: str | None = option(
        "parquet file for the trainer (TRAIN or VAL of run_streaming_8p.sh); default: rl_train.parquet in outputs/ of "
        "the repository, and then --val_out is rl_val.parquet there",
        None,
    )
    stages: int = option("stages of the stream (2, as published)", 2)
    val_out: str | None = option("second parquet file, for users held out of --out; with --out none by default", None)
    val_users: int = option("users to hold out for it", 256)
    default_query: str | None = option(datasets.DEFAULT_QUERY, None)
    allow_duplicates: bool = option("a user may have several rows", False)

    def __post_init__(self) -> None:
        at_least_one(self, "stages", *(["val_users"] if self.val_out or not self.out else []))


def target_positions(row: dict, length: int, stages: int, path: str | Path, line: int) -> list[int]:
    """Where the targets of one row stand, checked; `length` is the number of its interactions."""
    if length < stages + 1:
        raise RecordError(
            f"{length} interactions are too few for {stages} stages; each needs a target and the first also something "
            "to read: drop the row or ask for fewer stages",
            path,
            line,
            "history",
        )
    if row.get("positions") is not None:  # the hub fills fields that a row lacks with null
        positions, field = row["positions"], "positions"
    elif stages == 2 and row.get("mid_position") is not None:
        positions, field = [row["mid_position"], length - 1], "mid_position"
    elif stages != 2:  # mid_position says nothing about them
        return [(length - 1) * k // stages for k in range(1, stages + 1)]
    else:
        raise RecordError(
            "missing; say where the targets stand with 'positions' or 'mid_position'", path, line, "mid_position"
        )
    if not isinstance(positions, list) or any(isinstance(p, bool) or not isinstance(p, int) for p in positions):
        raise RecordError(f"expected whole numbers, found {positions!r}", path, line, field)
    if len(positions) != stages:
        raise RecordError(
            f"{len(positions)} places for {stages} stages; run with --stages {len(positions)}", path, line, field
        )
    if not all(a < b for a, b in zip([0, *positions], [*positions, length])):
        raise RecordError(
            f"{positions} must rise and lie between 1 and {length - 1}, the last place in the history",
            path,
            line,
            field,
        )
    return positions


def read_rows(
    path: str | Path,
    stages: int,
    default_query: str | None = None,
    allow_duplicates: bool = False,
    revision: str | None = None,
) -> Iterator[tuple[dict, bool]]:
    """Yield parquet rows in the order of the source, each with whether a target also stands in the history before it
    (leakage). A null query is replaced as evaluation does it (`datasets.default_query`). Where a user has several
    rows, later ones are named `user#2` and so on: draws and seeds come from these names.

    Raises:
        RecordError: at the first row that breaks the contract.
    """
    query = datasets.default_query(path, default_query)
    line_of: dict[str, int] = {}
    rows_of: Counter[str] = Counter()
    for line, row in read_source(path, revision):
        user = parse_user_id(row, path, line)
        if user in line_of and not allow_duplicates:
            raise RecordError(
                f"user '{user}' already stands at line {line_of[user]}; give each row its own id, or run with "
                "--allow-duplicates where a user has several rows",
                path,
                line,
                "uid",
            )
        rows_of[user] += 1
        names = (f"{user}#{i}" for i in count(rows_of[user]))
        name = next(candidate for candidate in names if candidate not in line_of) if user in line_of else user
        line_of[name] = line
        history = parse_history(row, path, line, query)
        positions = target_positions(row, len(history), stages, path, line)
        for place in positions:
            check_target(parse_interaction(row["history"][place], path, line), path, line, f"history[{place}]")
        is_leak = any(stands_in(history[place], history[:place]) for place in positions)
        yield {"user": name, "history": [asdict(x) for x in history], "positions": positions}, is_leak


class ParquetFile:
    """Rows written 1,024 at a time to a file that appears under its name only when it is complete."""

    def __init__(self, path: Path):
        self.path, self.aside = path, aside_of(path)
        self._writer = pq.ParquetWriter(self.aside, SCHEMA)
        self._queue: list[dict] = []
        self.rows = 0

    def write(self, row: dict) -> None:
        self.rows += 1
        self._queue.append(row)
        if len(self._queue) == 1024:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._queue, SCHEMA))
        self._queue = []

    def finish(self) -> None:
        """Write what waits; the file is whole then, but not yet in its place."""
        self._flush()
        self._writer.close()

    def put_in_place(self) -> None:
        os.replace(self.aside, place_of(self.path))

    def abandon(self) -> None:
        self._writer.close()
        self.aside.unlink(missing_ok=True)


def held_out_users(path: str | Path, count: int, revision: str | None = None) -> set[str]:
    """`count` users drawn by a hash of their ids: the same ones whatever the order of the file, each with all rows of
    that person."""
    users = {person_of(parse_user_id(row, path, line)) for line, row in read_source(path, revision)}
    if count >= len(users):
        raise RecordError(
            f"{count} validation users of {len(users)} leave nobody to train on; lower --val-users", path
        )
    return set(sorted(users, key=lambda user: (hash_seed("held out", user), user))[:count])


def convert(args: RowOptions) -> str | None:
    """Convert one source, with a part of the users held out if asked for."""
    out = args.out or OUTPUTS / "rl_train.parquet"
    val_out = args.val_out or (None if args.out else OUTPUTS / "rl_val.parquet")
    refuse_same_files({"--out": out, "--val_out": val_out}, {"--data": args.data})
    if args.check:
        if args.data.endswith(".jsonl"):
            next(read_rows(args.data, args.stages, args.default_query, args.allow_duplicates), None)
        return planned(args, f"{args.data} → {', '.join(str(path) for path in (out, val_out) if path)}")
    held_out = held_out_users(args.data, args.val_users, args.data_revision) if val_out else set()
    files: list[ParquetFile] = []
    leaks = 0
    try:
        for name in (out, val_out):
            if name:
                files.append(ParquetFile(Path(name)))
        for row, is_leak in read_rows(
            args.data, args.stages, args.default_query, args.allow_duplicates, args.data_revision
        ):
            leaks += is_leak
            files[person_of(row["user"]) in held_out].write(row)
        if not files[0].rows:
            raise RecordError("no rows; nothing to train on", args.data)
        for file in files:
            file.finish()
        for file in files:
            file.put_in_place()
    except BaseException:
        for file in files:
            file.abandon()
        raise
    for file in files:
        print(f"{file.path}: {file.rows} rows, {args.stages} stages each")
    if args.stages != 2:
        print("of rows without 'positions' the targets are spread evenly, 'mid_position' is not read")
    if leaks:
        print(f"warning: in {leaks} rows a target also stands in the history before it (leakage)", file=sys.stderr)
    return None
