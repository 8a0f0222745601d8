"""What one pass of the trainer takes: as verl 0.9.1 reads it, for the actor and for the reference."""

import re

import pytest
from transformers import Qwen3Config

pytest.importorskip("verl")

from alignxplore.rl.passes import check_shared_heads, gpus_of_a_row  # noqa: E402
from alignxplore.rl.settings import SettingsError  # noqa: E402
from tests.rl.test_presets import compose, sizes  # noqa: E402, F401

ACTOR, REF, SIZE = "actor_rollout_ref.actor", "actor_rollout_ref.ref", "ulysses_sequence_parallel_size"
OLDER, OF_ENGINE = f"{ACTOR}.{SIZE}", f"{ACTOR}.fsdp_config.{SIZE}"
KL = f"{ACTOR}.use_kl_loss=true"
SHORT = f"{ACTOR}.ppo_max_token_len_per_gpu=8192"  # a row has 12288 tokens


def test_a_reference_that_does_not_share_its_rows_must_hold_the_longest(compose):  # noqa: F811
    """verl's reference follows only the older setting of the actor (config/ref/dp_ref.yaml)."""
    assert sizes(compose(f"{OF_ENGINE}=2", SHORT, PRESET="node"))
    named = rf"^{re.escape(REF)}\.log_prob_max_token_len_per_gpu=8192 .* less than the longest row"
    for kl in (KL, "algorithm.use_kl_in_reward=true"):
        with pytest.raises(SettingsError, match=named):
            sizes(compose(f"{OF_ENGINE}=2", SHORT, kl, PRESET="node"))
    assert sizes(compose(f"{OLDER}=2", SHORT, KL, PRESET="node"))
    assert sizes(compose(f"{OF_ENGINE}=2", f"{REF}.fsdp_config.{SIZE}=2", SHORT, KL, PRESET="node"))
    with pytest.raises(SettingsError, match=r"actor\.ppo_max.*=4096 .* each of the 2 GPUs that share a row"):
        sizes(compose(f"{OF_ENGINE}=2", f"{ACTOR}.ppo_max_token_len_per_gpu=4096", PRESET="node"))


@pytest.mark.parametrize("arguments", [(), (f"{OF_ENGINE}=4",), (f"{OLDER}=2",), (f"{OLDER}=2", f"{OF_ENGINE}=4")])
def test_so_many_gpus_share_a_row_as_verl_says(compose, arguments):  # noqa: F811
    from verl.utils.config import omega_conf_to_dataclass

    config = compose(*arguments, PRESET="node")
    sizes(config)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert gpus_of_a_row(config, "actor") == actor.engine.ulysses_sequence_parallel_size
    assert gpus_of_a_row(config, "ref") == actor.ulysses_sequence_parallel_size


@pytest.mark.parametrize("name", [OLDER, OF_ENGINE])
@pytest.mark.parametrize(
    ("size", "more", "sentence"),
    [
        ("3", (), "must divide all 8"),
        ("16", (), "must divide all 8"),
        ("0", (), "at least 1"),
        ("null", (), "no whole number"),
        ("2", ("actor_rollout_ref.model.use_remove_padding=false",), "model.use_remove_padding=true"),
    ],
)
def test_gpus_that_cannot_share_a_row_are_named(compose, name, size, more, sentence):  # noqa: F811
    with pytest.raises(SettingsError, match=f"^{re.escape(name)}={size.replace('null', 'None')}.*{sentence}"):
        sizes(compose(f"{name}={size}", *more, PRESET="node"))


def test_gpus_that_cannot_share_the_heads_are_named(compose):  # noqa: F811
    config = compose(f"{OF_ENGINE}=8", PRESET="node")
    check_shared_heads(config, Qwen3Config(num_attention_heads=16, num_key_value_heads=8))
    check_shared_heads(config, Qwen3Config(num_attention_heads=16, num_key_value_heads=4))
    for heads, keys in ((12, 4), (24, 3)):
        with pytest.raises(SettingsError, match=rf"has {heads} attention heads and {keys} .* {SIZE}=8 GPUs cannot"):
            check_shared_heads(config, Qwen3Config(num_attention_heads=heads, num_key_value_heads=keys))


def test_rows_of_a_pass_of_the_reference_make_up_a_gpus_share(compose):  # noqa: F811
    fixed = (KL, f"{REF}.log_prob_use_dynamic_bsz=false")
    assert sizes(compose(*fixed, f"{REF}.log_prob_micro_batch_size_per_gpu=8", PRESET="node"))
    with pytest.raises(SettingsError, match=r"ref\.log_prob_micro.*=7 does not divide the 256 rows"):
        sizes(compose(*fixed, f"{REF}.log_prob_micro_batch_size_per_gpu=7", PRESET="node"))
