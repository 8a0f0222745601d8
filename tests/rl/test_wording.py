"""What the policy is asked is tried before Ray starts: prompt set and chat template."""

import os
import shutil
import subprocess

import pytest

from alignxplore.prompts import SETS, PromptError
from alignxplore.rl import train as module
from alignxplore.rl.settings import SettingsError
from alignxplore.serving.beforehand import ModelError
from tests.conftest import CHATML
from tests.rl.conftest import ENVIRONMENT, SCRIPT, SIZES, make_model

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
OPENS = CHATML.replace("'<|im_start|>assistant\n' }}{%- if", "'<|im_start|>assistant\n<think>\n' }}{%- if")
REFUSED = {
    "none": (None, "its tokenizer has no chat template"),
    "no system role": (NO_SYSTEM, r"its chat template refuses messages of system, user \(no system role\)"),
    "opens the reasoning": (OPENS, "its chat template opens the reasoning itself"),
}


@pytest.fixture
def check(config, monkeypatch):
    """`check()` is CHECK=1 of `config`, as far as it looks at the policy."""
    config.streaming.check_only = True
    monkeypatch.setattr(module, "prepare", lambda config: {})
    monkeypatch.setattr(module, "memory", lambda config: 1.0)
    return lambda: module.run(config)


def set_template(folder, template):
    (folder / "chat_template.jinja").unlink()
    if template:
        (folder / "chat_template.jinja").write_text(template)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_policy_whose_template_cannot_be_trained_with_is_refused(config, check, tmp_path, kind):
    assert check() == 0
    template, sentence = REFUSED[kind]
    set_template(tmp_path / "sft", template)
    with pytest.raises((ModelError, SettingsError), match=f"^MODEL={tmp_path}/sft: {sentence}"):
        check()
    config.actor_rollout_ref.model.custom_chat_template = CHATML  # verl puts it in the tokenizer's place
    assert check() == 0


def test_a_policy_that_does_not_reason_ends_no_prompt_in_an_open_block(config, check, tmp_path):
    config.streaming.thinking = False
    assert check() == 0, "an empty block is closed"


@pytest.mark.parametrize("purpose", ["infer", "judge"])
def test_a_prompt_set_that_cannot_be_filled_is_refused(config, check, tmp_path, purpose):
    config.streaming.prompts = str(shutil.copytree(SETS / "default", tmp_path / "mine"))
    assert check() == 0
    (tmp_path / "mine" / f"{purpose}.jinja").write_text("#--- user\n{{ none | length }}")
    with pytest.raises(PromptError, match=rf"mine/{purpose}\.jinja: object of type 'NoneType' has no len"):
        check()


def test_a_policy_of_another_wording_is_noted(config, check, finished, tmp_path, capsys):
    """`finished` is a run of RL with the default set; what SFT writes down is in tests/serving/test_beforehand.py."""
    make_model(finished / "model")
    config.actor_rollout_ref.model.path = str(finished / "model")
    assert check() == 0 and "note:" not in capsys.readouterr().err
    config.streaming.prompts = "hardened"
    assert check() == 0
    assert f"note: {finished}/model was trained on prompts of another infer.jinja" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_the_script_says_so_in_one_sentence(config, tmp_path, kind):
    set_template(tmp_path / "sft", REFUSED[kind][0])
    paths = {"MODEL": f"{tmp_path}/sft", "TRAIN": config.data.train_files, "VAL": config.data.val_files}
    run = {"CHECK": "1", "PRESET": "tiny", "OUT": f"{tmp_path}/out", "JUDGES": "j=http://127.0.0.1:9/v1"}
    variables = os.environ | ENVIRONMENT | SIZES | paths | run
    process = subprocess.run(["bash", str(SCRIPT)], env=variables, text=True, capture_output=True, timeout=300)
    assert process.returncode == 1 and process.stderr.startswith(f"cannot start: MODEL={tmp_path}/sft: its ")
    assert process.stderr.count("\n") == 1
