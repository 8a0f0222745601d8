"""Packing inside a step changes nothing but speed: real runs of sft.py in processes of their own."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignxplore.sft.run_folder import RunFolder
from tests import ROOT

pytestmark = pytest.mark.slow
STEPS = 20
PACKED = ("--packing", "true", "--packed_tokens", "384")  # a few passes a step
ZERO2, ZERO3 = (("--deepspeed", ROOT / f"sft/configs/zero{stage}.json") for stage in (2, 3))


@pytest.fixture(scope="session")
def train(run_script, model_folder, rows_file, tmp_path_factory):
    """`train(name, *extra, processes=1)` → (losses of 20 steps of 8 rows, weights, what was said)."""
    base, output_of = tmp_path_factory.mktemp("packing"), {}
    options = [
        *("--config", ROOT / "sft/configs/tiny.yaml", "--model_name_or_path", model_folder, "--train_data", rows_file),
        *("--max_steps", STEPS, "--logging_steps", 1, "--save_steps", 5, "--effective_batch_size", 8),
        *("--per_device_train_batch_size", 4, "--gradient_checkpointing", "true"),
    ]

    def run(name: str, *extra, processes: int = 1) -> tuple[list[float], dict, str]:
        if name not in output_of:
            script = ["bash", ROOT / "sft/sft.sh", *options, "--out", base / name, *extra]
            output_of[name] = run_script(script, NPROC=str(processes)).stdout
        rows = [json.loads(line) for line in (base / name / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        return [row["loss"] for row in rows], load_file(base / name / "model.safetensors"), output_of[name]

    run.options = options
    return run


@pytest.mark.parametrize(
    ("name", "extra", "processes"),
    [
        *[("packed", (), 1), ("packed, DDP", (), 2), ("packed, ZeRO-2", ZERO2, 2)],
        *[("packed, ZeRO-3", ZERO3, 2), ("packed, ZeRO-3, one process", ZERO3, 1)],
    ],
)
def test_packs_train_the_same_as_padded_rows(train, name, extra, processes):
    plain, weights, _ = train("padded")
    packed, same, output = train(name, *PACKED, *extra, processes=processes)
    assert re.search(rf"8 rows a step, packed = [2-5] passes of at most 384 tokens x {processes} process", output)
    assert packed == pytest.approx(plain, rel=0, abs=1e-5) and plain[-1] < plain[0] - 0.5
    assert all(torch.allclose(weights[key], same[key], atol=1e-4) for key in weights)


def test_a_packed_run_that_was_killed_goes_on_also_without_packs(train, run_script, tmp_path):
    curve, weights, _ = train("padded")
    killed = [sys.executable, Path(__file__).with_name("killed_sft.py"), *train.options, "--output_dir", tmp_path]
    assert run_script([*killed, *PACKED], expect=None, KILL_AT="12").returncode != 0
    assert RunFolder(tmp_path).last_complete().name == "checkpoint-10"
    assert run_script([*killed, *PACKED], expect=None, KILL_AT="17").returncode != 0
    process = run_script(killed)
    assert "resuming from checkpoint-15" in process.stdout
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(curve, rel=0, abs=1e-5)
    own_weights = load_file(tmp_path / "model.safetensors")
    assert all(torch.allclose(weights[key], own_weights[key], atol=1e-4) for key in weights)
