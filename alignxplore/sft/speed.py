"""What a step of training takes, and which share of the cards' arithmetic it uses (MFU): for log.jsonl.

A weight costs 2 FLOP a token forward and 4 backward (2 where weights are frozen), the head's for trained tokens alone;
attention is added, recomputation is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

# TFLOP/s of dense bf16 as their makers tell, by a part of the card's name.
CARDS = {"H100": 989, "H200": 989, "H800": 989, "B200": 2250, "A100": 312, "A800": 312, "L40S": 362, "4090": 165}


def peak_of(card: str) -> float | None:
    """FLOP/s of a card; None for one that is not known."""
    return next((1e12 * tera for name, tera in CARDS.items() if name in card), None)


@dataclass(frozen=True)
class Work:
    """One optimizer step: tokens and FLOP over all processes; `peak`: FLOP/s of all cards (None: not known)."""

    tokens: float
    flop: float
    peak: float | None = None

    def at(self, steps_per_second: float) -> dict[str, float]:
        """Tokens a second, and MFU where the card is known."""
        values = {"tokens_per_second": round(self.tokens * steps_per_second, 1)}
        return values | ({"mfu": round(self.flop * steps_per_second / self.peak, 4)} if self.peak else {})


def flop_of_rows(model: PreTrainedModel, lengths: Sequence[int], trained_tokens: int) -> float:
    """FLOP of one pass, forward and backward, over rows of these lengths in tokens."""
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in model.named_parameters()}
    frozen = any(not p.requires_grad for p in model.parameters())
    config, table = model.config, model.get_input_embeddings().weight
    head = getattr(table, "ds_numel", table.numel())
    body = sum(sizes.values()) - head * (1 if config.tie_word_embeddings else 2)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    tokens, pairs = sum(lengths), sum(length * length for length in lengths) / 2  # causal: half of them are seen
    weights = (4 if frozen else 6) * (body * tokens + head * trained_tokens)
    return weights + 12 * config.num_hidden_layers * width * pairs


def work_of_a_step(
    model: PreTrainedModel, lengths: Sequence[int], trained_tokens: int, steps: float, device: torch.device, cards: int
) -> Work:
    """The mean step of `steps` a pass over the rows, on so many cards."""
    peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    flop = flop_of_rows(model, lengths, trained_tokens) / steps
    return Work(sum(lengths) / steps, flop, peak and peak * cards)
