"""The Ray of a run is gone when the run is, however it ends: its agents, and what its workers leave in /dev/shm."""

import fcntl
import os
import secrets
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from alignxplore.rl import cluster
from tests.test_processes import until

MARK = "RUN_OF_A_TEST"
# A worker holds semaphores, as vLLM's do.
RUN = """
import os, sys
from omegaconf import OmegaConf
import ray
from alignxplore.journal import RunLock
from alignxplore.rl.cluster import ray_of_its_own
from pathlib import Path

config = OmegaConf.create({"ray_kwargs": {"ray_init": {}}, "trainer": {"device": "cpu", "n_gpus_per_node": 1}})
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


def ended_by(error, logs):
    """What comes out of a run that ends so, while Ray has a log."""
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {}}, "trainer": {"device": "cpu", "n_gpus_per_node": 1}})
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
    command = [sys.executable, "-c", RUN, str(out)]
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
    with (out / ".lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # nobody else may write here before
    until(lambda: not processes_of(mark), limit=10)  # the guard was the last
    assert not any(path.exists() for path in semaphores)
