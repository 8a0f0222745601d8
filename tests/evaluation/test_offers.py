"""Measures of a choice among k items, against what other code makes of the same scores; what says nothing is
chance."""

import copy
import csv
import itertools
import json
import math
import random
import re
from collections import Counter
from dataclasses import replace
from string import ascii_uppercase

import numpy as np
import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.evaluation import export, offers
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.benchmarks import Benchmark, load_benchmarks
from alignxplore.evaluation.conditions import (
    CHANCE,
    BadFormat,
    Cell,
    JudgeRequest,
    ReadHistory,
    ReadSummaries,
    of_cues,
)
from alignxplore.evaluation.judgements import unit_id
from alignxplore.evaluation.measures import accuracy_at_1, all_of, ranked
from alignxplore.evaluation.registry import MEASURES
from alignxplore.evaluation.report import downstream, writing
from alignxplore.evaluation.report.samples import decided
from alignxplore.evaluation.rows import read_scores
from alignxplore.evaluation.scores import score_rows
from alignxplore.evaluation.scoring import evaluate
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, Offer, RecordError, UserRecord, write_jsonl
from tests.evaluation.made_up import answered, numbers
from tests.evaluation.made_up import score as scored


def by_hand(order, chosen):
    """All measures of one order of places, the first `chosen` of which were chosen."""
    ranks = [rank for rank, place in enumerate(order, 1) if place < chosen]
    pairs = [(rank, other) for rank in ranks for other in range(1, len(order) + 1) if other not in ranks]

    def ndcg(limit):
        gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= limit)
        return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(chosen, limit) + 1))

    return {
        "value": float(ranks[0] == 1),
        "mrr": sum(1 / rank for rank in ranks) / chosen,
        "ndcg_5": ndcg(5),
        "ndcg_10": ndcg(10),
        "hr_5": float(ranks[0] <= 5),
        "hr_10": float(ranks[0] <= 10),
        "auc_each": sum(rank < other for rank, other in pairs) / len(pairs),
    }


def measured(scores, chosen):
    ranking = ranked(scores, chosen)
    return {"value": accuracy_at_1(ranking), **all_of(ranking)}


def uninformed(offer):
    worth = offers.of_scores(offer, None)
    return {"value": worth.value, **worth.measures}


