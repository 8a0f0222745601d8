"""What a process of a run needs of its GPU, by arithmetic: said by `sft.py --check` before anything is started.

Bytes a parameter: weights as they are loaded (2 in bf16, about 0.53 in 4 bits), gradients added up in 4 (stage 1 keeps
them beside those of the pass, in the weights' type), Adam's two moments, and with DeepSpeed 32-bit copies of weights.
What an adapter trains has 4 bytes a weight, also on a model in 4 bits; with DeepSpeed those of the other weights.
ZeRO shares out the optimizer (1), also the gradients (2), also the weights (3). Of a pass: one layer input a layer
(gradient checkpointing) and what one layer makes, or that of all layers; the head, 256 tokens at a time, as DeepSpeed
computes it, in 32 bits (without it, under autocast, its logits are bf16 and their losses 32 bits).
Within a tenth of both peaks measured on a GPU (tests/sft/test_recipes.py). CUDA's own one to two GB come on top.
"""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from trl import ModelConfig, get_peft_config

from alignxplore.sft.configuration import TrainArguments, spread

CHUNK = 256  # trained tokens whose logits TRL makes at once
FOUR_BITS = 0.53  # bytes: half a byte, and the scale of each block


@dataclass(frozen=True)
class Memory:
    """GB (10^9 bytes) of one process: what stays, and what a pass takes."""

    weights: float
    gradients: float
    optimizer: float
    one_pass: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.one_pass

    def words(self, tokens: int) -> str:
        """One line about it; `tokens`: of a pass."""
        return (
            f"memory of a GPU, by arithmetic: {self.total:.1f} GB = {self.weights:.1f} weights + {self.gradients:.1f} "
            f"gradients + {self.optimizer:.1f} optimizer + {self.one_pass:.1f} for a pass of {tokens:,} tokens; "
            "besides, 1 to 2 GB of CUDA"
        )


def skeleton(args: TrainArguments, model: ModelConfig) -> PreTrainedModel:
    """The model without its weights, and its adapter if one is trained: to be counted, not run."""
    config = AutoConfig.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
        if adapter := get_peft_config(model):
            from peft import get_peft_model

            return get_peft_model(network, adapter)
    return network


def most_tokens(args: TrainArguments, longest_row: int) -> int:
    """Tokens of the fullest pass of one process; `longest_row`: tokens of the longest one."""
    return (args.packed_tokens or args.max_length) if args.packing else args.per_device_train_batch_size * longest_row


def memory_of(network: PreTrainedModel, args: TrainArguments, model: ModelConfig, tokens: int) -> Memory:
    """What one process needs; `tokens`: of its fullest pass (`most_tokens`)."""
    config, layout = network.config, spread(args)
    stage, processes = layout["zero_stage"], layout["processes"] or 1
    in_float32 = str(args.model_init_kwargs["dtype"]).removeprefix("torch.") == "float32"
    width, head = 4 if in_float32 else 2, network.get_output_embeddings().weight.numel()
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    trained_weights = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen_weights = sum(sizes.values()) - trained_weights
    tables = 0 if not model.load_in_4bit else head * (1 if config.tie_word_embeddings else 2)
    frozen_bytes = FOUR_BITS * (frozen_weights - tables) + 2 * tables if model.load_in_4bit else width * frozen_weights
    trained_width = 4 if model.use_peft and stage is None else width
    weights = (frozen_bytes + trained_width * trained_weights) / (processes if stage == 3 else 1)
    if args.bf16 and in_float32:
        weights += 2 * (trained_weights + frozen_weights)  # autocast's copies
    gradients = 4 * trained_weights / (processes if stage in (2, 3) else 1) + (
        trained_width * trained_weights if stage == 1 else 0
    )
    optimizer = (8 if stage is None else 12) * trained_weights / (processes if stage is not None else 1)
    trains_head = network.get_output_embeddings().weight.requires_grad
    logits = 4 * head * (2 if trains_head else 1) + 3 * 4 * CHUNK * config.vocab_size
    one_pass = pass_bytes(config, tokens, args.gradient_checkpointing, 2 if args.bf16 else width) + logits
    return Memory(*(size / 1e9 for size in (weights, gradients, optimizer, one_pass)))


def pass_bytes(config, tokens: int, checkpointing: bool, width: int) -> float:
    """Bytes that a forward pass leaves for the backward one, attention being computed in blocks."""
    hidden_size, layers = config.hidden_size, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or hidden_size // config.num_attention_heads
    heads = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim
    layer = 1.5 * (8 * hidden_size + 2 * heads + 4 * config.intermediate_size)  # half as much again while it goes back
    return width * tokens * (layers * hidden_size + layer if checkpointing else layers * layer / 1.5)
