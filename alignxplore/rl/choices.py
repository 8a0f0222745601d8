"""Names and numbers that verl looks up at the first update, or as its engines start: tried before Ray starts.

Each is given to the part of verl that reads it, with two tokens. One that was mistyped would otherwise pass, and end
the run hours later.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, agg_loss, get_policy_loss_fn, kl_penalty
from verl.trainer.ppo.rollout_corr_helper import (
    SUPPORTED_ROLLOUT_RS_OPTIONS,
    compute_rollout_correction_and_rejection_mask,
)
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import FSDPActorConfig, PolicyLossConfig
from verl.workers.config.optimizer import build_optimizer

from alignxplore.rl.options import only
from alignxplore.rl.settings import SettingsError

_ACTOR, _ROLLOUT, _CORRECTION = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm.rollout_correction"
_OPTIM, _LOSS = f"{_ACTOR}.optim", f"{_ACTOR}.policy_loss"
_LOG_PROBS, _MASK, _ADVANTAGES = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[1.0, -1.0]])


def _always(config: DictConfig) -> bool:
    return True


class Choice(NamedTuple):
    """A setting, what verl takes there, in words, and whether it takes this value. An error says no as well."""

    name: str
    allowed: str
    takes: Callable[[Any, DictConfig], bool]
    is_read: Callable[[DictConfig], bool] = _always


def check_choices(config: DictConfig) -> None:
    """Raise `SettingsError` at the first setting that verl would end at once it reads it."""
    for name, allowed, takes, is_read in CHOICES:
        value = OmegaConf.select(config, name)
        if is_read(config) and not _takes(takes, value, config):
            raise SettingsError(f"{name}={value}: verl 0.9.1 takes {allowed}")
    for block, build in ((_OPTIM, _build_optimizer), (_ROLLOUT, omega_conf_to_dataclass)):
        try:
            build(OmegaConf.select(config, block))
        except Exception as error:  # whatever it is, the run would end with it
            cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
            raise SettingsError(
                f"verl 0.9.1 does not take {block} as it is: {cause or type(cause).__name__}"
            ) from error


def _takes(takes: Callable[[Any, DictConfig], bool], value: Any, config: DictConfig) -> bool:
    try:
        return takes(value, config)
    except Exception:  # verl raises whatever comes
        return False


def _in(*names: object) -> Callable[[Any, DictConfig], bool]:
    is_one = only(*names)
    return lambda value, config: is_one(value)


def _has_loss(value: Any, config: DictConfig) -> bool:
    return callable(get_policy_loss_fn(value))


def _is_sum(value: Any, config: DictConfig) -> bool:
    return bool(torch.isfinite(agg_loss(_LOG_PROBS, _MASK, value)))


def _of_loss(block: str, name: str, allowed: str) -> Choice:
    """A setting of the loss, which is computed with verl's defaults of all others."""

    def takes(value: Any, config: DictConfig) -> bool:
        own = config.actor_rollout_ref.actor.policy_loss
        values = {"loss_mode": own.loss_mode, "dro_beta": own.dro_beta}  # this one has no default
        others: dict[str, Any] = {}
        (values if block == _LOSS else others)[name] = value
        actor = FSDPActorConfig(
            strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, policy_loss=PolicyLossConfig(**values), **others
        )
        loss, _ = get_policy_loss_fn(own.loss_mode)(_LOG_PROBS, _LOG_PROBS, _ADVANTAGES, _MASK, config=actor)
        return bool(torch.isfinite(loss))

    return Choice(f"{block}.{name}", allowed, takes)


def _is_kl(value: Any, config: DictConfig) -> bool:
    return bool(torch.isfinite(kl_penalty(_LOG_PROBS, _LOG_PROBS, value)).all())


def _of_correction(reader: str, name: str, allowed: str, beside: dict[str, Any] | None = None) -> Choice:
    """A setting of the rollout correction, with `beside` (else what the run has) at the other side of its pair."""

    def takes(value: Any, config: DictConfig) -> bool:
        others = beside or {reader: OmegaConf.select(config, f"{_CORRECTION}.{reader}")}
        compute_rollout_correction_and_rejection_mask(_LOG_PROBS, _LOG_PROBS, _MASK, **others | {name: value})
        return value is not None  # a threshold that is not there corrects nothing, without a word

    def is_read(config: DictConfig) -> bool:
        return OmegaConf.select(config, f"{_CORRECTION}.{reader}") is not None

    return Choice(f"{_CORRECTION}.{name}", allowed, takes, is_read)


def _is_package(value: Any, config: DictConfig) -> bool:
    return bool(importlib.import_module(value))


