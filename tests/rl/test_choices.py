"""Settings with a value of another kind, or a name that verl does not know, are refused before Ray starts."""

import re

import pytest
from omegaconf import ListConfig

pytest.importorskip("verl")

from alignxplore.rl.choices import CHOICES  # noqa: E402
from alignxplore.rl.options import OPTIONS, check_options  # noqa: E402
from alignxplore.rl.settings import SettingsError  # noqa: E402
from tests.rl.test_options import README, tiny  # noqa: E402, F401
from tests.rl.test_presets import compose, sizes  # noqa: E402, F401

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
OF_ANOTHER_KIND = [
    "trainer.resume_mode=false",
    f"{ROLLOUT}.val_kwargs.n=4.0",
    "data.truncation=true",
    "algorithm.gamma='0.9'",
    f"{ACTOR}.optim.total_training_steps=100.0",
    "algorithm.kl_ctrl.type=1",
    f"{ACTOR}.grad_clip='0.5'",
    "algorithm.adv_estimator=true",
    f"{ACTOR}.checkpoint.save_contents=3",
]


@pytest.mark.parametrize("argument", OF_ANOTHER_KIND)
def test_a_value_of_another_kind_is_refused_as_any_other_is(tiny, argument):  # noqa: F811
    name, _, value = argument.partition("=")
    value = value.strip("'")
    with pytest.raises(SettingsError, match=f"(?i)^{re.escape(name)}={re.escape(value)} is refused: "):
        check_options(tiny(argument))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_predicate_says_yes_or_no_to_any_value(option):
    """Not NotImplemented, as a method of another type does, which passes for yes."""
    for value in (True, False, 0, 1, 4.0, "0.9", "", b"x", [], ["model"], ListConfig(["model", 3]), object()):
        assert isinstance(option.fits(value), bool), value


WITH_KL, IN_REWARD = f"{ACTOR}.use_kl_loss=true", "algorithm.use_kl_in_reward=true"
IS, RS = "algorithm.rollout_correction.rollout_is", "algorithm.rollout_correction.rollout_rs"
LOSS, OPTIM = f"{ACTOR}.policy_loss", f"{ACTOR}.optim"
# What verl would end at, hours later: the arguments, of which the last one is at fault, and part of what is allowed.
MISTYPED = [
    (f"{LOSS}.loss_mode=nonsense", "one of vanilla, .*gspo.*, cispo$"),
    (f"{LOSS}.loss_mode=GSPO", "gspo"),
    (f"{WITH_KL} {ACTOR}.kl_loss_type=nonsense", r"one of k1 \(kl\), abs"),
    (f"{WITH_KL} {ACTOR}.kl_loss_type=full", "low_var_kl"),
    (f"{WITH_KL} {ACTOR}.kl_loss_coef=x", "a number"),
    (f"{IN_REWARD} algorithm.kl_penalty=nonsense", "low_var_kl"),
    (f"{IN_REWARD} algorithm.kl_penalty=full", "low_var_kl"),
    (f"{IN_REWARD} algorithm.kl_ctrl.kl_coef=null", "a number"),
    (f"{IS}=Token", "one of token, sequence"),
    (f"{IS}=false", "one of token, sequence"),
    (f"{IS}=token {IS}_threshold=-1", "more than 0"),
    (f"{IS}=token {IS}_threshold=null", "more than 0"),
    (f"{RS}=tokens {RS}_threshold=2.0 {RS}=tokens", "seq_max_k3.*token_k1"),
    (f"{RS}=token_k1 {RS}_threshold=null", "more than 0"),
    (f"{RS}=token_k2 {RS}_threshold=0.5_2.0", "those of k1 may be two"),
    (f"{ACTOR}.clip_ratio_c=0.5", "more than 1"),
    (f"{ACTOR}.clip_ratio_low=x", "at least 0"),
    (f"{ACTOR}.loss_agg_mode=mean", "one of token-mean, "),
    (f"{ACTOR}.entropy_coeff=x", "a number"),
    (f"{LOSS}.loss_mode=dro {LOSS}.dro_beta=null", "more than 0"),
    (f"{LOSS}.loss_mode=clip_cov {LOSS}.clip_cov_ratio=0", "more than 0"),
    (f"{LOSS}.loss_mode=sapo {ACTOR}.tau_pos=0", "other than 0"),
    (f"{OPTIM}.clip_grad=null", "more than 0"),
    (f"{OPTIM}.clip_grad=0", "more than 0"),
    (f"{OPTIM}.optimizer=Adamm", "AdamW of torch.optim"),
    (f"{OPTIM}.optimizer=lr_scheduler", "AdamW of torch.optim"),
    (f"{OPTIM}.optimizer_impl=nowhere", "can be imported"),
    (f"{OPTIM}.lr_scheduler_type=linear", "one of constant, cosine"),
    (f"{OPTIM}.warmup_style=linear", "one of constant, cosine"),
    (f"{ROLLOUT}.mode=sync", "async alone"),
    (f"{ROLLOUT}.mode=asynch", "async alone"),
    (f"{ROLLOUT}.pipeline_model_parallel_size=2", "1 alone"),
]
TAKEN = [
    *(f"{LOSS}.loss_mode={name}" for name in ("dppo_tv", "geo_mean", "gpg", "clip_cov", "kl_cov", "sapo")),
    f"{LOSS}.loss_mode=dro {LOSS}.dro_beta=0.1",
    f"{ACTOR}.loss_agg_mode=token-sum",
    f"{WITH_KL} {ACTOR}.kl_loss_type=k3+",
    f"{IN_REWARD} algorithm.kl_penalty=abs",
    f"{IS}=sequence {IS}_threshold=0.5_5.0",
    f"{RS}=token_k1,seq_mean_k3 {RS}_threshold=0.5_2.0,0.1",
    f"{OPTIM}.optimizer=SGD",
    f"{OPTIM}.clip_grad=.inf",
    f"{OPTIM}.warmup_style=cosine",
]


