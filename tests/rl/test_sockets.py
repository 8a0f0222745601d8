"""Two runs on one machine do not take each other's weights: each has its socket in a folder of its own."""

import tempfile

import pytest

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
    sender = object.__new__(WeightSender)
    sender.init_model()
    receiver = object.__new__(WeightReceiver)
    assert sender.rollout.zmq_handle == receiver._get_zmq_handle() == of_this_run(VERLS) != VERLS


def test_every_engine_is_given_it(compose):  # noqa: F811
    for preset, name in (("paper", "engine.WeightReceiver"), ("tiny", "cpu_vllm.UpdatableWorker")):
        engine = compose(PRESET=preset).actor_rollout_ref.rollout.engine_kwargs.vllm
        assert engine.worker_extension_cls == f"alignxplore.rl.{name}"
