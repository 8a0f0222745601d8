"""The commands that the scripts and the README give: what they tell evaluate.py can be meant, and is looked at before
anything is written."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from alignxplore.command import parse
from alignxplore.errors import one_sentence
from alignxplore.evaluation.generation import GenerationArguments
from alignxplore.evaluation.scoring import EvaluationArguments, downstream_models
from tests import ROOT
from tests.shell import Recorder

EVAL = ROOT / "eval"


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """`steps("main_table.sh", JUDGE=...)`: (script, options) of each Python command that the script would run."""
    (tmp_path / "sft" / "outputs" / "tallrec_merged").mkdir(parents=True)
    (tmp_path / "eval").mkdir()
    monkeypatch.chdir(tmp_path / "eval")  # the commands are given from there
    recorder = Recorder(tmp_path / "eval")

    def run(script: str, **variables: str) -> list[tuple[str, list[str]]]:
        recorder.run(f"eval/{script}", **variables)
        return [(Path(command[0]).name, command[1:]) for command in recorder.commands]

    return run


def forms(options: list[str]) -> dict[str, str]:
    """Name of each downstream model → how it answers, as evaluate.py reads its options."""
    return downstream_models(*parse(EvaluationArguments, None, options))[1]


def given(path: Path, script: str) -> dict[str, str]:
    """JUDGE and EVALUATE of the one command in a text that sets both."""
    ((judge, evaluate),) = re.findall(r'JUDGE="([^"]*)" EVALUATE="([^"]*)"', path.read_text())
    return {"JUDGE": judge, "EVALUATE": evaluate, "script": script}


@pytest.mark.parametrize(
    ("command", "judge_formats"),
    [
        ({"script": "cross_model.sh"}, {"Qwen2.5-7B-Instruct": "plain", "gpt-oss-20b": "harmony"}),
        (given(EVAL / "cross_model.sh", "cross_model.sh"), {"a": "plain", "b": "think"}),
        (given(EVAL / "README.md", "main_table.sh"), {"Qwen3-8B": "plain", "tallrec": "yes_no"}),
    ],
)
def test_the_commands_that_we_give_can_be_meant(steps, command, judge_formats):
    command = dict(command)
    commands = steps(command.pop("script"), **command)
    assert [script for script, _ in commands] == ["evaluate.py", "gen_preference.py", "evaluate.py"]
    assert "--check" in commands[0][1] and "--check" not in commands[2][1]
    assert forms(commands[0][1]) == forms(commands[2][1]) == judge_formats


@pytest.mark.parametrize("script", [EvaluationArguments, GenerationArguments])
def test_a_single_option_for_vllm_is_given_as_the_help_says(script):
    text = {x.name: x.metadata["help"] for x in fields(script) if "help" in x.metadata}["serve_arguments"]
    (example,) = re.findall(r"(--serve_arguments=\S+) or", text)
    models = ["--judge", "a=org/model"] if script is EvaluationArguments else ["--model", "a=org/model"]
    (arguments,) = parse(script, None, [*models, "--data", "d", "--out", "o", example])
    assert arguments.serve_arguments == "--enforce-eager"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--judge_format", "b=think"],
            "--judge_format: give one value for all models and NAME=VALUE for single ones of a; found b=think",
        ),
        (["--published", "ours=AlignXplore++"], "--published: no row 'AlignXplore\\+\\+'"),
        (["--evaluator", "./nothing"], "no such model folder"),
        (["--judge", "host:8000"], "has no scheme; write http://host:8000"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(options, message):
    with pytest.raises(SystemExit, match=message), one_sentence():
        forms(["--judge", "a=org/model", "--data", "d", "--out", "o", *options])
