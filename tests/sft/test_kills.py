"""Training, killed and continued (tests/reliability/kills.py); runs with the kill suite only: the moments that matter
most are those of test_training.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignxplore.sft.run_folder import RunFolder
from tests import ROOT
from tests.reliability.kills import WHOLE, Stage, Suite

pytestmark = [pytest.mark.slow, pytest.mark.kill, WHOLE]
STEPS = 40


def made(out: Path) -> Any:
    """Weights to the last bit, and the loss of each step."""
    weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(out / "model.safetensors").items()}
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    result = RunFolder(out).summary()
    return weights, [(row["step"], row["loss"]) for row in log], result and result["result"]["steps"]


def test_sft(model_folder, rows_file, tmp_path):
    words = [
        *("bash", ROOT / "sft/sft.sh", "--config", ROOT / "sft/configs/tiny.yaml"),
        *("--model_name_or_path", model_folder, "--train_data", rows_file, "--max_steps", STEPS),
        *("--logging_steps", 1, "--save_steps", 10, "--save_total_limit", 3, "--effective_batch_size", 8),
    ]
    stage = Stage(
        "SFT",
        lambda out: [*words, "--out", out],
        begun=lambda out: (out / "log.jsonl").exists(),
        made=made,
        finished=lambda out: dict.fromkeys(map(str, range(_steps(out))), 1),
        variables=lambda out: {"NPROC": "1"},
    )
    Suite(stage, tmp_path).all()


def _steps(out: Path) -> int:
    """Steps of the last whole checkpoint: none of them is trained again."""
    checkpoint = RunFolder(out).last_complete()
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
