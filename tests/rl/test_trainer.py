"""What the trainer does around verl's steps, on a trainer whose Ray workers are left out: stops, order of writing,
data order."""

import json
import math
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

pytest.importorskip("verl")

from alignxplore.rl import streaming, validation  # noqa: E402
from alignxplore.rl import trainer as module  # noqa: E402
from alignxplore.rl.checkpoints import make_room  # noqa: E402
from alignxplore.rl.metrics import StepLog  # noqa: E402
from alignxplore.rl.settings import RunStopped, Streaming, Tolerance  # noqa: E402
from alignxplore.rl.step_records import ChainRecord, GroupRecord, RolloutRecord, failed_record  # noqa: E402
from alignxplore.rl.streaming import StreamingWorker  # noqa: E402
from alignxplore.rl.trainer import StreamingTrainer  # noqa: E402

GOOD = {"actor/pg_loss": 0.1, "actor/grad_norm": 0.2}


def record(status="ok", letter_a=0.9, error=None, rollouts=4, other_order=None):
    members = [
        RolloutRecord(
            status,
            tokens=9,
            began=0.0,
            written=1.0,
            judged=2.0,
            reward=0.5,
            total=0.5,
            error=error,
            text="<think>a</think>b",
            letter_a={"j": [letter_a + 0.001 * i, other_order or 1 - letter_a]},
        )
        for i in range(rollouts)
    ]
    return ChainRecord("u", 5, None, 0, [GroupRecord(0, 50, 0, 0.0, members)], 1.0)


def lost_record(problem):
    return ChainRecord("u", 5, problem, 8, [])


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """At step 5 of 9, resumed at 3; `events` lists what is saved, in order. verl's own parts of the hooks do
    nothing."""
    import torch

    def begin(self, config):
        self.config, self.replay_buffer = config, SimpleNamespace(_wait_for_next_poll=lambda seconds: seconds)
        self.global_steps, self.total_training_steps, self.timing_raw, self.events = 5, 9, {}, []
        self._batch_step = 5

    def save(self):
        self.events.append(f"saved {self.global_steps} after rows {[row['step'] for row in rows(self)]}")
        folder = self.checkpoints.current()
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
        self.data_when_tracked = torch.load(folder / "data.pt")  # verl writes down that this is the latest here

    def publish(checkpoint, target, dtype, about):
        steps.events.append(f"best {checkpoint.name} in {dtype}")
        target.mkdir(exist_ok=True)
        (target / "validation.json").write_text(json.dumps(about))

    for name, stand_in in (
        ("__init__", begin),
        ("_save_checkpoint", save),
        ("on_init_end", lambda _: None),
        ("_compute_metrics", lambda *_: None),
    ):
        monkeypatch.setattr(module.PPOTrainerSync, name, stand_in)
    monkeypatch.setattr(validation, "publish_model", publish)
    steps = StreamingTrainer(config_of(tmp_path))
    (tmp_path / "log").mkdir()
    steps.start_step = steps.checkpoints.saved_step = 3
    steps.log = StepLog(tmp_path / "metrics.jsonl", 3)
    steps.validation.resume([], 3)
    steps._records, steps._repeats = [record()], {"j/http_429": 2}
    steps._first_step_done, steps._step_began = 0.0, time.monotonic()
    steps.agent_loop_manager = SimpleNamespace(fault=lambda: None)
    steps._places = {5: {"at": "the beginning of step 5"}}
    steps.train_dataloader = SimpleNamespace(state_dict=lambda: {"at": "its end"})
    return steps


def config_of(out):
    """What the trainer reads of a run's configuration."""
    stream = asdict(Streaming(judges="j=http://x/v1", out=str(out), tolerance={"float32": Tolerance(max=1e-4)}))
    return OmegaConf.create(
        {
            "streaming": stream,
            "trainer": {
                "default_local_dir": str(out / "checkpoints"),
                "max_actor_ckpt_to_keep": 2,
                "test_freq": -1,
            },
            "actor_rollout_ref": {"rollout": {"dtype": "float32"}},
        }
    )


