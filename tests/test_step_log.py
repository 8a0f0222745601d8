"""Rows of steps outlive a crash, and a run that goes on does later steps again: in SFT, in RL, in what SFT samples."""

import json
import os

import pytest

from alignxplore.records import read_jsonl, write_jsonl
from alignxplore.rl.metrics import StepLog as RunLog
from alignxplore.sft.run_folder import RunFolder
from alignxplore.step_log import StepLog

ROWS = [{"step": step, "loss": 1 / (step + 1)} for step in range(4)]


def steps(path):
    return [row["step"] for _, row in read_jsonl(path)]


@pytest.fixture
def synced(monkeypatch):
    """What had reached the disk of a file when a row was last taken there."""
    sizes, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size) or sync(number))
    return sizes


WRITERS = {
    "any": lambda folder: StepLog(folder / "log.jsonl").append,
    "SFT": lambda folder: RunFolder(folder).log,
    "RL": lambda folder: RunLog(folder / "log.jsonl", 0).append,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_row_is_on_the_disk_when_it_is_logged(tmp_path, synced, writer):
    write = WRITERS[writer](tmp_path)
    for row in ROWS:
        write(row)
        text = (tmp_path / "log.jsonl").read_text()
        assert json.loads(text.splitlines()[-1]) == row and synced[-1] == len(text)
    assert steps(tmp_path / "log.jsonl") == [0, 1, 2, 3]


@pytest.mark.parametrize(("last_step", "kept_steps"), [(2, [0, 1, 2]), (0, [0]), (None, []), (9, [0, 1, 2, 3])])
def test_a_run_that_goes_on_takes_out_what_it_does_again(tmp_path, last_step, kept_steps):
    log = StepLog(tmp_path / "new" / "log.jsonl")
    assert log.keep_until(last_step) == [] and not log.path.exists()
    log.append(*ROWS)
    with log.path.open("a") as file:
        file.write('{"step": 1, "lo')  # torn by a kill
    assert [row["step"] for row in log.keep_until(last_step)] == steps(log.path) == kept_steps
    log.append({"step": 3})
    assert steps(log.path) == [*kept_steps, 3]


def test_a_row_is_written_as_a_file_of_rows_is(tmp_path):
    rows = [{"step": 1, "text": "naïve “tea”, half of \ud83d"}, {"step": 1, "text": "茶"}]
    StepLog(tmp_path / "log.jsonl").append(*rows)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "log.jsonl").read_bytes() == (tmp_path / "rows.jsonl").read_bytes()


def test_sft_without_a_checkpoint_begins_its_log_anew(tmp_path):
    """With --eval_on_start it is evaluated at step 0 once more."""
    run = RunFolder(tmp_path)
    run.log({"step": 0, "eval_loss": 2.0})
    run.log({"step": 1, "loss": 2.0})
    assert run.clean() == []
    run.log({"step": 0, "eval_loss": 2.0})
    assert steps(tmp_path / "log.jsonl") == [0]


def test_rl_takes_a_step_that_is_validated_again_in_the_place_of_its_old_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    RunLog(path, 0).append(*ROWS)
    log = RunLog(path, 2)
    log.append({"step": 2, "val/reward": 0.5, **log.old_training(2)})
    log.append({"step": 3, "loss": 0.1})
    rows = [row for _, row in read_jsonl(path)]
    assert rows == [*ROWS[:2], {"step": 2, "val/reward": 0.5, "loss": 1 / 3}, {"step": 3, "loss": 0.1}]
