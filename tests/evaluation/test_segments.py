"""Facts of rows: what a score row says of its record, and into which groups rows part."""

import json
from dataclasses import replace

from alignxplore.benchmark_files import user_row
from alignxplore.datasets.building import Popularity
from alignxplore.datasets.sidecars import popularity_path, popularity_row
from alignxplore.evaluation import scoring
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.evaluation.conditions import of_cues
from alignxplore.evaluation.rows import read_scores
from alignxplore.evaluation.scores import score_rows
from alignxplore.evaluation.segments import MOST_PERSONAS, parted, with_facts
from alignxplore.evaluation.worth import Score
from alignxplore.records import write_jsonl
from tests.evaluation.made_up import score


def facts(row: Score) -> tuple:
    return row.shown, row.popularity, row.question_type, row.persona


def loaded(path, name):
    return {benchmark.name: benchmark for benchmark in load_benchmarks([f"{name}={path}"])}


def rows_of(benchmark) -> list[Score]:
    (cell,) = of_cues(benchmark, ["longer"])
    return score_rows(cell, "none", "choice")


def test_the_scores_of_an_evaluation_say_what_kind_of_row_each_is(record, tmp_path):
    """A recommendation set shows two thirds of a history; its counts lie beside it."""
    path = tmp_path / "mind_upi.jsonl"
    records = [record("a", 6), replace(record("b", 9), question_type="recall")]
    write_jsonl(path, map(user_row, records))
    write_jsonl(popularity_path(path), [popularity_row("a", Popularity(3, 700))])
    benchmarks = loaded(path, "mind")
    arguments = EvaluationArguments(judge=["x=http://nowhere/v1"], data=[str(path)], out=str(tmp_path / "out"))
    scoring.write_results(arguments, benchmarks, rows_of(benchmarks["mind"]), {}, {})
    a, b = read_scores(tmp_path / "out")
    assert facts(a) == (4, 3, None, None) and facts(b) == (6, None, "recall", None)
    assert json.loads((tmp_path / "out/results.json").read_text())[0]["n"] == 2


def test_a_persona_is_a_group_only_where_there_are_few_of_them(record, tmp_path):
    for personas, has_segment in ((2, True), (MOST_PERSONAS, True), (MOST_PERSONAS + 1, False)):
        path = tmp_path / "student_phd_upi.jsonl"
        rows = [replace(record(str(i)), persona=f"persona {i % personas}") for i in range(40)]
        write_jsonl(path, map(user_row, rows))
        benchmarks = loaded(path, "student_phd")
        groups = parted(with_facts(rows_of(benchmarks["student_phd"]), benchmarks))
        parts = [(segment.title, {name: len(rows) for name, rows in x.items()}) for segment, x in groups.items()]
        sizes = {f"persona {k}": len(range(k, 40, personas)) for k in range(personas)}
        assert parts == ([("persona", sizes)] if has_segment else [])


def test_rows_part_at_the_bounds_that_the_headings_name():
    rows = [
        score(shown=n, popularity=m) for n, m in ((1, 0), (5, 4), (6, 5), (12, 19), (13, 20), (50, 999), (51, 1000))
    ]
    length, others = parted(rows).values()
    assert [(name, [row.shown for row in rows]) for name, rows in length.items()] == [
        ("1 to 5 (cold start)", [1, 5]),
        ("6 to 12", [6, 12]),
        ("13 to 25", [13]),
        ("26 to 50", [50]),
        ("51 and more", [51]),
    ]
    assert [(name, [row.popularity for row in rows]) for name, rows in others.items()] == [
        ("0 to 4 (cold start)", [0, 4]),
        ("5 to 19", [5, 19]),
        ("20 to 99", [20]),
        ("100 to 999", [999]),
        ("1,000 and more", [1000]),
    ]


def test_a_kind_of_one_group_or_of_none_is_left_out():
    assert parted([score(shown=12), score(shown=12, question_type="recall")]) == {}
