"""What a training GPU must hold, by arithmetic on the composed settings. `CHECK=1` of run_streaming_8p.sh prints it,
verl/README.md says how the figures come about. Nothing here was measured. What the settings make another thing than
the formulas stand for is None: not reckoned."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from transformers import AutoConfig, Qwen3Config

from alignxplore.records import read_object
from alignxplore.rl.passes import gpus_of_a_row

WEIGHTS, GRADIENTS, MOMENTS = 4, 4, 8  # bytes a parameter: all of it float32; Adam has two moments
STATES = WEIGHTS + GRADIENTS + MOMENTS
HALF, FULL = 2, 4  # bytes of a bfloat16, of a float32
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
    """Name and configuration of the policy; of the paper's, where its folder is not there yet.

    Raises:
        RecordError: its config.json is damaged.
    """
    if (path := Path(model) / "config.json").exists():
        read_object(path, remedy="copy or download it again")  # transformers would not name it
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


def is_known(optim: Any, fsdp: Any) -> bool:
    """Whether states are those of `states`: Adam's, and gradients shared out after each pass."""
    is_adam = (optim.optimizer_impl, optim.optimizer) in (("torch.optim", "AdamW"), ("torch.optim", "Adam"))
    return is_adam and not optim.override_optimizer_config and not fsdp.use_no_sync_for_gradient_accumulation


def tokens_of_a_pass(config: DictConfig) -> int | None:
    """The most tokens that a GPU takes in one pass of an update; None: no setting says, as padding comes on top."""
    blocks, longest = config.actor_rollout_ref, config.data.max_prompt_length + config.data.max_response_length
    actor = blocks.actor
    if actor.pad_to_length or actor.fsdp_config.pad_to_length:
        return None
    if not actor.use_dynamic_bsz:
        return actor.ppo_micro_batch_size_per_gpu * longest // gpus_of_a_row(config, "actor")
    return actor.ppo_max_token_len_per_gpu if blocks.model.use_remove_padding else None


def of_a_pass(config: DictConfig, model: Any) -> dict[str, Any]:
    """GB of a pass of an update: its activations, and its logits from ... to."""
    blocks, tokens = config.actor_rollout_ref, tokens_of_a_pass(config)
    actor, policy = blocks.actor, blocks.model
    number = FULL if (actor.fsdp_config.get("mixed_precision") or {}).get("param_dtype") == "fp32" else HALF
    activations = logits = None
    if tokens and policy.enable_gradient_checkpointing and not policy.enable_activation_offload:
        activations = round(model.num_hidden_layers * tokens * model.hidden_size * number / GB, 2)
    if policy.use_fused_kernels:
        logits = [round(copies * FUSED_TOKENS * model.vocab_size * FULL / GB, 1) for copies in FUSED_LOGITS]
    elif tokens and not actor.entropy_coeff and not actor.calculate_entropy:  # entropy keeps more copies
        logits = [round(copies * tokens * model.vocab_size * number / GB, 1) for copies in LOGITS]
    return {"activations": activations, "logits": logits}


def memory(config: DictConfig) -> dict[str, Any]:
    """GB of one GPU. While vLLM writes it holds `states_while_writing` and vLLM's share of the card; while the trainer
    works `states`, `activations` and `logits` (from ... to). `checkpoint` is GB of disk: verl 0.9.1 has each rank
    write what it holds, copies, too."""
    name, model = shape(config.actor_rollout_ref.model.path)
    rollout = config.actor_rollout_ref.rollout
    number = FULL if rollout.dtype == "float32" else HALF
    gpus, size = config.trainer.nnodes * config.trainer.n_gpus_per_node, parameters(model)
    fsdp = config.actor_rollout_ref.actor.fsdp_config
    ranks = fsdp.fsdp_size  # GPUs that share one copy; -1: all
    ranks = ranks if 0 < ranks < gpus else gpus
    writing, training = (bytes_each * size / ranks / GB for bytes_each in states(fsdp))
    saved = SAVED * gpus / ranks + 4
    is_reckoned = is_known(config.actor_rollout_ref.actor.optim, fsdp)
    cache = 2 * model.num_hidden_layers * model.num_key_value_heads * number
    weights = size * number / rollout.tensor_model_parallel_size / GB
    cache *= getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    return {
        "model": name,
        "parameters": size,
        "states": round(training, 2) if is_reckoned else None,
        "states_while_writing": round(writing, 2) if is_reckoned else None,
        **of_a_pass(config, model),
        "checkpoint": round(size * saved / GB) if is_reckoned else None,
        "vllm": {
            "share": rollout.gpu_memory_utilization,
            "weights": None if rollout.quantization else round(weights, 2),
            "cache_kb_a_token": round(cache / rollout.tensor_model_parallel_size / 1e3, 1),
        },
    }