def rows(trainer):
    return [json.loads(line) for line in (trainer.out / "metrics.jsonl").read_text().splitlines()]


def best(trainer):
    return json.loads((trainer.out / "best" / "validation.json").read_text())


def end_step(trainer, metrics):
    batch = SimpleNamespace(tags=[{}, {"is_padding": True}])
    trainer._compute_metrics(batch, metrics, {}, trainer.global_steps, 0)


def test_a_step_is_written_down_then_saved_then_compared_with_the_best(trainer):
    trainer._save_checkpoint()  # as verl asks for it, before it validates
    assert trainer.events == []
    end_step(trainer, GOOD | {"val/reward": 0.6})
    assert (
        trainer.events == ["saved 5 after rows [5]", "best global_step_5 in float32"]
        and trainer.checkpoints.saved_step == 5
    )
    row = rows(trainer)[0]
    assert (
        row["repeated_requests"] == row["repeated/j/http_429"] == 2
        and row["training/rows"] == 1
        and row["stage1/reward"] == 0.5
    )
    assert best(trainer) == {"step": 5, "reward": 0.6}


@pytest.mark.parametrize(
    ("rewards", "published"), [({0: 0.5, 3: 0.4, 5: 0.6}, True), ({0: 0.5, 3: 0.7, 5: 0.6}, False), ({0: 0.5}, False)]
)
def test_a_run_killed_between_a_checkpoint_and_the_best_model_finds_that_model_again(trainer, rewards, published):
    for step, reward in rewards.items():
        trainer.log.append({"step": step, "val/reward": reward})
    trainer.config.trainer.val_before_train = True
    trainer.on_init_end()
    assert (
        trainer.events == ["best global_step_5 in float32"] * published and not trainer.config.trainer.val_before_train
    )
    assert trainer.validation.best_reward == max(rewards.values()) and (
        not published or best(trainer) == {"step": 5, "reward": 0.6}
    )
    trainer.on_init_end()  # resumed once more: the model is there
    assert trainer.events == ["best global_step_5 in float32"] * published


def test_a_run_killed_before_its_first_checkpoint_validates_its_start_again(trainer):
    trainer.log.append({"step": 0, "val/reward": 0.5})
    trainer.validation.samples.append({"step": 0, "user": "u"})
    trainer.global_steps, trainer.config.trainer.val_before_train = 0, True
    trainer.on_init_end()
    assert rows(trainer) == [] and not (trainer.out / "samples.jsonl").read_text()
    assert trainer.config.trainer.val_before_train and trainer.validation.best_reward == -math.inf
    trainer.val_dataset = [{"extra_info": {"user": "u"}}]
    trainer.agent_loop_manager = SimpleNamespace(validate=lambda *_: [record()])
    trainer._validate()
    assert [row["step"] for row in rows(trainer)] == [0] and trainer.events == []


