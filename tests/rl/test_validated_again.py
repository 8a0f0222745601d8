"""A validation that a run owes: it was lost, or left out because the run was asked to stop. The same command makes up
for it before it trains on, or before it calls the run finished."""

import json
import shutil
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from alignxplore.records import write_jsonl  # noqa: E402
from alignxplore.rl.settings import RunStopped  # noqa: E402
from tests.rl.test_run import metrics  # noqa: E402
from tests.rl.test_trainer import GOOD, best, end_step, record, rows, trainer  # noqa: E402, F401

GONE = [record("transport_error", error="judge gone")]


@pytest.fixture
def resumed(trainer):  # noqa: F811
    """resumed(records, end=9, every=5) → a run of `end` steps that goes on after step 5, whose validation was lost or
    left out, and now writes `records`; what its first validation says, None where none is due."""
    trainer.val_dataset = [{"extra_info": {"user": "u"}}]

    def run(records, end=9, every=5):
        trainer.config.trainer.test_freq, trainer.config.trainer.val_before_train = every, True
        trainer.global_steps = trainer.checkpoints.saved_step = 5
        trainer.total_training_steps = end
        trainer.agent_loop_manager = SimpleNamespace(validate=lambda users, step: records)
        trainer.on_init_end()
        return trainer._validate() if trainer.config.trainer.val_before_train else None

    return run


@pytest.fixture
def lost(trainer):  # noqa: F811
    """A run whose validation at step 5 was lost; its checkpoint of that step is there."""
    trainer.log.append({"step": 3, "val/reward": 0.2})
    trainer.val_dataset = [{"extra_info": {"user": "u"}}]
    trainer.agent_loop_manager = SimpleNamespace(validate=lambda users, step: GONE)
    with pytest.raises(RunStopped, match="validation at step 5: 100 % .*judge gone"):
        end_step(trainer, GOOD | trainer._validate())
    trainer.events.clear()


def kept(trainer, name):  # noqa: F811
    lines = (trainer.out / name).read_text().splitlines()
    return [(row["step"], row["stages"][0]["status"]) for row in map(json.loads, lines)]


@pytest.mark.parametrize("end", [5, 9])
def test_a_validation_that_was_lost_is_made_up_for(trainer, lost, resumed, end):  # noqa: F811
    """Also that of the last step, whose model could not become the best."""
    old_row = rows(trainer)[-1]
    assert old_row["val/lost/transport_error"] == 4 and "val/reward" not in old_row
    resumed([record()], end, every=7 if end == 5 else 5)
    assert trainer.events == ["best global_step_5 in float32"] and best(trainer) == {"step": 5, "reward": 0.25}
    first, row = rows(trainer)
    assert first["step"] == 3 and row["val/reward"] == 0.25 and row["val/bad_format"] == 0
    assert "val/lost/transport_error" not in row, "what the lost one said is gone"
    assert {name: value for name, value in row.items() if not name.startswith("val/")} == {
        name: value for name, value in old_row.items() if not name.startswith("val/")
    }
    assert kept(trainer, "validation.jsonl") == kept(trainer, "samples.jsonl") == [(5, "ok")]
    assert "\nstep 5: validation reward 0.250" in (trainer.out / "log" / "progress.txt").read_text()
    assert resumed([record()], end) is None, "once is enough"


def test_a_validation_that_is_lost_again_ends_the_run_again(trainer, lost, resumed):  # noqa: F811
    for _ in range(2):
        old_rows = rows(trainer)
        with pytest.raises(
            RunStopped, match="step 5: validation at step 5: .*judge gone; .* checkpoint is of step 5$"
        ):
            resumed(GONE, end=5)
        assert rows(trainer) == old_rows and kept(trainer, "validation.jsonl") == [(5, "transport_error")]
    assert trainer.events == []


def test_one_that_was_left_out_to_stop_is_made_up_for(trainer, resumed):  # noqa: F811
    (trainer.out / "stop").touch()
    trainer.log.append({"step": 5} | trainer._validate())
    with pytest.raises(RunStopped, match="step 5: asked to stop; the last checkpoint is of step 5$"):
        resumed([record()])
    assert trainer.events == []
    (trainer.out / "stop").unlink()
    assert resumed([record()])["val/reward"] == rows(trainer)[-1]["val/reward"] == 0.25


@pytest.mark.parametrize(("end", "every"), [(9, 2), (9, -1), (5, -1)])
def test_a_step_without_a_validation_owes_none(trainer, resumed, end, every):  # noqa: F811
    trainer.log.append({"step": 5, "stage1/reward": 0.5})
    assert resumed([record()], end, every) is None and rows(trainer) == [{"step": 5, "stage1/reward": 0.5}]


@pytest.mark.slow
def test_verl_validates_the_last_step_of_a_run_that_goes_on_there(launch, judge, tmp_path):
    """For real on a CPU. How the validation was lost does not matter: its numbers are taken out by hand."""
    out = tmp_path / "run"
    process = launch(out, judge("words"), "trainer.val_before_train=false", STEPS="1")
    assert process.returncode == 0, process.stdout
    row = metrics(out)[1]
    write_jsonl(out / "metrics.jsonl", [{k: v for k, v in row.items() if k != "val/reward"}])
    (out / "finished.json").unlink()
    shutil.rmtree(out / "best")
    process = launch(out, judge("words"), "trainer.val_before_train=false", STEPS="1")
    assert process.returncode == 0 and "\nstep 1: validation reward" in process.stdout, process.stdout
    validation = json.loads((out / "best" / "validation.json").read_text())
    assert validation == {"step": 1, "reward": pytest.approx(row["val/reward"], abs=1e-5)}
    rows_of_step = (out / "metrics.jsonl").read_text().splitlines()
    assert len(rows_of_step) == 1 and json.loads(rows_of_step[0])["val/reward"] == validation["reward"]
    assert json.loads(rows_of_step[0])["actor/pg_loss"] == row["actor/pg_loss"]
    assert len((out / "validation.jsonl").read_text().splitlines()) == row["val/persons"]
