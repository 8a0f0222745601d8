"""Settings with a value of another kind, or a name that verl does not know: refused before Ray starts, not at the first
update, hours later."""

import re

import pytest
from omegaconf import ListConfig

pytest.importorskip("verl")

from alignxplore.rl.options import OPTIONS, check_options  # noqa: E402
from alignxplore.rl.settings import SettingsError  # noqa: E402
from tests.rl.test_options import tiny  # noqa: E402, F401
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
