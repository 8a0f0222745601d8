"""A benchmark made of another one's targets, with the files beside it, so that baselines and checks know it like the
original.

Used by perturbations.py (disturbed histories) and cross_task.py (histories of another task). A folder may hold copies
of an earlier run, too: `copies.txt` names those of the last one, which alone are evaluated.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignxplore.benchmark_files import user_row
from alignxplore.datasets import hub_of
from alignxplore.datasets.sidecars import (
    manifest_path,
    popularity_path,
    popularity_row,
    read_manifest,
    read_popularity,
)
from alignxplore.evaluation.benchmarks import Benchmark
from alignxplore.records import RecordError, UserRecord, refuse_same_files, write_json, write_jsonl, write_text

NAMES_FILE = "copies.txt"


def write_names(folder: Path, names: Iterable[str]) -> None:
    """Say which copies in a folder are of this run, one name a line."""
    write_text(folder / NAMES_FILE, "".join(f"{name}\n" for name in names))


def read_names(folder: Path) -> list[str]:
    """Names of the copies of the last run.

    Raises:
        RecordError: nothing was copied into this folder.
    """
    path = folder / NAMES_FILE
    if not path.is_file():
        raise RecordError("no such file; robustness.sh and cross_task.sh write it with the copies", path)
    return path.read_text(encoding="utf-8-sig").split()


def refuse_taken_places(folder: Path, names: Sequence[str], inputs: Iterable[Benchmark]) -> None:
    """Look at the places of all copies before the first one is written.

    Raises:
        RecordError: a copy would take the place of another one, or of a file that is read.
    """
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise RecordError("two of the copies have this name; leave one of them out", folder / f"{twice[0]}_upi.jsonl")
    outputs = {f"--out, file {path.name}": path for name in names for path in _files(folder / f"{name}_upi.jsonl")}
    refuse_same_files(outputs, {f"what is read, {path}": path for one in inputs for path in _files(one.path)})


def _files(benchmark: Path) -> tuple[Path, Path, Path]:
    return benchmark, popularity_path(benchmark), manifest_path(benchmark)


def write_copy(
    folder: Path, name: str, records: Iterable[UserRecord], targets: Benchmark, *, task: str, **facts: Any
) -> int:
    """Write NAME_upi.jsonl and what lies beside `targets`, the benchmark that the records have their users and targets
    from.

    The popularity counts are those of the records' users; the manifest keeps what is known of how `targets` was made
    (its options, its counts, or its place on the hub), not its hash, and names the task, which decides what is shown
    of the histories, and whatever other `facts` there are of the copy. Who writes several looks at all places first
    (`refuse_taken_places`).

    Returns:
        the number of rows.

    Raises:
        RecordError: the copy would overwrite `targets`.
    """
    path, records, counts = folder / f"{name}_upi.jsonl", list(records), read_popularity(targets.path)
    if path.exists() and path.samefile(targets.path):
        raise RecordError("a copy would take its original's place; choose another --out", path)
    manifest = read_manifest(targets.path) or {key: value for key, value in [("hub", hub_of(targets.path))] if value}
    for old_path in _files(path):  # of another run: they must not pass for this one's
        old_path.unlink(missing_ok=True)
    if counts:
        write_jsonl(
            popularity_path(path),
            (popularity_row(record.user, counts[record.user]) for record in records if record.user in counts),
        )
    write_json(
        manifest_path(path),
        {key: value for key, value in manifest.items() if key != "sha256"} | {"task": task, **facts},
    )
    return write_jsonl(path, map(user_row, records))
