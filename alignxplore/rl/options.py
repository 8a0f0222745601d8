"""Settings of verl that a stream cannot be trained with, and why: refused before Ray starts, in one sentence.

Each would train something else than it says, or end the run after its first step. What people ask for and what becomes
of it is a table in verl/README.md.
"""

import os
from collections.abc import Callable, Iterator
from operator import not_ as off
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from alignxplore.rl.settings import LARGEST_SEED, Number, SettingsError
from alignxplore.rl.unread import REWARD, check_unread

# Estimators that compare the rows of one group (`uid`: a user's stage) and need nothing else.
ESTIMATORS = ("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline")


class Option(NamedTuple):
    """A setting of verl, which of its values a stream can be trained with, and what is wrong with the others. Of a
    block each setting in it is looked at."""

    name: str
    fits: Callable[[Any], bool]
    why: str


def only(*allowed: object) -> Callable[[Any], bool]:
    """Whether a value is one of these. (A method of one of them would say neither yes nor no to another type.)"""
    return lambda value: (isinstance(value, bool), value) in [(isinstance(one, bool), one) for one in allowed]


def but(*others: object) -> Callable[[Any], bool]:
    """Whether a value is none of these."""
    is_other = only(*others)
    return lambda value: not is_other(value)


def holds(*names: str) -> Callable[[Any], bool]:
    """Whether a value is a list in which all of these are."""
    return lambda value: isinstance(value, ListConfig) and {*names} <= {*value}


