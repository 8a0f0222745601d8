"""Clipping that cannot act is said, and what is said of losses is true of verl's."""

import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("verl")

from alignxplore.rl.clipping import ALIKE, CLIPPING  # noqa: E402
from tests.rl.test_options import ALGORITHMS, README  # noqa: E402
from tests.rl.test_presets import compose, sizes  # noqa: E402, F401

ACTOR = "actor_rollout_ref.actor"
HIGHER = f"{ACTOR}.clip_ratio_high=0.28"


@pytest.mark.parametrize("preset", ["node", "gpu", "solo", "tiny"])
def test_clipping_that_cannot_act_is_said(compose, capsys, preset):  # noqa: F811
    config = compose(HIGHER, PRESET=preset)
    assert sizes(config)["updates_per_step"] == 1
    sentence = capsys.readouterr().err
    assert f"note: {HIGHER} changes nothing here: a step has one update" in sentence and "MINI_BATCH" in sentence


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ((HIGHER,), {"PRESET": "node", "MINI_BATCH": "64"}),
        ((HIGHER,), {"PRESET": "paper"}),
        ((HIGHER, f"{ACTOR}.ppo_epochs=2"), {"PRESET": "node"}),
        ((), {"PRESET": "node"}),
        ((f"{ACTOR}.policy_loss.loss_mode=geo_mean",), {"PRESET": "node"}),
    ],
)
def test_nothing_is_said_where_it_acts_or_was_not_set(compose, capsys, arguments, variables):  # noqa: F811
    sizes(compose(*arguments, **variables))
    assert "note:" not in capsys.readouterr().err


def test_algorithms_that_only_clip_need_several_updates(compose, capsys):  # noqa: F811
    for name in ("clip-higher (DAPO)", "GSPO", "CISPO"):
        sizes(compose(*ALGORITHMS[name], PRESET="node"))
        assert "changes nothing here" in capsys.readouterr().err
        (row,) = (line for line in README.splitlines() if line.startswith(f"| {name} |"))
        assert "`MINI_BATCH` < `BATCH`" in row


def gradient(mode, moved, **values):
    """Of verl's loss of some rows, by the log-probabilities of a policy that has moved so far from the one that
    wrote."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    generator = torch.Generator().manual_seed(0)
    old, shift = -torch.rand(8, 5, generator=generator), torch.randn(8, 5, generator=generator)
    mask = torch.ones(8, 5)
    mask[0, 3:] = 0
    advantages = torch.randn(8, 1, generator=generator).expand(8, 5)
    loss = PolicyLossConfig(loss_mode=mode, dro_beta=0.1, clip_cov_ratio=0.5, clip_cov_lb=-9.0)
    actor = FSDPActorConfig(strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, policy_loss=loss, **values)
    new = (old + moved * shift).requires_grad_()
    value, _ = get_policy_loss_fn(mode)(old, new, advantages, mask, loss_agg_mode="token-mean", config=actor)
    return torch.autograd.grad(value, new)[0]


def test_before_anything_has_moved_these_losses_are_vanilla_and_no_others():
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    modes = sorted(set(POLICY_LOSS_REGISTRY) - {"vanilla", "bypass_mode"})
    alike = [mode for mode in modes if torch.allclose(gradient(mode, 0.0), gradient("vanilla", 0.0), atol=1e-7)]
    assert tuple(alike) == ALIKE
    for mode in (*ALIKE, "vanilla"):
        narrow = gradient(mode, 0.0, clip_ratio_low=3e-4, clip_ratio_high=4e-4, clip_ratio_c=1.5)
        assert torch.allclose(gradient(mode, 0.0), narrow)
    assert not torch.allclose(gradient("vanilla", 0.1), gradient("vanilla", 0.1, clip_ratio_high=0.01))


def test_what_is_called_a_default_is_one(compose):  # noqa: F811
    config = compose()
    assert {name: OmegaConf.select(config, name) for name in CLIPPING} == CLIPPING
