"""Numbers of held-out users: means and changes were worked out by hand, intervals are those of alignxplore.statistics;
the last tests keep the rows as a run does."""

import json
import math
from types import SimpleNamespace

import pytest

from alignxplore.rl.held_out import held_out_metrics, held_out_rows, sentence
from alignxplore.rl.metrics import stage_metrics
from alignxplore.rl.settings import Streaming
from alignxplore.rl.step_records import ChainRecord, GroupRecord, RolloutRecord, failed_record
from alignxplore.rl.validation import ENOUGH, Validation
from alignxplore.statistics import estimate, paired


def summary(judge=None, other=None, status="ok", missing=None):
    """A rollout's record under the reward's judge `judge` and one that watches, `other`."""
    by_judge = {name: [p] for name, p in (("judge", judge), ("other", other)) if p is not None}
    reward = 0.0 if status == "bad_format" else judge
    return RolloutRecord(status, 3, 0.0, 1.0, 2.0, reward, by_judge=by_judge, missing=missing or {}, text="x")


def record(user, *summaries, problem=None):
    groups = [GroupRecord(k, 5, 0, None, [rollout]) for k, rollout in enumerate(summaries)]
    return ChainRecord(user, 4, problem, 0, groups)


BAD = summary(status="bad_format")
NO_ANSWER = summary(0.9, missing={"other": "transport_error: HTTP 500"})
NOW = [
    record("ann#1", summary(0.8, 0.4), summary(0.6, 0.7)),
    record("ann#2", summary(0.7, 0.5), BAD),
    record("bob", NO_ANSWER, summary(0.4, 0.6)),
    record("cem", summary(0.2, 0.3), problem="too_long: stage 2"),
]
START = [
    record("ann#1", summary(0.5, 0.4), summary(0.5, 0.5)),
    record("ann#2", BAD, BAD),
    record("bob", summary(0.5, 0.5), summary(None, 0.5, "transport_error")),
    record("cem", summary(0.4, 0.4), summary(0.5, 0.5)),
]


@pytest.fixture
def metrics():
    return held_out_metrics(held_out_rows(NOW, 4, 2), held_out_rows(START, 0, 2), ["judge", "other"])


def test_a_row_says_what_each_stage_earned_and_what_is_missing():
    rows = held_out_rows(NOW, 4, 2)
    assert [row["user"] for row in rows] == ["ann#1", "ann#2", "bob", "cem"] and {row["step"] for row in rows} == {4}
    assert rows[0]["stages"][0] == {"status": "ok", "reward": 0.8, "by_judge": {"judge": [0.8], "other": [0.4]}}
    assert rows[2]["stages"][0]["missing"] == {"other": "transport_error: HTTP 500"}
    assert rows[3]["stages"][1] == {
        "status": "unwritten",
        "reward": 0.0,
        "by_judge": {},
        "problem": "too_long: stage 2",
    }


def test_whom_the_engine_failed_is_left_out_and_lowers_nothing():
    """Unlike a prompt that did not fit, which is the policy's fault (cem)."""
    records = [*NOW, failed_record("dan", 4, 2, RuntimeError("engine died"))]
    rows = held_out_rows(records, 4, 2)
    assert rows[4]["stages"][0] | {"problem": ""} == {
        "status": "failed",
        "reward": None,
        "by_judge": {},
        "problem": "",
    }
    metrics, without = (held_out_metrics(held_out_rows(some, 4, 2), [], ["judge"]) for some in (records, NOW))
    assert (
        metrics["val/reward"] == without["val/reward"]
        and metrics["val/judge/accuracy"] == without["val/judge/accuracy"]
    )
    assert metrics["val/judge/coverage"] == pytest.approx(8 / 10)
    assert stage_metrics(records, "val/")["val/lost_share"] > stage_metrics(NOW, "val/")["val/lost_share"]


