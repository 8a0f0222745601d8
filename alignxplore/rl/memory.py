"""What a training GPU must hold, by arithmetic on the composed settings. `CHECK=1` of run_streaming_8p.sh prints it,
verl/README.md says how the figures come about. Nothing here was measured."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from transformers import AutoConfig, Qwen3Config

WEIGHTS, GRADIENTS, MOMENTS = 4, 4, 8  # bytes a parameter: all of it float32; Adam has two moments
STATES = WEIGHTS + GRADIENTS + MOMENTS
HALF = 2  # bytes of a bfloat16
SAVED = 12  # bytes a parameter in a checkpoint: weights and moments, without gradients
LOGITS = (2, 4)  # copies of the logits that may be alive in the backward pass
FUSED_LOGITS, FUSED_TOKENS = (4, 6), 512  # with use_fused_kernels: float32 copies, of so many tokens at once
GB = 1e9


def qwen3(layers: int, width: int, inner: int, heads: int, ties: bool) -> Qwen3Config:
    """The configuration that an entry of `SHAPES` stands for."""
    return Qwen3Config(
        vocab_size=151936,
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=ties,
    )


# (layers, width, inner width, heads, tied embeddings) of models that need not be here to be reckoned with.
SHAPES = {
    "Qwen/Qwen3-0.6B": (28, 1024, 3072, 16, True),
    "Qwen/Qwen3-1.7B": (28, 2048, 6144, 16, True),
    "Qwen/Qwen3-8B": (36, 4096, 12288, 32, False),
}
PAPER = "Qwen/Qwen3-8B"


def shape(model: str) -> tuple[str, Any]:
    """Name and configuration of the policy; of the paper's, where its folder is not there yet."""
    if (Path(model) / "config.json").exists():
        return model, AutoConfig.from_pretrained(model)
    if model in SHAPES:
        return model, qwen3(*SHAPES[model])
    return f"{PAPER} (assumed)", qwen3(*SHAPES[PAPER])


def parameters(model: Any) -> int:
    """Parameters of a decoder of Qwen's or Llama's form, norms left out."""
    width, head = model.hidden_size, getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    attention = 2 * width * head * (model.num_attention_heads + model.num_key_value_heads)
    layer = attention + 3 * width * model.intermediate_size
    return model.num_hidden_layers * layer + model.vocab_size * width * (1 if model.tie_word_embeddings else 2)


def states(fsdp: Any) -> tuple[int, int]:
    """Bytes a parameter that the trainer's states take on the GPUs: while vLLM writes, and while the trainer works.

    verl drops gradients at the end of a training. What is offloaded by verl lies in the host's memory between two
    trainings, and on the GPU within one; with `offload_policy` FSDP2 keeps all of it there and brings layer by layer.
    """
    if fsdp.offload_policy:
        return 0, 0
    writing = WEIGHTS * (not fsdp.param_offload) + MOMENTS * (not fsdp.optimizer_offload)
    return writing, STATES


def memory(config: DictConfig) -> dict[str, Any]:
    """GB of one GPU. While vLLM writes it holds `states_while_writing` and vLLM's share of the card; while the trainer
    works `states`, `activations` and `logits` (from ... to). `checkpoint` is GB of disk: verl 0.9.1 has each rank
    write what it holds, copies, too."""
    name, model = shape(config.actor_rollout_ref.model.path)
    rollout, tokens = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
    gpus, size = config.trainer.nnodes * config.trainer.n_gpus_per_node, parameters(model)
    fsdp = config.actor_rollout_ref.actor.fsdp_config
    ranks = fsdp.fsdp_size  # GPUs that share one copy; -1: all
    ranks = ranks if 0 < ranks < gpus else gpus
    writing, training = (bytes_each * size / ranks / GB for bytes_each in states(fsdp))
    logits, copies = tokens * model.vocab_size * HALF / GB, LOGITS
    if config.actor_rollout_ref.model.use_fused_kernels:
        logits, copies = FUSED_TOKENS * model.vocab_size * 4 / GB, FUSED_LOGITS
    cache = 2 * model.num_hidden_layers * model.num_key_value_heads * HALF
    cache *= getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    return {
        "model": name,
        "parameters": size,
        "states": round(training, 2),
        "states_while_writing": round(writing, 2),
        "activations": round(model.num_hidden_layers * tokens * model.hidden_size * HALF / GB, 2),
        "logits": [round(number * logits, 1) for number in copies],
        "checkpoint": round(size * (SAVED * gpus / ranks + 4) / GB),
        "vllm": {
            "share": rollout.gpu_memory_utilization,
            "weights": round(size * HALF / rollout.tensor_model_parallel_size / GB, 2),
            "cache_kb_a_token": round(cache / rollout.tensor_model_parallel_size / 1e3, 1),
        },
    }