def over_lots(scores, chosen):
    """The mean over all orders that agree with the scores."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    measures = [by_hand(order, chosen) for order in orders]
    return {name: sum(x[name] for x in measures) / len(measures) for name in measures[0]}


@pytest.mark.parametrize("seed", range(60))
def test_measures_are_the_mean_over_lots_between_equal_items(seed):
    rng = random.Random(seed)
    count = rng.randint(2, 7)
    scores = [rng.choice([0.1, 0.2, 0.2, 0.7]) for _ in range(count)]
    chosen = rng.randint(1, count - 1)
    assert measured(scores, chosen) == pytest.approx(over_lots(scores, chosen), abs=1e-12)


def test_items_further_down_are_measured_too():
    """Thirteen items, no two alike, the chosen ones at places 4, 7 and 12."""
    order = [5, 6, 7, 0, 8, 9, 1, 10, 11, 12, 3, 2, 4]
    scores = [float(-order.index(place)) for place in range(13)]
    measures = measured(scores, 3)
    assert measures == pytest.approx(by_hand(order, 3)) and measures["hr_5"] == 1 and measures["value"] == 0
    assert measures["mrr"] == pytest.approx((1 / 4 + 1 / 7 + 1 / 12) / 3)


def test_what_says_nothing_is_worth_chance():
    assert uninformed(offer_of(4)) == pytest.approx(over_lots([0, 0, 0, 0], 1))
    twenty = uninformed(offer_of(20))
    assert (twenty["value"], twenty["hr_5"], twenty["hr_10"], twenty["auc_each"]) == pytest.approx(
        (0.05, 0.25, 0.5, 0.5)
    )
    assert twenty["mrr"] == pytest.approx(sum(1 / rank for rank in range(1, 21)) / 20)
    assert uninformed(offer_of(5, 2))["value"] == pytest.approx(2 / 5)


def offer_of(count, chosen=1, name=""):
    items = [f"{name}item {place}" for place in range(count)]
    return Offer(items[0], None, None, tuple(items[1:chosen]), tuple(items[chosen:]))


def cell_of(targets, **options):
    records = [UserRecord(f"u{i}", (Interaction("a", "b"),), target) for i, target in enumerate(targets)]
    benchmark = Benchmark("lists", "selection", tuple(records), "absent_upi.jsonl")
    return Cell("ours", "full", benchmark, 0, tuple(ReadSummaries(record, ("s",)) for record in records), **options)


def said(*rotations, **values):
    return {"status": "ok", "rotations": list(rotations), "mass": 0.9, "error": None, "unparsed": 0} | values


def test_bad_format_is_chance_a_failed_request_is_missing_and_intervals_know_rules_from_luck():
    cell = cell_of([offer_of(4, name=f"{i} ") for i in range(4)])
    bad = BadFormat(cell.questions[0].record, "no think block")
    answers = [[], [said([0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1])], [said([0.1, 0.7, 0.1, 0.1])], [None]]
    cell = Cell("ours", "full", cell.benchmark, 0, (bad, *cell.questions[1:]))
    rows = score_rows(cell, "qwen", "choice", answered(answers))
    assert [row.outcome for row in rows] == ["bad_format", "ok", "ok", "missing"]
    assert [row.value for row in rows] == [0.25, 0.5, 0.0, None], "two items share the first place of the second row"
    (row,) = numbers(rows)
    assert (row["n"], row["k"], row["chance"], row["coverage"], row["bad_format"]) == (3, 4, 0.25, 0.75, 0.25)
    assert row["accuracy"] == pytest.approx(0.25) and row["accuracy_well_formed"] == pytest.approx(0.25)
    assert (
        row["flip_rate"] == 1 and row["mean_p"] == pytest.approx((0.4 + 0.1) / 2) and row["mass"] == pytest.approx(0.9)
    )
    assert row["mrr"] == pytest.approx((uninformed(offer_of(4))["mrr"] + 3 / 4 + 13 / 36) / 3)
    assert row["auc"] == row["auc_each"] == pytest.approx((0.5 + (0.5 + 2) / 3 + 1 / 3) / 3)
    questions = tuple(BadFormat(question.record, "x") for question in cell.questions)
    (row,) = numbers(score_rows(Cell("bad", "full", cell.benchmark, 0, questions), "qwen", "choice"))
    for name in ("accuracy", *MEASURES):
        low, high = ("ci_low", "ci_high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
        assert row[name] == row[low] == row[high], "by rule, so there is nothing to be unsure of"
    (row,) = numbers(
        score_rows(cell_of([offer_of(4)] * 4), "q", "choice", answered([[said([0.7, 0.1, 0.1, 0.1])]] * 4))
    )
    assert row["accuracy"] == 1 and row["ci_low"] < 0.5, "all right by observation is not certain"


def test_items_that_fit_no_window_are_nobody_s_fault():
    cell, too_long = cell_of([offer_of(4)]), answered([[{"status": "too_long", "error": "5000 tokens"}]])
    assert score_rows(cell, "qwen", "choice", too_long)[0].outcome == "missing"
    record = cell.questions[0].record
    history_cell = replace(cell, questions=(ReadHistory(record, record.history),))
    assert score_rows(history_cell, "qwen", "choice", too_long)[0].outcome == "bad_format"


@pytest.mark.parametrize(
    ("value", "of_pair", "among_k"),
    [(1.0, True, True), (2 / 3, True, True), (0.5, None, None), (1 / 3, False, None), (0.0, False, False)],
)
def test_a_tie_among_k_items_is_no_wrong_choice(value, of_pair, among_k):
    assert (decided(scored(value=value)), decided(scored(value=value, k=3))) == (of_pair, among_k)


def test_strangers_summaries_are_averaged_and_unread_answers_counted():
    cell = cell_of([offer_of(3)])
    answers = [[said([0.8, 0.1, 0.1]), said([0.1, 0.2, 0.7]), said([1 / 3] * 3, unparsed=1, unread=["hm"])]]
    (row,) = score_rows(cell, "qwen", "choice", answered(answers))
    assert row.value == pytest.approx((1 + 0 + 1 / 3) / 3) and row.outcome == "parse_failure"
    assert row.unread == ("hm",) and row.flips == (None, None)


def test_cues_rank_the_candidates_and_chance_is_exact(tmp_path):
    targets = [Offer("long item", None, None, (), ("b", "cc", "ddd")), Offer("x", None, None, (), ("yy", "zz", "w"))]
    benchmark = cell_of(targets).benchmark
    row_of = {}
    for cell in of_cues(
        benchmark, ["popularity", "longer", "shorter", "first item", "random", "content tally", CHANCE]
    ):
        (row_of[cell.policy],) = numbers(score_rows(cell, "none", "choice"))
    assert set(row_of) == {"longer", "shorter", "first item", "random", CHANCE}, "no counts, no attributes: no row"
    assert row_of["longer"]["accuracy"] == 0.5 and row_of["shorter"]["accuracy"] == pytest.approx((0 + 1 / 2) / 2)
    assert row_of[CHANCE]["accuracy"] == row_of[CHANCE]["ci_low"] == 0.25 and row_of[CHANCE]["auc"] == 0.5


def averaged_over_ties(scores, labels, weights):
    """Sum of gains with each group of equal scores given the mean weight of its places."""
    total, place = 0.0, 0
    for score in sorted(set(scores), reverse=True):
        group = [label for value, label in zip(scores, labels) if value == score]
        total += sum(group) / len(group) * float(np.sum(weights[place : place + len(group)]))
        place += len(group)
    return total


def mind_measures(scores, labels):
    """MIND's four of one impression, by their definitions."""
    count, click_count = len(scores), sum(labels)
    ranks = np.arange(1, count + 1)
    wins = [(a > b) + 0.5 * (a == b) for a, x in zip(scores, labels) if x for b, y in zip(scores, labels) if not y]
    measures = {"auc_each": float(np.mean(wins)), "mrr": averaged_over_ties(scores, labels, 1 / ranks) / click_count}
    for limit in (5, 10):
        discounts = np.where(ranks <= limit, 1 / np.log2(ranks + 1), 0.0)
        measures[f"ndcg_{limit}"] = averaged_over_ties(scores, labels, discounts) / float(
            np.sum(discounts[:click_count])
        )
    return measures