_LORA = (
    "a checkpoint of an adapter cannot be exported: verl 0.9.1 names its weights base_model.model.*, and no server "
    "would load them; train all weights"
)
_CUT = (
    "it would be ignored: no prompt is cut and no user left out. The oldest interactions are dropped whole until "
    "PROMPT_LENGTH (data.max_prompt_length) holds a prompt"
)
_ROWS = "it alone reads the rows of a stream"
_COLUMNS = (
    "it would be ignored: a stream's rows are user, history and positions, as upi_streaming_dataset.py makes them"
)
_VALIDATION = "it would be ignored: a validation asks for all held-out users at once, each with a seed of their own"
_SAMPLES = (
    "it would be ignored: streaming.samples says how many held-out users' summaries are written to OUT/samples.jsonl"
)
_LOOP = "it would be ignored: a user's stages are run by alignxplore/rl/streaming.py alone"
_RETURNS = (
    "it would be ignored: a reward stands at a row's last token; DISCOUNT (streaming.discount) is that of stages"
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
    Option("algorithm.adv_estimator", only(*ESTIMATORS), _ESTIMATOR),
    Option("critic.enable", off, _ESTIMATOR),
    Option(
        "algorithm.use_pf_ppo",
        off,
        "verl 0.9.1 reads it beside a critic only, and then pairs advantages with other rows",
    ),
    Option("algorithm.filter_groups.enable", off, _GROUPS),
    Option("algorithm.rollout_correction.bypass_mode", off, _BYPASS),
    Option("actor_rollout_ref.actor.policy_loss.loss_mode", but("bypass_mode"), _BYPASS),
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
        only("sync", "colocate_async"),
        "streams were never run on engines that only write; MODE=async trains and writes on the same ones",
    ),
    Option(
        "model_engine",
        only("dp"),
        "streams were trained under FSDP2 alone, which the settings of verl's other engines do not fit",
    ),
    Option(
        "global_profiler.tool",
        but("nsys"),
        "verl would start an actor of Ray under Nsight, and a run is driven in the process that started it; put "
        "`nsys profile` before the command, or take another tool",
    ),
    Option("trainer.use_v1", bool, "verl's older trainer has no place for streams"),
    Option("trainer.v1.sampler.sync_refill_failed_groups", off, "refilled users would change the order of the data"),
    Option(
        "actor_rollout_ref.rollout.full_determinism",
        off,
        "vLLM would get one request id for all summaries of a group; each has a seed of its own already",
    ),
    Option(
        "actor_rollout_ref.actor.fsdp_config.model_dtype",
        only("fp32", "float32"),
        "the trainer's own weights are float32; in 16 bits most steps of a small LR would be rounded away, weight by "
        "weight",
    ),
    Option("actor_rollout_ref.actor.strategy", only("fsdp2"), "streams were trained under FSDP2 alone"),
    Option(
        "actor_rollout_ref.actor.fsdp_config.strategy",
        only("fsdp2"),
        "it would be ignored: verl 0.9.1 puts that of actor_rollout_ref.actor.strategy there",
    ),
    Option(
        "actor_rollout_ref.rollout.name",
        but("sglang", "trtllm"),
        "streams were written by vLLM alone, and the pinned packages hold no other engine",
    ),
    Option(
        "actor_rollout_ref.rollout.val_kwargs.n",
        only(1),
        "it would be ignored: validation writes one summary a stage; more users tell more",
    ),
    Option("actor_rollout_ref.actor.checkpoint.save_contents", holds(*SAVED), _CHECKPOINT),
    Option("actor_rollout_ref.actor.checkpoint.load_contents", holds(*SAVED[:3]), _CHECKPOINT),
    Option(
        "trainer.resume_mode",
        only("auto"),
        "the same command goes on after the last checkpoint; another OUT begins anew, from the weights of MODEL",
    ),
    Option("trainer.val_only", off, "it would end as a run that did too few steps; eval/ scores a model"),
    Option("trainer.critic_warmup", off, "the first steps would train nothing: there is no critic to wait for"),
    Option(
        "actor_rollout_ref.actor.checkpoint.async_save",
        off,
        "verl 0.9.1 then leaves out the file that names the newest checkpoint, and FSDP saves as before: nothing "
        "could be continued, and there would be no model",
    ),
    Option(
        "trainer.del_local_ckpt_after_load",
        off,
        "it would be ignored: verl takes away only what it fetched from HDFS; trainer.max_actor_ckpt_to_keep counts "
        "what stays",
    ),
    Option(
        "trainer.remove_previous_ckpt_in_save",
        off,
        "the old checkpoint would go before the new one is whole; trainer.max_actor_ckpt_to_keep=1 keeps one",
    ),
    Option(
        "trainer.resume_from_path",
        off,
        "it would be ignored: a run goes on from OUT; one that begins with other weights takes them as MODEL",
    ),
    Option(
        "trainer.default_hdfs_dir",
        off,
        "it would be ignored: verl 0.9.1 copies no checkpoint of FSDP; copy OUT/checkpoints yourself",
    ),
    Option(
        "trainer.esi_redundant_time",
        off,
        "it would be ignored: verl's older trainer alone reads it; SIGTERM and touch OUT/stop save and end a run",
    ),
    Option(
        "trainer.balance_batch",
        bool,
        "it would be ignored: the rows of each update are always shared out by their tokens",
    ),
    Option("trainer.validation_data_dir", off, _SAMPLES),
    Option("trainer.log_val_generations", off, _SAMPLES),
    Option("data.val_batch_size", off, _VALIDATION),
    Option("data.validation_shuffle", off, _VALIDATION),
    Option("data.truncation", only("error"), _CUT),
    Option("data.filter_overlong_prompts", off, _CUT),
    Option("data.prompt_key", only("prompt"), _COLUMNS),
    Option("data.reward_fn_key", only("data_source"), _COLUMNS),
    Option(
        "data.apply_chat_template_kwargs",
        lambda _: False,
        "it would be ignored: streaming.thinking says whether the policy reasons",
    ),
    Option(
        "data.tokenizer", off, "it would be ignored: actor_rollout_ref.model.tokenizer_path names another tokenizer"
    ),
    Option(
        "actor_rollout_ref.actor.grad_clip",
        only(1.0),
        "it would be ignored: verl 0.9.1 clips at actor_rollout_ref.actor.optim.clip_grad",
    ),
    Option(
        "actor_rollout_ref.actor.use_torch_compile",
        bool,
        "it would be ignored: actor_rollout_ref.actor.fsdp_config.use_torch_compile is what verl 0.9.1 reads",
    ),
    Option(
        "actor_rollout_ref.actor.use_prefix_grouper", off, "it would be ignored: verl 0.9.1 reads it nowhere with FSDP"
    ),
    Option(
        "actor_rollout_ref.actor.optim.total_training_steps",
        only(-1),
        "it would be ignored: verl puts the run's own number there; set STEPS (trainer.total_training_steps)",
    ),
    Option(
        "actor_rollout_ref.hybrid_engine", bool, "it would be ignored: trainer and engines are always on the same GPUs"
    ),
    Option(
        "actor_rollout_ref.rollout.do_sample",
        bool,
        "it would be ignored: rollouts are sampled; streaming.val_temperature=0 validates greedily",
    ),
    Option("actor_rollout_ref.rollout.agent.default_agent_loop", only("single_turn_agent"), _LOOP),
    Option("actor_rollout_ref.rollout.agent.agent_loop_config_path", off, _LOOP),
    Option("actor_rollout_ref.rollout.agent.agent_loop_manager_class", off, _LOOP),
    Option("algorithm.gamma", only(1.0), _RETURNS),
    Option("algorithm.lam", only(1.0), _RETURNS),
    Option(
        "algorithm.kl_ctrl.type",
        only("fixed"),
        "no checkpoint of verl 0.9.1 holds the coefficient that was reached, so that a run that is continued would "
        "begin with kl_coef again; algorithm.kl_ctrl.kl_coef stays what it is",
    ),
    Option("data.custom_cls.path", only("pkg://alignxplore.rl.dataset"), _ROWS),
    Option("data.custom_cls.name", only("StreamingDataset"), _ROWS),
    Option("reward.num_workers", off, REWARD),
)

