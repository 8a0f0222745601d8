"""What is looked at before Ray starts, so that a run that cannot work ends at once and says why: settings, data,
model, judges."""

import contextlib
import io
import os
import warnings
from pathlib import Path

import pyarrow.compute
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig
from transformers.utils import is_liger_kernel_available

from alignxplore.devices import refuse_unusable_gpu
from alignxplore.environment import FLASH_ATTENTION
from alignxplore.records import person_of
from alignxplore.rl.clipping import note_idle_clipping
from alignxplore.rl.dataset import StreamingDataset, parse_row
from alignxplore.rl.options import OPTIONS, check_beside_others, check_options
from alignxplore.rl.passes import check_longest_row, check_rows_of_a_pass, check_shared_heads, check_shared_rows
from alignxplore.rl.reward import Judges, judge_keys
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.rl.wording import check_chat_template, check_prompts, note_other_wording
from alignxplore.serving.beforehand import check_files
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.models import parse_all
from alignxplore.wandb_login import missing_login


def check_settings(config: DictConfig) -> Streaming:
    """What can be said of the settings alone, before anything is reckoned from them; returns those of the stream.

    Raises:
        SettingsError, ValueError: at the first thing that cannot be meant.
    """
    from verl.utils.tracking import Tracking

    settings = Streaming.from_config(config.streaming)
    check_options(config)
    check_lengths(config)
    loggers = [config.trainer.logger] if isinstance(config.trainer.logger, str) else config.trainer.logger
    if unknown := [name for name in loggers if name not in Tracking.supported_backend]:
        raise SettingsError(
            f"trainer.logger={config.trainer.logger} (LOGGER): {unknown[0]} is none of "
            f"{', '.join(Tracking.supported_backend)}"
        )
    names = []
    for block in ("judges", "val_judges"):
        specs = parse_all(getattr(settings, block).split())
        names.append({spec.name for spec in specs})
        for spec in specs:
            if not is_url(spec.target):
                raise SettingsError(
                    f"streaming.{block} ({block.upper()}): '{spec.target}' is no address of a server; give "
                    f"{spec.name}=http://HOST:PORT/v1, as serve_judge.sh prints it"
                )
    if both := set.intersection(*names):
        raise SettingsError(
            f"streaming.judges and streaming.val_judges both have a judge named {min(both)}: one that gives the "
            "reward is asked in validation anyway; name another one, or give this one another name"
        )
    judge_keys(settings)
    check_prompts(settings)
    return settings


def check_lengths(config: DictConfig) -> None:
    """Raise `SettingsError` where the rollout worker would read or write at other lengths than the rest reckons
    with."""
    for part, variable in (("prompt", "PROMPT_LENGTH"), ("response", "RESPONSE_LENGTH")):
        name, longest = f"actor_rollout_ref.rollout.{part}_length", config.data[f"max_{part}_length"]
        if (length := OmegaConf.select(config, name)) not in (None, longest):
            raise SettingsError(
                f"{name}={length} is not data.max_{part}_length={longest}; the one is what the rollouts keep to, the "
                f"other what all else is reckoned by: set {variable} alone, from which both follow"
            )