def built(name, raw, out, **options):
    build(Job(get(name), raw, **options), out)
    (benchmark,) = load_benchmarks([str(out)])
    return benchmark


@pytest.mark.parametrize("cue", ["popularity", "longer", "random"])
def test_mind_s_measures_over_whole_impressions_are_those_of_other_code(samples, tmp_path, cue):
    """Scores with and without ties, impressions with one and several clicks; agreement to 1e-9."""
    benchmark = built("mind", samples / "mind", tmp_path / "mind_upi.jsonl", whole=True, min_interactions=2)
    sizes = Counter(len(record.target.taken) for record in benchmark.records)
    assert len(benchmark.records) == 73 and sizes[1] == 70 and sum(sizes.values()) == 73
    (cell,) = of_cues(benchmark, [cue])
    (row,) = numbers(score_rows(cell, "none", "choice"))
    expected = [
        mind_measures(scores, [place < len(record.target.taken) for place in range(len(scores))])
        for scores, record in ((question.scores, question.record) for question in cell.questions)
    ]
    for name in ("auc_each", "mrr", "ndcg_5", "ndcg_10"):
        assert row[name] == pytest.approx(np.mean([x[name] for x in expected]), abs=1e-9)
    assert row["auc"] == row["auc_each"]


def test_personamem_s_four_way_accuracy_is_a_count_by_hand(samples, tmp_path):
    """All 589 real questions (their chats are made up here): how often the right option is the longest of four."""
    raw = tmp_path / "raw"
    raw.mkdir()
    with (samples / "personamem" / "questions_32k.csv").open(newline="", encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        rows = list(csv.DictReader(file))
    (raw / "questions_32k.csv").write_text(text, encoding="utf-8", newline="")
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}] * 400
    with (raw / "shared_contexts_32k.jsonl").open("w") as out:
        for key in {row["shared_context_id"] for row in rows}:
            out.write(json.dumps({key: chat}) + "\n")
    benchmark = built("personamem", raw, tmp_path / "personamem_upi.jsonl", whole=True)
    sizes = Counter(len(record.target.candidates) for record in benchmark.records)
    assert sizes == {4: 572, 3: 17}, "of 17 questions two options have the same text"
    (cell,) = of_cues(benchmark, ["longer"])
    (row,) = numbers(score_rows(cell, "none", "choice"))
    lengths = [[len(text) for text in record.target.candidates] for record in benchmark.records]
    shares = [(sizes[0] == max(sizes)) / sizes.count(max(sizes)) for sizes in lengths]
    assert row["n"] == len(shares) and row["accuracy"] == pytest.approx(sum(shares) / len(shares), abs=1e-9)
    assert row["chance"] == pytest.approx((572 / 4 + 17 / 3) / 589) and 0.45 < row["accuracy"] < 0.53, (
        "measured by others: 48.9 % where it is the only one"
    )


