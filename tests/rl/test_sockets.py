"""Two runs on one machine do not take each other's weights: each has its socket in a folder of its own. Ranks wait for
the one that writes the model."""

import os
import socket
import subprocess
import sys
import tempfile

import pytest
from omegaconf import OmegaConf

pytest.importorskip("verl")

from verl.workers.engine_workers import ActorRolloutRefWorker  # noqa: E402

from alignxplore.rl.sockets import WeightSender, of_this_run  # noqa: E402
from tests.rl.test_presets import compose  # noqa: E402, F401

VERLS = "ipc:///tmp/rl-colocate-zmq-01000000-replica-31-rank-7.sock"


def test_a_socket_lies_in_the_run_s_own_folder_unless_its_path_would_be_too_long(monkeypatch):
    for folder, place in (("/scratch/a", "ipc:///scratch/a/rl-colocate"), (f"/{'b' * 80}", "ipc:///tmp/rl-colocate")):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert of_this_run(VERLS) == place + VERLS.partition("rl-colocate")[2]


def test_both_ends_have_that_name(monkeypatch):
    from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

    from alignxplore.rl.engine import WeightReceiver

    def init_model(worker):
        worker.rollout = type("Rollout", (), {"zmq_handle": VERLS})()

    monkeypatch.setattr(tempfile, "tempdir", "/scratch/a")
    monkeypatch.setattr(ActorRolloutRefWorker, "init_model", init_model)
    monkeypatch.setattr(vLLMColocateWorkerExtension, "_get_zmq_handle", lambda worker: VERLS)
    monkeypatch.setattr("verl.utils.distributed.initialize_global_process_group_ray", lambda timeout_second: None)
    sender = object.__new__(WeightSender)
    sender.config = OmegaConf.create({"nccl_timeout": 60})
    sender.init_model()
    receiver = object.__new__(WeightReceiver)
    assert sender.rollout.zmq_handle == receiver._get_zmq_handle() == of_this_run(VERLS) != VERLS


def test_every_engine_is_given_it(compose):  # noqa: F811
    for preset, name in (("paper", "engine.WeightReceiver"), ("tiny", "cpu_vllm.UpdatableWorker")):
        engine = compose(PRESET=preset).actor_rollout_ref.rollout.engine_kwargs.vllm
        assert engine.worker_extension_cls == f"alignxplore.rl.{name}"


A_RANK = """
import torch
from omegaconf import OmegaConf
from verl.workers.engine_workers import ActorRolloutRefWorker, initialize_global_process_group_ray
from alignxplore.rl.sockets import WeightSender

def init_model(worker):
    initialize_global_process_group_ray(timeout_second=None)  # as verl's TrainingWorker does
    worker.rollout = None

ActorRolloutRefWorker.init_model = init_model
worker = object.__new__(WeightSender)
worker.config = OmegaConf.create({"nccl_timeout": 3000})
worker.init_model()
group = torch.distributed.distributed_c10d._get_default_group()
backend = group._get_backend(torch.device("cpu"))
print(torch.distributed.get_backend(), backend.options._timeout.total_seconds(), torch.get_num_threads())
torch.distributed.destroy_process_group()
"""


def test_a_rank_waits_for_the_others_as_long_as_nccl_timeout_says():
    """verl 0.9.1 does not read it: 63 ranks would end after ten minutes while the first one writes the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    cluster = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TRAIN_THREADS": "1"}
    platform = {"VERL_USE_EXTERNAL_MODULES": "alignxplore.rl.cpu_platform", "VERL_PLATFORM": "cpu"}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", A_RANK],
        env=os.environ | cluster | platform,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.stdout.splitlines()[-1:] == ["gloo 3000.0 1"], process.stdout + process.stderr[-2000:]


def test_ranks_have_an_hour_unless_another_time_is_given(compose):  # noqa: F811
    """33 GB of an 8B model at 10 MB/s."""
    for preset in ("paper", "tiny"):
        assert compose(PRESET=preset).actor_rollout_ref.nccl_timeout == 3600
