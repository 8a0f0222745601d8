"""What a row of results is made of: other people's summaries, cues, clusters of one person's rows."""

import random
from dataclasses import replace

import pytest

from alignxplore.evaluation.benchmarks import Benchmark, SummarySet
from alignxplore.evaluation.conditions import (
    OTHERS,
    BadFormat,
    Cell,
    MissingSummary,
    ReadHistory,
    ReadSummaries,
    of_cues,
    of_other_users,
    of_summaries,
    questions,
)
from alignxplore.evaluation.report.layouts import compact, details
from alignxplore.evaluation.results import result_rows, shared
from alignxplore.evaluation.scores import score_rows
from alignxplore.journal import TOO_LONG
from alignxplore.judging.judgement import chosen_first
from alignxplore.prompts import parse_answer
from alignxplore.records import Interaction, UserRecord, person_of, write_json, write_jsonl
from alignxplore.summarize import StageSummary, Summaries
from tests.evaluation.made_up import answered, numbers, score


def cell_of(records: list[UserRecord]) -> Cell:
    benchmark = Benchmark("world_films", "selection", tuple(records), "absent_upi.jsonl")
    return Cell("ours", "full", benchmark, 0, tuple(ReadSummaries(r, (f"summary of {r.user}",)) for r in records))


def foreseen(cell: Cell) -> tuple[float | None, ...]:
    return tuple(question.value for question in cell.questions)


@pytest.mark.parametrize("user, person", [("7", "7"), ("7#1", "7"), ("7#1#2", "7"), ("#3", "#3")])
def test_rows_of_one_person_are_named_after_them(user, person, record):
    assert person_of(user) == person == record(user).person


def test_another_users_summary_is_never_the_same_persons(record):
    records = [record(f"{person}#{row}") for person in range(5) for row in range(4)]
    random.Random(0).shuffle(records)
    for question in of_other_users(cell_of(records)).questions:
        writers = [summary.removeprefix("summary of ") for summary in question.summaries]
        assert len(set(writers)) == OTHERS
        assert all(person_of(writer) != question.record.person for writer in writers)


def test_with_too_few_other_people_the_row_is_missing_not_borrowed(record):
    cell = of_other_users(cell_of([record("a#1"), record("a#2"), record("b#1"), record("b#2")]))
    assert all(isinstance(question, MissingSummary) for question in cell.questions)


def test_rows_depend_on_each_other_by_person_and_by_chosen_item(record):
    users = ["a#1", "a#2", "b", "c", "d"]
    rows = [score(record=user, user=user, item="same" if user in "cd" else user) for user in users]
    assert shared(rows, users) == (["a", "a", "b", "c", "d"], ["a#1", "a#2", "b", "same", "same"])
    assert shared(rows, users[:0]) == ([], [])


def test_a_number_says_by_how_many_persons_and_items(record):
    """Forty persons of whom each chose one of two items; whoever chose the first is right."""
    cell = cell_of([replace(record(str(i)), target=Interaction(f"film {i % 2}", f"other {i}")) for i in range(40)])
    answers = [
        [{"status": "ok", "p_chosen_first": 1 - i % 2, "p_chosen_second": 1 - i % 2, "mass": 1}] for i in range(40)
    ]
    (row,) = numbers(score_rows(cell, "qwen", "choice", answered(answers)))
    assert (row["clusters"], row["items"], row["two_way"], row["accuracy"]) == (40, 2, True, 0.5)
    assert (row["ci_low"], row["ci_high"]) == (0, 1), "two films say nothing of others"
    assert row["design_effect"] == pytest.approx(39, rel=0.1)


