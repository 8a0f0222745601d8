"""The Ray of a run is gone when the run is, however it ends: its agents, and what its workers leave in /dev/shm."""

import fcntl
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from alignxplore.rl import cluster
from alignxplore.rl.settings import RunStopped
from tests.test_processes import until

MARK = "RUN_OF_A_TEST"
# A worker holds semaphores, as vLLM's do.
RUN = """
import json, os, sys
from omegaconf import OmegaConf
import ray
from alignxplore.journal import RunLock
from alignxplore.rl.cluster import ray_of_its_own
from pathlib import Path

config = OmegaConf.create({**json.loads(sys.argv[2]), "ray_kwargs": {"ray_init": {}}})
out = Path(sys.argv[1])

class Worker:
    def hold(self):
        import multiprocessing
        self.locks = [multiprocessing.get_context("spawn").Lock() for _ in range(20)]
        return [lock._semlock.name.removeprefix("/") for lock in self.locks]

with RunLock(out) as lock, ray_of_its_own(config, out / "log", keep=[lock.fileno()]):
    ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init))
    worker = ray.remote(Worker).remote()
    print("holds", *ray.get(worker.hold.remote()), flush=True)
    sys.stdin.readline()
"""


def settings(nodes=1, gpus=1, workers=1, storage=1, device="cpu"):
    """What the Ray of a run depends on."""
    return {
        "ray_kwargs": {"ray_init": {}},
        "trainer": {"device": device, "nnodes": nodes, "n_gpus_per_node": gpus},
        "actor_rollout_ref": {"rollout": {"agent": {"num_workers": workers}}},
        "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": storage}}},
    }


def ended_by(error, logs):
    """What comes out of a run that ends so, while Ray has a log."""
    config = OmegaConf.create(settings())
    with pytest.raises(type(error)) as caught, cluster.ray_of_its_own(config, logs):
        scratch = Path(config.ray_kwargs.ray_init._temp_dir)
        (scratch / "session_2026" / "logs").mkdir(parents=True)
        (scratch / "session_2026" / "logs" / "raylet.out").touch()
        raise error
    assert not scratch.exists()
    return caught.value


@pytest.mark.parametrize(
    ("error", "logs"), [(ValueError("x"), True), (SystemExit(143), True), (KeyboardInterrupt(), False)]
)
def test_ray_is_asked_what_it_has_to_say_unless_somebody_ended_the_run(tmp_path, error, logs):
    """A run that goes on after Ctrl-C ends with the files of one that nobody disturbed."""
    assert ended_by(error, tmp_path / "ray") is error
    assert (tmp_path / "ray" / "raylet.out").exists() == (tmp_path / "ray").exists() == logs


def test_logs_that_find_no_room_do_not_hide_why_a_run_ended(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cluster.shutil, "copytree", full)
    reason = ValueError("the reason")
    assert ended_by(reason, tmp_path) is reason


def processes_of(mark: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except (psutil.Error, OSError):
            continue
    return processes


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_nothing_of_ray_stays(tmp_path, killed):
    mark, out = secrets.token_hex(8), tmp_path / "out"
    command = [sys.executable, "-c", RUN, str(out), json.dumps(settings())]
    environment = os.environ | {MARK: mark, "SPT_NOENV": "1"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # empty, it says to Ray that there is no slot
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        line = next(line for line in run.stdout if line.startswith("holds "))
        semaphores = [Path(f"/dev/shm/sem.{name}") for name in line.split()[1:]]
        assert all(path.exists() for path in semaphores) and len(semaphores) == 20
        names = {process.name() for process in processes_of(mark)}
        assert names >= {"raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}, names
        if killed:
            run.kill()
    assert run.returncode == (-9 if killed else 0)
    if killed:  # else the lock has gone with the run
        with (out / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # nobody else may write here before
    until(lambda: not processes_of(mark), limit=10)  # the guard was the last
    assert not any(path.exists() for path in semaphores)


def has(*nodes):
    """Ray's nodes, by their (GPUs, CPUs)."""
    return [{"Alive": True, "Resources": {"GPU": float(gpus), "CPU": float(cpus)}} for gpus, cpus in nodes]


@pytest.mark.parametrize("gpus", [1, 8])
def test_a_ray_of_its_own_has_room_on_a_machine_with_few_cores(tmp_path, monkeypatch, gpus):
    """verl's queue takes nine slots and each trainer three: eight cores, as machines with one GPU have, are too
    few."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for device in ("cuda", "cpu"):
        config = OmegaConf.create(settings(gpus=gpus, workers=8, storage=8, device=device))
        with cluster.ray_of_its_own(config, tmp_path):
            slots = config.ray_kwargs.ray_init.num_cpus
        assert slots >= 8 + 9 + 3 * gpus
        cluster.check_room(config, has((gpus, slots)))


def test_a_ray_without_room_for_all_processes_is_refused():
    """Those of a run of one GPU: worker, nine of the queue, three of the trainer, two for a moment."""
    one, four = (OmegaConf.create(settings(nodes, gpus, storage=8)) for nodes, gpus in ((1, 1), (4, 8)))
    cluster.check_room(one, has((1, 15)))
    with pytest.raises(RunStopped, match=r"take 15 CPUs .* nodes of 14\. .*--num-cpus=15 on each"):
        cluster.check_room(one, has((1, 14)))
    cluster.check_room(four, has((8, 36), *[(8, 24)] * 3))
    cluster.check_room(four, has((16, 60), (16, 48)))  # two share a machine
    for cpus in ((35, 24, 24, 24), (90, 23, 24, 24)):
        with pytest.raises(RunStopped, match=r"take 108 CPUs .*--num-cpus=36 on each"):
            cluster.check_room(four, has(*((8, count) for count in cpus)))
    lost = [*has(*[(8, 99)] * 4)[:3], {"Alive": False, "Resources": {}}]
    with pytest.raises(RunStopped, match="NNODES=4 nodes of GPUS=8 .* nodes of 8, 8, 8 GPUs"):
        cluster.check_room(four, lost)