def test_pairs_and_lists_are_not_mixed_in_one_file(tmp_path):
    pair = UserRecord("a", (Interaction("x", "y"),), Interaction("c", "d"))
    rows = [user_row(pair), user_row(UserRecord("b", pair.history, offer_of(3)))]
    write_jsonl(tmp_path / "world_films_upi.jsonl", rows)
    with pytest.raises(RecordError, match="target.rejected.*a text in some rows and a list in others"):
        load_benchmarks([str(tmp_path / "world_films_upi.jsonl")])


IDS = ("dff004b1c26b9e4c", "04e17be85cdd923e", "53770f27fa7d797f")  # of a record and two judgements, from before


def test_pairs_keep_their_ids():
    """Journals of pairs that were written before lists could be asked are still read."""
    pair = UserRecord("u", (Interaction("a", "b", "q"), Interaction("c")), Interaction("d", "e", "q"))
    judge = Judge.__new__(Judge)
    judge.prompts = PromptSet()
    request = JudgeRequest(pair, "s")
    ids = [
        unit_id(judge, "m", protocol, EvaluationArguments(judge=["j=x"], data=["d"], out="o", rotations=5), request)
        for protocol in ("choice", "paper")
    ]
    assert (pair.id, *ids) == IDS


def test_a_list_s_id_knows_its_items_and_rotations(tokenizer):
    judge = Judge.__new__(Judge)
    judge.prompts, judge.tokenizer = PromptSet(), tokenizer

    def identify(offer, rotations=2):
        request = JudgeRequest(UserRecord("u", (Interaction("a", "b"),), offer), "s")
        options = EvaluationArguments(judge=["j=x"], data=["d"], out="o", rotations=rotations)
        return unit_id(judge, "m", "choice", options, request)

    first, second = offer_of(4), offer_of(5)
    assert len({identify(first), identify(second), identify(first, 3), identify(offer_of(4, 2))}) == 4


