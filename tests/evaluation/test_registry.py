"""A metric is one registered function: whatever shows numbers shows it. Rows are read with their types, and what is no
row is named."""

import json
import re
from dataclasses import replace

import pytest

from alignxplore.evaluation import registry
from alignxplore.evaluation.answers import Answer, Rating
from alignxplore.evaluation.costs import Cost
from alignxplore.evaluation.hicupid import WrittenAnswer
from alignxplore.evaluation.registry import ACCURACY, AMONG_K, READING
from alignxplore.evaluation.report import layouts, writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import Result, read_results, read_scores, write_results, write_scores
from alignxplore.evaluation.worth import Score
from alignxplore.guide.measured import metrics_page
from alignxplore.judging.judgement import Judgement, PaperJudgement
from alignxplore.judging.ranking import Ranking
from alignxplore.records import RecordError, write_json, write_jsonl
from alignxplore.summarize import StageSummary
from tests import ROOT
from tests.evaluation.made_up import run_of, score, scores

WRITTEN = score(measures={"win": 0.5, "tie": 0.25, "lose": 0.25, "bleu": 0.1, "rouge_l": 0.2}, protocol="paper")
KINDS = [
    score(),
    score(unread=("hm",), outcome="parse_failure", dropped=3, shown_otherwise=True),
    score(p=0.6, orders=((0.7, 0.5), (None, 0.3)), flips=(False, None), mass=None),
    score(value=None, outcome="missing", k=4, chance=0.25),
    score(k=3, chance=1 / 3, by_rule=False, measures={"mrr": 0.5, "auc_each": 0.2}, p=0.5, flips=(None,), mass=0.9),
    WRITTEN,
    score(shown=4, popularity=None, question_type="recall"),
]


@pytest.fixture
def wrong_of_ten():
    """A metric that exists for the length of a test."""
    before = dict(registry.METRICS)

    @registry.metric("wrong %", "share of rows that are wrong")
    def mistaken(rows):
        return sum(row.value == 0 for row in rows) / len(rows)

    yield mistaken
    registry.METRICS.clear()
    registry.METRICS.update(before)


def coverage(rows):
    """A name that is taken."""
    return 0.1


def test_a_name_that_is_taken_is_refused_and_a_module_read_again_is_not():
    entries = (dict(registry.METRICS), dict(registry.MEASURES), dict(registry.PARTS))
    before = registry.METRICS["coverage"], registry.METRICS["mrr"], registry.METRICS["win"]
    mrr = type(coverage)(coverage.__code__, {}, "mrr")
    for register in (
        lambda: registry.metric("mine %", "m")(coverage),
        lambda: registry.measure("mine %", "m")(coverage),
        lambda: registry.measure("mine %", "m")(mrr),
        lambda: registry.part("coverage", "mine %", "m"),
    ):
        with pytest.raises(
            ValueError, match=r"there is a metric (coverage|mrr) already, in alignxplore\.evaluation\.m"
        ):
            register()
    with pytest.raises(ValueError, match="there is a metric win already"):
        registry.part("win", "mine %", "m")
    assert (registry.METRICS, registry.MEASURES, registry.PARTS) == entries
    function = registry.METRICS["coverage"].compute
    assert registry.metric("coverage %", before[0].description)(function) == before[0]


def test_a_registered_function_stands_in_every_place(wrong_of_ten, tmp_path):
    rows = [score(record=f"r{i}", user=f"u{i}", target=f"t{i}", item=f"t{i}", value=float(i > 2)) for i in range(10)]
    results = result_rows(rows)
    assert results[0][wrong_of_ten] == 0.3
    table = layouts.details(results, "choice")
    assert (
        table.body[0][table.head.index("wrong %")] == "30.00" and "wrong: share of rows that are wrong" in table.note
    )
    head, line = writing.csv_text(results).splitlines()
    assert dict(zip(head.split(","), line.split(",")))["mistaken"] == "0.3"
    assert "  mistaken: share of rows that are wrong" in writing.metrics_help()
    assert "| `mistaken` | wrong % | share of rows that are wrong |" in metrics_page()
    write_results(tmp_path, results)
    assert json.loads((tmp_path / "results.json").read_text())[0]["mistaken"] == 0.3
    assert read_results(tmp_path / "results.json") == results


