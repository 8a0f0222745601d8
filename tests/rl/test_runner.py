"""Where a run is driven: in the process that started it, which Ray knows nothing of."""

import os
import signal
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import ray  # noqa: E402

from alignxplore.rl import runner as module  # noqa: E402
from alignxplore.rl.settings import RunStopped  # noqa: E402
from tests.rl.test_trainer import trainer  # noqa: E402, F401


def test_a_run_that_was_stopped_does_not_look_finished(trainer, monkeypatch, tmp_path):  # noqa: F811
    codes, threads, rooms, run = [], [], [], tmp_path / "run"
    (run / "log").mkdir(parents=True)
    for name in ("WANDB_RUN_ID", "WANDB_RESUME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    started = SimpleNamespace(init=lambda: None, get_llm_client=lambda: None)
    started.logger = SimpleNamespace(finish=lambda exit_code: codes.append(exit_code))
    for name, stand_in in (
        ("configure_verl_logging", lambda: None),
        ("ray", SimpleNamespace(nodes=lambda: ["a node"])),
        ("check_room", lambda config, nodes: rooms.extend(nodes)),
        ("start_actors", lambda config: []),
        ("TRAINERS", {"sync": lambda config: started}),
        ("StreamingManager", SimpleNamespace(create=lambda *_, **__: None)),
        ("tq", SimpleNamespace(init=lambda _: None, close=lambda: None)),
    ):
        monkeypatch.setattr(module, name, stand_in)
    monkeypatch.setattr(module.torch, "set_num_threads", threads.append)
    config = trainer.config.copy()
    config.transfer_queue, config.streaming.out = {}, str(run)
    config.trainer.device, config.trainer.logger = "cuda", ["console", "wandb"]
    config.trainer.v1 = {"trainer_mode": "sync"}

    def stops(_):
        raise RunStopped("a reason")

    started.fit = stops
    with pytest.raises(RunStopped, match="a reason"):
        module.drive(config)
    first = os.environ.pop("WANDB_RUN_ID")
    started.fit, config.trainer.device = lambda _: None, "cpu"
    module.drive(config)
    assert codes == [1, 0] and os.environ["WANDB_RUN_ID"] == first and os.environ["WANDB_RESUME"] == "allow"
    assert rooms == ["a node"] * 2, "Ray is asked for room before anything waits for it"
    assert len(threads) == 1, "on a CPU the order of a sum stays what it was"


def test_verl_is_given_a_runner_in_this_process(monkeypatch):
    """With the variables of all other processes of the run, and with its own handlers in the place of Ray's."""
    monkeypatch.setenv("NCCL_DEBUG", "INFO")  # put back afterwards
    context = SimpleNamespace(runtime_env=ray.runtime_env.RuntimeEnv(env_vars={"NCCL_DEBUG": "WARN"}))
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(module.ray, "put", lambda value: ("of Ray", value))
    calls = []
    monkeypatch.setattr(module, "drive", lambda config: calls.append((config, os.environ["NCCL_DEBUG"])))

    def on_signal(number, frame):
        calls.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        runner = module.Runner(on_signal).remote()
        assert runner.run.remote("the settings") == ("of Ray", None)
        for number in before:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert calls == [("the settings", "WARN"), *before]
