"""The folder of a run: a full disk leaves what it remembers, and `--check` reads it without any package."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from alignxplore.errors import SAID
from alignxplore.quickstart import films, folder
from alignxplore.quickstart.folder import FolderError, RunFolder, settings_of
from alignxplore.quickstart.steps import Step, command
from alignxplore.same_run import OtherRun
from tests import ROOT

SETTINGS = {"SEED": "1", "DATA": "films"}
STEP = Step("data", 1, [command("true")])


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow, as where a disk is full."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_settings_and_the_commits(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "git_commit", lambda: "other")
    run = RunFolder(tmp_path)
    run.note_settings(SETTINGS)
    (tmp_path / "commits").write_text("earlier\n")
    with full_disk():
        run.note_settings(SETTINGS)  # the same: nothing is written
        for note in (run.note_commit, lambda: run.note_settings({"SEED": "3"})):
            with pytest.raises(OSError, match=f"File too large: '{tmp_path}/"):
                note()
    assert settings_of(tmp_path) == SETTINGS and (tmp_path / "commits").read_text() == "earlier\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["commits", "settings"]
    run.refuse_others(SETTINGS | {"SEED": "2"})  # nothing was made yet
    with run.claimed():
        run.note_done(STEP, 1)
    with pytest.raises(OtherRun, match="SEED '1' → '2'"):
        run.refuse_others(SETTINGS | {"SEED": "2"})


@pytest.mark.parametrize("text", ["", "SEED=1\nDATA=fi"])
def test_settings_that_a_full_disk_cut_short_are_named(tmp_path, text):
    (tmp_path / "settings").write_text(text)
    with pytest.raises(FolderError, match=f"{tmp_path}/settings: empty or cut short, .*delete this file if"):
        RunFolder(tmp_path).refuse_others(SETTINGS)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"seconds": "x", "commands": []}', '{"seconds": 1, "commands": [2]}']
)
def test_a_damaged_note_of_a_step_is_named(tmp_path, text):
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps/data.json").write_text(text)
    with pytest.raises(SAID, match=f"{tmp_path}/steps/data.json: .*delete it: its step is done again"):
        RunFolder(tmp_path).seconds(STEP)


def test_a_check_of_a_begun_run_needs_no_package(tmp_path):
    settings = films.FilmSettings.read({}, out=tmp_path)
    run, step = RunFolder(tmp_path), films.steps(settings)[0]
    with run.claimed():
        run.note_settings(settings.deciding())
        run.note_done(step, 7)
    bare = [sys.executable, "-S", "-m", "alignxplore.quickstart", "--check", "--out", str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = subprocess.run(bare, capture_output=True, text=True, cwd="/", env=environment)
    assert process.returncode == 0 and f"-- {step.name}: done before" in process.stdout, process.stderr
