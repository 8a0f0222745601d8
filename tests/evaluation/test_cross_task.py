"""Benchmarks across tasks: one user's history from one file, the target from another."""

import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore.datasets.building import Popularity
from alignxplore.datasets.sidecars import popularity_row, read_popularity
from alignxplore.evaluation.benchmarks import Benchmark, load_benchmarks, shown_history
from alignxplore.evaluation.cross_task import crossed, shared_people
from alignxplore.evaluation.derived import read_names
from alignxplore.records import RecordError, write_jsonl
from tests import ROOT


def benchmark(name: str, task: str, records: list) -> Benchmark:
    return Benchmark(name, task, tuple(records), Path(f"{name}_upi.jsonl"))


@pytest.fixture
def pair(record):
    clicks = benchmark("mind", "recommendation", [record(str(i), length=9) for i in range(6)])
    answers = benchmark(
        "student_phd", "selection", [record(f"{i}#{k}", kind="answer") for i in range(3, 9) for k in range(2)]
    )
    return clicks, answers


def test_history_and_target_are_the_same_persons(pair):
    clicks, answers = pair
    people = shared_people(*pair)
    assert sorted(people) == ["3", "4", "5"] and people == shared_people(answers, clicks)
    rows = list(crossed(clicks, answers, people))
    assert sorted(r.user for r in rows) == [f"{i}#{k}" for i in (3, 4, 5) for k in (0, 1)]
    for row in rows:
        assert row.target == next(r for r in answers.records if r.user == row.user).target
        assert row.history == next(r for r in clicks.records if r.user == row.person).history
    back = list(crossed(answers, clicks, people))
    assert [r.user for r in back] == people
    assert all(
        row.history[0].chosen.startswith(f"answer {row.user}#") and row.target.chosen.startswith("last film")
        for row in back
    )


def test_without_shared_users_the_files_are_named(pair, record):
    others = benchmark("amazon", "recommendation", [record("somebody else")])
    with pytest.raises(RecordError, match="mind_upi.jsonl.*shares no user with amazon_upi.jsonl"):
        shared_people(pair[0], others)


def test_the_command_writes_both_directions_and_both_tasks_of_the_same_people(pair, benchmark_file, tmp_path):
    files = [f"{b.name}={benchmark_file(b.name, b.records)}" for b in pair]
    write_jsonl(tmp_path / "mind_upi.popularity.jsonl", [popularity_row(str(i), Popularity(i, 0)) for i in range(6)])
    process = subprocess.run(
        [
            sys.executable,
            str(ROOT / "eval" / "cross_task.py"),
            "--data",
            *files,
            "--out",
            str(tmp_path / "out"),
            "--limit",
            "2",
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    benchmarks = {b.name: b for b in load_benchmarks([str(tmp_path / "out")])}
    assert read_names(tmp_path / "out") == ["mind~to~student_phd", "student_phd", "student_phd~to~mind", "mind"]
    assert set(benchmarks) == {"mind~to~student_phd", "student_phd~to~mind", "mind", "student_phd"}
    assert len({frozenset(r.person for r in b.records) for b in benchmarks.values()}) == 1
    counts_of = {
        name: read_popularity(b.path) for name, b in benchmarks.items()
    }  # counts are of the targets, whosever history is shown
    assert {name for name, counts in counts_of.items() if counts} == {"mind", "student_phd~to~mind"}
    assert (
        counts_of["mind"]
        == counts_of["student_phd~to~mind"]
        == {r.user: Popularity(int(r.user), 0) for r in benchmarks["mind"].records}
    )
    assert (
        benchmarks["mind~to~student_phd"].task == "recommendation"
    )  # what is shown of a history follows its own task
    assert len(shown_history(benchmarks["mind~to~student_phd"], benchmarks["mind~to~student_phd"].records[0])) == 6
