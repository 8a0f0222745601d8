"""What clips an update, and whether it can: in the only update of a step the policy is still the one that wrote."""

import sys

from omegaconf import DictConfig, OmegaConf

_ACTOR = "actor_rollout_ref.actor"
_MODE = f"{_ACTOR}.policy_loss.loss_mode"
# verl's defaults of what acts only on tokens that have become more or less likely since the step began.
CLIPPING = {
    f"{_ACTOR}.clip_ratio": 0.2,
    f"{_ACTOR}.clip_ratio_low": 0.2,
    f"{_ACTOR}.clip_ratio_high": 0.2,
    f"{_ACTOR}.clip_ratio_c": 3.0,
}
# Losses whose gradient is that of `vanilla` before anything has moved.
ALIKE = ("cispo", "dppo_kl", "dppo_tv", "dro", "gpg", "gspo", "kl_cov")


def note_idle_clipping(config: DictConfig, updates: int) -> None:
    """Say what was set and cannot act, as a step has one update.

    Args:
        updates: of a step, in each of its epochs.
    """
    if updates * config.actor_rollout_ref.actor.ppo_epochs > 1:
        return
    names = [name for name, default in CLIPPING.items() if OmegaConf.select(config, name) not in (None, default)]
    names += [_MODE] if OmegaConf.select(config, _MODE) in ALIKE else []
    if names:
        settings = " ".join(f"{name}={OmegaConf.select(config, name)}" for name in names)
        print(
            f"note: {settings} changes nothing here: a step has one update, in which every token is as likely as when "
            "the step began, so that nothing is clipped; MINI_BATCH < BATCH makes more updates",
            file=sys.stderr,
        )