@pytest.mark.parametrize("name", ["actor/pg_loss", "actor/grad_norm"])
def test_an_update_that_is_not_a_number_is_named_and_never_saved(trainer, name):
    trainer._save_checkpoint()
    with pytest.raises(RunStopped, match=f"step 5: {name} is nan; the last checkpoint is of step 3"):
        end_step(trainer, GOOD | {name: math.nan})
    with pytest.raises(RunStopped, match=f"{name} is None"):
        end_step(trainer, {k: v for k, v in GOOD.items() if k != name})
    assert trainer.events == [] and rows(trainer) == []


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (
            [record()] * 9 + [record("transport_error", error="judge: HTTP 500")],
            r"step 5: 10 % of the rollouts were lost.* \(4 times\).* HTTP 500",
        ),
        ([lost_record("RuntimeError: engine died")], "100 %.*engine died"),
        (
            [lost_record("too_long: stage 1: the prompt takes 900 tokens")] * 4,
            "100 %.*too_long: stage 1",
        ),
        (
            [record(letter_a=0.95, other_order=0.95)] * 16,
            "judge j gives the letter A a probability between 0.9500 and 0.9530 in all 128 questions",
        ),
    ],
)
def test_a_step_that_teaches_nothing_stops_the_run_before_it_trains(trainer, records, sentence):
    import torch

    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: (records, {}))
    with pytest.raises(RunStopped, match=sentence):
        trainer._collect()
    assert trainer.events == ["saved 4 after rows []"] and trainer.global_steps == 5
    assert (
        torch.load(trainer.out / "checkpoints" / "global_step_4" / "data.pt")
        == trainer.data_when_tracked
        == {"at": "the beginning of step 5"}
    )
    assert trainer.train_dataloader.state_dict() == {"at": "its end"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda trainer: (trainer.out / "stop").touch(), "step 5: asked to stop; the last checkpoint is of step 4"),
        (
            lambda trainer: setattr(trainer, "_step_began", time.monotonic() - 3601),
            "step 5: its rollouts were not there after .*=3600 seconds; ",
        ),
        (
            lambda trainer: vars(trainer).update(
                _last_look=-60.0, agent_loop_manager=SimpleNamespace(fault=lambda: "a worker ended")
            ),
            "step 5: a worker ended; the last checkpoint is of step 4",
        ),
    ],
)
def test_what_makes_waiting_for_rollouts_senseless_ends_it_with_a_checkpoint(trainer, change, sentence):
    assert trainer._wait(lambda seconds: seconds, 7) == 7
    change(trainer)
    with pytest.raises(RunStopped, match=sentence):
        trainer._wait(lambda seconds: seconds, 7)
    assert trainer.events == ["saved 4 after rows []"] and trainer.data_when_tracked == {
        "at": "the beginning of step 5"
    }


def test_asked_to_stop_it_begins_no_step(trainer, monkeypatch):
    begun = []
    monkeypatch.setattr(module.PPOTrainerSync, "prepare_step", lambda self: begun.append(self.global_steps))
    trainer.prepare_step()
    trainer._places = {}
    (trainer.out / "stop").touch()
    with pytest.raises(RunStopped, match="step 5: asked to stop; the last checkpoint is of step 4"):
        trainer.prepare_step()
    assert begun == [5] and trainer.data_when_tracked == {"at": "its end"}, (
        "the data goes on where the step before left it"
    )


def test_asked_to_stop_it_does_not_validate_first(trainer):
    (trainer.out / "stop").touch()
    trainer._save_checkpoint()
    assert trainer._validate() == {}
    end_step(trainer, GOOD)
    assert trainer.events == ["saved 5 after rows [5]"]
    trainer.global_steps = 0
    with pytest.raises(RunStopped, match="asked to stop before the first step; there is no checkpoint yet"):
        trainer._validate()


def test_a_checkpoint_that_cannot_be_saved_does_not_hide_the_reason(trainer, monkeypatch):
    def full():
        raise OSError("no space left on device")

    monkeypatch.setattr(trainer.checkpoints, "verl_saves", full)
    (trainer.out / "stop").touch()
    with pytest.raises(RunStopped, match="step 5: asked to stop; the last checkpoint is of step 3"):
        trainer._wait(lambda seconds: seconds, 7)


def checkpoints(trainer):
    return sorted(path.name for path in (trainer.out / "checkpoints").iterdir())