def test_a_judge_s_parse_failure_stays_among_the_well_formed_rows_and_their_order_statistics(record):
    """Of four summaries one is bad format, one answer cannot be read in either order, one is right, one is missing."""
    cell = cell_of([record(user) for user in "abcd"])
    cell = replace(cell, questions=(BadFormat(cell.questions[0].record, "never written"), *cell.questions[1:]))
    parse_failure = {"status": "ok", "p_chosen_first": 0.5, "p_chosen_second": 0.5, "mass": None, "unparsed": 2}
    answers = [
        [],
        [parse_failure],
        [parse_failure | {"p_chosen_first": 1.0, "p_chosen_second": 1.0, "unparsed": 0}],
        [None],
    ]
    (row,) = numbers(score_rows(cell, "qwen", "choice", answered(answers)))
    assert (row["bad_format"], row["parse_failures"], row["coverage"]) == (0.25, 0.25, 0.75)
    assert row["accuracy_well_formed"] == row["mean_p"] == row["accuracy_chosen_first"] == 0.75 and row["auc"] == 0.875
    selections = [
        [],
        [{"status": "ok", "selection": None, "letter": "A"}],
        [{"status": "ok", "selection": "Item A", "letter": "A"}],
        [None],
    ]
    (row,) = numbers(score_rows(cell, "qwen", "paper", answered(selections)))
    assert row["accuracy_well_formed"] == 0.5 and row["accuracy"] == pytest.approx(1 / 3)


SAID = "what stands there"
BAD = {"problem": "unfinished reasoning", "as_it_is": SAID}
RIGHT, WRONG = ({"status": "ok", "selection": f"Item {letter}", "letter": "A"} for letter in "AB")


def test_protocol_paper_judges_bad_format_as_it_is_and_says_what_it_is_when_that_is_wrong(record):
    """Of four rows one is in format and right; of three in bad format one is right, one wrong, one not answered."""
    well_formed_cell = cell_of([record(user) for user in "abcd"])
    cell = replace(
        well_formed_cell,
        questions=(well_formed_cell.questions[0], *(BadFormat(record(user), **BAD) for user in "bcd")),
    )
    assert [request.summary for request in questions([cell], "paper")] == ["summary of a", SAID, SAID, SAID]
    assert [request.summary for request in questions([cell], "choice")] == ["summary of a"]
    rows = score_rows(cell, "qwen", "paper", answered([[RIGHT], [RIGHT], [WRONG], [None]]))
    assert [row.outcome for row in rows] == ["ok", "bad_format", "bad_format", "missing"]
    (result,) = results = result_rows(rows)
    row = result.row()
    assert (row["accuracy"], row["accuracy_bad_wrong"]) == pytest.approx((2 / 3, 1 / 3))
    assert (row["bad_format"], row["coverage"], row["accuracy_well_formed"]) == (0.5, 0.75, 1)
    for table, heading in (
        (compact(results, "world_films", "paper"), "full, qwen, "),
        (details(results, "paper"), ""),
    ):
        place = table.head.index(f"{heading}bad format wrong" + " %" * (not heading))
        assert table.body[0][place - 1].startswith("66.67 [") and table.body[0][place] == "33.33"
    half = score_rows(cell, "qwen", "choice", answered([[None], [], [], []]))
    assert numbers(half)[0]["accuracy"] == 0.5 and "bad format wrong" not in " ".join(
        compact(result_rows(half), "world_films", "choice").head
    ), "protocol choice stays as it is"


