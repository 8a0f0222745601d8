"""What makes a run the same run: the settings that may not change when the same command continues it (OUT/run.json).

Whatever decides what a step learns, or how models are compared, is compared here before Ray starts. Addresses of
judges, judges that only validate, checkpoint and test frequency, and machines may change, and so may the steps where
the learning rate does not follow them. The number of GPUs may not, nor how many of them share one copy of the states:
each writes its own part of a checkpoint and reads that part again. Files count by what they hold, wherever they are:
the model, the data, the prompt templates. A judge counts by its name, by what its server says it serves, and by what
the tokenizer does that it is read with.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignxplore.prompts import PromptSet
from alignxplore.rl.checkpoints import newest_step
from alignxplore.rl.reward import judge_keys, tokenizer_of
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.same_run import OtherRun, refuse_other, written
from alignxplore.serving.beforehand import ModelError, read_tokenizer
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.fingerprints import commit, tokenizer_fingerprint, weights_fingerprint
from alignxplore.serving.models import ModelSpec, served_weights

# A block counts with all that stands in it.
FIXED = (
    "algorithm",
    "actor_rollout_ref.rollout.val_kwargs",
    *(
        f"data.{name}"
        for name in (
            "train_max_samples",
            "val_max_samples",
            "train_batch_size",
            "max_prompt_length",
            "max_response_length",
            "seed",
            "shuffle",
        )
    ),
    *(
        f"actor_rollout_ref.actor.{name}"
        for name in (
            "optim",
            "ppo_mini_batch_size",
            "ppo_epochs",
            "shuffle",
            "policy_loss",
            "clip_ratio",
            "clip_ratio_low",
            "clip_ratio_high",
            "clip_ratio_c",
            "loss_agg_mode",
            "loss_scale_factor",
            "entropy_coeff",
            "use_kl_loss",
            "kl_loss_coef",
            "kl_loss_type",
        )
    ),
    *(
        f"streaming.{name}"
        for name in (
            "stages",
            "rollouts",
            "targets",
            "credit",
            "discount",
            "seed",
            "thinking",
            "judge_orders",
            "least_spread",
            "shuffle_rewards",
        )
    ),
)
# Compared as a whole, too, but runs of earlier versions did not write these down: with whatever value they go on.
_ADDED = (
    *(
        f"actor_rollout_ref.{name}"
        for name in (
            "model.override_config",
            "model.custom_chat_template",
            "actor.tau_pos",
            "actor.tau_neg",
            "actor.data_loader_seed",
            "actor.fsdp_config.model_dtype",
            "actor.fsdp_config.mixed_precision",
            "ref.fsdp_config.model_dtype",
            "ref.fsdp_config.mixed_precision",
            "rollout.dtype",
            "rollout.ignore_eos",
            "rollout.quantization",
        )
    ),
    "data.gen_batch_size",
    "data.sampler",
)
STEPS = "trainer.total_training_steps (the learning rate follows it)"
SHARING = "actor_rollout_ref.actor.fsdp_config.fsdp_size (GPUs that share one copy of the states; -1: all)"
CONFIGURATION = "actor_rollout_ref.model.hf_config_path (what it holds)"
MAY_BE_MISSING = (*_ADDED, STEPS, SHARING, CONFIGURATION)  # in what an earlier version wrote
ATTENTION = "attn_implementation"  # how the same attention is computed: what the machine has
TEMPLATES = ("infer", "judge")  # of the prompt set, those that a run renders
MODEL = "actor_rollout_ref.model.path (what it holds)"
SERVED = ": what is served)"  # ends the names of what judges' servers say
READ = ": its tokenizer)"  # the same of what judges are read with


def fixed_settings(config: DictConfig, steps: int) -> dict[str, Any]:
    """The settings that may not change, by name. Data files and the model must be there.

    Args:
        steps: of the whole run, as planned.
    """
    prompts = PromptSet(config.streaming.prompts)
    settings: dict[str, Any] = {
        f"streaming.prompts ({template}.jinja)": prompts.hash(template) for template in TEMPLATES
    }
    settings["streaming.judges"] = sorted(ModelSpec.parse(spec).name for spec in config.streaming.judges.split())
    model = config.actor_rollout_ref.model
    settings[MODEL] = _model_contents(model.path)
    if tokenizer := model.get("tokenizer_path"):
        settings["actor_rollout_ref.model.tokenizer_path (what it holds)"] = _model_contents(tokenizer)
    configuration = model.get("hf_config_path")
    settings[CONFIGURATION] = _model_contents(configuration) if configuration else None
    for name in ("train_files", "val_files"):
        files = [config.data[name]] if isinstance(config.data[name], str) else config.data[name]
        settings[f"data.{name} (what they hold)"] = [_file_contents(path) for path in files]
    if (mode := OmegaConf.select(config, "trainer.v1.trainer_mode")) not in (None, "sync"):
        settings["trainer.v1.trainer_mode"] = mode  # runs of before there was a choice have no such line
    if (targets := OmegaConf.select(config, "streaming.val_targets")) not in (None, 1):
        settings["streaming.val_targets"] = targets  # nor was there one of this
    for name in FIXED:
        settings |= _leaves(name, _value(config, name))
    settings |= {name: _value(config, name) for name in _ADDED}
    settings[SHARING] = gpus_of_a_copy(config)
    if rate_follows_steps(config.actor_rollout_ref.actor.optim):
        settings[STEPS] = steps
    return settings


def gpus_of_a_copy(config: DictConfig) -> int:
    """How many GPUs share one copy of the states, as verl reads it; -1: all of them, however many they are."""
    gpus, share = config.trainer.nnodes * config.trainer.n_gpus_per_node, config.actor_rollout_ref.actor.fsdp_config
    return share.fsdp_size if 0 < share.fsdp_size < gpus else -1


def rate_follows_steps(optim: DictConfig) -> bool:
    """Whether verl reckons the learning rate of a step from the number of all steps (actor.optim): another number
    makes other steps of all of them."""
    kind = optim.get("warmup_style") or optim.get("lr_scheduler_type") or "constant"
    is_warmed_by_ratio = (optim.get("lr_warmup_steps") or 0) <= 0 and (optim.get("lr_warmup_steps_ratio") or 0) > 0
    return kind != "constant" or is_warmed_by_ratio


def _value(config: DictConfig, name: str) -> Any:
    value = OmegaConf.select(config, name)
    if not OmegaConf.is_config(value):
        return value
    block = OmegaConf.to_container(value, resolve=True)
    return {key: v for key, v in block.items() if key != ATTENTION} if isinstance(block, dict) else block


def _model_contents(model: str) -> str:
    return weights_fingerprint(model) if Path(model).is_dir() else f"{model}@{commit(model, 'main')}"


def _file_contents(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {leaf: v for key, inner in value.items() for leaf, v in _leaves(f"{name}.{key}", inner).items()}


async def served_by_judges(settings: Streaming, patience: float) -> dict[str, Any]:
    """What each judge's server says it serves, and what its tokenizer does, by the name of the setting. One that
    cannot be read is left out: a run that judges says so, and a finished one needs none.

    Args:
        patience: seconds for a server that does not answer.

    Raises:
        TransportError: a server did not answer; RequestError: it has no such model.
    """
    fingerprints, keys = {}, judge_keys(settings)
    for name in ("judges", "val_judges"):
        for spec in map(ModelSpec.parse, getattr(settings, name).split()):
            endpoint = Endpoint(
                spec.target,
                spec.served_name,
                name=spec.name,
                api_key_env=keys[spec.name],
                timeout=settings.judge_timeout,
                patience=patience,
            )
            async with endpoint:
                fingerprints[f"streaming.{name} ({spec.name}{SERVED}"] = served_weights(endpoint)
                with contextlib.suppress(ModelError):
                    tokenizer = read_tokenizer(tokenizer_of(settings, spec, endpoint))
                    hashes = tokenizer_fingerprint(tokenizer).values()
                    fingerprints[f"streaming.{name} ({spec.name}{READ}"] = " ".join(hashes)
    return fingerprints


def same_run(settings: dict[str, Any], out: Path) -> None:
    """Refuse to continue a folder whose run had other `settings` than these, which OUT/run.json will hold once
    training begins: those of `fixed_settings`, and what `served_by_judges` found if they were asked. Judges that only
    validate may come and go, but one that stays must stay what it was: its numbers are compared with those of
    step 0."""
    path = out / "run.json"
    old_settings = written(path)
    if old_settings and MODEL not in old_settings:
        raise OtherRun(
            f"{out} holds a run of an earlier version, which did not write down what its model and data held: nobody "
            "can tell whether this is the same one. Choose another OUT; or, if you know that model, data, judges and "
            f"settings are the same, delete {path} and run the same command again"
        )

    def comparable(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
        absent = {name for name in values if name not in others}
        skipped = {name for name in absent if name.endswith((SERVED, READ)) or name in MAY_BE_MISSING}
        return {name: value for name, value in values.items() if name not in skipped}

    refuse_other(out, comparable(old_settings, settings), comparable(settings, old_settings), out="OUT")


def same_gpus(config: DictConfig, out: Path) -> None:
    """Refuse a checkpoint that another number of GPUs wrote: verl would look for its parts under names that are not
    there, inside Ray."""
    step = newest_step(out / "checkpoints")
    if not step:
        return
    actor = out / "checkpoints" / f"global_step_{step}" / "actor"
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    gpu_counts = {int(path.name.split("_")[3]) for path in actor.glob("model_world_size_*_rank_*.pt")}
    if gpu_counts and gpus not in gpu_counts:
        raise SettingsError(
            f"{actor} was written by {min(gpu_counts)} GPUs, this run has {gpus} (NNODES x GPUS): continue it with as "
            f"many as before, or start another one in another OUT from the model in {actor / 'huggingface'}"
        )