def _is_optimizer(value: Any, config: DictConfig) -> bool:
    package = importlib.import_module(config.actor_rollout_ref.actor.optim.optimizer_impl)
    return issubclass(getattr(package, value), torch.optim.Optimizer)


def _build_optimizer(settings: DictConfig) -> None:
    build_optimizer([torch.nn.Parameter(torch.zeros(2, 2))], omega_conf_to_dataclass(settings))


def _is_number(value: Any, config: DictConfig) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_width(value: Any, config: DictConfig) -> bool:
    return _is_number(value, config) and value >= 0


def _is_width_or_none(value: Any, config: DictConfig) -> bool:
    return value is None or _is_width(value, config)


def _clips(value: Any, config: DictConfig) -> bool:
    return value == math.inf or _is_number(value, config) and value > 0


def _is_on(name: str) -> Callable[[DictConfig], bool]:
    return lambda config: bool(OmegaConf.select(config, name))


def _one_of(*names: str) -> str:
    return f"one of {', '.join(names)}"


_SUMS = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
_KL = "one of k1 (kl), abs, k2 (mse), k3 (low_var_kl), or k1+, abs+, k3+ for the gradient of k2"
_SCHEDULES = ("constant", "cosine")
CHOICES = (
    Choice(f"{_LOSS}.loss_mode", _one_of(*(m for m in POLICY_LOSS_REGISTRY if m != "bypass_mode")), _has_loss),
    _of_loss(_LOSS, "dro_beta", "a number of more than 0 with loss_mode=dro"),
    *(_of_loss(_LOSS, name, "a number of more than 0") for name in ("clip_cov_ratio", "kl_cov_ratio")),
    *(_of_loss(_ACTOR, name, "a number other than 0") for name in ("tau_pos", "tau_neg")),
    Choice(f"{_ACTOR}.loss_agg_mode", _one_of(*_SUMS), _is_sum),
    Choice(f"{_ACTOR}.clip_ratio", "a number of at least 0", _is_width),
    *(Choice(f"{_ACTOR}.clip_ratio_{end}", "a number of at least 0", _is_width_or_none) for end in ("low", "high")),
    _of_loss(_ACTOR, "clip_ratio_c", "a number of more than 1"),
    Choice(f"{_ACTOR}.entropy_coeff", "a number", _is_number),
    Choice(f"{_ACTOR}.kl_loss_coef", "a number", _is_number, _is_on(f"{_ACTOR}.use_kl_loss")),
    Choice(f"{_ACTOR}.kl_loss_type", _KL, _is_kl, _is_on(f"{_ACTOR}.use_kl_loss")),
    Choice("algorithm.kl_ctrl.kl_coef", "a number", _is_number, _is_on("algorithm.use_kl_in_reward")),
    Choice("algorithm.kl_penalty", _KL, _is_kl, _is_on("algorithm.use_kl_in_reward")),
    _of_correction("rollout_is", "rollout_is", _one_of("token", "sequence"), {"rollout_is_threshold": 2.0}),
    _of_correction("rollout_is", "rollout_is_threshold", "a number of more than 0, or two as in 0.5_2.0"),
    _of_correction(
        "rollout_rs",
        "rollout_rs",
        f"{_one_of(*sorted(SUPPORTED_ROLLOUT_RS_OPTIONS))}, or several of them with commas between",
        {"rollout_rs_threshold": 2.0},
    ),
    _of_correction(
        "rollout_rs",
        "rollout_rs_threshold",
        "a number of more than 0, or one for each name in rollout_rs, with commas between; those of k1 may be two, as "
        "in 0.5_2.0",
    ),
    Choice(f"{_OPTIM}.optimizer_impl", "a package that can be imported, such as torch.optim", _is_package),
    Choice(f"{_OPTIM}.optimizer", "an optimizer of optimizer_impl, such as AdamW of torch.optim", _is_optimizer),
    Choice(f"{_OPTIM}.lr_scheduler_type", _one_of(*_SCHEDULES), _in(*_SCHEDULES)),
    Choice(f"{_OPTIM}.warmup_style", f"{_one_of(*_SCHEDULES)}, or null", _in(None, *_SCHEDULES)),
    Choice(f"{_OPTIM}.clip_grad", "a number of more than 0 (.inf clips nothing)", _clips),
    Choice(f"{_ROLLOUT}.mode", "async alone: all its engines are servers", _in("async")),
    Choice(f"{_ROLLOUT}.pipeline_model_parallel_size", "1 alone; TP shares a model among GPUs", _in(1)),
)
