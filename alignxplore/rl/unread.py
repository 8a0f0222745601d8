"""Settings of verl that no part of a run reads: refused before Ray starts, in one sentence.

verl says itself what each of its settings is by default. One that is something else was meant by somebody; where
nothing reads it, it would be ignored without a word. So would one that verl does not know, in a block of which all
that acts is listed here. Settings that are read, and would train something else than they say: options.py.
"""

import functools
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from alignxplore.rl.settings import SettingsError


class Unread(NamedTuple):
    """Settings, or whole blocks of them, that are not read.

    Attributes:
        names: of settings and blocks.
        why: nothing reads them.
        except_for: what does act in these blocks, or is looked at elsewhere.
        are_read: in which runs they are read all the same.
    """

    names: tuple[str, ...]
    why: str
    except_for: tuple[str, ...] = ()
    are_read: Callable[[DictConfig], bool] = lambda config: False


def _of(block: str, names: str) -> tuple[str, ...]:
    return tuple(f"{block}.{name}" for name in names.split())


def _says(name: str, *values: Any) -> Callable[[DictConfig], bool]:
    """Whether a setting has one of these values; without any, whether it is on."""
    return lambda config: OmegaConf.select(config, name) in values if values else bool(OmegaConf.select(config, name))


_ACTOR, _ROLLOUT, _MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
_FSDP, _LOSS, _CORRECTION = f"{_ACTOR}.fsdp_config", f"{_ACTOR}.policy_loss", "algorithm.rollout_correction"
REWARD = (
    "rewards come from the judges (JUDGES); verl's own reward workers are never asked, so that this would be ignored"
)
_WRITTEN = (
    "each step is trained on what its own weights wrote; rows from a file have no records, by which losses and "
    "rewards are counted, and no place in the data"
)
_NO_CRITIC = "it would be ignored: rows are compared within the group of their stage, and there is no critic"


def _needs(name: str, value: str = "true") -> str:
    return f"it would be ignored without {name}={value}"


def _has_reference(config: DictConfig) -> bool:
    return _says(f"{_ACTOR}.use_kl_loss")(config) or _says("algorithm.use_kl_in_reward")(config)


def _of_loss(modes: str, names: tuple[str, ...]) -> Unread:
    switch = f"{_LOSS}.loss_mode"
    return Unread(names, _needs(switch, modes), are_read=_says(switch, modes))


