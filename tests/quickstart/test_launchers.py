"""quickstart.sh and the studies' scripts: they say which variables there are, and hand on what they are given."""

import os
import subprocess
import sys

import pytest

from alignxplore.quickstart.__main__ import asking
from tests import ROOT

LISTS = [
    "alignxplore.quickstart",
    "studies/credit",
    "studies/films_signal",
    "studies/sft_errors",
    "studies/signal_to_sft",
]


@pytest.mark.parametrize("name", LISTS)
def test_the_script_names_the_variables_of_its_list(name):
    inner = [f"{name}.py"] if "/" in name else ["-m", name]
    outer = f"{name}.sh" if "/" in name else "quickstart.sh"
    pairs = [
        subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, env=env).stdout.splitlines()
        for command, env in (
            ([sys.executable, *inner], os.environ | {"PYTHONPATH": str(ROOT)}),
            (["bash", outer], os.environ),
        )
    ]
    variables = [line.strip() for line in pairs[0] if line.strip().split("=")[0].isupper() and line.startswith("  ")]
    assert len(variables) >= 3
    assert [line for line in variables if line not in map(str.strip, pairs[1])] == []


def test_out_is_a_folder_as_seen_by_who_calls(tmp_path):
    (tmp_path / "python").write_text(  # every step fails
        f"""#!/bin/sh
case $2 in
    alignxplore.environment) ;;
    alignxplore.quickstart) exec {sys.executable} "$@" ;;
    *) exit 1 ;;
esac
"""
    )
    (tmp_path / "python").chmod(0o755)
    process = subprocess.run(
        ["bash", str(ROOT / "quickstart.sh"), "--no-install", "--world", "--out", "results"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert process.returncode == 1 and "step 'world' failed" in process.stderr, process.stderr
    assert (tmp_path / "results" / "logs" / "world.log").exists()


@pytest.mark.parametrize("script", ["quickstart.sh", "studies/credit.sh"])
def test_an_unknown_option_is_refused(script):
    command = ["bash", script, "--no-install", "--check", "--real"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2 and "unknown options: ['--real']" in process.stderr


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_a_folder_of_ratings_that_is_not_there_is_refused_before_anything_is_written(tmp_path, more):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "alignxplore.quickstart", "--out", str(out), *more]
    environment = os.environ | {"DATA": str(tmp_path / "nowhere"), "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (
        process.returncode == 1 and f"DATA={tmp_path}/nowhere: no such folder" in process.stderr and not out.exists()
    )


def test_a_study_without_its_quick_start_says_what_to_run(tmp_path):
    process = subprocess.run(
        ["bash", str(ROOT / "studies/credit.sh"), "--no-install", "--check"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"BASE": "nothing"},
    )
    assert process.returncode == 1
    assert f"{tmp_path}/nothing holds no finished quick start; run ./quickstart.sh --world first" in process.stderr


def test_a_quick_start_ends_with_the_command_that_asks_it(tmp_path):
    process = subprocess.run(
        ["bash", "-c", f"{asking(tmp_path / 'a b')} --check"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 1 and f"{tmp_path}/a b" in process.stderr and "quick start" in process.stderr
    assert "--run" not in asking(ROOT / "runs/quickstart")
