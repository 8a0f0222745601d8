"""What one pass of the trainer takes: the longest row, a GPU's rows, and rows that several GPUs share (Ulysses).
Refused before Ray starts, where a worker would end in the middle of a run."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignxplore.rl.settings import Number, SettingsError

ULYSSES = "ulysses_sequence_parallel_size"
_BLOCK = "actor_rollout_ref"
# By the block whose GPUs compute it: the prefix of its settings, and the block in which they stand.
_PASSES = (("actor", "actor.ppo_"), ("actor", "rollout.log_prob_"), ("ref", "ref.log_prob_"))


def check_shared_rows(config: DictConfig) -> None:
    """Raise `SettingsError` where so many GPUs cannot share a row."""
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    for block in ("actor", "ref") if _has_reference(config) else ("actor",):
        for place in (block, f"{block}.fsdp_config"):
            name = f"{_BLOCK}.{place}.{ULYSSES}"
            size = OmegaConf.select(config, name)
            Number(int, 1).check(name, "", size)
            if gpus % size:
                raise SettingsError(
                    f"{name}={size}: so many GPUs share a row, which must divide all {gpus} (NNODES x GPUS)"
                )
            if size > 1 and not config.actor_rollout_ref.model.use_remove_padding:
                raise SettingsError(
                    f"{name}={size}: verl 0.9.1 shares rows among GPUs only without padding; set "
                    "actor_rollout_ref.model.use_remove_padding=true"
                )


def check_shared_heads(config: DictConfig, policy: Any) -> None:
    """Raise `SettingsError` where GPUs that share a row cannot share the policy's attention heads.

    Args:
        policy: its configuration (transformers).
    """
    heads = getattr(policy, "num_attention_heads", None) or 0
    keys: int = getattr(policy, "num_key_value_heads", None) or heads
    for block in ("actor", "ref") if _has_reference(config) else ("actor",):
        size = gpus_of_a_row(config, block)
        if heads % size or keys % size and size % keys:
            raise SettingsError(
                f"MODEL={config.actor_rollout_ref.model.path} has {heads} attention heads and {keys} of keys and "
                f"values, which {ULYSSES}={size} GPUs cannot share"
            )


def check_longest_row(config: DictConfig) -> None:
    """Raise `SettingsError` where a row may be longer than one pass of the trainer takes: a worker would end at the
    first such row, in the middle of the run, and again at the same step of every resume."""
    row_tokens = config.data.max_prompt_length + config.data.max_response_length
    for block, prefix in _passes(config, by_tokens=True):
        name, gpus = f"{_BLOCK}.{prefix}max_token_len_per_gpu", gpus_of_a_row(config, block)
        tokens = OmegaConf.select(config, name)
        if (tokens or 0) * gpus < row_tokens:
            shared = f" on each of the {gpus} GPUs that share a row ({_BLOCK}.{block})" if gpus > 1 else ""
            raise SettingsError(
                f"{name}={tokens} (TOKENS_PER_GPU){shared} is less than the longest row: PROMPT_LENGTH="
                f"{config.data.max_prompt_length} + RESPONSE_LENGTH={config.data.max_response_length} = {row_tokens} "
                "tokens; raise it, or shorten one of them"
            )


def check_rows_of_a_pass(config: DictConfig, step_rows: int, update_rows: int, gpus: int) -> None:
    """Raise `SettingsError` where passes of so many rows each (without use_dynamic_bsz) do not make up a GPU's share;
    verl would end inside Ray."""
    for block, prefix in _passes(config, by_tokens=False):
        name, rows = f"{_BLOCK}.{prefix}micro_batch_size_per_gpu", update_rows if "ppo" in prefix else step_rows
        share, part = rows * gpus_of_a_row(config, block) // gpus, OmegaConf.select(config, name)
        if part < 1 or share % part:
            raise SettingsError(f"{name}={part} does not divide the {share} rows of a GPU")


def gpus_of_a_row(config: DictConfig, block: str) -> int:
    """GPUs that share a row of `actor` or `ref`, as verl 0.9.1 reads it: the older setting, where it is not 1, wins
    over that of the engine. The reference's engine does not follow the actor's."""
    own = config.actor_rollout_ref[block]
    older = own.get(ULYSSES) or 1
    return older if older > 1 else own.fsdp_config.get(ULYSSES) or 1


def _passes(config: DictConfig, by_tokens: bool) -> list[tuple[str, str]]:
    """The passes whose rows are put together by their tokens, or those of so many rows each."""
    blocks = config.actor_rollout_ref
    dynamic = {"actor": blocks.actor.use_dynamic_bsz, "ref": blocks.ref.log_prob_use_dynamic_bsz}
    computed = ("actor", "ref") if _has_reference(config) else ("actor",)
    return [(block, prefix) for block, prefix in _PASSES if block in computed and dynamic[block] == by_tokens]


def _has_reference(config: DictConfig) -> bool:
    return config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