UNREAD = (
    Unread(("critic",), _NO_CRITIC),
    Unread(("trainer.max_critic_ckpt_to_keep",), _NO_CRITIC),
    Unread(("reward",), REWARD, except_for=("reward.num_workers",)),
    # Older names of these: verl's older trainer alone would bring them under `reward`.
    Unread(("custom_reward_function", "reward_model", "sandbox_fusion"), REWARD),
    Unread(("distillation",), "it would be ignored: no teacher's probabilities are computed for the rows of a stream"),
    Unread(("skip",), _WRITTEN),
    Unread(
        ("data",),
        "it would be ignored: a stream's rows are user, history and positions, and alignxplore/rl/dataset.py reads "
        "nothing else",
        except_for=_of(
            "data",
            "train_files val_files train_max_samples val_max_samples train_batch_size gen_batch_size "
            "max_prompt_length max_response_length shuffle seed dataloader_num_workers custom_cls",
        ),
    ),
    Unread(
        ("trainer",),
        "it would be ignored: verl 0.9.1 reads no such setting in this run",
        except_for=_of(
            "trainer",
            "balance_batch total_epochs total_training_steps project_name experiment_name logger wandb_proxy "
            "rollout_data_dir nnodes n_gpus_per_node save_freq resume_mode checkpoint_callback_class "
            "val_before_train test_freq default_local_dir max_actor_ckpt_to_keep device use_v1 v1",
        ),
    ),
    Unread(
        ("trainer.v1.separate_async",),
        "it would be ignored: streams are trained and written on the same engines, also with MODE=async",
    ),
    Unread(
        _of("trainer.v1.sampler", "custom_sampler sampler_kwargs"),
        "it would be ignored: the wait for a step's rollouts is part of verl's own buffer",
    ),
    Unread(
        ("algorithm.filter_groups",),
        "it would be ignored: streaming.least_spread leaves out the groups of a stage whose rewards are nearly equal",
    ),
    Unread(("algorithm.pf_ppo",), "it would be ignored: algorithm.use_pf_ppo is refused"),
    Unread((f"{_CORRECTION}.loss_type",), "it would be ignored: bypass_mode, which alone reads it, is refused"),
    Unread(
        _of(_CORRECTION, "rollout_is_threshold rollout_is_batch_normalize"),
        _needs(f"{_CORRECTION}.rollout_is", "token"),
        are_read=_says(f"{_CORRECTION}.rollout_is"),
    ),
    Unread(
        (f"{_CORRECTION}.rollout_rs_threshold",),
        f"it would be ignored without {_CORRECTION}.rollout_rs",
        are_read=_says(f"{_CORRECTION}.rollout_rs"),
    ),
    Unread(
        ("algorithm.kl_penalty", "algorithm.kl_ctrl"),
        _needs("algorithm.use_kl_in_reward"),
        are_read=_says("algorithm.use_kl_in_reward"),
    ),
    Unread(
        _of("algorithm.kl_ctrl", "horizon target_kl"),
        "it would be ignored: algorithm.kl_ctrl.type=adaptive, which alone reads it, is refused",
    ),
    Unread(
        ("algorithm.norm_adv_by_std_in_grpo",),
        _needs("algorithm.adv_estimator", "grpo"),
        are_read=_says("algorithm.adv_estimator", "grpo", "grpo_vectorized"),
    ),
    Unread(
        _of(_ACTOR, "kl_loss_coef kl_loss_type"),
        _needs(f"{_ACTOR}.use_kl_loss"),
        are_read=_says(f"{_ACTOR}.use_kl_loss"),
    ),
    Unread(
        ("actor_rollout_ref.ref",),
        f"it would be ignored: there is no reference model without {_ACTOR}.use_kl_loss=true or "
        "algorithm.use_kl_in_reward=true",
        are_read=_has_reference,
    ),
    Unread(
        (f"{_ACTOR}.loss_scale_factor",),
        _needs(f"{_ACTOR}.loss_agg_mode", "seq-mean-token-sum-norm"),
        are_read=_says(f"{_ACTOR}.loss_agg_mode", "seq-mean-token-sum-norm"),
    ),
    Unread((f"{_ACTOR}.data_loader_seed",), _needs(f"{_ACTOR}.shuffle"), are_read=_says(f"{_ACTOR}.shuffle")),
    _of_loss("sapo", _of(_ACTOR, "tau_pos tau_neg")),
    _of_loss("clip_cov", _of(_LOSS, "clip_cov_ratio clip_cov_lb clip_cov_ub")),
    _of_loss("kl_cov", _of(_LOSS, "kl_cov_ratio ppo_kl_coef")),
    _of_loss("dro", (f"{_LOSS}.dro_beta",)),
    Unread(
        _of(f"{_ACTOR}.optim", "min_lr_ratio num_cycles"),
        _needs(f"{_ACTOR}.optim.lr_scheduler_type", "cosine"),
        are_read=lambda config: "cosine" in _schedules(config.actor_rollout_ref.actor.optim),
    ),
    Unread(
        (f"{_ACTOR}.qat",),
        f"it would be ignored: {_FSDP}.qat is what verl 0.9.1 reads",
    ),
    Unread(
        _of(_ACTOR, "freeze_vision_tower calculate_sum_pi_squared"),
        "it would be ignored: verl 0.9.1 reads it nowhere with FSDP",
    ),
    Unread(
        _of(_FSDP, "use_orig_params turbo_config"),
        "it would be ignored: FSDP2, which streams are trained under, does not read it",
    ),
    Unread((f"{_FSDP}.seed",), _needs(f"{_FSDP}.full_determinism"), are_read=_says(f"{_FSDP}.full_determinism")),
    Unread(
        (f"{_FSDP}.pad_to_length_bucket",), _needs(f"{_FSDP}.pad_to_length"), are_read=_says(f"{_FSDP}.pad_to_length")
    ),
    Unread(
        (f"{_MODEL}.fused_kernel_options",),
        _needs(f"{_MODEL}.use_fused_kernels"),
        are_read=_says(f"{_MODEL}.use_fused_kernels"),
    ),
    Unread(
        (f"{_MODEL}.tiled_mlp.num_shards",),
        _needs(f"{_MODEL}.tiled_mlp.enabled"),
        are_read=_says(f"{_MODEL}.tiled_mlp.enabled"),
    ),
    Unread(
        _of(
            f"{_MODEL}.mtp",
            "enable_train speculative_algorithm speculative_num_steps speculative_eagle_topk "
            "speculative_num_draft_tokens",
        ),
        "it would be ignored: verl 0.9.1 reads it with Megatron or SGLang alone",
    ),
    Unread(
        _of(_MODEL, "lora lora_alpha target_modules exclude_modules"),
        "it would be ignored: all weights are trained, LoRA is refused",
    ),
    Unread(
        _of(_ROLLOUT, "multi_turn over_sample_rate multi_stage_wake_up layered_summon agent.custom_async_server"),
        "it would be ignored: a stream's turns are its stages, and vLLM writes them under verl's own server",
    ),
    Unread(
        _of(_ROLLOUT, "nnodes n_gpus_per_node"),
        "it would be ignored: trainer and engines are always on the same GPUs (NNODES, GPUS)",
    ),
    Unread(
        (f"{_ROLLOUT}.skip_tokenizer_init",),
        "it would be ignored: verl 0.9.1 starts vLLM with a tokenizer, whatever this says",
    ),
    Unread(
        _of(f"{_ROLLOUT}.engine_kwargs", "sglang trtllm"),
        f"it would be ignored: vLLM alone writes, and reads {_ROLLOUT}.engine_kwargs.vllm",
    ),
    Unread(
        (f"{_ROLLOUT}.quantization_config_file",),
        _needs(f"{_ROLLOUT}.quantization", "NAME"),
        are_read=_says(f"{_ROLLOUT}.quantization"),
    ),
)