# Numbers of verl's: by which variable they are set, and what they may be. (MINI_BATCH and TOKENS_PER_GPU are looked at
# again beside others: checks.py.)
_ACTOR, _ROLLOUT, _AT_LEAST_1 = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", Number(int, 1)
NUMBERS = {
    "data.seed": ("SEED", Number(int, 0, LARGEST_SEED)),
    "data.train_batch_size": ("BATCH", _AT_LEAST_1),
    "data.max_prompt_length": ("PROMPT_LENGTH", _AT_LEAST_1),
    "data.max_response_length": ("RESPONSE_LENGTH", _AT_LEAST_1),
    "actor_rollout_ref.nccl_timeout": ("", _AT_LEAST_1),
    f"{_ACTOR}.ppo_mini_batch_size": ("MINI_BATCH", _AT_LEAST_1),
    f"{_ACTOR}.ppo_max_token_len_per_gpu": ("TOKENS_PER_GPU", Number(int)),
    f"{_ACTOR}.ppo_epochs": ("", _AT_LEAST_1),
    f"{_ACTOR}.fsdp_config.fsdp_size": ("", Number(int)),
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
_CLIP_RATIO = 0.2  # verl's default


def check_options(config: DictConfig) -> None:
    """Raise `SettingsError` at the first setting that a stream cannot be trained with."""
    for name, (variable, number) in NUMBERS.items():
        value = OmegaConf.select(config, name)
        if value is not None or name not in _MAY_BE_ABSENT:
            number.check(name, variable, value)
    for block, fits, reason in OPTIONS:
        for name, value in _leaves(block, OmegaConf.select(config, block)):
            if value is not None and not fits(value):
                raise SettingsError(f"{name}={value} is refused: {reason}")
    check_unread(config)
    _check_place(config)


def check_beside_others(config: DictConfig) -> None:
    """Raise `SettingsError` at the first setting that verl would not read, or would end at inside Ray, because of what
    others say."""
    for check in (_check_passes, _check_generation, _check_pairs):
        check(config)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, DictConfig):
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{name}.{key!s}", inner)