class Reader:
    """A downstream model that takes the film that was the user's last, whatever else is offered."""

    def __init__(self, tokenizer, say):
        self.letters, self.say, self.count = find_letters(tokenizer, ascii_uppercase), say, 0

    def __call__(self, body):
        self.count += 1
        if not body.get("logprobs"):
            return self.say('{"selection": "Item A"}')
        items = re.findall(r"^Item ([A-Z]): (.*)$", body["messages"][1]["content"], re.MULTILINE)
        weights = [50.0 if item.startswith("last ") else 1.0 for _, item in items]
        logs = {i: math.log(w / sum(weights)) for i, w in zip(self.letters.tokens, weights)}
        entries = [
            {"token": f"token_id:{i}", "logprob": logs.get(i, -20.0)} for i in body.get("logprob_token_ids", logs)
        ]
        return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}


async def test_lists_and_pairs_are_evaluated_side_by_side(fake_server, say, tokenizer, record, tmp_path):
    """Lists have a table of their own, are in no average of pairs, are asked once, and never by protocol paper."""
    lettered = copy.deepcopy(tokenizer)
    lettered.add_tokens([f" {letter}" for letter in ascii_uppercase])
    lettered.save_pretrained(tmp_path / "tokenizer")
    users = [record(f"u{i}") for i in range(6)]
    offers_of_30 = [
        replace(user, target=Offer(user.target.chosen, None, None, (), tuple(f"film {i}" for i in range(29))))
        for user in users
    ]
    write_jsonl(tmp_path / "pairs.jsonl", map(user_row, users))
    write_jsonl(tmp_path / "lists.jsonl", map(user_row, offers_of_30))
    write_jsonl(tmp_path / "more.jsonl", map(user_row, users))
    answer = Reader(lettered, say)
    async with fake_server(answer, max_model_len=16384) as server:
        arguments = EvaluationArguments(
            judge=[f"reader={server.url}#{tmp_path / 'tokenizer'}"],
            data=[f"{name}:selection={tmp_path / name}.jsonl" for name in ("pairs", "lists", "more")],
            out=str(tmp_path / "out"),
            protocol=["choice", "paper"],
        )
        rows = [result.row() for result in await evaluate(arguments)]
        count = answer.count
        assert [result.row() for result in await evaluate(arguments)] == rows and answer.count - count < 40, (
            "only the check at the start"
        )
    row_of = {(row["benchmark"], row["protocol"], row["policy"]): row for row in rows}
    assert ("lists", "paper", "reader") not in row_of and ("pairs", "paper", "reader") in row_of
    direct = row_of["lists", "choice", "reader"]
    assert (direct["accuracy"], direct["mrr"], direct["auc"], direct["k"]) == (1, 1, 1, 30)
    assert direct["mean_p"] == pytest.approx(50 / 79) and direct["flip_rate"] == 0
    assert "k" not in row_of["pairs", "choice", "reader"]
    text = writing.write(tmp_path / "out")
    table = text[text.index("### Choices among k items") :]
    assert "| reader | direct | lists | reader | 6 | 30 | 3.33 |" in table
    wide = text[: text.index("### Choices among k items")]
    assert "lists" not in wide and "pairs (n = 6)" in wide and "more (n = 6)" in wide
    assert row_of["lists", "choice", "BM25"]["k"] == 30 and "k" not in row_of["pairs", "choice", "BM25"]
    sample_rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    (sample, *_) = [sample for sample in sample_rows if sample["benchmark"] == "lists"]
    assert sample["target"]["rejected"][0] == "film 0" and "also_chosen" not in sample["target"]
    (baseline,) = [score for score in sample["scores"] if score["policy"] == "no summary"]
    assert baseline["k"] == 30 and "\nItem Z: film 24" in sample["prompts"][baseline["prompt"]]
    scores = list(read_scores(tmp_path / "out"))
    mrrs = [export.score_row(row)["mrr"] for row in scores if row.policy == "reader" and row.k]
    assert mrrs == [1.0] * 6
    habits = downstream.reading_habits(scores, "choice")
    assert {line[0] for line in habits.body} == {"pairs", "more"}, "there is no second place among k items"