@pytest.mark.parametrize(
    ("fit", "paper", "coverage"), [("ours", 0.0, 1), ("published", None, 0)], ids=["ours", "published"]
)
def test_a_history_of_which_nothing_fits_is_wrong_or_as_published_left_out(record, tmp_path, fit, paper, coverage):
    user, summaries = record("a"), SummarySet(tmp_path, "ours", "world_films", "full", 0)
    write_json(summaries.meta_path, {"run": "r", "fit": fit})
    row = {"run": "r", "record": user.id, "user": "a"} | Summaries(status=TOO_LONG, error="too long").row()
    write_jsonl(summaries.journal_path, [row])
    cell = of_summaries(summaries, Benchmark("world_films", "selection", (user,), tmp_path / "absent_upi.jsonl"))
    assert list(questions([cell], "paper")) == []
    for protocol, value, share in (("choice", 0.5, 1), ("paper", paper, coverage)):
        (row,) = numbers(score_rows(cell, "qwen", protocol, answered([[]])))
        assert (row["accuracy"], row["coverage"]) == (value, share)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>\nLikes the sea", "<think>\nLikes the sea"),
        ("Likes the sea.", "Likes the sea."),
        ("<think></think>\n\nLikes the sea.", "Likes the sea."),
        ("<think>a</think>b</think> c ", "c"),
        ("<think>a</think>", ""),
    ],
)
def test_what_an_answer_in_bad_format_holds_stands_after_its_last_reasoning(record, tmp_path, text, rest):
    user, summaries = record("a"), SummarySet(tmp_path, "ours", "world_films", "full", 0)
    write_json(summaries.meta_path, {"run": "r"})
    stage = StageSummary(text, "", "", parse_answer(text).problem, 0, 1, 1)
    write_jsonl(summaries.journal_path, [{"run": "r", "record": user.id, "user": "a"} | Summaries((stage,)).row()])
    cell = of_summaries(summaries, Benchmark("world_films", "selection", (user,), tmp_path / "absent_upi.jsonl"))
    assert [request.summary for request in questions([cell], "paper")] == [rest] == [stage.as_it_is]
    assert list(questions([cell], "choice")) == []


def test_a_raw_history_that_does_not_fit_counts_as_a_summary_does_that_was_never_written(record):
    """Policies whose prompt is too long are bad format; so is a reader of the history, and no row is missing."""
    summary_cell = cell_of([record("a"), record("b")])
    histories = tuple(ReadHistory(q.record, q.record.history) for q in summary_cell.questions)
    cell = replace(summary_cell, questions=histories)
    too_long = {"status": "too_long", "error": "the newest interaction alone", "unparsed": 0}
    judgement = {"status": "ok", "p_chosen_first": 0.9, "p_chosen_second": 0.9, "mass": 1, "letter": "A"}
    answers = answered([[too_long], [judgement | {"selection": "Item A"}]])
    for protocol, value in (("choice", 0.5), ("paper", 0.0)):
        (row,) = numbers(score_rows(cell, "qwen", protocol, answers))
        assert (row["coverage"], row["bad_format"], row["accuracy"]) == (1, 0.5, (1 + value) / 2)
        # Where a summary was written, the items are too long: no policy's fault, and the row is missing.
        (row,) = numbers(
            score_rows(summary_cell, "qwen", protocol, answered([[too_long], [judgement | {"selection": "Item A"}]]))
        )
        assert (row["coverage"], row["bad_format"], row["accuracy"]) == (0.5, 0, 1)


def test_flips_are_of_answers_that_were_read_by_who_sees_both_items(record):
    """One judgement goes by the place, one does not, of one an order could not be read, one was asked in one order."""
    cell = cell_of([record(user) for user in "abcd"])
    row = {"status": "ok", "mass": None, "unparsed": 0}
    answers = [
        [row | {"p_chosen_first": 1.0, "p_chosen_second": 0.0}],
        [row | {"p_chosen_first": 1.0, "p_chosen_second": 1.0}],
        [row | {"p_chosen_first": 1.0, "p_chosen_second": 0.5, "unparsed": 1}],
        [row | {"p_chosen_first": 1.0, "p_chosen_second": None}],
    ]
    rates = ("flip_rate", "accuracy_chosen_first", "accuracy_chosen_second")
    (pair_row,) = numbers(score_rows(cell, "qwen", "choice", answered(answers)))
    assert [pair_row[name] for name in rates] == [0.5, 1, 0.5]
    (single_row,) = numbers(score_rows(cell, "tallrec", "choice", answered(answers), places=False))
    assert [single_row[name] for name in rates] == [None, None, None]
    assert single_row["auc"] == pair_row["auc"] and single_row["accuracy"] == pair_row["accuracy"]


