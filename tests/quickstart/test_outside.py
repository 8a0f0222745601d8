"""What is exported outside decides nothing: the steps give the launch scripts every setting that these are to have."""

import json
import re
from dataclasses import replace

import pytest

from alignxplore.quickstart import card, films, world
from alignxplore.quickstart.plan import Pipeline
from alignxplore.quickstart.runner import run
from alignxplore.quickstart.steps import Step
from tests import ROOT
from tests.shell import Recorder

LAUNCHERS = sorted({*ROOT.glob("sft/*.sh"), *ROOT.glob("eval/*.sh"), *ROOT.glob("verl/**/*.sh")})
# Every setting that they read, and those of sft.sh that synthesize.sh passes on.
EXPORTED = {
    name: "7"
    for script in LAUNCHERS
    for name in re.findall(r"^([A-Z_]+)=\$\{\1:-", script.read_text(), flags=re.M)
    if name != "NPROC"
}


def launched(kind, out):
    """The commands of a list that run launch scripts."""
    if kind == "card":
        steps = card.steps(card.CardSettings(out=out, card=None, flash=False))
    elif kind == "films":
        steps = films.steps(films.FilmSettings.read({}, out=out))
    else:
        steps = world.steps(world.WorldSettings.read({}, out=out))
    return [one for step in steps for row in step.rows for one in row if one.words[0] == "bash"]


@pytest.fixture
def recorded(tmp_path):
    """recorded(commands, folder) → what they asked of Python, run as the step of a pipeline."""
    recorder = Recorder(tmp_path)

    def ask(commands, out):
        recorder.record.write_text("")
        own = (("PYTHON", str(recorder.python)), ("RECORD", str(recorder.record)))
        rows = [replace(one, environment=one.environment + own) for one in commands]
        run(Pipeline(out=out, steps=[Step("launch", 1, rows)]))
        return [words for words, _ in recorder.entries]

    return ask


@pytest.mark.parametrize("kind", ["films", "world", "card"])
def test_what_is_exported_outside_changes_no_step(tmp_path, monkeypatch, recorded, kind):
    commands = launched(kind, tmp_path / "out")
    expected = recorded(commands, tmp_path / "first")
    for name, value in EXPORTED.items():
        monkeypatch.setenv(name, value)
    assert recorded(commands, tmp_path / "second") == expected
    assert len(expected) >= len(commands) >= 2 and {"STAGES", "CREDIT", "CHECK", "PRESET", "NNODES"} <= {*EXPORTED}


def test_the_number_of_processes_is_passed_on(tmp_path, monkeypatch, recorded):
    """As the help of the quick start says."""
    sft = [one for one in launched("films", tmp_path / "out") if "sft/sft.sh" in one.words]
    monkeypatch.setenv("NPROC", "2")
    (words,) = recorded(sft, tmp_path / "run")
    assert words[words.index("--nproc_per_node") + 1] == "2"


def test_a_finished_step_stays_finished_whatever_is_exported(tmp_path, monkeypatch, recorded):
    commands = launched("films", tmp_path / "out")
    recorded(commands, tmp_path / "run")
    record = json.loads((tmp_path / "run/steps/launch.json").read_text())
    monkeypatch.setenv("CREDIT", "centered")
    assert recorded(commands, tmp_path / "run") == []
    assert json.loads((tmp_path / "run/steps/launch.json").read_text()) == record
    assert "CREDIT" not in " ".join(record["commands"])
