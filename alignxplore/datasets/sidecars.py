"""The two files beside a benchmark file: how popular the targets' items are (and were), and how the file was made.

    NAME_upi.popularity.jsonl    one line a user of a recommendation set; the popularity baseline reads it
    NAME_upi.build.json          the manifest: data set, options, counts

Builders write them, copies of a benchmark (evaluation/derived.py) carry them on, evaluation reads them.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from alignxplore.datasets.building import Popularity
from alignxplore.locks import turn_in
from alignxplore.records import RecordError, place_of, read_json, read_jsonl, replacing

_BEFORE = ("chosen_before", "rejected_before")


def popularity_path(benchmark: str | Path) -> Path:
    """Where the popularity counts of a benchmark file lie."""
    return _beside(benchmark, ".popularity.jsonl")


def manifest_path(benchmark: str | Path) -> Path:
    """Where the manifest of a benchmark file lies."""
    return _beside(benchmark, ".build.json")


def _beside(benchmark: str | Path, ending: str) -> Path:
    path = Path(benchmark)
    return path.with_name(path.name.removesuffix(".jsonl") + ending)


def take_places(aside: Path, benchmark: Path, *others: Path) -> None:
    """Put the benchmark file that is written in the folder `aside`, with what lies beside it there and `others` of its
    names, in the place of earlier ones. It goes first and comes last: alone it could pass for another one."""
    beside = manifest_path(benchmark), popularity_path(benchmark)
    with turn_in(place_of(benchmark).parent):
        for path in (benchmark, *beside):
            place_of(path).unlink(missing_ok=True)
        for path in (*others, *beside, benchmark):
            if (aside / path.name).exists():
                with replacing(path) as beside_it:  # a link may lead to another disk
                    shutil.move(aside / path.name, beside_it)


def popularity_row(user: str, counts: Popularity) -> dict:
    """A line of the popularity file (the inverse of `read_popularity`)."""
    return {"userid": user} | {name: count for name, count in counts._asdict().items() if count is not None}


def read_popularity(benchmark: str | Path) -> Mapping[str, Popularity]:
    """User id → counts; empty where there is no such file.

    Raises:
        RecordError: a row without the counts.
    """
    path = popularity_path(benchmark)
    if not path.is_file():
        return {}
    counts = {}
    for line, row in read_jsonl(path):
        try:
            chosen_before, rejected_before = (None if row.get(name) is None else int(row[name]) for name in _BEFORE)
            offer_counts = None if row.get("offered") is None else tuple(map(int, row["offered"]))
            counts[str(row["userid"])] = Popularity(
                int(row["chosen"]), int(row["rejected"]), chosen_before, rejected_before, offer_counts
            )
        except (KeyError, TypeError, ValueError):
            raise RecordError("expected userid, chosen and rejected; build the benchmark again", path, line) from None
    return counts


def sha256(benchmark: str | Path) -> str:
    """Hash of a benchmark file's bytes."""
    with Path(benchmark).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(benchmark: str | Path) -> dict:
    """What is known of how a benchmark file was made; empty for a file that came ready-made.

    Raises:
        RecordError: the manifest is no JSON object.
    """
    path = manifest_path(benchmark)
    if not path.is_file():
        return {}
    manifest = read_json(path, "build the benchmark again")
    if not isinstance(manifest, dict):
        raise RecordError("expected an object; build the benchmark again", path)
    return manifest
