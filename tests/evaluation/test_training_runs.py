"""Several training runs of one policy (NAME#1, NAME#2 ...): one row together, over runs and users."""

import random

import numpy as np
import pytest

from alignxplore.evaluation.comparisons import CompareOptions, chosen_scores, compare, compare_rows
from alignxplore.evaluation.report import layouts
from alignxplore.evaluation.results import result_rows, run_of
from alignxplore.evaluation.rows import read_results, write_results, write_scores
from tests.evaluation.made_up import run_of as run_info
from tests.evaluation.made_up import score

RIGHT = {"rl#1": 0.75, "rl#2": 0.60, "rl#3": 0.66, "sft": 0.5}
ROWS = 200


@pytest.fixture
def scored():
    """The same persons under each run; runs differ."""
    rng = random.Random(0)
    return [
        score(policy=policy, record=f"r{i}", user=f"u{i}", target=f"t{i}", item=f"t{i}", value=float(rng.random() < p))
        for policy, p in RIGHT.items()
        for i in range(ROWS)
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("rl#2", ("rl", "2")),
        ("rl", ("rl", "")),
        ("other user's (rl#2)", ("other user's (rl#2)", "")),
        ("#1", ("#1", "")),
    ],
)
def test_a_policy_s_name_says_which_run_it_is(name, found):
    assert run_of(name) == found


def test_runs_of_a_policy_have_one_row_together(scored, tmp_path):
    found = {result.policy: result for result in result_rows(scored)}
    together = found["rl (3 training runs)"]
    each = [found[f"rl#{run}"] for run in (1, 2, 3)]
    assert (together.n, together.runs, together.clusters) == (3 * ROWS, 3, ROWS)
    assert together.accuracy == pytest.approx(np.mean([one.accuracy for one in each]))
    assert together.seed_spread == pytest.approx(np.std([one.accuracy for one in each], ddof=1))
    assert together.ci_high - together.ci_low > max(one.ci_high - one.ci_low for one in each), "runs differ by more"
    assert [one.runs for one in each] == [1, 1, 1] and len(found) == 5
    write_results(tmp_path, list(found.values()))
    assert read_results(tmp_path / "results.json") == list(found.values())


def test_the_tables_say_what_their_intervals_are_over(scored):
    results, run = result_rows(scored), run_info(mind=ROWS)
    assert layouts.USERS_ONLY in layouts.compact(result_rows(scored[-ROWS:]), "mind", "choice").note
    table = layouts.compact(results, "mind", "choice")
    assert layouts.OVER_RUNS in table.note and "rl (3 training runs)" in [line[0] for line in table.body]
    wide = layouts.wide(results, run, "main", "qwen", "choice", layouts.Paper())
    assert layouts.OVER_RUNS in wide.note


def test_a_comparison_is_over_runs_too(scored):
    tests = {line[3]: line for line in layouts.paired_tests(scored, "choice").body}
    assert "rl (3 training runs) − sft" in tests and tests["rl (3 training runs) − sft"][4] == str(3 * ROWS)
    one = compare([x for x in scored if x.policy == "sft"], [x for x in scored if x.policy == "rl#1"])
    both = compare([x for x in scored if x.policy == "sft"], [x for x in scored if x.policy != "sft"])
    assert both.high - both.low > one.high - one.low and both.p_value > one.p_value
    other = compare([x for x in scored if x.policy != "sft"], [x for x in scored if x.policy == "sft"])
    assert other.difference == pytest.approx(-both.difference) and other.p_value == pytest.approx(both.p_value)


def test_runs_of_two_policies_are_compared_by_their_numbers(scored):
    other = [
        score(**vars(one) | {"policy": one.policy.replace("rl", "grpo"), "value": 0.5}) for one in scored[: 2 * ROWS]
    ]
    test = compare(other, [one for one in scored if one.policy != "sft"])
    assert test.n == 2 * ROWS, "the third run has no partner"
    expected = np.mean([one.value for one in scored[: 2 * ROWS]]) - 0.5
    assert test.difference == pytest.approx(expected)


def test_a_policy_is_named_without_its_runs(scored, tmp_path):
    write_scores(tmp_path, scored)
    assert [key.policy for key in chosen_scores(tmp_path, {"policy": "rl"})] == ["rl (3 training runs)"]
    assert [key.policy for key in chosen_scores(tmp_path, {"policy": "rl#2"})] == ["rl#2"]
    assert "| 600 |" in compare_rows(CompareOptions(report=tmp_path, a=["policy=sft"], b=["policy=rl"]))
