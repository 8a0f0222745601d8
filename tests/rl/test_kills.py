"""RL, killed and continued (tests/reliability/kills.py); runs with the kill suite only, and takes minutes a moment: a
kill at the end of an epoch is tested in test_run.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.kills import WHOLE, Stage, Suite
from tests.rl.conftest import ENVIRONMENT, SCRIPT, SIZES

pytestmark = [pytest.mark.slow, pytest.mark.kill, WHOLE]
STALENESS = "training/off_policy/trajectory_staleness_worst/max"
NAMES = ("stage1/reward", "stage2/reward", "generated_tokens", "actor/pg_loss", "actor/grad_norm")


class Near(float):
    """A number that is the same in as many digits as two runs of one seed share."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) <= 1e-5 + 1e-3 * abs(other)


def metrics(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def made(out: Path) -> Any:
    """What each step came to, and that there is a model."""
    rows = [(row["step"], *(Near(row[name]) for name in NAMES)) for row in metrics(out)]
    return rows, (out / "model" / "config.json").exists()


def saved(out: Path) -> dict[str, int]:
    """Steps of the last whole checkpoint: none of them is trained again."""
    tracker = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    return dict.fromkeys(map(str, range(int(tracker.read_text() or 0) if tracker.exists() else 0)), 1)


def users(out: Path) -> Any:
    """Whom each step trained on, by the tokens of their first prompts, and whether all of it was trained on once. What
    they wrote depends on time: how much of it older weights did."""
    rows = metrics(out)
    facts = [(row["step"], row["stage1/prompt_tokens"], row["training/rows"], row["lost_share"]) for row in rows]
    behind = max((row[STALENESS] for row in rows), default=0)
    return facts, behind <= 1, (out / "model" / "config.json").exists()


def stage(name: str, policy: Path, rows: Path, judge: str, made: Callable[[Path], Any], **variables: str) -> Stage:
    """A run of the launch script, PRESET=tiny."""
    paths = {"PRESET": "tiny", "MODEL": str(policy), "TRAIN": str(rows / "train.parquet")}
    paths |= {"VAL": str(rows / "val.parquet"), "JUDGES": f"judge={judge}"}
    return Stage(
        name,
        lambda out: ["bash", SCRIPT, "trainer.val_before_train=false"],
        begun=lambda out: bool(metrics(out)),
        made=made,
        finished=saved,
        variables=lambda out: ENVIRONMENT | SIZES | paths | {"OUT": str(out)} | variables,
        grace=(3, 130),
    )


def test_rl(policy, rows, judge, tmp_path):
    Suite(stage("RL", policy, rows, judge("words"), made, SAVE_EVERY="1"), tmp_path, limit=1500).all()


def test_asynchronous_rl(policy, rows, judge, tmp_path):
    """Struck while users of the next step are being written; four steps of six are lost with a checkpoint."""
    sizes = {"MODE": "async", "STEPS": "12", "SAVE_EVERY": "4", "TEST_EVERY": "-1"}
    suite = Suite(stage("RL async", policy, rows, judge("words"), users, **sizes), tmp_path, limit=1500)
    assert len({prompts for _, prompts, _, _ in suite.whole[0]}) > 2, "no order could be seen"
    suite.all()
