"""Settings of verl that a stream cannot be trained with, and why: refused before Ray starts, in one sentence.

Each would train something else than it says, or end the run after its first step. What people ask for and what becomes
of it is a table in verl/README.md.
"""

from collections.abc import Callable
from operator import not_ as off
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from alignxplore.rl.settings import LARGEST_SEED, Number, SettingsError

# Estimators that compare the rows of one group (`uid`: a user's stage) and need nothing else.
ESTIMATORS = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline")


class Option(NamedTuple):
    """A setting of verl, which of its values a stream can be trained with, and what is wrong with the others."""

    name: str
    fits: Callable[[Any], bool]
    why: str


_LORA = (
    "a checkpoint of an adapter cannot be exported: verl 0.9.1 names its weights base_model.model.*, and no server "
    "would load them; train all weights"
)
_REWARD = (
    "rewards come from the judges (JUDGES); verl's own reward workers are never asked, so that this would be ignored"
)
_GROUPS = (
    "verl filters by user, over both stages at once and by returns that hold the draw's bonus, and ends the run at a "
    "user without rows; streaming.least_spread=0.01 leaves out the groups of a stage whose rewards are nearly equal"
)
_BYPASS = (
    "the update would take the rollout's probabilities for the trainer's, so that nothing could tell whether the "
    "rollout engines hold the trained weights; algorithm.rollout_correction.rollout_is=token corrects what differs"
)
_ESTIMATOR = (
    "a stream's rows are compared within the group of their stage, by one of "
    f"{', '.join(ESTIMATORS)}; others compare stages whose returns are of different size, or need a critic"
)
# What a checkpoint must hold: the run goes on from the first three, its model is made of the last.
SAVED = ("model", "optimizer", "extra", "hf_model")
_CHECKPOINT = "a run goes on from its checkpoints, and its model is made of the last one"
OPTIONS = (
    Option("algorithm.adv_estimator", ESTIMATORS.__contains__, _ESTIMATOR),
    Option("critic.enable", off, _ESTIMATOR),
    Option(
        "algorithm.use_pf_ppo",
        off,
        "verl 0.9.1 reads it beside a critic only, and then pairs advantages with other rows",
    ),
    Option("algorithm.filter_groups.enable", off, _GROUPS),
    Option("algorithm.rollout_correction.bypass_mode", off, _BYPASS),
    Option("actor_rollout_ref.actor.policy_loss.loss_mode", "bypass_mode".__ne__, _BYPASS),
    Option("actor_rollout_ref.model.lora_rank", off, _LORA),
    Option("actor_rollout_ref.model.lora.rank", off, _LORA),
    Option("actor_rollout_ref.model.lora_adapter_path", off, _LORA),
    Option(
        "actor_rollout_ref.rollout.calculate_log_probs",
        bool,
        "an update is made only of rows whose probabilities were compared with the trainer's",
    ),
    Option(
        "trainer.v1.trainer_mode",
        ("sync", "colocate_async").__contains__,
        "streams were never run on engines that only write; MODE=async trains and writes on the same ones",
    ),
    Option("trainer.use_v1", bool, "verl's older trainer has no place for streams"),
    Option("trainer.v1.sampler.sync_refill_failed_groups", off, "refilled users would change the order of the data"),
    Option(
        "trainer.v1.sampler.custom_sampler.path", off, "the wait for a step's rollouts is part of verl's own buffer"
    ),
    Option(
        "actor_rollout_ref.rollout.full_determinism",
        off,
        "vLLM would get one request id for all summaries of a group; each has a seed of its own already",
    ),
    Option("actor_rollout_ref.actor.strategy", "fsdp2".__eq__, "streams were trained under FSDP2 alone"),
    Option(
        "actor_rollout_ref.rollout.name",
        lambda name: name not in ("sglang", "trtllm"),
        "streams were written by vLLM alone, and the pinned packages hold no other engine",
    ),
    Option("actor_rollout_ref.rollout.multi_turn.enable", off, "it would be ignored: a stream's turns are its stages"),
    Option(
        "actor_rollout_ref.rollout.val_kwargs.n",
        (1).__eq__,
        "it would be ignored: validation writes one summary a stage; more users tell more",
    ),
    Option("actor_rollout_ref.actor.checkpoint.save_contents", lambda names: {*SAVED} <= {*names}, _CHECKPOINT),
    Option("actor_rollout_ref.actor.checkpoint.load_contents", lambda names: {*SAVED[:3]} <= {*names}, _CHECKPOINT),
    Option(
        "trainer.resume_mode",
        "auto".__eq__,
        "the same command goes on after the last checkpoint; another OUT begins anew, from the weights of MODEL",
    ),
    Option("trainer.val_only", off, "it would end as a run that did too few steps; eval/ scores a model"),
    Option("trainer.critic_warmup", off, "the first steps would train nothing: there is no critic to wait for"),
    Option("data.custom_cls.path", "pkg://alignxplore.rl.dataset".__eq__, "it alone reads the rows of a stream"),
    Option("distillation.enabled", off, "no teacher's probabilities are computed for the rows of a stream"),
    Option("reward.custom_reward_function.path", off, _REWARD),
    Option("reward.reward_model.enable", off, _REWARD),
)

