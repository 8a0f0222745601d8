"""What becomes of verl's own settings on the command line: each one that people ask for is taken or refused, and
verl/README.md says so."""

import copy
import re

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from tests import ROOT

pytest.importorskip("verl")

from alignxplore.rl.options import ESTIMATORS, NUMBERS, OPTIONS  # noqa: E402
from alignxplore.rl.settings import SettingsError  # noqa: E402
from tests.rl.test_presets import compose, sizes  # noqa: E402, F401

REFUSED = {
    "algorithm.adv_estimator=gae": "compared within the group of their stage",
    "algorithm.adv_estimator=reinforce_plus_plus": "compare stages whose returns are of different size",
    "critic.enable=true": "need a critic",
    "algorithm.use_pf_ppo=true": "pairs advantages with other rows",
    "algorithm.filter_groups.enable=true": "filters by user, over both stages at once",
    "algorithm.rollout_correction.bypass_mode=true": "hold the trained weights",
    "actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode": "hold the trained weights",
    "actor_rollout_ref.model.lora_rank=16": r"base_model\.model\.\*",
    "actor_rollout_ref.model.lora.rank=16": "train all weights",
    "actor_rollout_ref.model.lora_adapter_path=adapter": "train all weights",
    "actor_rollout_ref.rollout.calculate_log_probs=false": "whose probabilities were compared",
    "actor_rollout_ref.rollout.n=16": r"2 stages of 4 summaries \(8 rows\); set ROLLOUTS",
    "trainer.v1.trainer_mode=separate_async": "MODE=async",
    "trainer.use_v1=false": "no place for streams",
    "model_engine=megatron": "FSDP2 alone",
    "global_profiler.tool=nsys": "nsys profile",
    "trainer.v1.sampler.sync_refill_failed_groups=true": "order of the data",
    "trainer.v1.sampler.custom_sampler.path=mine.py": "verl's own buffer",
    "actor_rollout_ref.rollout.full_determinism=true": "one request id for all summaries",
    "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16": "rounded away",
    "actor_rollout_ref.actor.strategy=fsdp": "FSDP2 alone",
    "actor_rollout_ref.actor.fsdp_config.strategy=fsdp": r"actor\.strategy",
    "actor_rollout_ref.rollout.name=sglang": "vLLM alone",
    "actor_rollout_ref.rollout.multi_turn.enable=true": "would be ignored",
    "actor_rollout_ref.rollout.val_kwargs.n=4": "would be ignored",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model]": "its model is made of the last one",
    "actor_rollout_ref.actor.checkpoint.load_contents=[model]": "goes on from its checkpoints",
    "trainer.resume_mode=disable": "another OUT begins anew",
    "trainer.val_only=true": "eval/ scores a model",
    "trainer.critic_warmup=10": "would train nothing",
    "data.custom_cls.path=mine.py": "reads the rows of a stream",
    "data.custom_cls.name=Mine": "reads the rows of a stream",
    "distillation.enabled=true": "no teacher",
    "reward.custom_reward_function.path=mine.py": "would be ignored",
    "reward.reward_model.enable=true": "would be ignored",
    "reward.reward_model.enable_resource_pool=true": "would be ignored",
    "reward.reward_model.model_path=org/RM": "JUDGES",
    "reward.reward_manager.name=dapo": "JUDGES",
    "reward.reward_manager.source=importlib": "JUDGES",
    "reward.reward_manager.module.path=mine.py": "JUDGES",
    "+reward.reward_kwargs.overlong_buffer_cfg.enable=true": "JUDGES",
    "reward.sandbox_fusion.url=http://x": "JUDGES",
    "reward.num_workers=8": "JUDGES",
    "custom_reward_function.path=mine.py": "JUDGES",
    "reward_model.enable=true": "JUDGES",
    "reward_model.reward_manager=dapo": "JUDGES",
    "reward_model.model.path=org/RM": "JUDGES",
    "sandbox_fusion.url=http://x": "JUDGES",
    "actor_rollout_ref.actor.checkpoint.async_save=true": "there would be no model",
    "trainer.del_local_ckpt_after_load=true": "max_actor_ckpt_to_keep",
    "+trainer.remove_previous_ckpt_in_save=true": "max_actor_ckpt_to_keep=1",
    "trainer.resume_from_path=old/global_step_3": "as MODEL",
    "trainer.default_hdfs_dir=hdfs://x": "copies no checkpoint",
    "trainer.esi_redundant_time=100": "OUT/stop",
    "trainer.balance_batch=false": "by their tokens",
    "trainer.validation_data_dir=x": "streaming.samples",
    "trainer.log_val_generations=4": "streaming.samples",
    "data.val_batch_size=4": "all held-out users at once",
    "data.validation_shuffle=true": "all held-out users at once",
    "data.truncation=left": "PROMPT_LENGTH",
    "data.filter_overlong_prompts=true": "PROMPT_LENGTH",
    "data.prompt_key=question": "upi_streaming_dataset.py",
    "data.reward_fn_key=source": "upi_streaming_dataset.py",
    "+data.apply_chat_template_kwargs.enable_thinking=false": "streaming.thinking",
    "data.tokenizer=org/other": "tokenizer_path",
    "actor_rollout_ref.actor.grad_clip=0.2": r"optim\.clip_grad",
    "actor_rollout_ref.actor.use_torch_compile=false": r"fsdp_config\.use_torch_compile",
    "actor_rollout_ref.actor.qat.enable=true": r"fsdp_config\.qat",
    "actor_rollout_ref.actor.use_prefix_grouper=true": "nowhere",
    "actor_rollout_ref.actor.optim.total_training_steps=9": "STEPS",
    "actor_rollout_ref.hybrid_engine=false": "on the same GPUs",
    "actor_rollout_ref.rollout.do_sample=false": "val_temperature=0",
    "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent": "streaming.py",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path=mine.yaml": "streaming.py",
    "+actor_rollout_ref.rollout.agent.agent_loop_manager_class=mine.Manager": "streaming.py",
    "algorithm.gamma=0.9": "DISCOUNT",
    "algorithm.lam=0.9": "DISCOUNT",
    "algorithm.kl_ctrl.type=adaptive": "begin with kl_coef again",
    "skip.rollout.enable=true": "its own weights",
    "skip.rollout_tq.enable=true": "its own weights",
    "skip.async_rollout.enable=true": "its own weights",
}