def test_an_answer_that_could_not_be_read_is_kept_as_it_is(record):
    cell = cell_of([record(user) for user in "abc"])
    choice = {"status": "ok", "p_chosen_first": 0.5, "p_chosen_second": 1.0, "mass": None, "unparsed": 1}
    older = {"status": "ok", "selection": None, "letter": "A"}  # of a journal that did not keep it
    rating = {"status": "ok", "score": 0.5, "bleu": 0, "rouge_l": 0, "verdicts": [None, "win"], "unparsed": 1}
    answers = [[choice | {"unread": ["Both are fine."]}], [older], [None]]
    rows = score_rows(cell, "qwen", "choice", answered([answers[0], [], []])) + score_rows(
        cell, "qwen", "paper", answered([*answers[1:], [None]])
    )
    assert [row.unread for row in rows] == [("Both are fine.",), (), (), (), (), ()]
    (first, *_) = score_rows(
        cell, "qwen", "paper", answered([[rating | {"said": ["Maybe.", "Better: A"]}], [None], [None]])
    )
    assert first.unread == ("Maybe.",) and first.outcome == "parse_failure"


def test_the_first_item_is_right_in_one_of_both_orders_and_as_drawn_in_one(record):
    benchmark = Benchmark("world_films", "selection", tuple(record(str(i)) for i in range(40)), "absent_upi.jsonl")
    both_orders, paper, one_order = (
        foreseen(of_cues(benchmark, ["first item"], protocol, orders, 3)[0])
        for protocol, orders in (("choice", "both"), ("paper", "both"), ("choice", "one"))
    )
    assert set(both_orders) == {0.5}
    assert list(paper) == [float(chosen_first("paper order", r.id, 3)) for r in benchmark.records]
    assert list(one_order) == [float(chosen_first("judge order", r.id, 3)) for r in benchmark.records]
    assert 8 < sum(paper) < 32 and paper != one_order
    chance = foreseen(of_cues(benchmark, ["random"], "paper", "both", 3)[0])  # has nothing to do with the order shown
    assert 8 < sum(a == b for a, b in zip(chance, paper)) < 32


def test_a_cue_without_an_opinion_is_left_out_and_scores_need_no_judge(record):
    benchmark = Benchmark("world_films", "selection", (record("a"), record("b")), "absent_upi.jsonl")
    cells = of_cues(benchmark, ["popularity", "longer", "shorter", "random"])
    assert [cell.policy for cell in cells] == ["longer", "shorter", "random"]
    rows = score_rows(cells[0], "none", "paper")
    assert [row.value for row in rows] == [1.0, 1.0] and {row.protocol for row in rows} == {"paper"}


def test_the_content_tally_reads_what_a_policy_is_shown_and_stands_beside_direct_readers(tmp_path):
    comedy, drama = "Title: One (1994), Genres: Comedy", "Title: Two (1994), Genres: Drama"
    first, last = Interaction(comedy, drama), Interaction(drama, comedy)
    history = (first,) * 4 + (last,) * 2  # of a recommendation set the last third is not shown
    record = UserRecord("u", history, Interaction(comedy, drama))
    (cell,) = of_cues(Benchmark("movielens", "recommendation", (record,), tmp_path / "m.jsonl"), ["content tally"])
    assert (cell.policy, cell.setting, foreseen(cell)) == ("content tally", "direct", (1.0,))
    longer = replace(record, history=(first,) * 2 + (last,) * 4)
    (other,) = of_cues(Benchmark("movielens", "selection", (longer,), tmp_path / "m.jsonl"), ["content tally"])
    assert foreseen(other) == (0.0,)
    assert of_cues(Benchmark("mind", "recommendation", (), tmp_path / "m.jsonl"), ["content tally"]) == []


def test_chance_is_a_bound_of_exactly_one_half(record):
    benchmark = Benchmark("world_films", "selection", (record("a"), record("b")), "absent_upi.jsonl")
    (row,) = numbers(score_rows(of_cues(benchmark, ["chance"])[0], "none", "choice"))
    assert (row["policy"], row["setting"], row["n"]) == ("chance", "bound", 2)
    assert row["accuracy"] == row["ci_low"] == row["ci_high"] == 0.5
