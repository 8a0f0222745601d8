"""Every registered metric of a step, against numbers that were worked out by hand from the users below."""

from collections import Counter

import pytest

from alignxplore.rl import metrics as report
from alignxplore.rl.metrics import losses, stage_metrics
from alignxplore.rl.step_records import ChainRecord, GroupRecord, RolloutRecord


def rollout(began, written, judged, reward, total, tokens, status="ok", letter_a=(), error=None):
    """`judged` None: in bad format, or its judgement failed; judging took two of the seconds between."""
    return RolloutRecord(
        *(status, tokens, began, written, judged, reward, total),
        by_judge={} if judged is None else {"j": [reward]},
        letter_a={"j": list(letter_a)} if letter_a else {},
        judge_seconds=None if judged is None else 2.0,
        error=error,
    )


# Ada's stream is whole; in Bob's first stage nothing is well-formed or trained on, and his second prompt did not fit.
ADA = ChainRecord(
    "ada",
    4,
    None,
    0,
    [
        GroupRecord(0, 50, 3, 0.25, [rollout(0, 4, 9, 0.9, 1.4, 10, letter_a=[0.7]), rollout(0, 6, 8, 0.5, 0.8, 20)]),
        GroupRecord(
            1,
            70,
            6,
            None,
            [
                rollout(10, 13, 15, 0.6, 0.8, 30, letter_a=[0.4, 0.2]),
                rollout(10, 11, None, 0.0, 0.0, 10, "bad_format"),
                rollout(10, 15, None, None, None, 50, "transport_error", error="gone"),
            ],
        ),
    ],
    seconds=20.0,
    baselines=[None],
)
BOB = ChainRecord(
    "bob",
    4,
    "too_long: stage 2",
    2,
    [
        GroupRecord(
            0,
            90,
            0,
            None,
            [rollout(2, 8, None, 0.0, None, 4, "bad_format"), rollout(2, 4, None, 0.0, None, 6, "bad_format")],
        )
    ],
    seconds=10.0,
)
OF_STAGE_1 = {
    "reward": (0.9 + 0.5 + 0 + 0) / 4,
    "reward_spread": (0.2 + 0) / 2,
    "return_spread": (0.3 + 0) / 2,
    "bad_format": 2 / 4,
    "failed": 0,
    "tokens": (10 + 20 + 4 + 6) / 4,
    "prompt_tokens": (50 + 90) / 2,
    "dropped_interactions": (3 + 0) / 2,
    "all_bad_groups": 1,
    "dropped_groups": 1,
    "drawn_bonus": 0.25,
    "write_seconds": (4 + 6 + 6 + 2) / 4,
    "judge_seconds": 2.0,
    "judge_wait_seconds": ((9 - 6) + 0) / 2,
}
OF_STAGE_2 = {
    "reward": (0.6 + 0) / 2,
    "reward_spread": 0.3,
    "return_spread": 0.4,
    "bad_format": 1 / 3,
    "failed": 1,
    "tokens": 30.0,
    "prompt_tokens": 70.0,
    "dropped_interactions": 6.0,
    "all_bad_groups": 0,
    "dropped_groups": 0,
    "write_seconds": (3 + 1 + 5) / 3,
    "judge_seconds": 2.0,
    "judge_wait_seconds": 0.0,  # judged at 15, when the other one was written
}
OF_JUDGE = {1: {"confidence": 0.7, "position_bias": 0.2}, 2: {"confidence": 0.6, "position_bias": -0.2}}
OF_STEP = {"generated_tokens": 130, "lost_share": 3 / 9, "chains_broken": 1, "chain_seconds": 15.0}
NOT_REGISTERED = {
    "reward": (0.35 + 0.3) / 2,
    "lost/transport_error": 1,
    "lost/unwritten": 2,
    "stage2/baselines_failed": 1,
}


def by_name(stages):
    numbers = {f"stage{k}/{name}": value for k, values in stages.items() for name, value in values.items()}
    of_judge = {f"stage{k}/{name}/j": value for k, values in OF_JUDGE.items() for name, value in values.items()}
    return numbers | of_judge


def test_every_metric_of_a_step_is_what_is_worked_out_by_hand():
    expected = by_name({1: OF_STAGE_1, 2: OF_STAGE_2}) | OF_STEP | NOT_REGISTERED
    assert stage_metrics([ADA, BOB]) == pytest.approx(expected, rel=1e-12)


def test_validation_has_all_of_them_but_rewards_and_returns():
    stages = {
        k: {name: value for name, value in values.items() if name in report.STAGE}
        for k, values in {1: OF_STAGE_1, 2: OF_STAGE_2}.items()
    }
    numbers = by_name(stages) | OF_STEP | NOT_REGISTERED
    expected = {f"val/{name}": value for name, value in numbers.items() if name != "reward"}
    assert stage_metrics([ADA, BOB], "val/") == pytest.approx(expected, rel=1e-12)
    assert set(report.TRAINING) == {"reward", "return_spread", "dropped_groups"}


def test_no_metric_is_registered_that_is_not_tested_here():
    assert set(report.STAGE | report.TRAINING) == set(OF_STAGE_1)
    assert set(report.STEP) == set(OF_STEP) and set(report.JUDGE) == set(OF_JUDGE[1]) == set(OF_JUDGE[2])


def test_a_step_of_which_nothing_is_there_is_lost():
    assert losses([]) == (1.0, Counter()) and stage_metrics([])["lost_share"] == 1.0
    assert losses([ADA, BOB]) == (3 / 9, Counter({"too_long: stage 2": 2, "transport_error: gone": 1}))