def prepare(config: DictConfig) -> dict:
    """Derive what follows from other settings, validate all of it, and return the sizes of an update.

    Raises:
        SettingsError, AssertionError: from our checks and verl's.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from alignxplore.rl.choices import check_choices

    settings = check_settings(config)
    check_beside_others(config)
    check_shared_rows(config)
    rows = config.actor_rollout_ref.rollout.n
    if rows not in (1, settings.rows_per_user):  # 1 is verl's default
        raise SettingsError(
            f"actor_rollout_ref.rollout.n={rows}: a user has {settings.stages} stages of {settings.rollouts} "
            f"summaries ({settings.rows_per_user} rows); set ROLLOUTS (streaming.rollouts), from which it follows"
        )
    config.actor_rollout_ref.rollout.n = settings.rows_per_user
    for name in ("max_model_len", "max_num_batched_tokens"):
        if config.actor_rollout_ref.rollout[name] is None:
            config.actor_rollout_ref.rollout[name] = config.data.max_prompt_length + config.data.max_response_length
    sampling = config.actor_rollout_ref.rollout.val_kwargs
    sampling.do_sample = sampling.temperature > 0  # verl refuses to sample at temperature 0
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        check_choices(config)
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    check_rollouts(config, settings)
    check_longest_row(config)
    check_mode(config)
    check_kernels(config)
    if config.trainer.save_freq < 1:
        raise SettingsError(
            f"trainer.save_freq={config.trainer.save_freq} (SAVE_EVERY): the model of a run is made from the "
            "checkpoint of its last step, so there must be one; a number larger than the steps saves that one alone"
        )
    names = ("credit", "stages", "targets", "shuffle_rewards", "val_judges", "val_targets", "val_temperature")
    sizes = update_sizes(config) | {name: getattr(settings, name) for name in names}
    note_idle_clipping(config, sizes["updates_per_step"])
    tokens_per_gpu = config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
    return sizes | {"tokens_per_gpu": tokens_per_gpu, "would_refuse": [option.name for option in OPTIONS]}


def check_rollouts(config: DictConfig, settings: Streaming) -> None:
    """Raise `SettingsError` where the probabilities of the rollouts could not be compared with the trainer's."""
    rollout = config.actor_rollout_ref.rollout
    if (rollout.temperature, rollout.top_p, rollout.top_k) != (1.0, 1.0, -1):
        raise SettingsError(
            "rollouts must be sampled with temperature 1, top_p 1, top_k -1: verl compares their probabilities with "
            "the trainer's full softmax"
        )
    longest = config.data.max_prompt_length + config.data.max_response_length
    if rollout.max_model_len < longest:
        raise SettingsError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is less than PROMPT_LENGTH + "
            f"RESPONSE_LENGTH = {longest}: the engine would refuse longer rows; leave it out"
        )
    if rollout.dtype not in settings.tolerance:
        raise SettingsError(
            f"nothing says how far the probabilities of a rollout in {rollout.dtype} may lie from the trainer's; take "
            f"one of {', '.join(settings.tolerance)} (DTYPE), or give a limit: "
            f"+streaming.tolerance.{rollout.dtype}.mean=0.02"
        )
    # verl's default is bf16
    trainer_dtype = (config.actor_rollout_ref.actor.fsdp_config.get("mixed_precision") or {}).get(
        "param_dtype", "bf16"
    )
    if rollout.dtype == "float32" and trainer_dtype != "fp32":
        raise SettingsError(
            f"DTYPE=float32 is of the rollouts only, the trainer computes in {trainer_dtype}: their probabilities "
            "would differ. PRESET=tiny sets it; on GPUs take DTYPE=bfloat16. DEVICE=cpu alone trains in float32"
        )


def check_mode(config: DictConfig) -> None:
    """Raise `SettingsError` where asynchronous training would not be one step behind, or would not say so in its
    updates (verl/config/mode/async.yaml)."""
    if config.trainer.v1.trainer_mode == "sync":
        return
    value_of: dict[str, object] = {
        "trainer.v1.colocate_async.num_warmup_batches": 1,
        "trainer.v1.sampler.max_off_policy_threshold": 2,
        "trainer.v1.sampler.max_off_policy_strategy": "wait",
    }
    for name, value in value_of.items():
        if OmegaConf.select(config, name) != value:
            raise SettingsError(
                f"{name}={OmegaConf.select(config, name)}: an asynchronous step trains on the users of the step "
                f"before, all of them, which needs {value}; MODE=async sets it"
            )
    if OmegaConf.select(config, "data.gen_batch_size") not in (None, config.data.train_batch_size):
        raise SettingsError(
            f"data.gen_batch_size={config.data.gen_batch_size}: an asynchronous step sends off as many users as it "
            f"trains on (BATCH={config.data.train_batch_size}); leave it out"
        )
    if OmegaConf.select(config, "algorithm.rollout_correction.rollout_is") is None:
        raise SettingsError(
            "algorithm.rollout_correction.rollout_is is not set: some tokens of an asynchronous step were written by "
            "older weights, which importance weights have to correct; MODE=async sets token"
        )


