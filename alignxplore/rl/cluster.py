"""The Ray of a run (alignxplore/rl/train.py): where it puts its files, how many slots it counts, and that nothing of
it stays."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignxplore.processes import own_family, socket_folder, temporary_files

# The longest socket of Ray, behind its folder.
_RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.9"
# A worker of Ray that ends kills what it has started, and with it Python's tracker of resources: semaphores then stay
# in /dev/shm. The family ends the workers' children, in the right order.
_LEAVES_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "0"}


@contextlib.contextmanager
def ray_of_its_own(config: DictConfig, logs: Path, keep: Sequence[int] = ()) -> Iterator[None]:
    """Within it, `ray.init` with `config.ray_kwargs.ray_init` starts a Ray that is gone afterwards, also by a kill of
    this process, after which two of Ray's agents would stay for a minute. A Ray that was there before (an address is
    given) is only left.

    Args:
        logs: where Ray's own logs are copied to if something goes wrong.
        keep: file descriptors that stay open until everything is gone.
    """
    import ray

    scratch = socket_folder("axp-ray", _RAY_SOCKET)
    if "address" not in config.ray_kwargs.ray_init and "RAY_ADDRESS" not in os.environ:
        ray_init: dict[str, Any] = {"_temp_dir": str(scratch)}
        if config.trainer.device == "cpu":
            # Ray counts slots, not cores: each training rank takes one "GPU", the helpers one "CPU" each.
            ranks = config.trainer.n_gpus_per_node
            ray_init |= {"num_cpus": 12 + 4 * ranks, "num_gpus": ranks}
            ray_init |= {"include_dashboard": False, "object_store_memory": 300_000_000}
        ray_init = {k: v for k, v in ray_init.items() if config.ray_kwargs.ray_init.get(k) is None}  # nobody chose it
        OmegaConf.update(config, "ray_kwargs.ray_init", ray_init, force_add=True)
    try:
        with own_family(keep=keep) as mark, environment_of(temporary_files(scratch) | mark | _LEAVES_CHILDREN):
            try:
                yield
            except (Exception, SystemExit):  # after Ctrl-C there is nothing to look up
                for folder in scratch.glob("session_2*/logs"):  # what Ray itself has to say about it
                    with contextlib.suppress(OSError):  # a full disk must not hide why it ended
                        shutil.copytree(folder, logs, dirs_exist_ok=True, symlinks=True)
                raise
            finally:
                signal.alarm(0)
                ray.shutdown()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """Variables of what is started in here."""
    old_values = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
        os.environ.update({name: old_values[name] for name in variables if name in old_values})