@pytest.fixture(scope="module")
def tiny(compose):  # noqa: F811
    """PRESET=tiny with other settings, as of the command line; composed once, for it takes a second."""
    config = compose(PRESET="tiny")

    def changed(*arguments):
        copied = copy.deepcopy(config)
        for name, _, value in (argument.removeprefix("+").partition("=") for argument in arguments):
            OmegaConf.update(copied, name, yaml.safe_load(value), force_add=True)
        return copied

    return changed


@pytest.mark.parametrize("argument", REFUSED)
def test_what_would_train_something_else_is_refused_with_its_reason(tiny, argument):
    name, _, value = argument.removeprefix("+").partition("=")
    why = REFUSED[argument] if name.endswith("rollout.n") else f" is refused: .*{REFUSED[argument]}"
    pattern = re.escape(value).replace("[model", "['model'")
    with pytest.raises(SettingsError, match=f"^{re.escape(name)}=(?i:{pattern}).*{why}"):
        sizes(tiny(argument))


def test_every_refusal_was_tried():
    names = [argument.removeprefix("+").partition("=")[0] + "." for argument in REFUSED]
    assert [o.name for o in OPTIONS if not any(name.startswith(f"{o.name}.") for name in names)] == []


ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
UNIT = (".ppo_micro_batch_size", ".log_prob_max_token_len_per_gpu")  # of the table, in words
FIXED_ROWS = (f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=8")
# By what stands beside them: verl would read another setting, or end inside Ray.
BESIDE_OTHERS = {
    ("trainer.default_local_dir=/scratch/checkpoints",): "OUT/checkpoints a link",
    (f"{ROLLOUT}.log_prob_use_dynamic_bsz=false",): "use_dynamic_bsz says",
    (f"{ROLLOUT}.log_prob_max_token_len_per_gpu=null",): "less than the longest row",
    (f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",): "TOKENS_PER_GPU",
    (f"{ACTOR}.ppo_micro_batch_size=4",): "TOKENS_PER_GPU",
    (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=4",): "TOKENS_PER_GPU",
    ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4", f"{ACTOR}.use_kl_loss=true"): "TOKENS_PER_GPU",
    ("data.gen_batch_size=3",): "does not divide BATCH=16",
    ("data.gen_batch_size=x",): "no whole number",
    (f"{ACTOR}.clip_ratio=0.1",): "clip_ratio_high=0.2",
    (f"{ACTOR}.use_fused_kernels=true",): "actor_rollout_ref.model.use_fused_kernels",
    (f"{ACTOR}.use_remove_padding=true",): "actor_rollout_ref.model.use_remove_padding",
    (f"{ROLLOUT}.val_kwargs.do_sample=false",): "streaming.val_temperature=0",
    (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=3", *FIXED_ROWS): "does not divide the 128 rows",
}


@pytest.mark.parametrize("arguments", BESIDE_OTHERS)
def test_what_verl_would_not_read_or_would_end_at_inside_ray_is_refused(tiny, arguments):
    with pytest.raises(
        SettingsError,
        match=f"(?i)^{re.escape(arguments[0]).replace('=null', '=None')}.*{re.escape(BESIDE_OTHERS[arguments])}",
    ):
        sizes(tiny(*arguments))
    key = arguments[0].partition("=")[0]
    assert f"`{key}`" in TURNED_AWAY or f"`{key}=" in TURNED_AWAY or key.endswith(UNIT)


def test_what_verl_does_read_is_taken(tiny):
    for arguments in (
        (f"{ACTOR}.clip_ratio=0.1", f"{ACTOR}.clip_ratio_low=0.1", f"{ACTOR}.clip_ratio_high=0.1"),
        (f"{ACTOR}.clip_ratio=0.1", f"{ACTOR}.clip_ratio_low=null"),
        (*FIXED_ROWS, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8"),
        ("data.gen_batch_size=4", f"{ROLLOUT}.val_kwargs.do_sample=false", "streaming.val_temperature=0"),
        ("reward_model.enable=false", "actor_rollout_ref.model.use_fused_kernels=true"),
    ):
        assert sizes(tiny(*arguments))["rows_per_step"] == 128
    for arguments, name in (
        (FIXED_ROWS, "rollout.log_prob_micro"),
        ((f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size=8"), "actor.ppo_micro"),
        (("actor_rollout_ref.ref.log_prob_use_dynamic_bsz=false", f"{ACTOR}.use_kl_loss=true"), "ref.log_prob_micro"),
    ):
        with pytest.raises(SettingsError, match=rf"{name}_batch_size_per_gpu is not set"):
            sizes(tiny(*arguments))


@pytest.mark.parametrize("argument", ["use_liger=true", "fused_kernel_options.impl_backend=liger"])
def test_liger_is_refused_where_it_is_not_installed(tiny, monkeypatch, argument):
    """verl imports it inside Ray."""
    config = tiny(f"actor_rollout_ref.model.{argument}", "actor_rollout_ref.model.use_fused_kernels=true")
    monkeypatch.setattr("alignxplore.rl.checks.is_liger_kernel_available", lambda: False)
    with pytest.raises(SettingsError, match=f"{re.escape(argument)} needs liger-kernel, which is not among"):
        sizes(config)
    monkeypatch.setattr("alignxplore.rl.checks.is_liger_kernel_available", lambda: True)
    assert sizes(config)


def test_float32_rollouts_on_a_gpu_are_refused_with_what_is_true(compose):  # noqa: F811
    with pytest.raises(
        SettingsError, match="PRESET=tiny sets it; on GPUs take DTYPE=bfloat16. DEVICE=cpu alone trains"
    ):
        sizes(compose(PRESET="tiny", DEVICE="cuda"))
    assert sizes(compose(PRESET="tiny", DEVICE="cuda", DTYPE="bfloat16"))


ASYNC = {
    "trainer.v1.colocate_async.num_warmup_batches=2": "needs 1",
    "trainer.v1.sampler.max_off_policy_threshold=8": "needs 2",
    "trainer.v1.sampler.max_off_policy_strategy=drop": "needs wait",
    "data.gen_batch_size=8": "BATCH=16",
    "algorithm.rollout_correction.rollout_is=null": "older weights",
}


@pytest.mark.parametrize("argument", ASYNC)
def test_an_asynchronous_run_is_one_step_behind_and_corrects_for_it(compose, argument):  # noqa: F811
    assert sizes(compose(PRESET="tiny", MODE="async"))["rows_per_user"] == 8
    name, _, value = argument.partition("=")
    with pytest.raises(SettingsError, match=f"^{re.escape(name)}.*{re.escape(ASYNC[argument])}"):
        sizes(compose(argument, PRESET="tiny", MODE="async"))
    if value != "null":
        sizes(compose(f"+{argument}" if name.startswith("data") else argument, PRESET="tiny"))  # means nothing there


def test_verls_own_word_alone_is_no_asynchronous_run(compose):  # noqa: F811
    with pytest.raises(SettingsError, match="MODE=async sets it"):
        sizes(compose("trainer.v1.trainer_mode=colocate_async", PRESET="tiny"))


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        ((), {"TOKENS_PER_GPU": "895"}, r"actor\.ppo_max_token_len_per_gpu=895"),
        (("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=800",), {}, r"rollout\.log_prob_max_token_len"),
        (
            ("actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=800"),
            {},
            r"ref\.log_prob_max_token_len",
        ),
    ],
)
def test_a_pass_that_does_not_take_the_longest_row_is_refused(compose, arguments, variables, named):  # noqa: F811
    with pytest.raises(
        SettingsError, match=rf"{named}.* less than the longest row: PROMPT_LENGTH=768 \+ RESPONSE_LENGTH=128 = 896"
    ):
        sizes(compose(*arguments, PRESET="tiny", **variables))


# Numbers that cannot be meant, by the names of their settings; "x" is no number.
ODD = {
    **{f"streaming.{name}": ("x", -1) for name in ("seed", "discount", "judge_patience", "max_failures", "samples")},
    **{f"streaming.{name}": ("x", 0, -1) for name in ("judge_timeout", "step_limit", "poll_seconds")},
    "streaming.discount ": (2,),
    "streaming.max_failures ": (1.5,),
    "streaming.seed ": (2**31, 1.5),
    **{name: ("x", None, 0, -1, 1.5) for name, (_, number) in NUMBERS.items() if number.least == 1},
    "trainer.total_training_steps": ("x", 0, -1, 1.5),
    **{name: ("x", None, 1.5) for name in ("trainer.save_freq", "trainer.test_freq")},
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": ("x", None, 0, -1),
    "actor_rollout_ref.actor.optim.lr": ("x", None, -1e-6, float("nan")),
    "actor_rollout_ref.actor.fsdp_config.fsdp_size": ("x", None, 0, -2, 3),
    "actor_rollout_ref.rollout.gpu_memory_utilization": ("x", None, 0, -0.1, 1, 60),
    "actor_rollout_ref.rollout.val_kwargs.top_p": (-1, 2),
    "actor_rollout_ref.rollout.max_model_len": (4096,),
    "streaming.thinking": ("maybe",),
    "streaming.shuffle_rewards": (3,),
    "streaming.tolerance.bfloat16.mean": ("x", -1),
    "trainer.logger": (["console", "nothing"], "nothing"),
}


def test_a_number_that_cannot_be_meant_is_named_before_anything_is_reckoned_with_it(compose):  # noqa: F811
    """None of them comes to Ray, where it would be an error of somebody else's, minutes later."""
    config = compose()
    sizes(config)
    for name, values in ODD.items():
        sound_value = copy.deepcopy(OmegaConf.select(config, name.strip()))
        for value in values:
            OmegaConf.update(config, name.strip(), value)
            with pytest.raises(SettingsError) as caught:
                sizes(config)
            assert str(caught.value).startswith(f"{name.strip()}="), (name, value, str(caught.value))
        OmegaConf.update(config, name.strip(), sound_value)
    sizes(config)
    OmegaConf.update(config, "streaming.tolerance.bfloat16.typo", 1, force_add=True)
    with pytest.raises(SettingsError, match="bfloat16.typo is no limit"):
        sizes(config)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"JUDGES": "judge"}, r"streaming.judges \(JUDGES\): 'judge' is no address .* judge=http://HOST"),
        ({"VAL_JUDGES": "org/A"}, r"streaming.val_judges \(VAL_JUDGES\): 'org/A' is no address"),
        ({"JUDGES": "a=http://x/v1 a=http://y/v1"}, "2 models are named a"),
        ({"VAL_JUDGES": "judge=http://x/v1"}, "val_judges both have a judge named judge"),
    ],
)
def test_judges_that_cannot_be_asked_are_named(compose, variables, sentence):  # noqa: F811
    with pytest.raises(ValueError, match=sentence):
        sizes(compose(**variables))


def test_a_pass_that_takes_one_row_is_enough(compose):  # noqa: F811
    assert sizes(compose(PRESET="tiny", TOKENS_PER_GPU="896"))
    shared = "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2"
    assert sizes(compose(shared, PRESET="node", TOKENS_PER_GPU="6144"))


README = (ROOT / "verl/README.md").read_text()
TAKEN, TURNED_AWAY = README.split("## Other algorithms")[1].split("## Presets")[0].split("Refused, with")
ALGORITHMS = {
    row.split("|")[1].strip(): re.findall(r"`([^`]+)`", row.split("|")[2])
    for row in TAKEN.splitlines()
    if row.startswith("| ") and "`" in row
}


def test_the_table_names_what_is_refused():
    assert [option.name for option in OPTIONS if f"`{option.name}" not in TURNED_AWAY] == []
    assert {"clip-higher (DAPO)", "Dr. GRPO", "GSPO", "CISPO", "RLOO", "KL in the loss"} <= set(ALGORITHMS)


@pytest.mark.parametrize("preset", ["paper", "tiny"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_of_the_table_composes_and_is_what_it_says(compose, name, preset):  # noqa: F811
    config = compose(*ALGORITHMS[name], PRESET=preset)
    assert sizes(config)["rows_per_user"] == 8
    for argument in ALGORITHMS[name]:
        key, _, value = argument.partition("=")
        setting = config
        for part in key.split("."):
            setting = setting[part]
        assert str(setting).lower() in (value, str(float(value)) if value[0].isdigit() else value), argument
    advantages = advantages_of(config)
    assert torch.isfinite(advantages).all() and gradient_of(config, advantages).abs().sum() > 0


# Two stages of one user: returns of the first are larger by what the next one adds, those of the second nearly equal.
RETURNS = [0.9, 1.1, 1.0, 1.4, 0.50000, 0.50010, 0.50005, 0.50001]


def advantages_of(config):
    """What verl gives each of eight rows of three tokens, by the names and keys that a stream publishes."""
    from tensordict import TensorDict
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    from verl import DataProto

    rewards = torch.zeros(8, 3)
    rewards[:, -1] = torch.tensor(RETURNS)
    fields = {"token_level_rewards": rewards, "response_mask": torch.ones(8, 3)}
    groups = np.array(["u_s1"] * 4 + ["u_s2"] * 4, dtype=object)
    algorithm = config.algorithm
    result = compute_advantage_for_multi_trajectories(
        DataProto(batch=TensorDict(fields, batch_size=8), non_tensor_batch={"uid": groups}),
        batch_keys=[f"u_s{1 + i // 4}_{i % 4}_0" for i in range(8)],
        adv_estimator=algorithm.adv_estimator,
        norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
        config=algorithm,
    )
    return result.batch["advantages"]


def gradient_of(config, advantages):
    """The gradient of verl's loss, at a policy that has moved a little from the one that wrote."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    old = torch.full((8, 3), -1.0)
    new = (old + 1e-4 * torch.arange(24).view(8, 3)).requires_grad_()
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss = get_policy_loss_fn(actor.policy_loss.loss_mode)
    value, _ = loss(old, new, advantages, torch.ones(8, 3), loss_agg_mode=actor.loss_agg_mode, config=actor)
    (gradient,) = torch.autograd.grad(value, new)
    return gradient


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_compare_the_rows_of_a_stage(compose, estimator):  # noqa: F811
    advantages = advantages_of(compose(f"algorithm.adv_estimator={estimator}", PRESET="tiny"))
    assert advantages[:4].mean().item() == pytest.approx(0, abs=1e-4) and advantages[
        4:
    ].mean().item() == pytest.approx(0, abs=1e-3)


def test_rewards_that_are_nearly_equal_are_scaled_up_by_grpo_and_not_by_dr_grpo(compose):  # noqa: F811
    nearly_equal = advantages_of(compose(PRESET="tiny"))[4:]
    assert nearly_equal.abs().max() > 0.9
    assert advantages_of(compose(*ALGORITHMS["Dr. GRPO"], PRESET="tiny"))[4:].abs().max() < 1e-4