def update_sizes(config: DictConfig) -> dict:
    """Users, rows and updates of a step; raises `SettingsError` where they cannot be dealt out evenly."""
    users, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    each, parallel = config.actor_rollout_ref.rollout.n, config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if users % mini:
        raise SettingsError(
            f"data.train_batch_size={users} is no multiple of actor_rollout_ref.actor.ppo_mini_batch_size={mini}"
        )
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    share = config.actor_rollout_ref.actor.fsdp_config.fsdp_size
    if share != -1 and (share < 1 or gpus % share):
        raise SettingsError(
            f"actor_rollout_ref.actor.fsdp_config.fsdp_size={share}: so many GPUs share one copy of the states, which "
            f"must divide all {gpus}; -1 shares it among all"
        )
    if mini * each % gpus or gpus % parallel:
        raise SettingsError(
            f"{gpus} GPUs (NNODES x GPUS) must divide the {mini * each} rows of an update (MINI_BATCH x {each}) and "
            f"be a multiple of actor_rollout_ref.rollout.tensor_model_parallel_size={parallel} (TP)"
        )
    check_rows_of_a_pass(config, users * each, mini * each, gpus)
    node = config.trainer.n_gpus_per_node
    if node % parallel and parallel % node:
        raise SettingsError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={parallel} (TP): GPUS={node} of a node must be a "
            "multiple of it, or it a multiple of them; otherwise an engine would lie on parts of two nodes"
        )
    return {
        "users_per_step": users,
        "rows_per_user": each,
        "rows_per_step": users * each,
        "rows_per_update": mini * each,
        "updates_per_step": users // mini,
        # An asynchronous step begins with users of the step before, who are not done yet.
        "users_written_at_once": users if config.trainer.v1.trainer_mode == "sync" else 2 * users,
        "gpus": gpus,
    }


def planned_steps(config: DictConfig, users: int) -> int:
    """Steps of the whole run: `trainer.total_training_steps`, else the epochs that the users allow."""
    each = users // config.data.train_batch_size
    if not each:
        raise SettingsError(
            f"{users} training users make no batch of data.train_batch_size={config.data.train_batch_size}"
        )
    if config.trainer.total_training_steps is None:
        return each * config.trainer.total_epochs
    # verl also stops at the end of the epochs; steps were asked for, so there must be epochs enough.
    config.trainer.total_epochs = max(config.trainer.total_epochs, -(-config.trainer.total_training_steps // each))
    return config.trainer.total_training_steps


def check_data(config: DictConfig, stages: int) -> tuple[StreamingDataset, StreamingDataset]:
    """Training and validation users; every one must have a target for each stage, and nobody may be in both."""
    train = StreamingDataset(config.data.train_files, max_samples=config.data.train_max_samples)
    held_out = StreamingDataset(config.data.val_files, max_samples=config.data.val_max_samples)
    if not len(held_out):
        raise SettingsError(f"{config.data.val_files} holds no users to validate on; make it with --val-out")
    for data, files in ((train, config.data.train_files), (held_out, config.data.val_files)):
        lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(data.table["positions"])).to_pylist()
        if lengths and lengths != [stages]:
            raise SettingsError(
                f"{files} has rows with {lengths} stages, streaming.stages is {stages}; make it with --stages {stages}"
            )
    persons = set.intersection(
        *({person_of(user) for user in data.table["user"].to_pylist()} for data in (train, held_out))
    )
    if persons:
        raise SettingsError(
            f"{len(persons)} users are in training and validation data alike, e.g. '{min(persons)}'; hold out others"
        )
    return train, held_out


def not_there(config: DictConfig) -> list[str]:
    """Which of the model and the data files are paths that do not exist; anything else is a hub id."""
    path_of = {"MODEL": config.actor_rollout_ref.model.path, "TRAIN": config.data.train_files}
    path_of["VAL"] = config.data.val_files
    paths = [(name, path) for name, path in path_of.items() if isinstance(path, str) and Path(path).is_absolute()]
    return [f"{name}={path}" for name, path in paths if not Path(path).exists()]


def check_what_is_there(config: DictConfig) -> int | None:
    """What a run would refuse, as far as its files are there already; no hub is asked. Returns the steps of the run,
    None where they follow from users who are not there yet."""
    absent = " ".join(not_there(config))
    out = Path(config.streaming.out)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"OUT={out} is a file, and a folder is needed; name another one")
    if "MODEL=" not in absent and Path(config.actor_rollout_ref.model.path).is_dir():
        check_model(config)
    if "TRAIN=" not in absent and "VAL=" not in absent:
        return planned_steps(config, len(check_data(config, config.streaming.stages)[0]))
    return config.trainer.total_training_steps