def test_the_reward_counts_bad_format_and_what_was_not_written_as_nothing(metrics):
    assert metrics["val/reward"] == pytest.approx((0.8 + 0.6 + 0.7 + 0 + 0.9 + 0.4 + 0.2 + 0) / 8)
    assert metrics["val/stage1/reward"] == pytest.approx((0.8 + 0.7 + 0.9 + 0.2) / 4)
    assert metrics["val/judge/reward"] == metrics["val/reward"]
    assert metrics["val/persons"] == 3


def test_the_reward_is_worked_out_in_one_place(metrics):
    assert {name for name in stage_metrics(NOW, "val/") if "reward" in name} == {
        f"val/stage{k}/reward_spread" for k in (1, 2)
    }
    assert stage_metrics(NOW)["stage1/reward"] == metrics["val/stage1/reward"], "all of that stage were judged"


def test_bad_format_is_a_share_of_the_summaries_that_were_written(metrics):
    """By stage and over all of them, in training and here: what was never written is counted by itself."""
    assert metrics["val/bad_format"] == 1 / 7 and metrics["val/stage2/bad_format"] == 1 / 3
    failed = [*NOW, failed_record("dan", 4, 2, RuntimeError("engine died"))]
    for name, value in stage_metrics(failed, "val/").items():
        if name.endswith("/bad_format"):
            assert held_out_metrics(held_out_rows(failed, 4, 2), [], [])[name] == value == metrics[name]
    nothing = held_out_metrics(held_out_rows([record("cem", problem="too_long: stage 1")], 4, 2), [], [])
    assert nothing["val/reward"] == 0 and "val/bad_format" not in nothing


def test_several_choices_of_a_summary_count_one_by_one():
    several = record("ann", summary(0.6, None), summary(0.5, None))
    several.rollouts[0].by_judge["judge"] = [0.9, 0.4, 0.5, 0.6]  # 1, 0, 0.5, 1 in eval; their mean is right
    metrics = held_out_metrics(held_out_rows([several], 4, 2), [], ["judge"])
    assert metrics["val/judge/stage1/accuracy"] == 2.5 / 4 and metrics["val/judge/stage1/reward"] == 0.6
    assert metrics["val/judge/n"] == 2, "of summaries"


def test_a_run_that_wrote_one_number_for_a_judge_goes_on():
    rows = held_out_rows(NOW, 4, 2)
    old_rows = json.loads(json.dumps(rows))
    for old_summary in (old_summary for row in old_rows for old_summary in row["stages"]):
        old_summary["by_judge"] = {name: p for name, [p] in old_summary["by_judge"].items()}
    assert old_rows != rows and held_out_metrics(rows, old_rows, ["judge", "other"]) == held_out_metrics(
        rows, rows, ["judge", "other"]
    )


def test_intervals_are_of_persons_and_not_of_rows(metrics):
    rewards, people = [0.8, 0.6, 0.7, 0.0, 0.9, 0.4, 0.2, 0.0], [0, 0, 0, 0, 1, 1, 2, 2]
    right = estimate(rewards, people)
    assert (metrics["val/reward_low"], metrics["val/reward_high"]) == (right.low, right.high)
    rows = estimate(rewards, range(8))
    assert (right.low, right.high) != (rows.low, rows.high)


def test_a_judge_that_failed_is_missing_and_nothing_else_is(metrics):
    assert metrics["val/other/n"] == 7 and metrics["val/other/coverage"] == 7 / 8
    assert metrics["val/other/stage2/coverage"] == 1 and metrics["val/judge/coverage"] == 1
    assert metrics["val/other/reward"] == pytest.approx((0.4 + 0.7 + 0.5 + 0 + 0.6 + 0.3 + 0) / 7)


def test_accuracy_is_counted_as_in_eval(metrics):
    # 1 above one half, 0.5 at a tie, in bad format and where nothing was written, 0 below
    assert metrics["val/other/accuracy"] == pytest.approx((0 + 1 + 0.5 + 0.5 + 1 + 0 + 0.5) / 7)
    assert metrics["val/judge/stage1/accuracy"] == 3 / 4
    assert metrics["val/other/accuracy_low"] < metrics["val/other/accuracy"] < metrics["val/other/accuracy_high"]


