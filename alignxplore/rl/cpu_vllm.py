"""vLLM's CPU worker, made ready to take new weights every step.

Named to vLLM by `rollout.engine_kwargs.vllm.worker_extension_cls=alignxplore.rl.cpu_vllm.UpdatableWorker`, which
run_streaming_8p.sh sets when DEVICE=cpu. Importing it swaps the one function that would pack the weights away.
"""

import torch
import vllm.model_executor.layers.utils as layers

from alignxplore.rl.engine import WeightReceiver


def _plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
    # vLLM's own function packs the weights into an opaque handle and drops `layer.weight`, so new ones could not be
    # loaded.
    layer.cpu_linear = torch.nn.functional.linear


layers.dispatch_cpu_unquantized_gemm = _plain_linear


class UpdatableWorker(WeightReceiver):
    """That of a GPU; a class of its own because vLLM imports the module that holds it."""
