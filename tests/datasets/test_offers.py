"""Targets among k items: drawn ones of MovieLens and Amazon, whole impressions of MIND, all options of PersonaMem."""

import collections
import csv
import json

import numpy as np
import pytest

from alignxplore.benchmark_files import read_users
from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.datasets.sidecars import read_manifest, read_popularity
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.records import Offer

NEWS = [f"N{number}" for number in range(1, 31)]


def titles(texts):
    return [text.split("\n")[0].removeprefix("Title: Title ") for text in texts]


def mind(folder, rows):
    lines = (f"{n}\tsports\tgolf\tTitle {n if n != 'N30' else 'N29'}\t\thttp\t[]\t[]\n" for n in NEWS)
    (folder / "news.tsv").write_text("".join(lines))
    (folder / "behaviors.tsv").write_text(
        "".join(f"{i}\t{u}\t{t}\t{h}\t{s}\n" for i, (u, t, h, s) in enumerate(rows, 1))
    )
    return folder


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_a_target_has_so_many_items_that_the_user_never_took(run, latest_small, negatives):
    pairs, _ = run("movielens", latest_small, split="test")
    items_of = collections.defaultdict(set)
    for record, _ in pairs:
        items_of[record.user] = {x.chosen for x in (*record.history, record.target)}
    examples, _ = run("movielens", latest_small, split="test", items=20, negatives=negatives)
    assert [x.record.user for x in examples] == [x.record.user for x in pairs] and len(examples) == 109
    for (record, counts), (pair, pair_counts) in zip(examples, pairs):
        assert record.history == pair.history and record.target.chosen == pair.target.chosen
        assert isinstance(record.target, Offer) and len(set(record.target.candidates)) == 20
        passed_over = {x.rejected for x in record.history} | items_of[record.user]
        assert not passed_over & set(record.target.passed_over) and not record.leaked
        assert counts.chosen == pair_counts.chosen == counts.offered[0] and max(counts.offered[1:]) == counts.rejected
    everybody, _ = run("movielens", latest_small, items=20, negatives=negatives)
    assert [x for x in everybody if x.record.user in items_of] == examples, "whom else a file holds changes nothing"
    mean = np.mean([counts.offered[1:] for _, counts in examples])
    assert mean < 15 if negatives == "uniform" else mean > 40, "weighted by popularity, or not"


def test_windows_draw_a_list_each(run, latest_small):
    examples, _ = run("movielens", latest_small, items=5, windows=3, persons=(0.0, 0.03))
    assert len(examples) > 30 and len({x.record.target.passed_over for x in examples}) == len(examples)


