"""Drives a run in the process that started it: verl's TaskRunner with the trainers for streams.

verl has an actor of Ray do this. It would import everything once more: half a gigabyte, and seconds of every start.
"""

import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from pprint import pprint
from types import SimpleNamespace

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from verl.utils.logging_utils import configure_verl_logging
from verl.workers.rollout.replica import RolloutReplicaRegistry

from alignxplore.rl.cluster import check_room
from alignxplore.rl.light_server import light_replica
from alignxplore.rl.streaming import StreamingManager, start_actors
from alignxplore.rl.trainer import TRAINERS

RUNNER_THREADS = 8


class Runner:
    """What verl's `run_ppo` takes for the class of an actor, and then for the actor.

    Args:
        on_signal: what SIGTERM and SIGALRM do from then on.
    """

    def __init__(self, on_signal: Callable[[int, object], None]):
        self.on_signal = on_signal

    def remote(self) -> SimpleNamespace:
        """Called once Ray is up; the result's `run.remote(config)` is called next."""
        # Ray has put its own handler in place, which ends the process before anything is cleaned up.
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, self.on_signal)
        os.environ.update(ray.get_runtime_context().runtime_env.env_vars())  # as every other process of the run
        return SimpleNamespace(run=SimpleNamespace(remote=self._run))

    def _run(self, config: DictConfig) -> ray.ObjectRef:
        drive(config)
        return ray.put(None)  # run_ppo waits for something of Ray's


def drive(config: DictConfig) -> None:
    """Train to the last planned step; raises where that was not reached."""
    configure_verl_logging()
    if config.trainer.device == "cpu":
        RolloutReplicaRegistry.register("vllm", light_replica)
    else:
        # A step's tensors of rows x tokens are added up here: one thread is too slow, all cores are no faster.
        torch.set_num_threads(min(RUNNER_THREADS, os.cpu_count() or 1))
    if "wandb" in config.trainer.logger:
        continue_in_wandb(Path(config.streaming.out))
    check_room(config, ray.nodes())
    actors = start_actors(config)
    config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    pprint(OmegaConf.to_container(config))
    tq.init(config.transfer_queue)
    trainer, code = None, 1
    try:
        trainer = TRAINERS[config.trainer.v1.trainer_mode](config)
        trainer.init()
        trainer.fit(StreamingManager.create(actors, config=config, llm_client=trainer.get_llm_client()))
        code = 0
    finally:
        if logger := getattr(trainer, "logger", None):
            logger.finish(exit_code=code)  # or a run that was stopped would look finished in wandb
        tq.close()


def continue_in_wandb(out: Path) -> None:
    """A resumed run is the same run in wandb: its name there is kept in OUT/log/wandb_run."""
    path = out / "log" / "wandb_run"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    os.environ.setdefault("WANDB_RUN_ID", path.read_text())
    os.environ.setdefault("WANDB_RESUME", "allow")
