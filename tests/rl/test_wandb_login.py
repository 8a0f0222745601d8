"""Whoever reports to wandb without a login hears so before a model is loaded, whatever trains it."""

import pytest

from alignxplore.rl import train
from alignxplore.rl.settings import SettingsError
from alignxplore.serving.endpoint import TransportError
from alignxplore.sft.configuration import TrainArguments
from alignxplore.wandb_login import missing_login

pytest.importorskip("wandb")
SENTENCE = "nobody is logged in to wandb: run wandb login, or set WANDB_API_KEY or WANDB_MODE=offline"


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A home folder without a login; wandb's own variables are not set."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_MODE", "offline"), ("WANDB_MODE", "disabled"), ("WANDB_API_KEY", "a" * 40)]
)
def test_a_login_is_missing_unless_there_is_a_key_or_nothing_is_sent(nobody, name, value):
    assert missing_login() == SENTENCE
    nobody.setenv(name, value)
    assert missing_login() == ""


def test_sft_refuses_to_report_to_wandb(nobody, tmp_path):
    with pytest.raises(ValueError, match=f"report_to wandb: {SENTENCE}"):
        TrainArguments(output_dir=str(tmp_path / "run"), report_to=["wandb"])
    nobody.setenv("WANDB_MODE", "offline")
    TrainArguments(output_dir=str(tmp_path / "run"), report_to=["wandb"])


@pytest.mark.parametrize("logger", ["wandb", ["console", "wandb"]])
def test_rl_refuses_to_log_to_wandb(nobody, config, tmp_path, logger):
    config.trainer.logger = logger
    with pytest.raises(SettingsError, match=rf"trainer.logger \(LOGGER\): {SENTENCE}"):
        train.run(config)
    nobody.setenv("WANDB_MODE", "offline")
    with pytest.raises(TransportError):  # of the judge, which comes after it
        train.run(config)