# Numbers of verl's: by which variable they are set, and what they may be. (MINI_BATCH and TOKENS_PER_GPU are looked at
# again beside others: checks.py.)
_ACTOR, _ROLLOUT, _AT_LEAST_1 = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", Number(int, 1)
NUMBERS = {
    "data.seed": ("SEED", Number(int, 0, LARGEST_SEED)),
    "data.train_batch_size": ("BATCH", _AT_LEAST_1),
    "data.max_prompt_length": ("PROMPT_LENGTH", _AT_LEAST_1),
    "data.max_response_length": ("RESPONSE_LENGTH", _AT_LEAST_1),
    f"{_ACTOR}.ppo_mini_batch_size": ("MINI_BATCH", _AT_LEAST_1),
    f"{_ACTOR}.ppo_max_token_len_per_gpu": ("TOKENS_PER_GPU", Number(int)),
    f"{_ACTOR}.ppo_epochs": ("", _AT_LEAST_1),
    f"{_ACTOR}.optim.lr": ("LR", Number(least=0)),
    f"{_ROLLOUT}.tensor_model_parallel_size": ("TP", _AT_LEAST_1),
    f"{_ROLLOUT}.gpu_memory_utilization": ("GPU_MEMORY", Number(least=0, most=1, between=True)),
    f"{_ROLLOUT}.max_num_seqs": ("MAX_SEQUENCES", _AT_LEAST_1),
    f"{_ROLLOUT}.val_kwargs.top_p": ("", Number(least=0, most=1)),
    f"{_ROLLOUT}.agent.num_workers": ("WORKERS", _AT_LEAST_1),
    "trainer.nnodes": ("NNODES", _AT_LEAST_1),
    "trainer.n_gpus_per_node": ("GPUS", _AT_LEAST_1),
    "trainer.total_epochs": ("EPOCHS", _AT_LEAST_1),
    "trainer.total_training_steps": ("STEPS", _AT_LEAST_1),
    "trainer.save_freq": ("SAVE_EVERY", Number(int)),
    "trainer.test_freq": ("TEST_EVERY", Number(int)),
}
_MAY_BE_ABSENT = ("trainer.total_training_steps",)


def check_options(config: DictConfig) -> None:
    """Raise `SettingsError` at the first setting that a stream cannot be trained with."""
    for name, (variable, number) in NUMBERS.items():
        value = OmegaConf.select(config, name)
        if value is not None or name not in _MAY_BE_ABSENT:
            number.check(name, variable, value)
    for name, fits, reason in OPTIONS:
        value = OmegaConf.select(config, name)
        if value is not None and not fits(value):
            raise SettingsError(f"{name}={value} is refused: {reason}")
