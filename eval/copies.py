"""A benchmark made of another one's targets, with the files beside it, so that baselines and checks know it like the original.

Used by perturb.py (disturbed histories) and cross_task.py (histories of another task).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from suite import Benchmark

from alignxplore.datasets.sidecars import manifest_path, popularity_path, popularity_row, read_manifest, read_popularity
from alignxplore.records import UserRecord, user_row, write_json, write_jsonl


def write_copy(folder: Path, name: str, records: Iterable[UserRecord], targets: Benchmark, *, task: str, **said: Any) -> int:
    """Write NAME_upi.jsonl and what lies beside `targets`, the benchmark that the records have their users and targets from.

    The popularity counts are those of the records' users; the manifest keeps the options of the build, not its counts and hash, and
    names the task, which decides what is shown of the histories, and what else is `said` of the copy.

    Returns:
        the number of rows.
    """
    path, counts, manifest, users = folder / f"{name}_upi.jsonl", read_popularity(targets.path), read_manifest(targets.path), []

    def rows() -> Iterator[dict]:
        for record in records:
            users.append(record.user)
            yield user_row(record)

    for earlier in (popularity_path(path), manifest_path(path)):  # of another run: they must not pass for this one's
        earlier.unlink(missing_ok=True)
    written = write_jsonl(path, rows())
    if counts:
        write_jsonl(popularity_path(path), (popularity_row(user, counts[user]) for user in users if user in counts))
    write_json(manifest_path(path), {key: value for key, value in manifest.items() if key not in ("counts", "sha256")} | {"task": task, **said})
    return written
