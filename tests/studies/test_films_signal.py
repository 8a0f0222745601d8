"""The list of studies/films_signal.sh: what it takes from its quick start, and which bases and folders it refuses."""

import os
import runpy
import subprocess

import pytest

from alignxplore.quickstart.films import FilmSettings, finished, persons
from tests import ROOT

# What decides the numbers that the script leaves, BASE aside.
CHOSEN = "SEED WINDOWS SIGNAL EPOCHS".split()
VARIABLES = {"out", "base", "data", *(name.lower() for name in (*CHOSEN, "PORT"))}


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
    (tmp_path / "out").mkdir()
    (tmp_path / "out/settings").write_text("".join(f"{name}=other\n" for name in CHOSEN))
    done = ran(tmp_path, **dict.fromkeys(CHOSEN, "7"))
    assert done.returncode == 1 and f"{tmp_path}/out holds a run with other settings" in done.stderr
    for name in CHOSEN:
        assert f"< {name}=other" in done.stderr
        assert f"> {name}={2 if name == 'SEED' else 7}" in done.stderr, "the seed is that of the base"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (None, "holds no finished quick start; run ./quickstart.sh --out"),
        ("TEST_USERS=600\n", "not a quick start on films (DATA is not in its settings)"),
    ],
)
def test_another_base_is_refused(base, tmp_path, settings, told):
    if settings is None:
        (base / "settings").unlink()
    else:
        (base / "settings").write_text(settings)
    done = ran(tmp_path, "--check")
    assert done.returncode == 1 and told in done.stderr and str(base) in done.stderr


def test_it_stands_upon_its_base(base, tmp_path):
    study, out = runpy.run_path(str(ROOT / "studies/films_signal.py")), tmp_path / "out"
    settings = study["FilmSignalSettings"].read({"BASE": str(base), "PORT": "1234"}, out=out, seed="2")
    found = {step.name: step for step in study["steps"](settings, finished(base))}
    (windows,), (synthesis,), (sft,) = (found[name].commands for name in ("windows", "synthesis", "sft"))
    low, high = persons(2)["policy"]
    assert f"--persons {low} {high} --seed 2" in windows.shown(out) and f"--raw {tmp_path}/raw" in windows.shown(out)
    (teacher,) = found["synthesis"].servers
    assert "--port 1234" in teacher.command.shown(out)
    given = dict(synthesis.environment)
    assert given["DATA"] == windows.words[-1] and given["TEACHER"] == f"teacher={teacher.url}#{base}/models/base"
    assert given["JUDGE"] == f"judge={base}/models/judge"
    assert f"--model_name_or_path {base}/models/base " in sft.shown(out)
    assert '--train_data "$OUT"/synthesis/sft.jsonl' in sft.shown(out)
    (summaries,) = found["summaries"].commands
    assert {f"sft={base}/models/sft", f"synthesised={out}/sft"} <= set(summaries.words)
