"""What several tests of the evaluation share: users with distinct texts, and files of them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import Benchmark
from alignxplore.records import Interaction, UserRecord, write_jsonl


def make_record(user: str, length: int = 6, kind: str = "film") -> UserRecord:
    history = tuple(
        Interaction(f"{kind} {user} {i}", f"other {kind} {user} {i}", f"which {kind}?") for i in range(length)
    )
    return UserRecord(user, history, Interaction(f"last {kind} of {user}", f"no {kind} of {user}", f"which {kind}?"))


@pytest.fixture(scope="session")
def record() -> Callable[..., UserRecord]:
    """`record("u1", 6)`: a user with six interactions, all texts distinct."""
    return make_record


@pytest.fixture
def benchmark_file(tmp_path: Path) -> Callable[..., Path]:
    """`benchmark_file("world_films", records)` writes them as NAME_upi.jsonl."""

    def write(name: str, records: list[UserRecord]) -> Path:
        path = tmp_path / f"{name}_upi.jsonl"
        write_jsonl(path, map(user_row, records))
        return path

    return write


@pytest.fixture
def samples() -> Path:
    """Folder of real sample files (MIND, Amazon, PersonaMem, P-Soups); their terms forbid shipping them."""
    folder = os.environ.get("REAL_SAMPLES_DIR")
    if not folder:
        pytest.skip("REAL_SAMPLES_DIR is not set: no real sample files on this machine")
    return Path(folder)


def benchmark(records: list[UserRecord], task: str = "recommendation", name: str = "world_films") -> Benchmark:
    return Benchmark(name, task, tuple(records), Path(f"{name}_upi.jsonl"))


@pytest.fixture(params=["recommendation", "selection"])
def bench(request, record) -> Benchmark:
    return benchmark([record(f"{i}#{k}", length=9 + i) for i in range(5) for k in range(2)], request.param)


@pytest.fixture
def mix(record) -> Benchmark:
    return benchmark([record(str(i), length=30, kind="news") for i in range(3)], "selection", "world_news")
