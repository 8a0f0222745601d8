"""Texts that differ in white space alone are one text to every builder, as they are to who reads the files."""

import csv
import json

import pytest

from alignxplore.baselines.cues import candidate_scores
from alignxplore.benchmark_files import read_users
from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job, Popularity
from alignxplore.datasets.sidecars import read_popularity
from alignxplore.evaluation.offers import of_scores
from alignxplore.records import Interaction, Offer, RecordError, UserRecord
from tests.datasets import test_mind, test_movielens
from tests.datasets.test_personamem import write_v1
from tests.datasets.test_selection import FEEDBACK, row

EMPTY = "dropped: an answer is empty, or both are the same"


@pytest.fixture
def built(tmp_path):
    """`built(name, raw folder, **options)`: what a reader gets of a built file, the popularity beside it, counts."""

    def read(name, raw, **options):
        job, out = Job(get(name), raw, **options), tmp_path / f"{name}_upi.jsonl"
        build(job, out)
        return list(read_users(out)), read_popularity(out), job.counts

    return read


def test_answers_that_differ_in_white_space_alone_are_the_same(built, tmp_path):
    torn = row(1, chosen="Because it rains.", rejected="x") | {"rejected": "Because  it rains. 1\n"}
    variants = row(2)
    variants[FEEDBACK] += [
        {"prompt": "same", "chosen": "So be it.", "rejected": "So be it.\n"},
        {"prompt": "leak", "chosen": "a  good answer 2", "rejected": "x"},
        variants[FEEDBACK][0] | {"chosen": variants[FEEDBACK][0]["chosen"] + "\n"},
    ]
    (tmp_path / "alignx.json").write_text(json.dumps([torn, variants]))
    (record,), _, counts = built("alignx", tmp_path)
    assert [pair.chosen for pair in record.history] == ["c2.0", "c2.1"] and not record.leaked
    assert counts[EMPTY] == counts["dropped from a history: an answer is empty, or both are the same"] == 1
    assert counts["dropped from a history: it holds the answer to be predicted"] == 1
    assert counts["dropped from a history: repeated"] == 1


def test_an_item_that_was_chosen_before_in_other_white_space_could_be_copied():
    record = UserRecord("u", (Interaction("An  item", None),), Interaction("An item\n", "Another"))
    assert record.leaked


@pytest.mark.parametrize("whole", [False, True])
def test_an_option_that_repeats_the_right_one_is_passed_over(built, tmp_path, whole):
    path = write_v1(tmp_path) / "questions_32k.csv"
    with path.open(newline="") as lines:
        _, first, second, third = csv.DictReader(lines)
    first["all_options"] = repr(["(a) other", "(b) right one", "(c) right  one", "(d) right\tone"])
    second["all_options"] = repr(["(a) right\u00a0one", "(b) right one", "(c) right  one"])
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(first))
        writer.writeheader()
        writer.writerows([first, second, third])
    records, _, counts = built("personamem", tmp_path, whole=whole)
    assert len(records) == 2 and counts[EMPTY] == 1
    target = next(record.target for record in records if record.user == "0#q1")
    assert target.candidates == ("right one", "other")


def test_films_of_one_title_but_for_white_space_are_one_film(built, tmp_path):
    films = test_movielens.FILMS | {"31": ("Film  2 (1982)", "Comedy")}
    ratings = [*test_movielens.RATINGS, ("a", 31, 9), ("b", 31, 9)]
    raw = test_movielens.write(tmp_path / "raw", ratings, films=films)
    for seed in range(8):
        records, _, counts = built("movielens", raw, min_interactions=2, seed=seed)
        assert counts["dropped: the user took an item with the same text before"] == 1
        assert len(records) == 6
        for record in records:
            pairs = (*record.history, record.target)
            taken = {" ".join(pair.chosen.split()) for pair in pairs}
            assert not taken & {" ".join(pair.rejected.split()) for pair in pairs if pair.rejected}


def test_the_counts_of_an_impression_are_of_its_candidates(built, tmp_path):
    rows = [
        ("u", "11/11/2019 1:00:00 AM", "N5 N3", "N7-1 N6-0 N8-0 N9-0 N10-0"),
        ("v", "11/11/2019 1:00:00 AM", "N9", "N8-1 N2-0"),
    ]
    raw = test_mind.write(tmp_path / "raw", rows)
    news = raw / "news.tsv"
    news.write_text(news.read_text().replace("Title N9\t", " Title  N8\t"))
    records, counts, dropped = built("mind", raw, whole=True, min_interactions=2)
    assert dropped["left out of an impression: the text of another one in it"] == 1
    for record in records:
        assert len(counts[record.user].offered) == len(record.target.candidates)
    assert [len(record.target.candidates) for record in records if record.user == "u"] == [4]


def test_counts_of_other_candidates_are_no_cue():
    record = UserRecord("u", (Interaction("a"),), Offer("b", None, None, (), ("c", "d")), source="mind_upi.jsonl:3")
    assert of_scores(record.target, (3.0, 1.0, 2.0)).value == 1
    with pytest.raises(RecordError, match="4 scores of 3 items"):
        of_scores(record.target, (3.0, 1.0, 2.0, 4.0))
    counts = Popularity(3, 4, offered=(3, 1, 2, 4))
    with pytest.raises(RecordError, match="mind_upi.jsonl:3: .*3 items, and 4 counts .*; build the benchmark again"):
        candidate_scores("popularity", record, record.target, counts)
