"""The list of studies/films_signal.sh: what it takes from its quick start, and which bases and folders it refuses."""

import os
import runpy
import subprocess

import pytest

from alignxplore.quickstart.films import FilmSettings, finished, steps
from tests import ROOT

# What decides the numbers that the script leaves, BASE aside.
CHOSEN = "SEED SIGNAL".split()
VARIABLES = {"out", "base", "data", *(name.lower() for name in CHOSEN)}


@pytest.fixture
def base(tmp_path):
    """A folder that passes for a finished quick start on films, of seed 2."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "results.json").write_text("{}")
    settings = FilmSettings.read({"SEED": "2", "DATA": str(tmp_path / "raw")}, out=folder).deciding()
    (folder / "settings").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return folder


def ran(tmp_path, *words, **variables):
    """The script, started in `tmp_path`."""
    environment = {name: value for name, value in os.environ.items() if name.lower() not in VARIABLES}
    return subprocess.run(
        ["bash", str(ROOT / "studies/films_signal.sh"), "--no-install", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment | {"BASE": "base", "OUT": "out"} | variables,
    )


def test_a_folder_made_with_other_settings_is_refused(base, tmp_path):
    (tmp_path / "out/steps").mkdir(parents=True)
    (tmp_path / "out/steps/data.json").write_text('{"commands": [], "seconds": 1}')
    (tmp_path / "out/settings").write_text("".join(f"{name}=other\n" for name in CHOSEN))
    process = ran(tmp_path, **dict.fromkeys(CHOSEN, "7"))
    assert process.returncode == 1 and f"{tmp_path}/out holds a run with other settings" in process.stderr
    for name in CHOSEN:
        assert f"{name} 'other' → '{2 if name == 'SEED' else 7}'" in process.stderr, "the seed is that of the base"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (None, "holds no finished quick start; run ./quickstart.sh --out"),
        ("TEST_USERS=600\n", "not a quick start on films (DATA is not in its settings)"),
    ],
)
def test_another_base_is_refused(base, tmp_path, settings, problem):
    if settings is None:
        (base / "settings").unlink()
    else:
        (base / "settings").write_text(settings)
    process = ran(tmp_path, "--check")
    assert process.returncode == 1 and problem in process.stderr and str(base) in process.stderr


def test_it_stands_upon_its_base(base, tmp_path):
    study, out = runpy.run_path(str(ROOT / "studies/films_signal.py")), tmp_path / "out"
    settings = study["FilmSignalSettings"].read({"BASE": str(base)}, out=out, seed="2")
    step_of = {step.name: step for step in study["steps"](settings, finished(base))}
    (synthesis,), (sft,) = (step_of[name].commands for name in ("synthesis", "sft"))
    (teacher,) = step_of["synthesis"].servers
    variables = dict(synthesis.environment)
    assert variables["DATA"] == f"{base}/data/synthesis.jsonl", "the windows that the quick start synthesises from"
    assert variables["TEACHER"] == f"teacher={teacher.url}#{base}/models/base"
    assert variables["JUDGE"] == f"judge={base}/models/judge" and "--signal 0.5 " in synthesis.shown(out)
    own = next(step for step in steps(finished(base)) if step.name == "sft").lines(base)
    moved = [line.replace('"$OUT"/sft', '"$OUT"/models/sft') for line in step_of["sft"].lines(out)]
    assert [line.replace('"$OUT"', str(base)) for line in own] == [line.replace('"$OUT"', str(base)) for line in moved]
    (summaries,) = step_of["summaries"].commands
    assert {f"sft={base}/models/sft", f"synthesised={out}/sft"} <= set(summaries.words)
