"""Tokens a second and MFU: the arithmetic agrees with what PyTorch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from alignxplore.sft.speed import Work, flop_of_rows, peak_of


@pytest.mark.parametrize("frozen", [False, True])
def test_the_arithmetic_is_what_pytorch_counts(model_folder, frozen):
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager", dtype="float32")
    if frozen:  # as with an adapter: gradients pass through, the weights get none
        model.requires_grad_(False)
        model.get_input_embeddings().weight.requires_grad_(True)
    ids = torch.arange(128).unsqueeze(0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    width = model.config.num_attention_heads * model.config.head_dim
    unseen = 12 * model.config.num_hidden_layers * width * 128**2 / 2  # this attention computes the masked half, too
    assert flop_of_rows(model, [128], 128) + unseen == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert flop_of_rows(model, [128, 64], 0) < 1.6 * flop_of_rows(model, [128], 0)


def test_a_share_is_told_of_known_cards_only():
    assert Work(1000, 6e12).at(2) == {"tokens_per_second": 2000}
    assert Work(1000, 6e12, 2 * peak_of("NVIDIA H100 80GB HBM3")).at(2)["mfu"] == round(12 / 1978, 4)
    assert peak_of("GeForce 256") is None
