"""Saves by time and on SIGTERM, in real runs of sft.py that are killed in their middle: nothing is lost, and nothing
trained twice."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignxplore.sft.run_folder import COMPLETE, RunFolder
from alignxplore.sft.saving import STOPPED
from tests import ROOT

pytestmark = pytest.mark.slow
STEPS = 12
ZERO2 = ["--deepspeed", ROOT / "sft/configs/zero2.json"]
EACH_STEP = ["--save_strategy", "no", "--save_minutes", "0.0001"]


@pytest.fixture(scope="session")
def options(model_folder, rows_file) -> list:
    return [
        *("--config", ROOT / "sft/configs/tiny.yaml", "--model_name_or_path", model_folder, "--train_data", rows_file),
        *("--max_steps", STEPS, "--logging_steps", 1, "--save_steps", 5, "--effective_batch_size", 8),
        *("--per_device_train_batch_size", 4, "--save_total_limit", 3),
    ]


@pytest.fixture(scope="session")
def undisturbed(run_script, options, tmp_path_factory) -> Path:
    """A run of one process that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_script(["bash", ROOT / "sft/sft.sh", *options, "--out", folder], NPROC="1")
    return folder


@pytest.fixture
def command(options, tmp_path):
    """`command(*extra, processes=1)` → sft.py with its accidents, in `tmp_path`."""

    def line(*extra, processes: int = 1) -> list:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        script = [Path(__file__).with_name("killed_sft.py"), *options, "--output_dir", tmp_path, *extra]
        return [sys.executable, *(launch if processes > 1 else []), *script]

    return line


def is_the_same(folder: Path, other: Path) -> None:
    """Every step is logged once with the losses of the other run, and the models agree."""
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (folder, other)]
    rows, other_rows = ([row for row in log if "loss" in row] for log in logs)  # without lines of evaluations
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in other_rows], rel=0, abs=1e-5)
    models = [load_file(run / "model.safetensors") for run in (folder, other)]
    assert all(torch.allclose(models[0][key], models[1][key], atol=1e-4) for key in models[1])


def test_a_kill_in_a_save_by_time_loses_a_step_and_nothing_else(run_script, command, undisturbed, tmp_path):
    line = command(*EACH_STEP)
    assert run_script(line, expect=None, KILL_IN_SAVE="7").returncode != 0
    assert RunFolder(tmp_path).last_complete().name == "checkpoint-6"
    assert (tmp_path / "checkpoint-7").is_dir() and not (tmp_path / "checkpoint-7" / COMPLETE).exists()
    process = run_script(line)
    assert "resuming from checkpoint-6 (deleted, torn by a kill: checkpoint-7)" in process.stdout
    is_the_same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("extra", "processes", "to"),
    [(["--dataloader_num_workers", 1], 1, "group"), ([], 2, "launcher"), (ZERO2, 2, "launcher")],
    ids=["one process and its workers", "DDP", "ZeRO-2"],
)
def test_a_run_that_is_told_to_end_saves_its_step_and_goes_on_from_there(
    run_script, command, undisturbed, tmp_path, extra, processes, to
):
    line = command(*extra, processes=processes)
    # killed in the save that SIGTERM asked for, it goes on from the one before
    assert run_script(line, expect=None, TERM_AT="6", TERM=to, KILL_IN_SAVE="7").returncode not in (0, STOPPED)
    assert (tmp_path / "checkpoint-7").is_dir() and RunFolder(tmp_path).last_complete().name == "checkpoint-5"
    ended = run_script(line, expect=None, TERM_AT="6", TERM=to)
    assert "resuming from checkpoint-5 (deleted, torn by a kill: checkpoint-7)" in ended.stdout
    assert "told to end (SIGTERM): step 7 is saved; run the same command again" in ended.stdout, ended.stderr[-4000:]
    assert ended.returncode == STOPPED if processes == 1 else ended.returncode != 0
    assert RunFolder(tmp_path).last_complete().name == "checkpoint-7" and not (tmp_path / "summary.json").exists()
    assert "resuming from checkpoint-7" in run_script(line).stdout
    is_the_same(tmp_path, undisturbed)


def test_a_run_that_is_told_to_end_in_an_evaluation_saves_the_next_step(
    run_script, command, undisturbed, tmp_path, rows_file
):
    evaluations = ["--eval_data", rows_file, "--eval_strategy", "steps", "--eval_steps", 6, "--eval_samples", 0]
    line = command(*evaluations, "--per_device_eval_batch_size", 2, "--dataloader_num_workers", 1)
    ended = run_script(line, expect=None, TERM_IN_EVALUATION="6")
    assert "told to end (SIGTERM): step 7 is saved" in ended.stdout, ended.stderr[-4000:]
    assert ended.returncode == STOPPED and RunFolder(tmp_path).last_complete().name == "checkpoint-7"
    assert "resuming from checkpoint-7" in run_script(line).stdout
    is_the_same(tmp_path, undisturbed)


@pytest.mark.parametrize(("extra", "processes"), [([], 1), (ZERO2, 2)], ids=["one process", "ZeRO-2"])
def test_of_a_finished_run_the_optimizer_goes_whatever_happens_then(
    run_script, command, undisturbed, tmp_path, extra, processes
):
    line = command(*extra, processes=processes)
    # rmtree is what ZeRO's folders go with; one process has files, and is killed after they are gone
    assert (run_script(line, expect=None, KILL_IN_CLEANUP="1").returncode != 0) == (processes == 2)
    is_the_same(tmp_path, undisturbed)
    paths = [path for path in tmp_path.rglob("*") if "optim" in path.name]
    assert bool(paths) == (processes == 2), "killed when those of the first checkpoint were gone"
    again = run_script(line)
    assert "this run is finished" in again.stdout
    assert not [path for path in tmp_path.rglob("*") if "optim" in path.name or "global_step" in path.name]
    assert len(list(tmp_path.glob("checkpoint-*/model.safetensors"))) == 3, "weights stay"
    is_the_same(tmp_path, undisturbed)
