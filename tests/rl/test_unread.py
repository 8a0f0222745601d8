"""Settings of verl that nothing reads are refused, all of them, by their distance from verl's own defaults."""

import re
from functools import reduce
from operator import getitem

import pytest
import yaml
from omegaconf import OmegaConf

from tests import ROOT

pytest.importorskip("verl")

from alignxplore.rl.settings import SettingsError  # noqa: E402
from alignxplore.rl.unread import UNREAD, check_unread  # noqa: E402
from tests.rl.test_fixed_settings import leaves  # noqa: E402
from tests.rl.test_options import tiny  # noqa: E402, F401
from tests.rl.test_presets import compose, sizes  # noqa: E402, F401

REFUSED = (ROOT / "verl/README.md").read_text().split("Refused, with")[1].split("\n\n## ")[0]
NAMES = {name: unread for unread in UNREAD for name in unread.names}
# By what they are read where they are: with these, the run takes them.
SWITCHES = {
    "algorithm.rollout_correction.rollout_is=token": {"algorithm.rollout_correction.rollout_is_threshold": 3.0},
    "algorithm.rollout_correction.rollout_rs=token_k2": {"algorithm.rollout_correction.rollout_rs_threshold": 2.0},
    "algorithm.use_kl_in_reward=true": {"algorithm.kl_ctrl.kl_coef": 0.1, "algorithm.kl_penalty": "mse"},
    "algorithm.adv_estimator=grpo": {"algorithm.norm_adv_by_std_in_grpo": False},
    "actor_rollout_ref.actor.use_kl_loss=true": {
        "actor_rollout_ref.actor.kl_loss_coef": 0.1,
        "actor_rollout_ref.ref.fsdp_config.param_offload": True,
    },
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm": {"actor_rollout_ref.actor.loss_scale_factor": 9},
    "actor_rollout_ref.actor.shuffle=true": {"actor_rollout_ref.actor.data_loader_seed": 7},
    "actor_rollout_ref.actor.policy_loss.loss_mode=sapo": {"actor_rollout_ref.actor.tau_pos": 2.0},
    "actor_rollout_ref.actor.optim.warmup_style=cosine": {"actor_rollout_ref.actor.optim.num_cycles": 1.0},
    "actor_rollout_ref.model.tiled_mlp.enabled=true": {"actor_rollout_ref.model.tiled_mlp.num_shards": 2},
    "actor_rollout_ref.actor.fsdp_config.pad_to_length=true": {
        "actor_rollout_ref.actor.fsdp_config.pad_to_length_bucket": 512
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_set_in_a_block_that_nothing_reads_is_refused(tiny, name):  # noqa: F811
    config, unread = tiny("algorithm.adv_estimator=rloo"), NAMES[name]
    raw_config = OmegaConf.to_container(config, resolve=False)
    for setting in leaves(config, name):
        value = reduce(getitem, setting.split("."), raw_config)
        if value == {} or any(f"{setting}.".startswith(f"{acting}.") for acting in unread.except_for):
            continue
        OmegaConf.update(config, setting, "another")
        with pytest.raises(SettingsError, match=f"^{re.escape(setting)}=another is refused: (?!$)"):
            check_unread(config)
        OmegaConf.update(config, setting, value)
    check_unread(config)


def test_a_critic_and_what_rows_of_a_stream_do_not_have_are_refused_in_a_sentence(tiny):  # noqa: F811
    for argument, why in {
        "critic.optim.lr=1e-5": "there is no critic",
        "critic.model.path=org/Critic": "there is no critic",
        "trainer.max_critic_ckpt_to_keep=1": "there is no critic",
        "data.return_raw_chat=false": "user, history and positions",
        "data.return_full_prompt=true": "user, history and positions",
        "+data.sampler.class_path=mine.py": "user, history and positions",
        "reward.reward_model.rollout.dtype=float16": "JUDGES",
        "+trainer.total_stesp=3": "verl 0.9.1 reads no such setting",
        "actor_rollout_ref.actor.kl_loss_coef=0.1": r"without actor_rollout_ref\.actor\.use_kl_loss=true",
        "actor_rollout_ref.ref.fsdp_config.param_offload=true": "there is no reference model",
        "actor_rollout_ref.rollout.multi_turn.max_user_turns=4": "a stream's turns are its stages",
    }.items():
        name, _, value = argument.removeprefix("+").partition("=")
        with pytest.raises(SettingsError, match=f"(?i)^{name}={value} is refused: .*{why}"):
            sizes(tiny(argument))


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_a_switch_makes_act_is_taken_with_it(tiny, switch):  # noqa: F811
    arguments = [f"{name}={yaml.dump(value).split()[0]}" for name, value in SWITCHES[switch].items()]
    assert sizes(tiny(switch, *arguments))["rows_per_step"] == 128


def test_the_readme_names_each_of_them():
    assert [name for name in NAMES if f"`{name}`" not in REFUSED] == []


@pytest.mark.parametrize("preset", ["paper", "node", "gpu", "solo", "tiny"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_no_preset_sets_what_nothing_reads(compose, preset, mode):  # noqa: F811
    check_unread(compose(PRESET=preset, MODE=mode))