def _check_place(config: DictConfig) -> None:
    """Checkpoints lie where a run looks for them. Elsewhere it would find none at its end; and another run, told of
    the same folder, would go on with these weights."""
    name = "trainer.default_local_dir"
    place, home = OmegaConf.select(config, name), os.path.join(os.path.abspath(config.streaming.out), "checkpoints")
    if place is None or os.path.abspath(place) != home:
        raise SettingsError(
            f"{name}={place} is refused: a run's checkpoints lie in OUT/checkpoints, from which it goes on and makes "
            "its model; choose OUT, or make OUT/checkpoints a link to another disk"
        )


def _check_passes(config: DictConfig) -> None:
    """Raise `SettingsError` where the rows of a pass are counted in a way that verl does not follow: most of it would
    be an assertion without a word, inside Ray."""
    blocks = config.actor_rollout_ref
    dynamic, name = blocks.actor.use_dynamic_bsz, "rollout.log_prob_use_dynamic_bsz"
    if blocks.rollout.log_prob_use_dynamic_bsz != dynamic:
        raise SettingsError(
            f"actor_rollout_ref.{name}={blocks.rollout.log_prob_use_dynamic_bsz}: verl 0.9.1 takes only what "
            f"{_ACTOR}.use_dynamic_bsz says ({dynamic}), which it follows where it is left out"
        )
    has_reference = blocks.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    for block, part, follows_tokens in (
        ("actor", "ppo_", dynamic),
        ("rollout", "log_prob_", dynamic),
        ("ref", "log_prob_", blocks.ref.log_prob_use_dynamic_bsz),
    ):
        names = [f"{block}.{part}micro_batch_size{unit}" for unit in ("", "_per_gpu")]
        older, rows = (OmegaConf.select(blocks, name) for name in names)
        limit = f"actor_rollout_ref.{block}.{part}max_token_len_per_gpu"
        for name, value in zip(names, (older, rows)):
            if follows_tokens and value is not None:
                raise SettingsError(
                    f"actor_rollout_ref.{name}={value} would be ignored: rows are put together by their tokens "
                    f"(use_dynamic_bsz); set TOKENS_PER_GPU ({limit})"
                )
        if not follows_tokens and rows is None and (block != "ref" or has_reference):
            raise SettingsError(
                f"actor_rollout_ref.{names[1]} is not set: without use_dynamic_bsz it says how many rows a pass takes "
                "(verl 0.9.1 no longer reads the one without _per_gpu)"
            )


def _check_generation(config: DictConfig) -> None:
    """Raise `SettingsError` where a step's users cannot be fetched in whole parts."""
    part, users = OmegaConf.select(config, "data.gen_batch_size"), config.data.train_batch_size
    if part is None:
        return
    _AT_LEAST_1.check("data.gen_batch_size", "", part)
    if config.trainer.v1.trainer_mode == "sync" and users % part:
        raise SettingsError(f"data.gen_batch_size={part} does not divide BATCH={users} (data.train_batch_size)")


def _check_pairs(config: DictConfig) -> None:
    """Raise `SettingsError` where verl reads another setting than the one that was changed."""
    blocks = config.actor_rollout_ref
    actor, decoding = blocks.actor, blocks.rollout.val_kwargs
    ends = (actor.clip_ratio_low, actor.clip_ratio_high)
    if None not in ends and actor.clip_ratio not in (_CLIP_RATIO, *ends):
        raise SettingsError(
            f"{_ACTOR}.clip_ratio={actor.clip_ratio} would be ignored: verl 0.9.1 clips at clip_ratio_low={ends[0]} "
            f"and clip_ratio_high={ends[1]}, which are set; set these"
        )
    for name in ("use_fused_kernels", "use_remove_padding"):
        if actor[name] != blocks.model[name]:
            raise SettingsError(
                f"{_ACTOR}.{name}={actor[name]} would be ignored: verl 0.9.1 reads actor_rollout_ref.model.{name}, "
                f"which is {blocks.model[name]}"
            )
    if not decoding.do_sample and decoding.temperature > 0:
        raise SettingsError(
            f"{_ROLLOUT}.val_kwargs.do_sample={decoding.do_sample} would be ignored: streaming.val_temperature=0 "
            "validates greedily"
        )