def test_two_checkpoints_are_kept_however_often_a_run_was_restarted(trainer):
    for step in (1, 2, 3, 7):  # two and the last of earlier starts, and one that was killed while it was written
        (trainer.out / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
    trainer.checkpoints.save()
    assert checkpoints(trainer) == ["global_step_3", "global_step_5"]
    trainer.global_steps = 6
    trainer.checkpoints.save()
    assert checkpoints(trainer) == ["global_step_5", "global_step_6"]


@pytest.mark.parametrize(("keep", "rest"), [(1, [3]), (2, [3]), (3, [2, 3]), (None, [1, 2, 3, 7])])
def test_the_newest_complete_checkpoint_stays_until_the_next_is_there(tmp_path, keep, rest):
    for step in (1, 2, 3, 7):
        (tmp_path / f"global_step_{step}").mkdir()
    make_room(tmp_path, 3, keep)
    assert sorted(int(path.name[12:]) for path in tmp_path.iterdir()) == rest


def test_a_few_lost_rollouts_stop_nothing(trainer):
    trainer.agent_loop_manager = SimpleNamespace(
        drain=lambda: ([record()] * 24 + [record("transport_error", error="nan")], {})
    )
    trainer._collect()
    assert trainer.events == [] and len(trainer._records) == 25


def test_a_judge_whom_the_summaries_tell_nothing_stops_nothing(trainer):
    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: ([record(letter_a=0.5)] * 16, {}))
    trainer._collect()
    assert trainer.events == []


def test_a_validation_that_was_lost_stops_the_run_after_its_step_is_safe(trainer):
    trainer.val_dataset = [{"extra_info": {"user": "u"}}]
    trainer.agent_loop_manager = SimpleNamespace(
        validate=lambda rows, step: [record("transport_error", error="judge gone")]
    )
    metrics = trainer._validate()
    with pytest.raises(RunStopped, match="validation at step 5: 100 % .*judge gone"):
        end_step(trainer, GOOD | metrics)
    assert trainer.events == ["saved 5 after rows [5]"] and not (trainer.out / "best").exists()


def test_the_few_who_were_left_of_a_lost_validation_make_no_model_the_best(trainer):
    trainer.val_dataset = [{"extra_info": {"user": "u"}}]
    lucky, loss = record(), failed_record("v", 5, 2, RuntimeError("engine dead"))
    trainer.agent_loop_manager = SimpleNamespace(validate=lambda rows, step: [lucky] * 4 + [loss] * 60)
    with pytest.raises(RunStopped, match="validation at step 5: 88 % .*engine dead"):
        end_step(trainer, GOOD | trainer._validate())
    trainer.validation.best_reward, trainer.global_steps = -math.inf, 5
    trainer.on_init_end()  # as after a resume
    assert (
        "val/reward" not in rows(trainer)[-1]
        and trainer.validation.best_reward == -math.inf
        and not (trainer.out / "best").exists()
    )


async def test_a_validation_chain_that_cannot_run_is_a_lost_one_and_not_the_end(caplog):
    async def chain(row, *_, **__):
        raise RuntimeError("the rollout engine wrote nothing")

    kwargs = SimpleNamespace(temperature=0.6, top_p=0.95, top_k=20)
    worker = SimpleNamespace(
        _run_chain=chain,
        settings=Streaming(judges="j=http://x/v1"),
        config=SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(val_kwargs=kwargs))),
    )
    records = await StreamingWorker.validate(worker, [{"user": "u"}], 5)
    assert [(r.lost, r.problem) for r in records] == [(2, "RuntimeError: the rollout engine wrote nothing")]


@pytest.mark.parametrize(("workers", "each"), [(1, 256), (8, 32), (500, 1)])
async def test_requests_in_flight_to_a_judge_are_shared_among_the_workers(monkeypatch, workers, each):
    async def connect(settings):
        return settings

    monkeypatch.setattr(streaming.Judges, "connect", connect)
    agent = SimpleNamespace(num_workers=workers)
    worker = SimpleNamespace(
        settings=Streaming(judges="j=http://x/v1"),
        config=SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(agent=agent))),
    )
    await StreamingWorker.connect(worker)
    assert worker.judges.judge_concurrency == each