@pytest.mark.parametrize(("arguments", "allowed"), MISTYPED, ids=lambda text: text)
def test_what_verl_would_end_at_hours_later_is_refused_with_what_it_takes(tiny, arguments, allowed):  # noqa: F811
    name, _, value = arguments.split()[-1].partition("=")
    value = value.replace("null", "None")
    with pytest.raises(
        SettingsError, match=f"(?i)^{re.escape(name)}={re.escape(value)}: verl 0.9.1 takes .*{allowed}"
    ):
        sizes(tiny(*arguments.split()))


@pytest.mark.parametrize("arguments", TAKEN)
def test_what_verl_takes_is_taken(tiny, arguments):  # noqa: F811
    assert sizes(tiny(*arguments.split()))["rows_per_step"] == 128


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (f"{ROLLOUT}.expert_parallel_size=2", f"{ROLLOUT} as it is: expert_parallel_size must be equal"),
        (f"{OPTIM}.optimizer=SparseAdam", f"{OPTIM} as it is: .*weight_decay"),
        (f"{OPTIM}.betas=[0.9,1.5]", f"{OPTIM} as it is: Invalid beta parameter"),
    ],
)
def test_blocks_that_verl_cannot_build_are_named(tiny, arguments, sentence):  # noqa: F811
    with pytest.raises(SettingsError, match=f"^verl 0.9.1 does not take {sentence}"):
        sizes(tiny(*arguments.split()))


def test_each_choice_was_mistyped_and_the_readme_names_it():
    names = {arguments.split()[-1].partition("=")[0] for arguments, _ in MISTYPED}
    assert [choice.name for choice in CHOICES if f"`{choice.name}`" not in README] == []
    alike = ("clip_ratio", "clip_ratio_high", "kl_cov_ratio", "tau_neg")
    assert [c.name for c in CHOICES if c.name not in names and not c.name.endswith(alike)] == []
