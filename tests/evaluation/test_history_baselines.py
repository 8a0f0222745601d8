"""`--baselines` of evaluate.py: the rows that it adds, and what it refuses."""

import json
from dataclasses import replace

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.evaluation.history_baselines import HistoryBaseline, parse_baselines
from alignxplore.evaluation.scoring import cue_scores
from alignxplore.records import Interaction, UserRecord, write_jsonl
from tests.evaluation.made_up import numbers


def arguments(*baselines, protocol=("choice",), **options) -> EvaluationArguments:
    return EvaluationArguments(
        judge=["x=http://nowhere/v1"], data=[], out="none", cues=["chance"], baselines=list(baselines),
        protocol=list(protocol), **options,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """A benchmark in which whoever chose red things chooses one more, but for the last third, which is not shown."""
    records = [
        UserRecord(
            f"p{i}",
            (*(Interaction(f"red {i} {k}", f"blue {i} {k}") for k in range(4)),)
            + (*(Interaction(f"blue {i} {k}", f"red {i} {k}") for k in range(4, 6)),),
            Interaction(f"red thing {i}", f"blue thing {i}"),
        )
        for i in range(8)
    ]
    path, train = tmp_path / "movielens_upi.jsonl", tmp_path / "train.jsonl"
    write_jsonl(path, map(user_row, records))
    others = [
        UserRecord(f"q{i}", (Interaction(f"red {i} 0", "x"),), Interaction(f"red thing {i}", "x")) for i in range(4)
    ]
    write_jsonl(train, map(user_row, others + records))
    return path, train


def scored(path, *baselines, **options):
    rows = cue_scores(arguments(*baselines, **options), {b.name: b for b in load_benchmarks([str(path)])})
    return {(row["policy"], row["setting"], row["protocol"]): row for row in numbers(rows)}


def test_each_baseline_is_a_row_of_the_same_records(files):
    path, train = files
    row_of = scored(path, "bm25", f"item-knn={train}", protocol=("choice", "paper"))
    for protocol in ("choice", "paper"):
        assert row_of["BM25", "direct", protocol]["accuracy"] == 1.0, "the part of the history that a policy is shown"
        assert row_of["item-kNN", "direct", protocol]["accuracy"] == (4 + 4 * 0.5) / 8, (
            "four were never chosen by others"
        )
        assert all(row_of[name, "direct", protocol]["n"] == 8 for name in ("BM25", "item-kNN"))
        assert row_of["BM25", "direct", protocol]["ci_low"] < 1
    factors = scored(path, f"als={train}", f"bpr={train}")
    assert {name for name, *_ in factors} == {"ALS", "BPR", "chance"}
    assert set(scored(path, "none")) == {("chance", "bound", "choice")}


def test_item_knn_is_left_out_of_a_benchmark_of_which_it_knows_nothing(files, tmp_path):
    other = tmp_path / "other.jsonl"
    write_jsonl(other, [user_row(UserRecord("z", (Interaction("a", "b"),), Interaction("c", "d")))])
    assert ("item-kNN", "direct", "choice") not in scored(files[0], f"item-knn={other}")


def test_ids_of_another_benchmark_leave_out_nobody(files, tmp_path, caplog):
    """ "q0" of a benchmark of other items is somebody else than the training person "q0"; of a copy it is the same."""
    path, train = files
    namesakes = [UserRecord(f"q{i}", (Interaction(f"x{i}", "y"),), Interaction(f"a{i}", f"b{i}")) for i in range(3)]
    everyone = [replace(namesakes[0], user=f"{name}{i}") for name in "pq" for i in range(8)]
    copy = tmp_path / "movielens~shuffled_upi.jsonl"
    write_jsonl(copy, [json.loads(line) for line in path.read_text().splitlines()[:5]])
    caplog.set_level("INFO")
    alone = values(path, baselines=[f"item-knn={train}", f"als={train}"])
    for rows in (namesakes, everyone):
        write_jsonl(tmp_path / "personas_upi.jsonl", map(user_row, rows))
        beside = values(path, copy, tmp_path / "personas_upi.jsonl", baselines=[f"item-knn={train}", f"als={train}"])
        assert {key: rows for key, rows in beside.items() if key[1] == "movielens"} == alone
        assert {benchmark for _, benchmark in beside} == {"movielens", "movielens~shuffled"}, "no item is known there"
    assert "item-kNN for movielens: 4 training persons; 8 left out, who are persons of the benchmark" in caplog.text


def test_ids_of_another_edition_leave_out_nobody(files, caplog):
    """Equal ids in two editions of a data set are two persons."""
    path, train = files
    caplog.set_level("INFO")
    row_of = scored(path, f"item-knn={train}", f"als={train}", training_ids="others")
    assert row_of["item-kNN", "direct", "choice"]["accuracy"] == 1, "all eight choices are known"
    assert "item-kNN for movielens: 12 training persons; 0 left out" in caplog.text
    with pytest.raises(ValueError, match="--training_ids: unknown x; choose from same, others"):
        arguments(training_ids="x")


def values(*paths, baselines) -> dict[tuple[str, str], list[float]]:
    """The scores of each baseline and benchmark."""
    rows: dict[tuple[str, str], list[float]] = {}
    for row in cue_scores(arguments(*baselines), {b.name: b for b in load_benchmarks(map(str, paths))}):
        if row.policy != "chance":
            rows.setdefault((row.policy, row.benchmark), []).append(row.value)
    return rows


@pytest.mark.parametrize("text", ["bm52", "bm25=x", "item-knn", "item-knn=", "embedding", "none=1"])
def test_what_cannot_be_meant_is_refused_with_what_there_is(text):
    with pytest.raises(ValueError, match=r"--baselines.*bm25.*item-knn=FILE.*embedding=MODEL"):
        arguments(text)


def test_what_is_meant():
    assert parse_baselines(["bm25", "item-knn=a=b"]) == [HistoryBaseline("bm25"), HistoryBaseline("item-knn", "a=b")]
    assert parse_baselines(["none"]) == [] and arguments("bm25").baselines == ["bm25"]
    assert json.dumps(vars(arguments("bm25", "embedding=x/y")))
