"""What the builders' tests share: run a builder, check what holds for every benchmark, the real data at hand."""

import csv
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from alignxplore.datasets import get
from alignxplore.datasets.building import Example, Job
from tests import ROOT


def run_builder(name: str, raw: Path, **options) -> tuple[list[Example], Job]:
    job = Job(get(name), raw, scratch=raw if os.access(raw, os.W_OK) else None, **options)
    return list(importlib.import_module(f"alignxplore.datasets.{job.dataset.module}").build(job)), job


def check_examples(examples: list[Example]) -> None:
    users = [example.record.user for example in examples]
    assert len(users) == len(set(users))
    for record, _ in examples:
        assert record.history and record.target.rejected and not record.leaked
        assert record.target.chosen not in [pair.chosen for pair in record.history] and len(
            set(record.history)
        ) == len(record.history)
        for pair in (*record.history, record.target):
            assert pair.chosen.strip() and not pair.same


def drop_field(path: Path, field: str) -> None:
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, [name for name in rows[0] if name != field], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    rows = [{key: value for key, value in row.items() if key != field} for row in rows]
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[list[Example], Job]]:
    """`run(name, raw folder, **options)`: all examples of a builder, and its job with the counts."""
    return run_builder


@pytest.fixture(scope="session")
def check_rows() -> Callable[[list[Example]], None]:
    """What holds for every benchmark: users once each, the target not in the history, no pair twice, chosen is not
    rejected."""
    return check_examples


@pytest.fixture(scope="session")
def check_splits() -> Callable[..., None]:
    """`check_splits(name, raw folder, **options)`: train and test share no person and are all the users together."""

    def check(name: str, raw: Path, **options) -> None:
        parts = [
            {x.record.user for x in run_builder(name, raw, split=part, **options)[0]} for part in ("train", "test")
        ]
        assert not {user.partition("#")[0] for user in parts[0]} & {user.partition("#")[0] for user in parts[1]}
        assert parts[0] | parts[1] == {x.record.user for x in run_builder(name, raw, **options)[0]}

    return check


@pytest.fixture(scope="session")
def without() -> Callable[[Path, str], None]:
    """`without(file, field)` takes one field out of every row of a CSV, JSON or JSONL file."""
    return drop_field


@pytest.fixture(scope="session")
def latest_small() -> Path:
    """The MovieLens edition that comes with the project."""
    return ROOT / "data" / "movielens" / "ml-latest-small"


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real sample files (MIND, Amazon, PersonaMem, P-Soups); their terms forbid shipping them."""
    folder = os.environ.get("REAL_SAMPLES_DIR")
    if not folder:
        pytest.skip("REAL_SAMPLES_DIR is not set: no real sample files on this machine")
    return Path(folder)
