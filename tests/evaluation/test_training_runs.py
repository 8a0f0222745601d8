"""Several training runs of one policy (NAME#1, NAME#2 ...): one row together, over runs and users."""

import random

import numpy as np
import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.comparisons import CompareOptions, chosen_scores, compare, compare_rows
from alignxplore.evaluation.report import layouts, robustness
from alignxplore.evaluation.report.paired import paired_tests
from alignxplore.evaluation.report.restraint import restraint
from alignxplore.evaluation.results import cells_of, result_rows, run_of
from alignxplore.evaluation.rows import read_results, write_results, write_scores
from tests.evaluation.made_up import run_of as run_info
from tests.evaluation.made_up import score

RIGHT = {"rl#1": 0.75, "rl#2": 0.60, "rl#3": 0.66, "sft": 0.5}
ROWS = 200


@pytest.fixture
def score_rows():
    """The same persons under each run; runs differ."""
    rng = random.Random(0)
    return [
        score(policy=policy, record=f"r{i}", user=f"u{i}", target=f"t{i}", item=f"t{i}", value=float(rng.random() < p))
        for policy, p in RIGHT.items()
        for i in range(ROWS)
    ]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rl#2", ("rl", "2")),
        ("rl", ("rl", "")),
        ("other user's (rl#2)", ("other user's (rl#2)", "")),
        ("#1", ("#1", "")),
    ],
)
def test_a_policy_s_name_says_which_run_it_is(name, parts):
    assert run_of(name) == parts


def test_runs_of_a_policy_have_one_row_together(score_rows, tmp_path):
    result_of = {result.policy: result for result in result_rows(score_rows)}
    pool = result_of["rl (3 training runs)"]
    run_results = [result_of[f"rl#{run}"] for run in (1, 2, 3)]
    assert (pool.n, pool.runs, pool.clusters) == (3 * ROWS, 3, ROWS)
    assert pool.accuracy == pytest.approx(np.mean([x.accuracy for x in run_results]))
    assert pool.seed_spread == pytest.approx(np.std([x.accuracy for x in run_results], ddof=1))
    assert pool.ci_high - pool.ci_low > max(x.ci_high - x.ci_low for x in run_results), "runs differ by more"
    assert [x.runs for x in run_results] == [1, 1, 1] and len(result_of) == 5
    write_results(tmp_path, list(result_of.values()))
    assert read_results(tmp_path / "results.json") == list(result_of.values())


def test_a_run_without_a_score_is_none_of_those_together(score_rows, tmp_path):
    rows = [score(**vars(x) | {"value": None}) if x.policy in ("rl#2", "rl#3") else x for x in score_rows]
    results = result_rows(rows)
    assert [x.policy for x in results] == list(RIGHT), "one run has no row beside its own"
    write_results(tmp_path, results)
    assert read_results(tmp_path / "results.json") == results
    rows = [score(**vars(x) | {"value": None}) if x.policy == "rl#3" else x for x in score_rows]
    pool = result_rows(rows)[-1]
    assert (pool.policy, pool.runs, pool.n) == ("rl (2 training runs)", 2, 2 * ROWS)
    assert paired_tests(rows, "choice").body


def test_the_tables_say_what_their_intervals_are_over(score_rows):
    results, run = result_rows(score_rows), run_info(mind=ROWS)
    assert layouts.USERS_ONLY in layouts.compact(result_rows(score_rows[-ROWS:]), "mind", "choice").note
    table = layouts.compact(results, "mind", "choice")
    assert layouts.OVER_RUNS in table.note and "rl (3 training runs)" in [line[0] for line in table.body]
    wide = layouts.wide(results, run, "main", "qwen", "choice", layouts.Paper(), {})
    assert layouts.OVER_RUNS in wide.note


def test_a_comparison_is_over_runs_too(score_rows):
    tests = {line[3]: line for line in paired_tests(score_rows, "choice").body}
    assert tests["sft − rl (3 training runs)"][4] == str(3 * ROWS)
    over_persons = compare([x for x in score_rows if x.policy == "sft"], [x for x in score_rows if x.policy == "rl#1"])
    over_runs = compare([x for x in score_rows if x.policy == "sft"], [x for x in score_rows if x.policy != "sft"])
    assert (
        over_runs.high - over_runs.low > over_persons.high - over_persons.low
        and over_runs.p_value > over_persons.p_value
    )
    other = compare([x for x in score_rows if x.policy != "sft"], [x for x in score_rows if x.policy == "sft"])
    assert other.difference == pytest.approx(-over_runs.difference) and other.p_value == pytest.approx(
        over_runs.p_value
    )


def test_exchanged_sides_give_the_same_test_though_one_of_them_is_a_numbered_run(score_rows):
    pool = [x for x in score_rows if x.policy != "sft"]
    for name in ("sft", "sft#1"):
        single = [score(**vars(x) | {"policy": name}) for x in score_rows if x.policy == "sft"]
        forth, back = compare(single, pool), compare(pool, single)
        assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low)), name
        assert back.p_value == pytest.approx(forth.p_value)