def test_the_draw_is_in_proportion_to_the_users_who_took_an_item(run, latest_small):
    """Over all users one item that many took is drawn about as often as its share of all takings says."""
    examples, _ = run("movielens", latest_small, items=20, negatives="popularity")
    counts = collections.Counter(text for x in examples for text in x.record.target.passed_over)
    popular = {t: n for x in examples for t, n in zip(x.record.target.passed_over, x.popularity.offered[1:])}
    bins = collections.defaultdict(list)
    for text, count in counts.items():
        bins[min(3, popular[text] // 25)].append(count / popular[text])
    rates = [np.mean(bins[i]) for i in (1, 2)]
    assert 0.6 < rates[0] / rates[1] < 1.7


def test_too_few_items_drop_the_row_with_a_count(run, tmp_path):
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{i},F{i},Drama\n" for i in range(12)))
    ratings = [f"{user},{(user + i) % 12},4.0,{i}\n" for user in range(4) for i in range(5)]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(ratings))
    examples, job = run("movielens", tmp_path, items=9, min_interactions=2)
    assert not examples and job.counts["rows dropped: fewer than 8 items to set against the target"] == 4


def test_a_whole_impression_is_the_target_with_all_its_clicks(run, tmp_path):
    rows = [
        ("u", "11/11/2019 1:00:00 AM", "N5 N3", "N7-1 N6-0 N10-0"),
        ("u", "11/12/2019 1:00:00 AM", "N5 N3 N20", "N8-0 N9-1 N7-1 N11-0 N12-0 N999-0"),
        ("u", "11/13/2019 1:00:00 AM", "N5 N3 N20", "N13-1"),
        ("v", "11/11/2019 1:00:00 AM", "N5 N3", "N29-1 N30-0 N1-0 N2-0 N2-0"),
        ("w", "11/11/2019 1:00:00 AM", "N5 N3", "N1-1"),
    ]
    examples, job = run("mind", mind(tmp_path, rows), whole=True, min_interactions=2)
    (u, v), counts = (
        sorted((x.record for x in examples), key=lambda x: x.user),
        {x.record.user: x.popularity for x in examples},
    )
    assert titles(u.target.taken) == ["N9", "N7"] and titles(u.target.passed_over) == ["N8", "N11", "N12"]
    assert titles(x.chosen for x in u.history) == ["N5", "N3", "N20"], "N7, clicked again in the target, is left out"
    assert titles(v.target.taken) == ["N29"] and titles(v.target.passed_over) == ["N1", "N2"], "each text once"
    assert not u.leaked
    for seed in range(12):
        for record, _ in run("mind", tmp_path, whole=True, min_interactions=2, seed=seed)[0]:
            drawn = {x.rejected for x in record.history}
            assert not drawn & {*record.target.candidates}, "nothing of the target was passed over before"
    assert job.counts["left out of an impression: not listed"] == 1
    assert job.counts["users dropped: no impression with something clicked and something not"] == 1
    assert counts["u"].offered == (0, 0, 0, 0, 0) and counts["v"].offered == (0, 1, 0), "how many others clicked it"
    windows, _ = run("mind", tmp_path, whole=True, windows=2, length=2)
    assert [x.record.user for x in windows if x.record.user[0] == "u"] == ["u#1", "u#2"]
    assert all(len(x.record.history) == 2 for x in windows)


def test_all_options_of_a_question_stand_in_the_target(run, tmp_path):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "shared_contexts_32k.jsonl").write_text(json.dumps({"c": chat}) + "\n")
    row = {
        "persona_id": 1,
        "question_id": "q",
        "question_type": "recall",
        "user_question_or_message": "What?",
        "correct_answer": "(b)",
        "all_options": repr(["(a) one", "(b) two", "(c) three", "(d) one"]),
        "shared_context_id": "c",
        "end_index_in_shared_context": 2,
    }
    with (tmp_path / "questions_32k.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(row))
        writer.writeheader()
        writer.writerow(row)
    ((record, _),), _ = run("personamem", tmp_path, whole=True)
    assert record.target == Offer("two", None, "What?", (), ("one", "three")), (
        "an option that is there twice counts once"
    )


def test_a_file_of_lists_is_read_as_it_was_built_and_says_how(tmp_path, latest_small):
    out = tmp_path / "movielens_upi.jsonl"
    build(Job(get("movielens"), latest_small, users=5, items=20, negatives="popularity"), out)
    records = list(read_users(out))
    assert [len(record.target.candidates) for record in records] == [20] * 5
    assert all(len(counts.offered) == 20 for counts in read_popularity(out).values())
    assert {key: read_manifest(out)[key] for key in ("items", "negatives")} == {"items": 20, "negatives": "popularity"}
    (benchmark,) = load_benchmarks([str(out)])
    assert benchmark.among_k and benchmark.records == tuple(records)
    build(Job(get("movielens"), latest_small, users=5), tmp_path / "pairs_movielens_upi.jsonl")
    assert not {"items", "negatives"} & read_manifest(tmp_path / "pairs_movielens_upi.jsonl").keys()


@pytest.mark.parametrize(
    "name, options, problem",
    [
        ("movielens", {"whole": True}, "movielens does not tell what else was offered"),
        ("mind", {"items": 20}, "which mind has not"),
        ("friendly_unfriendly", {"items": 20}, "which friendly_unfriendly has not"),
        ("movielens", {"items": 2}, "--items must be at least 3"),
        ("movielens", {"items": 20, "protocol": "matched"}, "protocol matched is of pairs"),
        ("movielens", {"items": 20, "protocol": "matched_both"}, "protocol matched_both is of pairs"),
        ("movielens", {"items": 20, "protocol": "liked"}, "protocol liked is of pairs"),
        ("personamem", {"whole": True, "protocol": "matched"}, "protocol matched is of pairs"),
        ("movielens", {"negatives": "popularity"}, "--negatives popularity says how the items of --items are drawn"),
        ("movielens", {"items": 20, "negatives": "hard"}, "--negatives hard: uniform or popularity"),
    ],
)
def test_what_a_data_set_cannot_give_is_said(name, options, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        Job(get(name), tmp_path, **options)
