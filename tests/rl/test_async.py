"""Asynchronous training, for real on a CPU: a step trains on the users of the step before, while its own are written.
What is interrupted for an update is gone on with; what is being written at a stop is written anew."""

import signal

import pytest

from tests.rl.test_run import check_model, checkpointed, leftovers, metrics, wait_until

pytestmark = pytest.mark.slow
SIZES = {"MODE": "async", "TEST_EVERY": "-1", "LR": "1e-3"}  # so far that older weights would be seen
WEIGHTS = "training/off_policy/trajectory_"
PROBABILITIES = "training/rollout_probs_diff"


def test_an_asynchronous_run_interrupts_is_stopped_and_goes_on(launch, judge, tmp_path):
    out, unvalidated = tmp_path / "run", "trainer.val_before_train=false"

    def interrupted():
        rows = metrics(out).values() if (out / "metrics.jsonl").exists() else []
        return len(rows) > 3 and any(row[f"{WEIGHTS}spans/max"] == 2 for row in rows)

    process = launch.start(out, judge("words"), unvalidated, STEPS="400", SAVE_EVERY="400", **SIZES)
    wait_until(interrupted, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    last = max(metrics(out))
    assert process.returncode == 3 and checkpointed(out) == last, output
    assert f"step {last + 1}: asked to stop; the last checkpoint is of step {last}" in output
    restart = launch(out, judge("words"), STEPS=str(last + 2), **SIZES)
    assert restart.returncode == 0 and f"continuing after step {last} of {last + 2}" in restart.stdout, restart.stdout
    row_of = metrics(out)
    assert sorted(row_of) == list(range(1, last + 3)) and not leftovers(out)
    for step, row in row_of.items():
        assert row["training/rows"] == 32 and row["lost_share"] == 0, step
        assert row[f"{WEIGHTS}staleness_worst/max"] <= 1, "never more than a step behind"
        assert row[f"{PROBABILITIES}_tokens"] == 0 or row[f"{PROBABILITIES}_max"] <= 1e-4
    behind = [row for row in row_of.values() if row[f"{WEIGHTS}staleness_worst/max"] == 1]
    assert max(row["training/rollout_probs_diff_std"] for row in behind) > 1e-3, "weights did move between two steps"
    assert any(row["rollout_corr/rollout_is_std"] > 1e-3 for row in behind), "and updates correct for it"
    assert any(row[f"{PROBABILITIES}_tokens"] > 0 for row in row_of.values())
    check_model(out / "model")