def test_runs_of_two_policies_are_compared_by_their_numbers(score_rows):
    other = [
        score(**vars(x) | {"policy": x.policy.replace("rl", "grpo"), "value": 0.5}) for x in score_rows[: 2 * ROWS]
    ]
    test = compare(other, [x for x in score_rows if x.policy != "sft"])
    assert test.n == 2 * ROWS, "the third run has no partner"
    difference = np.mean([x.value for x in score_rows[: 2 * ROWS]]) - 0.5
    assert test.difference == pytest.approx(difference)


def test_measures_of_choices_among_k_are_over_runs_too(score_rows):
    rows = [score(**vars(x) | {"k": 5, "chance": 0.2, "measures": {"ndcg_5": x.value}}) for x in score_rows]
    pool = next(result for result in result_rows(rows) if result.runs == 3)
    assert pool.ends["ndcg_5"] == pytest.approx((pool.ci_low, pool.ci_high)), "here as high as the accuracy"


@pytest.fixture
def disturbed(score_rows):
    """Scores of three runs before and after what says nothing of anybody, two draws each, and of an injected text."""
    rl_rows = [x for x in score_rows if x.policy != "sft"]
    anew = [score(**vars(x) | {"seed": 1, "value": 1 - x.value}) for x in rl_rows]
    copies = [
        score(**vars(x) | {"benchmark": name, "record": f"{name} {x.record}", "seed": x.seed})
        for name in ("mind~nothing50", "mind~injected_order25")
        for x in rl_rows
    ]
    return cells_of(rl_rows + anew + copies)


def test_the_robustness_table_shows_all_runs_together_and_not_the_first_one(disturbed):
    keys = [key for key in disturbed if key.benchmark == "mind~nothing50"]
    accuracy_of = {key.policy: robustness.change(disturbed, key)[0].split(" ")[0] for key in keys}
    means = [float(accuracy_of[f"rl#{run}"]) for run in (1, 2, 3)]
    assert float(accuracy_of["rl (3 training runs)"]) == pytest.approx(np.mean(means), abs=0.01)


def test_what_is_counted_by_summary_is_shown_run_by_run(disturbed):
    names = [f"rl#{run}" for run in (1, 2, 3)]
    assert [line[0] for line in restraint(disturbed, "qwen", "choice").body] == names
    assert [line[0] for line in robustness.injections(disturbed, {}, {}, "qwen", "choice").body] == names


def renamed(score_rows, names):
    """Rows of the same values under other names of policies."""
    return [score(**vars(x) | {"policy": names[x.policy]}) for x in score_rows if x.policy in names]


def test_no_policy_is_compared_with_its_own_runs_nor_run_by_run(score_rows):
    base = renamed(score_rows, {f"rl#{run}": f"base#{run}" for run in (1, 2, 3)})
    comparisons = [line[3] for line in paired_tests(base + score_rows, "choice").body]
    assert comparisons == [
        "rl (3 training runs) − base (3 training runs)",
        "sft − base (3 training runs)",
        "sft − rl (3 training runs)",
    ]


def test_policies_whose_runs_have_no_two_numbers_in_common_are_named_below_the_table(score_rows):
    for others in (("3", "4"), ("2", "3")):
        base = renamed(score_rows, {f"rl#{place}": f"base#{run}" for place, run in enumerate(others, 1)})
        ours = renamed(score_rows, {"rl#1": "rl#1", "rl#2": "rl#2", "sft": "sft"})
        table = paired_tests(base + ours, "choice")
        assert [line[3] for line in table.body] == ["sft − base (2 training runs)", "sft − rl (2 training runs)"]
        assert "Not compared: rl (2 training runs) − base (2 training runs)." in table.note
    assert "Not compared" not in paired_tests(score_rows, "choice").note


def test_compare_says_that_two_policies_have_no_two_numbers_in_common(score_rows, tmp_path):
    base = renamed(score_rows, {"rl#1": "base#3", "rl#2": "base#4"})
    write_scores(tmp_path, base + renamed(score_rows, {"rl#1": "rl#1", "rl#2": "rl#2"}))
    with pytest.raises(
        UserError, match="Not compared: rl .* Training runs are compared by their numbers, and two policies need two"
    ):
        compare_rows(CompareOptions(report=tmp_path, first=["policy=base"], second=["policy=rl"]))


def test_a_policy_is_named_without_its_runs(score_rows, tmp_path):
    write_scores(tmp_path, score_rows)
    assert [key.policy for key in chosen_scores(tmp_path, {"policy": "rl"})] == ["rl (3 training runs)"]
    assert [key.policy for key in chosen_scores(tmp_path, {"policy": "rl#2"})] == ["rl#2"]
    assert "| 600 |" in compare_rows(CompareOptions(report=tmp_path, first=["policy=sft"], second=["policy=rl"]))
