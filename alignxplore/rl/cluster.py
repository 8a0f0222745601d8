"""The Ray of a run (alignxplore/rl/train.py): where it puts its files, how many slots it counts, that it has room for
all of a run's processes, and that nothing of it stays."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignxplore.processes import own_family, socket_folder, temporary_files
from alignxplore.rl.settings import RunStopped

# The longest socket of Ray, behind its folder.
_RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.9"
# A worker of Ray that ends kills what it has started, and Ray the rest of that worker's process group; with it goes
# Python's tracker of resources, and semaphores stay in /dev/shm. The family ends the workers' children, in the right
# order.
_LEAVES_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "0", "RAY_process_group_cleanup_enabled": "0"}
_TRAINER = 3  # slots that verl 0.9.1 asks for beside each GPU
_SHORT = 2  # slots of what lives for a moment only, while trainers and engines are started
_SPARE = 4  # of a Ray of its own


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
        # Ray takes cores for slots; a machine with fewer of them than these processes would wait for ever.
        ray_init: dict[str, Any] = {"_temp_dir": str(scratch), "num_cpus": slots(config) + _SPARE}
        if config.trainer.device == "cpu":
            ray_init["num_gpus"] = config.trainer.n_gpus_per_node  # each training rank takes one "GPU"
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


def slots(config: DictConfig) -> int:
    """Slots ("CPUs") that a run's processes hold in Ray: those that run the streams, the controller and the storage of
    verl's queue of rows, and the trainers."""
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    storage = OmegaConf.select(config, "transfer_queue.backend.SimpleStorage.num_data_storage_units") or 1
    return config.actor_rollout_ref.rollout.agent.num_workers + 1 + storage + _TRAINER * gpus + _SHORT


def check_room(config: DictConfig, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `RunStopped` where Ray has no room for all of a run's processes: verl and its queue would wait for it for
    ever, without a word.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    node_count, gpus, needed = config.trainer.nnodes, config.trainer.n_gpus_per_node, slots(config)
    parts = [(part.get("GPU", 0), part.get("CPU", 0)) for part in (n["Resources"] for n in nodes if n["Alive"])]
    if sum(cards // gpus for cards, _ in parts) < node_count:
        raise RunStopped(
            f"NNODES={node_count} nodes of GPUS={gpus} were asked for, and Ray has nodes of "
            f"{', '.join(f'{cards:.0f}' for cards, _ in parts)} GPUs; on several start Ray first, and set RAY_ADDRESS"
        )
    fitting = sum(min(cards // gpus, cpus // (_TRAINER * gpus)) for cards, cpus in parts)
    if fitting < node_count or sum(cpus for _, cpus in parts) < needed:
        each = needed - _TRAINER * gpus * (node_count - 1)
        raise RunStopped(
            f"this run's processes take {needed} CPUs as Ray counts them, {_TRAINER} of them beside each GPU, and it "
            f"has nodes of {', '.join(f'{cpus:.0f}' for _, cpus in parts)}. They are slots, not cores: "
            f"ray start --num-cpus={each} on each node (RAY_OPTIONS of slurm_streaming.sbatch)"
        )
