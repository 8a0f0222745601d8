"""Statements against true tallies: what is right, told, repeated, unknown; of streams the whole history counts."""

import json

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.films.model import make_tokenizer
from alignxplore.films.statements import Counted, StatementsOptions, report
from alignxplore.films.text import summary_text
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, write_json, write_jsonl

COMEDY, DRAMA = "Title: One (1994), Genres: Comedy", "Title: Two (2003), Genres: Drama|War"
NAMES = ["Comedy", "Drama", "War", "1990s", "2000s"]
TWICE = (Interaction(COMEDY, DRAMA),) * 2  # Comedy and 1990s +2, Drama, War and 2000s -2


def test_each_statement_is_held_against_the_tally():
    counted = Counted()
    summary = summary_text([("Comedy", 1), ("Drama", 2), ("Comedy", 2), ("Odd", 1)])
    counted.add(summary, TWICE, "a", frozenset(NAMES))
    lists = {name: [value for value, _ in values] for name, values in counted.observations.items()}
    assert lists["precision"] == [1, 0, 1], "of what is known: right, wrong, right"
    assert sorted(lists["recall 2"]) == [0, 0, 0, 0, 1] and lists["recall 4"] == []
    assert (lists["statements"], lists["repeats"], lists["unknown"], lists["bad format"]) == ([4], [1], [1], [0])


def test_an_attribute_that_evens_out_is_never_right_and_what_has_no_name_is_not_missed():
    counted = Counted()
    even = (Interaction(COMEDY, DRAMA), Interaction(DRAMA, COMEDY))
    counted.add(summary_text([("Comedy", 1), ("Comedy", -1)]), even, "a", frozenset(NAMES))
    assert [value for value, _ in counted.observations["precision"]] == [0, 0]
    assert counted.observations["recall 2"] == []
    counted.add(None, TWICE * 2, "b", frozenset(["Comedy"]))
    assert counted.observations["recall 4"] == [(0.0, "b")] and counted.observations["bad format"][-1] == (1.0, "b")


def test_means_are_over_statements_and_summaries_with_intervals_over_persons():
    counted = Counted()
    for person in "abcd":
        counted.add(summary_text([("Comedy", 1), ("Drama", -1)]), TWICE, person, frozenset(NAMES))
        counted.add(summary_text([("Drama", 1)]), TWICE, person, frozenset(NAMES))
    estimates = counted.estimates()
    assert estimates["precision"].mean == pytest.approx(2 / 3) and estimates["precision"][3:5] == (12, 4)
    assert estimates["statements"].mean == pytest.approx(1.5) and estimates["statements"][3:5] == (8, 4)
    assert estimates["recall 2"].mean == pytest.approx(2 / 10)


@pytest.fixture
def folder(tmp_path):
    """Three windows of two persons in movielens_upi.jsonl, of whose six interactions the first four are shown."""
    history = (*TWICE, *TWICE, Interaction(DRAMA, COMEDY), Interaction(DRAMA, COMEDY))
    users = [UserRecord(user, history, Interaction(COMEDY, DRAMA)) for user in ("a#1", "a#2", "b#1")]
    write_jsonl(tmp_path / "movielens_upi.jsonl", map(user_row, users))
    records = load_benchmarks([str(tmp_path / "movielens_upi.jsonl")])[0].records
    names = make_tokenizer(NAMES, [], PromptSet())
    names.save_pretrained(tmp_path / "tokenizer")

    def write(policy, setting, summaries):
        target = SummarySet(tmp_path / "eval", policy, "movielens", setting, 0)
        stages = [
            [{"summary": "Films: War loved.", "problem": None, "dropped": 0}] * (setting == "streaming")
            + [{"summary": text or "", "problem": None if text else "no think block", "dropped": 0}]
            for text in summaries
        ]
        rows = [
            {
                "id": record.id,
                "status": "ok",
                "run": "r",
                "record": record.id,
                "user": "u",
                "error": None,
                "stages": stages_of_one,
            }
            for record, stages_of_one in zip(records, stages)
        ]
        write_jsonl(target.journal_path, rows)
        write_json(target.meta_path, {"run": "r"})

    write("sft", "full", [summary_text([("Comedy", 2)]), summary_text([("Comedy", -2)]), None])
    write("sft", "streaming", [summary_text([("Comedy", 2), ("War", -1)])] * 3)
    return tmp_path


def test_one_line_a_policy_and_setting(folder):
    text = report(
        StatementsOptions(
            data=str(folder / "movielens_upi.jsonl"),
            summaries=folder / "eval",
            tokenizer=str(folder / "tokenizer"),
            out=folder / "statements.json",
        )
    )
    full, streaming = json.loads((folder / "statements.json").read_text())
    assert (full["policy"], full["setting"], full["summaries"]) == ("sft", "full", 3)
    assert full["precision"]["mean"] == 0.5 and full["bad format"]["mean"] == pytest.approx(1 / 3)
    assert full["recall 4"]["mean"] == pytest.approx(1 / 15), "one of five attributes, in one of three summaries"
    assert streaming["setting"] == "streaming" and streaming["bad format"]["mean"] == 0
    assert streaming["precision"]["mean"] == 1, "the last stage alone counts, against the choices of both"
    assert streaming["recall 4"]["mean"] == pytest.approx(2 / 5) and streaming["statements"]["mean"] == 2
    assert "| sft | streaming | 3 | 100.00 [" in text and "40.00 [" in text


def test_what_was_not_shown_is_no_part_of_the_tally(folder):
    """The newer half by the published fit, of which the first two thirds are the fourth interaction and the fifth."""
    journal = folder / "eval/summaries/sft/movielens.full.s0.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    for row in rows:
        row["stages"][0] |= {"dropped": 3, "summary": summary_text([("War", 2)]), "problem": None}
    write_jsonl(journal, rows)
    write_json(journal.with_suffix(".meta.json"), {"run": "r", "fit": "published"})
    options = StatementsOptions(
        data=str(folder / "movielens_upi.jsonl"),
        summaries=folder / "eval",
        tokenizer=str(folder / "tokenizer"),
        out=folder / "statements.json",
    )
    report(options)
    full, _ = json.loads((folder / "statements.json").read_text())
    assert full["precision"]["mean"] == 0 and full["recall 2"]["n"] == 0, "one choice for it and one against it"


def test_summaries_of_another_benchmark_are_named_as_missing(folder):
    (folder / "movielens_upi.jsonl").rename(folder / "other_upi.jsonl")
    options = StatementsOptions(
        data=f"mind={folder / 'other_upi.jsonl'}",
        summaries=folder / "eval",
        tokenizer=str(folder / "tokenizer"),
        out=folder / "statements.json",
    )
    with pytest.raises(RecordError, match="no summaries of mind; run eval/gen_preference.py first"):
        report(options)