def test_the_change_is_of_those_who_have_both(metrics):
    now, before, people = [0.8, 0.6, 0.7, 0, 0.9, 0.2, 0], [0.5, 0.5, 0, 0, 0.5, 0.4, 0.5], [0, 0, 0, 0, 1, 2, 2]
    right = paired(now, before, people)
    assert metrics["val/reward_change"] == pytest.approx(right.difference)
    assert (metrics["val/reward_change_low"], metrics["val/reward_change_high"]) == pytest.approx(
        (right.low, right.high)
    )
    assert metrics["val/judge/stage1/accuracy_change"] == pytest.approx((1 - 0.5 + 1 - 0.5 + 1 - 0.5 + 0 - 0) / 4)


def test_without_step_0_or_with_other_users_there_is_no_change():
    rows = held_out_rows(NOW, 4, 2)
    for start in ([], held_out_rows(START[:3], 0, 2), held_out_rows(START[::-1], 0, 2)):
        assert not [name for name in held_out_metrics(rows, start, ["judge"]) if "change" in name]


def test_one_person_has_no_interval_and_nothing_is_no_number():
    metrics = held_out_metrics(held_out_rows(NOW[:2], 4, 2), [], ["judge", "dead"])
    assert "val/reward" in metrics and "val/reward_low" not in metrics
    assert metrics["val/dead/coverage"] == metrics["val/dead/n"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    one_row = held_out_metrics(held_out_rows(NOW[:1], 4, 2), [], ["dead"])
    assert one_row["val/dead/n"] == 0 and "val/dead/reward" not in one_row and "val/dead/accuracy" not in one_row


def only_some(answered, people=10):
    """Each second person's summary is in bad format; `other` answers about the rest, or was not asked."""
    return [record(f"u{i}", BAD if i % 2 else summary(0.6, 0.6 if answered else None)) for i in range(people)]


def judged(now, start=()):
    names = ["judge", "other"]
    return held_out_metrics(held_out_rows(now, 4, 1), held_out_rows(start, 0, 1) if start else [], names)


def test_a_judge_that_step_0_did_not_ask_has_no_change():
    """Of bad format alone it would be known what the judge had said: a gain of those whom it can only gain from."""
    metrics = judged(only_some(answered=True), only_some(answered=False))
    assert metrics["val/other/reward"] == pytest.approx(0.3) and metrics["val/judge/reward_change"] == 0
    assert [name for name in metrics if "other" in name and "change" in name] == []
    assert judged(only_some(True), only_some(True))["val/other/accuracy_change"] == 0


def test_a_judge_that_answered_nothing_has_no_mean_of_bad_format():
    metrics = judged(only_some(answered=False), only_some(answered=True))
    assert {name for name in metrics if name.startswith("val/other/")} == {
        f"val/other/{place}{measure}" for place in ("", "stage1/") for measure in ("n", "coverage")
    }
    assert metrics["val/other/n"] == metrics["val/other/coverage"] == 0 and metrics["val/judge/reward"] == 0.3
    assert sentence(metrics, ["other"]).endswith("; other answered nothing")


def test_where_all_is_in_bad_format_no_judge_is_needed():
    bad = [record(f"u{i}", BAD) for i in range(10)]
    metrics = judged(bad, only_some(answered=True))
    for judge in ("judge", "other"):
        assert (metrics[f"val/{judge}/reward"], metrics[f"val/{judge}/accuracy"]) == (0, 0.5)
        assert metrics[f"val/{judge}/coverage"] == 1 and metrics[f"val/{judge}/reward_change"] == pytest.approx(-0.3)
    assert "val/other/reward_change" in judged(only_some(answered=True), bad), "whoever had been asked"


def test_the_sentence_has_intervals_changes_and_what_is_missing(metrics):
    low, high = metrics["val/reward_low"], metrics["val/reward_high"]
    text = sentence(metrics, ["other"])
    assert text.startswith(f"validation reward 0.450 [{low:.3f}, {high:.3f}], +0.114 [") and " since step 0; " in text
    assert "other 0.357 [" in text and text.endswith(" (88 % answered)")
    assert sentence(metrics | {"val/gone/coverage": 0.0}, ["gone"]).endswith("; gone answered nothing")


@pytest.fixture
def validate(tmp_path):
    """validate(resumed, step, records) → metrics of a validation in a process that begins after step `resumed`."""

    def run(resumed, *validations):
        settings = Streaming(judges="judge=http://x/v1", val_judges="other=http://y/v1", out=str(tmp_path))
        validation = Validation(settings, checkpoints=None, dtype="float32")
        validation.resume([], resumed)
        results = []
        for step, records in validations:
            results.append(validation.run(SimpleNamespace(validate=lambda *_, r=records: r), [], step)[0])
        return results

    run.rows = lambda: [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    return run


def test_a_resumed_run_is_compared_with_the_start_of_the_first(validate):
    GOOD_START = START[:2] + [record("bob", summary(0.5, 0.5), summary(0.5, 0.5)), START[3]]
    records = NOW[:3] + [record("cem", summary(0.2, 0.3), summary(0.2, 0.3))]
    first, later, last = validate(0, (0, GOOD_START), (2, records), (4, records))
    assert "val/reward_change" not in first and later["val/reward_change"] == last["val/reward_change"]
    assert first["val/other/reward"] == pytest.approx((0.4 + 0.5 + 0 + 0 + 0.5 + 0.5 + 0.4 + 0.5) / 8)
    again = validate(2, (4, records))[0]  # killed after its checkpoint of step 2
    assert again == last
    assert [(row["step"], row["user"]) for row in validate.rows()] == [
        (step, user) for step in (0, 2, 4) for user in ("ann#1", "ann#2", "bob", "cem")
    ]


def test_a_validation_that_was_lost_has_rows_and_no_reward(validate):
    """Not of a stage, either: it would be of the few that were left."""
    records = [record(user, summary(None, 0.5, "transport_error"), summary(0.5, 0.5)) for user in ("ann", "bob")]
    metrics = validate(2, (4, records))[0]
    assert [name for name in metrics if "reward" in name and "spread" not in name] == []
    assert not [name for name in metrics if name.endswith(("_low", "accuracy", "coverage"))]
    assert metrics["val/lost_share"] == 0.5 and metrics["val/stage2/tokens"] == 3
    assert [row["stages"][0]["status"] for row in validate.rows()] == ["transport_error"] * 2


@pytest.mark.parametrize(
    ("start", "count", "ends"),
    [("new", ENOUGH, True), ("new", ENOUGH - 1, False), ("resumed", ENOUGH, False), ("validated", ENOUGH, False)],
)
def test_bad_format_throughout_ends_a_run_at_its_first_validation_only(tmp_path, start, count, ends):
    """Later it is what training has come to, which has limits of its own."""
    settings = Streaming(judges="judge=http://x/v1", out=str(tmp_path))
    validation = Validation(settings, checkpoints=None, dtype="float32")
    validation.resume([{"step": 1, "val/bad_format": 0.1}] if start == "resumed" else [], 2)

    def fault_of(records):
        return validation.run(SimpleNamespace(validate=lambda *_: records), [], 4)[1]

    if start == "validated":
        assert fault_of(NOW) is None
    fault = fault_of([record(f"u{i}", BAD) for i in range(count)])
    assert f"all {count} summaries are in bad format" in fault if ends else fault is None


def test_a_reward_lies_in_its_interval_where_a_judgement_is_missing(validate):
    """The mean of the stages' means does not, where one stage has fewer judgements."""
    lost = [record(f"u{i}", summary(0.9), summary(None, status="transport_error")) for i in range(4)]
    (metrics,) = validate(2, (4, [*lost, *(record(f"v{i}", summary(0.9), summary(0.1)) for i in range(96))]))
    low, reward, high = (metrics[f"val/reward{ending}"] for ending in ("_low", "", "_high"))
    assert reward == metrics["val/judge/reward"] == pytest.approx((100 * 0.9 + 96 * 0.1) / 196)
    assert low <= reward <= high