def missing_keys(config: DictConfig) -> list[str]:
    """A sentence for each key that a run needs and the environment does not hold: the judges', and that of wandb."""
    variables = sorted(set(judge_keys(Streaming.from_config(config.streaming)).values()) - {""})
    sentences = [
        f"streaming.judge_api_key_env: the environment variable {variable} is not set"
        for variable in variables
        if not os.environ.get(variable, "").strip()
    ]
    if "wandb" in config.trainer.logger and (sentence := missing_login()):
        sentences.append(f"trainer.logger (LOGGER): {sentence}")
    return sentences


def check_kernels(config: DictConfig) -> None:
    """Raise `SettingsError` where verl would import Liger inside Ray, or do without it unsaid, and it is not there."""
    model = config.actor_rollout_ref.model
    for name, value in (("use_liger", True), ("fused_kernel_options.impl_backend", "liger")):
        if OmegaConf.select(model, name) == value and not is_liger_kernel_available():
            raise SettingsError(
                f"actor_rollout_ref.model.{name}={str(value).lower()} needs liger-kernel, which is not among the "
                "pinned packages: pip install it, or leave this out"
            )


def check_attention(config: DictConfig) -> None:
    """The GPU can be used, and the policy's attention computed: otherwise the run would fail minutes later, inside
    Ray."""
    model = config.actor_rollout_ref.model
    if config.trainer.device == "cuda":
        refuse_unusable_gpu("DEVICE=cpu with PRESET=tiny")
    attention = (model.get("override_config") or {}).get("attn_implementation", "flash_attention_2")  # verl's default
    if config.trainer.device == "cuda" and attention == "flash_attention_2":
        try:
            import flash_attn  # noqa: F401  (a build for another torch is found, and fails here)
        except ImportError as error:
            raise SettingsError(
                f"verl trains with FlashAttention, which cannot be loaded ({error}): {FLASH_ATTENTION}. Without it "
                "memory and time are others than those in verl/README.md: "
                "+actor_rollout_ref.model.override_config.attn_implementation=sdpa "
                "actor_rollout_ref.model.use_remove_padding=false"
            ) from error


def check_model(config: DictConfig) -> None:
    """The policy's configuration, tokenizer and chat template can be used, and its weights are whole, and numbers."""
    model = config.actor_rollout_ref.model
    if Path(model.path).is_dir():
        check_files(model.path, arguments=["--tokenizer"] if model.get("tokenizer_path") else [])
    try:
        policy = AutoConfig.from_pretrained(model.path)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"MODEL={model.path} is no readable model, neither a folder nor a hub id: {str(error).splitlines()[0]}"
        ) from error
    check_chat_template(config)
    longest = config.data.max_prompt_length + config.data.max_response_length
    window = getattr(policy, "max_position_embeddings", None)
    if window is not None and longest > window:
        raise SettingsError(
            f"MODEL={model.path} reads {window} tokens, and PROMPT_LENGTH={config.data.max_prompt_length} + "
            f"RESPONSE_LENGTH={config.data.max_response_length} are {longest}: shorten one of them"
        )
    heads = getattr(policy, "num_attention_heads", None)
    parts = config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if heads and heads % parts:
        raise SettingsError(f"MODEL={model.path} has {heads} attention heads, which TP={parts} does not divide")
    check_shared_heads(config, policy)
    note_other_wording(config)


async def check_judges(settings: Streaming, data: StreamingDataset) -> dict[str, float]:
    """Ask each judge a few real questions, with summaries that give the answer away; returns its mass on the two
    letters. Those that only validate are looked at in the same way."""
    rows = [parse_row(data[i]["extra_info"]) for i in range(min(8, len(data)))]
    targets = [stage.targets[0] for _, stages in rows for stage in stages]
    questions = [(f"The user likes: {target.chosen[:500]}", target) for target in targets]
    masses: dict[str, float] = {}
    for connect in (Judges.connect, Judges.connect_watching):
        judges = await connect(settings)
        try:
            masses |= await judges.check(questions)
        finally:
            await judges.close()
    return masses
