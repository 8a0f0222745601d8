"""What makes a run the same run: the settings that may not change when the same command continues it (OUT/run.json).

Whatever decides what a step learns, or how models are compared, is compared here before Ray starts; steps, addresses
of judges, judges that only validate, checkpoint and test frequency, and machines may change, but not the number of
GPUs: each writes its own part of a checkpoint and reads that part again. A prompt set counts by its templates,
wherever its folder is.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignxplore.prompts import PromptSet
from alignxplore.rl.settings import SettingsError
from alignxplore.serving.models import ModelSpec

# A block counts with all that stands in it.
FIXED = (
    "actor_rollout_ref.model.path",
    "algorithm",
    "actor_rollout_ref.rollout.val_kwargs",
    *(
        f"data.{name}"
        for name in (
            "train_files",
            "val_files",
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
            "shuffle_rewards",
        )
    ),
)
TEMPLATES = ("infer", "judge")  # of the prompt set, those that a run renders


def fixed_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that may not change, by name."""
    prompts = PromptSet(config.streaming.prompts)
    found: dict[str, Any] = {f"streaming.prompts ({template}.jinja)": prompts.hash(template) for template in TEMPLATES}
    found["streaming.judges"] = sorted(ModelSpec.parse(spec).name for spec in config.streaming.judges.split())
    for name in FIXED:
        value = OmegaConf.select(config, name)
        found |= _leaves(name, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
    return found


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {leaf: v for key, inner in value.items() for leaf, v in _leaves(f"{name}.{key}", inner).items()}


def same_run(config: DictConfig, out: Path) -> dict[str, Any]:
    """Refuse to continue a folder whose run had other settings; returns what OUT/run.json must hold once training
    begins."""
    now, path = fixed_settings(config), out / "run.json"
    if path.exists():
        # What older runs did without saying so.
        before = {"streaming.shuffle_rewards": False, "streaming.targets": 1} | json.loads(path.read_text())
        if not before.get("streaming.branches"):  # of credit `tree`, which is gone; other runs had none
            before.pop("streaming.branches", None)
        changed = sorted(name for name in before | now if before.get(name) != now.get(name))
        if changed:
            raise SettingsError(
                f"{out} holds a run with {changed[0]}={before.get(changed[0])}, this one has {now.get(changed[0])}; "
                "choose another OUT, or delete the folder to start again"
            )
    return now


def same_gpus(config: DictConfig, out: Path) -> None:
    """Refuse a checkpoint that another number of GPUs wrote: verl would look for its parts under names that are not
    there, inside Ray."""
    latest = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    if not latest.exists():
        return
    actor = latest.with_name(f"global_step_{int(latest.read_text())}") / "actor"
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    written = {int(path.name.split("_")[3]) for path in actor.glob("model_world_size_*_rank_*.pt")}
    if written and gpus not in written:
        raise SettingsError(
            f"{actor} was written by {min(written)} GPUs, this run has {gpus} (NNODES x GPUS): continue it with as "
            f"many as before, or start another one in another OUT from the model in {actor / 'huggingface'}"
        )