def shown(results: list[Result]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """(headings of the three tables of numbers and of results.csv, the texts that explain them)."""
    tables = [layouts.details(results, "choice"), layouts.among_k(results), layouts.written(results)]
    headings = dict(zip((ACCURACY, AMONG_K, registry.WRITTEN), (table.head for table in tables), strict=True))
    headings |= {READING: headings[ACCURACY], "csv": writing.csv_text(results).splitlines()[0].split(",")}
    notes = {kind: table.note for kind, table in zip((ACCURACY, AMONG_K, registry.WRITTEN), tables)}
    return headings, notes | {READING: notes[ACCURACY], "help": writing.metrics_help(), "page": metrics_page()}


@pytest.mark.parametrize("name", registry.METRICS)
def test_what_a_metric_is_called_and_means_comes_from_the_registry_alone(monkeypatch, name):
    """Headings, glossary, results.csv, `--help` and the page on metrics follow the entry, and forget it with it."""
    results = result_rows([score(), score(benchmark="lists", k=3, measures={"mrr": 0.5}), WRITTEN])
    entry = replace(registry.METRICS[name], heading="its heading", description="what it says of itself")
    monkeypatch.setitem(registry.METRICS, name, entry)
    headings, texts = shown(results)
    assert headings[entry.kind].count("its heading") == entry.in_table
    assert headings["csv"].count(name) == (entry.kind != registry.WRITTEN)
    explained = {place for place, text in texts.items() if "what it says of itself" in text}
    assert {"help", "page"} <= explained and (entry.kind in explained or not entry.in_table)
    assert f"| `{name}` | its heading |" in texts["page"]
    monkeypatch.delitem(registry.METRICS, name)
    headings, texts = shown(results)
    assert name not in headings["csv"] and "its heading" not in headings[entry.kind]
    assert not any("what it says of itself" in text for text in texts.values()) and "its heading" not in texts["page"]


@pytest.mark.parametrize("row", KINDS)
def test_a_score_is_read_as_it_was_written(tmp_path, row):
    write_scores(tmp_path, [row])
    (copy,) = read_scores(tmp_path)
    assert copy == row and isinstance(copy, Score)


def test_a_score_s_line_has_what_its_kind_has():
    pair, judgement, missing_row, among_k, rating = (KINDS[i].row().keys() for i in (0, 2, 3, 4, 5))
    assert not {"p", "orders", "k", "mrr", "shown"} & pair and {"p", "orders", "flips", "mass"} <= judgement
    assert {"k", "chance"} <= missing_row and "by_rule" not in missing_row and "orders" not in among_k
    assert {"mrr", "by_rule", "mass"} <= among_k and "bleu" in rating


def test_results_are_read_as_they_were_written(tmp_path):
    rows = [*scores("ours", "mind", 9, 0.5, seeds=(0, 1)), WRITTEN]
    rows += [score(benchmark="lists", k=3, chance=1 / 3, by_rule=False, measures={"mrr": 0.5})]
    bound = Result(**score(policy="chance").key._asdict(), n=3, accuracy=0.5, ci_low=None, ci_high=None)
    results = [*result_rows(rows), bound]
    write_results(tmp_path, results)
    assert read_results(tmp_path / "results.json") == results
    assert "clusters" not in json.loads((tmp_path / "results.json").read_text())[-1], "nobody counted them"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": None}, "field 'item': missing: another version wrote this; run evaluate.py again"),
        ({"value": "high"}, "field 'value': input should be a valid number"),
        ({"colour": "red"}, "field 'colour': unexpected keyword argument"),
    ],
)
def test_a_line_that_is_no_score_is_named(tmp_path, change, message):
    row = {name: value for name, value in (score().row() | change).items() if value is not None}
    write_jsonl(tmp_path / "scores.jsonl", [score().row(), row])
    with pytest.raises(RecordError, match=rf"scores\.jsonl:2: {message}"):
        list(read_scores(tmp_path))


def test_a_row_that_is_no_result_is_named(tmp_path):
    write_json(tmp_path / "results.json", [{"policy": "ours"}])
    with pytest.raises(RecordError, match=r"results\.json:1: field 'setting': missing"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    "reply",
    [
        Judgement(p_chosen_first=0.7, p_chosen_second=0.5, unparsed=1, unread=("hm",)),
        PaperJudgement(chosen_letter="B", unread=("hm",)),
        Ranking(rotations=((0.7, 0.3), (0.5, 0.5)), unparsed=1, unread=("hm",)),
        Ranking("transport_error", error="timed out"),
    ],
    ids=lambda reply: f"{type(reply).__name__} {reply.status}",
)
def test_a_journal_keeps_all_that_was_said_and_what_could_not_be_read(reply):
    answer = Answer(reply, dropped=2, not_sent=("top_k",))
    assert Answer.of(json.loads(json.dumps(answer.row()))) == answer


def test_a_report_says_what_its_columns_are(tmp_path):
    rows = scores("ours", "mind", 9, 0.5)
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(mind=9))
    writing.write(tmp_path)
    for text in ((tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()):
        assert "coverage: share of rows that have a score" in text
    assert "coverage: share of rows that have a score" in writing.metrics_help()


README = (
    (ROOT / "eval" / "README.md")
    .read_text(encoding="utf-8")
    .partition("### Fields")[2]
    .partition("**Interrupted?**")[0]
)


@pytest.mark.parametrize(
    "row",
    [
        StageSummary("t", "r", "s", None, 0, 1, 1),
        Judgement(unread=("hm",)),
        PaperJudgement(unread=("hm",)),
        Ranking(unread=("hm",)),
        WrittenAnswer("ok", not_sent=("top_k",)),
        Rating(1.0, ("win",), 0),
        Cost("ours", "full", "mind", 0, "r0", 1, 1, 1, 1, 1, 2.0, False, None),
        *KINDS[2:],
        *result_rows(scores("ours", "mind", 2, 0.5)),
    ],
    ids=lambda row: type(row).__name__,
)
def test_each_field_of_a_file_is_explained(row):
    names = row.row() if hasattr(row, "row") else vars(row)
    explanations = set(re.findall(r"`(\w+)`", README)) | registry.METRICS.keys() | {"status"}
    assert set(names) <= explanations
