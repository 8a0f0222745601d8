"""A "~/" that the shell left as it was is the home folder, wherever a path can stand: a folder called "~" would be
made."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from alignxplore.command import at_home, option, run
from tests import ROOT
from tests.shell import Recorder, values

RL = "verl/examples/grpo_trainer/run_streaming_8p.sh"


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    folder = tmp_path / "a place"
    folder.mkdir()
    return Recorder(folder)


def test_a_variable_of_a_script_knows_the_home_folder(recorder):
    home = {"HOME": "/h o", "OUT": "~/runs & x", "MODEL": "ours=~/m", "UNRELATED": "a~/b"}
    recorder.run("eval/gen_preference.sh", **home)
    (command,) = recorder.commands
    assert (values(command, "--out"), values(command, "--model")) == (["/h o/runs & x"], ["ours=/h o/m"])


def test_check_of_training_knows_the_home_folder_behind_a_name(recorder):
    (recorder.folder / "tokens").mkdir()
    recorder.run(RL, "--check", JUDGE_TOKENIZER="a=~/tokens b=org/name", HOME=str(recorder.folder))
    assert "streaming.judge_tokenizer='a=~/tokens b=org/name'" in recorder.commands[0]


def test_a_home_that_is_not_set_is_the_users(recorder):
    bare = {name: value for name, value in os.environ.items() if name != "HOME"}
    code = f'source "{ROOT}/shell.bash"; items found "a=~/x b"; echo "${{found[0]}}"'
    ran = subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=bare, capture_output=True, text=True)
    assert ran.stdout.startswith("a=/") and ran.stdout.endswith("/x\n"), ran.stderr


def test_a_word_of_the_command_line_knows_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/h o")
    words = ["--out=~/runs", "~/runs", "ours=~/m two=~/n", "--data=a=~/d", "m=http://x/v1#~/t"]
    expected = ["--out=/h o/runs", "/h o/runs", "ours=/h o/m two=/h o/n", "--data=a=/h o/d", "m=http://x/v1#/h o/t"]
    others = ["~", "a~/b", "what is ~/ ?", "/x=y~/z"]
    assert at_home(words + others) == expected + others
    monkeypatch.setattr(sys, "argv", ["script.py", *words[:1]])
    assert at_home(None) == ["--out=/h o/runs"]


@dataclass
class Named:
    name: str = option("a name", "x")
    places: list[str] = option("places", ["x"])


def test_a_yaml_file_is_read_in_both_spellings_and_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/h o")
    path, read = tmp_path / "c.yaml", []
    path.write_text("name: ~/runs\nplaces: [m=~/a, b~/c]\n")
    run(read.append, Named, "doc", ["--config", str(path)])
    run(read.append, Named, "doc", [f"--config={path}"])
    assert read == [Named("/h o/runs", ["m=/h o/a", "b~/c"])] * 2