def _schedules(optim: DictConfig) -> Iterator[str | None]:
    yield from (optim.get(name) for name in ("warmup_style", "lr_scheduler_type"))


def check_unread(config: DictConfig) -> None:
    """Raise `SettingsError` at the first setting that is not verl's default and that nothing would read."""
    default_of = _verls_own()
    changed = [
        (name, value)
        for name, value in _leaves(OmegaConf.to_container(config, resolve=False))
        if (value or None) != (default_of.get(name) or None)  # what is off is off
    ]
    for unread in UNREAD:
        for name, value in changed:
            is_meant = _is_in(name, unread.names) and not _is_in(name, unread.except_for)
            if is_meant and not unread.are_read(config):
                raise SettingsError(f"{name}={value} is refused: {unread.why}")


@functools.cache
def _verls_own() -> dict[str, Any]:
    """verl's defaults by name, as it composes them itself."""
    composed = OmegaConf.load(str(files("verl.trainer.config") / "_generated_ppo_trainer.yaml"))
    return dict(_leaves(OmegaConf.to_container(composed, resolve=False)))


def _leaves(block: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(block, dict):
        for key, inner in block.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, block


def _is_in(name: str, blocks: tuple[str, ...]) -> bool:
    return any(name == block or name.startswith(f"{block}.") for block in blocks)
