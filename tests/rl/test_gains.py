"""Gains that were looked at and are not set (verl/README.md): what each costs, by arithmetic and by verl's code."""

import pytest

pytest.importorskip("verl")

from tests.rl.test_presets import compose, sizes  # noqa: E402, F401


def test_what_saves_traffic_or_logits_costs_what_check_says(compose):  # noqa: F811
    """verl/README.md, Gains that were looked at: copies of the weights stand in memory and in each checkpoint."""
    from alignxplore.rl.memory import memory

    def found(*arguments):
        config = compose(*arguments)
        sizes(config)  # verl's own checks take it
        return {name: memory(config)[name] for name in ("states", "logits", "checkpoint")}

    plain = {"states": 2.05, "logits": [14.9, 29.9], "checkpoint": 131}
    assert found() == plain
    shared = "actor_rollout_ref.actor.fsdp_config.fsdp_size="
    assert found(f"{shared}8") == plain | {"states": 16.38, "checkpoint": 819}
    assert found(f"{shared}64") == found(f"{shared}-1") == plain
    assert found("actor_rollout_ref.model.use_fused_kernels=true") == plain | {"logits": [1.2, 1.9]}


def test_states_in_the_hosts_memory_are_not_on_the_gpu(compose):  # noqa: F811
    """GB of 8.19e9 parameters on 8 GPUs, while vLLM writes and while the trainer works: 4 bytes of weights, 8 of
    moments, and 4 of gradients, which verl drops after a training."""
    from alignxplore.rl.memory import memory

    fsdp, gigabytes = "actor_rollout_ref.actor.fsdp_config", 8.19 / 8
    for names, writing, training in (
        ([], 12, 16),
        (["param_offload"], 8, 16),
        (["optimizer_offload"], 4, 16),
        (["param_offload", "optimizer_offload"], 0, 16),
        (["offload_policy"], 0, 0),
    ):
        figures = memory(compose(*(f"{fsdp}.{name}=true" for name in names), PRESET="node"))
        both = figures["states_while_writing"], figures["states"]
        assert both == pytest.approx((writing * gigabytes, training * gigabytes), abs=0.02), names


ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
ROWS = (f"{ACTOR}.use_dynamic_bsz=false", "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16")
# GB of PRESET=node with other settings; None: not reckoned.
PLAIN = {"states": 16.38, "activations": 7.25, "logits": [14.9, 29.9], "checkpoint": 131}
UNKNOWN_STATES = {"states": None, "checkpoint": None}
OTHERWISE = {
    (f"{MODEL}.enable_gradient_checkpointing=false",): {"activations": None},
    (f"{MODEL}.enable_activation_offload=true",): {"activations": None},
    (f"{MODEL}.use_remove_padding=false",): {"activations": None, "logits": None},
    (f"{MODEL}.use_remove_padding=false", f"{MODEL}.use_fused_kernels=true"): {
        "activations": None,
        "logits": [1.2, 1.9],
    },
    (f"{ACTOR}.fsdp_config.pad_to_length=true",): {"activations": None, "logits": None},
    # 16 rows of 12,288 tokens each, instead of two
    (*ROWS, f"{ACTOR}.ppo_micro_batch_size_per_gpu=16"): {"activations": 57.98, "logits": [119.5, 239.0]},
    (
        *ROWS,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=16",
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=8",
    ): {},
    (f"{ACTOR}.entropy_coeff=0.01",): {"logits": None},
    (f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp32",): {"activations": 14.5, "logits": [29.9, 59.7]},
    (f"{ACTOR}.optim.optimizer=SGD",): UNKNOWN_STATES,
    (f"{ACTOR}.optim.optimizer_impl=torch.optim.adamw", f"{ACTOR}.optim.optimizer=AdamW"): UNKNOWN_STATES,
    (f"{ACTOR}.fsdp_config.use_no_sync_for_gradient_accumulation=true",): UNKNOWN_STATES,
}


@pytest.mark.parametrize("arguments", OTHERWISE)
def test_what_the_arithmetic_does_not_hold_for_is_not_reckoned(compose, arguments):  # noqa: F811
    from alignxplore.rl.memory import memory

    config = compose(*arguments, PRESET="node")
    sizes(config)  # accepted
    figures = memory(config)
    assert {name: figures[name] for name in PLAIN} == PLAIN | OTHERWISE[arguments]


@pytest.mark.parametrize("preset", ["paper", "node", "gpu", "solo", "tiny"])
def test_no_preset_takes_what_was_found_to_cost_more_than_it_gains(compose, preset):  # noqa: F811
    config = compose(PRESET=preset)
    assert config.actor_rollout_ref.actor.fsdp_config.fsdp_size == -1
    assert not config.actor_rollout_ref.model.use_fused_kernels


def test_fused_kernels_give_the_same_probabilities_and_a_rougher_gradient_of_the_head():
    """Why no preset sets use_fused_kernels: in bfloat16 verl adds the head's gradient up chunk by chunk."""
    import torch
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    torch.manual_seed(0)
    tokens, width, words = 8192, 64, 512
    states, head = torch.randn(tokens, width).bfloat16(), (torch.randn(words, width) / width**0.5).bfloat16()
    ids, advantages = torch.randint(0, words, (tokens,)), torch.randn(tokens) / tokens

    def plain(states, head):
        return torch.log_softmax((states @ head.t()).float(), -1).gather(-1, ids[:, None])[:, 0]

    def fused(states, head):
        return FusedLinearForPPO()(states, head, ids)[0]

    def of(function, kind):
        one, other = (tensor.detach().clone().to(kind).requires_grad_() for tensor in (states, head))
        outputs = function(one, other)
        (outputs * advantages).sum().backward()
        return outputs.detach().float(), other.grad.float()

    exact = of(plain, torch.float32)[1]
    log_probabilities, gradient = of(plain, torch.bfloat16)
    fused_said, fused_gradient = of(fused, torch.bfloat16)
    assert torch.allclose(log_probabilities, fused_said, atol=1e-5)
    error, fused_error = ((outputs - exact).norm() / exact.norm() for outputs in (gradient, fused_gradient))
    assert error < 0.004 and 1.5 * error < fused_error < 10 * error
