"""The one person of the first screen: the row in the middle, and every number of it."""

import json

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.rows import write_scores
from alignxplore.films.example import ExampleOptions, film, middle, sureness, write_example
from alignxplore.records import Interaction, UserRecord, write_json, write_jsonl
from tests.evaluation.made_up import score

COMEDY, DRAMA = "Title: One (a.k.a. Uno) (1994), Genres: Comedy", "Title: Two (2003), Genres: Drama|War"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (COMEDY, "One (a.k.a. Uno) (1994): Comedy"),
        (DRAMA, "Two (2003): Drama, War"),
        ("Title: Babylon 5, Genres: Sci-Fi", "Title: Babylon 5, Genres: Sci-Fi"),
    ],
)
def test_a_film_is_told_with_year_and_genres(text, line):
    assert film(text) == line


def test_sureness_is_the_mean_of_the_judges_over_what_all_of_them_were_asked():
    sure = {
        ("sft", "j1"): {"a": 0.4, "b": 0.5, "c": 0.5},
        ("rl", "j1"): {"a": 0.8, "b": 0.5, "c": 0.9},
        ("rl", "j2"): {"a": 0.6, "b": 0.1},
        ("no summary", "j1"): {"a": 0.5},
    }
    assert sureness(sure, "rl") == pytest.approx({"a": 0.7, "b": 0.3})


@pytest.mark.parametrize(
    ("values", "record"),
    [
        ({"a": 0.3, "b": -0.2, "c": 0.9}, "a"),
        ({"a": 0.3, "b": -0.2}, "b"),
        ({"b": 0.1, "a": 0.1, "c": 0.1, "d": 0.2}, "b"),
        ({"a": 0.0}, "a"),
    ],
)
def test_the_row_in_the_middle_is_taken(values, record):
    assert middle(values) == record


@pytest.fixture
def options(tmp_path):
    """Three persons, of whom b stands in the middle; the untrained policy wrote nothing that can be read."""
    history = tuple(Interaction(COMEDY, DRAMA if place % 2 else None) for place in range(6))
    users = [UserRecord(user, history, Interaction(COMEDY, DRAMA)) for user in "abc"]
    write_jsonl(tmp_path / "movielens_upi.jsonl", map(user_row, users))
    records = load_benchmarks([str(tmp_path / "movielens_upi.jsonl")])[0].records
    for policy in ("untrained", "sft", "sft+rl"):
        target = SummarySet(tmp_path / "eval", policy, "movielens", "full", 0)
        problem = "no think block" if policy == "untrained" else None
        rows = [
            {
                "run": "r",
                "status": "ok",
                "user": record.user,
                "record": record.id,
                "stages": [
                    {"summary": "" if problem else f"{policy} says of {record.user}", "problem": problem, "dropped": 0}
                ],
            }
            for record in records
        ]
        write_jsonl(target.journal_path, rows)
        write_json(target.meta_path, {"run": "r"})
    sure = {
        "no summary": (0.5, 0.51, 0.5),
        "untrained": (None,) * 3,
        "sft": (0.4, 0.6, 0.5),
        "sft+rl": (0.9, 0.7, 0.5),
    }
    scores = [
        score(
            policy=policy,
            setting="none" if policy == "no summary" else setting,
            benchmark="movielens",
            judge="judge",
            record=record.id,
            value=0.5,
            p=p if p is None or setting == "full" else 0.01,
        )
        for policy, ps in sure.items()
        for record, p in zip(records, ps)
        for setting in ("full", "streaming")[: 1 if policy == "no summary" else 2]
    ]
    write_scores(tmp_path / "eval", scores)
    data = str(tmp_path / "movielens_upi.jsonl")
    return ExampleOptions(data=data, eval=tmp_path / "eval", out=tmp_path / "example.md")


def test_the_page_shows_choices_texts_and_confidence_of_the_median_row(options):
    text = write_example(options)
    assert options.out.read_text() == text
    assert text.startswith("# One person: b of movielens\n") and "of 3 test rows" in text and "median: 70.00 %" in text
    assert text.count("| One (a.k.a. Uno) (1994): Comedy |") == 4, "the first two thirds of the history"
    assert "- **untrained**: none, in bad format (no think block)" in text
    assert "- **sft**: sft says of b" in text and "- **sft+rl**: sft+rl says of b" in text
    assert "- taken: One (a.k.a. Uno) (1994): Comedy\n- not taken: Two (2003): Drama, War" in text
    assert "| no summary | 51.0 |\n| summary of sft | 60.0 |\n| summary of sft+rl | 70.0 |" in text
    assert "summary of untrained |" not in text, "no judge was asked about it"


def test_a_policy_without_scores_is_named(options):
    options.policies = ["sft", "grpo"]
    with pytest.raises(UserError, match=r"no full scores of grpo; run eval/evaluate.py"):
        write_example(options)


def test_policies_that_were_shown_other_choices_have_their_own_tables(options):
    """One of them read the newer half alone, of which two choices are shown."""
    journal = options.eval / "summaries/sft/movielens.full.s0.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    for row in rows:
        row["stages"][0]["dropped"] = 3
    write_jsonl(journal, rows)
    write_json(journal.with_suffix(".meta.json"), {"run": "r", "fit": "published"})
    text = write_example(options)
    assert "The 4 choices that untrained and sft+rl read:" in text and "The 2 choices that sft read:" in text
