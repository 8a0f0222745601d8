"""How many steps a run has where epochs, steps or both are asked for."""

import pytest

pytest.importorskip("verl")

from alignxplore.rl.checks import planned_steps  # noqa: E402
from tests.rl.test_presets import compose  # noqa: E402, F401


@pytest.mark.parametrize(
    ("arguments", "variables", "steps"),
    [
        ((), {}, 40),
        (("trainer.total_epochs=3",), {}, 30),
        (("++trainer.total_epochs=3",), {}, 30),
        (("trainer.total_epochs=3",), {"EPOCHS": "2"}, 30),
        (("trainer.total_epochs=3",), {"STEPS": "5"}, 5),
        (("trainer.total_epochs=3", "trainer.total_training_steps=7"), {}, 7),
        (("trainer.total_training_steps=7",), {"EPOCHS": "2"}, 7),
    ],
)
def test_epochs_of_the_command_line_count_although_the_preset_has_steps(compose, arguments, variables, steps):  # noqa: F811
    """160 users are ten steps an epoch, and the preset has 40 steps."""
    assert planned_steps(compose(*arguments, PRESET="tiny", **variables), 160) == steps
