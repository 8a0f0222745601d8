"""RL, killed and continued (tests/reliability/kills.py); runs with the kill suite only, and takes minutes a moment: a
kill at the end of an epoch is tested in test_run.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.kills import WHOLE, Stage, Suite
from tests.rl.conftest import ENVIRONMENT, SCRIPT, SIZES

pytestmark = [pytest.mark.slow, pytest.mark.kill, WHOLE]
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
    found = [(row["step"], *(Near(row[name]) for name in NAMES)) for row in metrics(out)]
    return found, (out / "model" / "config.json").exists()


def saved(out: Path) -> dict[str, int]:
    """Steps of the last whole checkpoint: none of them is trained again."""
    tracker = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    return dict.fromkeys(map(str, range(int(tracker.read_text() or 0) if tracker.exists() else 0)), 1)


def test_rl(policy, rows, judge, tmp_path):
    paths = {"PRESET": "tiny", "MODEL": str(policy), "TRAIN": str(rows / "train.parquet")}
    paths |= {"VAL": str(rows / "val.parquet"), "JUDGES": f"judge={judge('words')}", "SAVE_EVERY": "1"}
    stage = Stage(
        "RL",
        lambda out: ["bash", SCRIPT, "trainer.val_before_train=false"],
        begun=lambda out: bool(metrics(out)),
        made=made,
        finished=saved,
        variables=lambda out: ENVIRONMENT | SIZES | paths | {"OUT": str(out)},
        grace=(3, 130),
        gone=150.0,  # two agents of Ray, which hold nothing, leave by themselves a minute after a kill
    )
    Suite(stage, tmp_path, limit=1500).all()
