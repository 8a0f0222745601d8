"""Ctrl-C while a command still imports is a sentence and exit code 130, for every command, and for those that torchrun
starts; SIGTERM is one, too."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import ROOT
from tests.test_commands import EXPLAINED_ELSEWHERE, scripts

# Python itself imports this module when it starts. From then on Ctrl-C comes with the import of module number MOMENT
# that is not of the standard library, in the process that LOCAL_RANK names (PROCESS; none: the one without). Processes
# of torchrun have groups of their own; in a terminal it alone hears of Ctrl-C.
STRIKE = """
import os, signal, sys

class Finder:
    seen = 0

    def find_spec(self, name, path=None, target=None):
        if "." in name or name in sys.stdlib_module_names or name in (KNOWN):
            return None
        Finder.seen += 1
        if Finder.seen == int(os.environ["MOMENT"]):
            number = int(os.environ.get("NUMBER", signal.SIGINT))
            os.kill(os.getppid(), number) if "LOCAL_RANK" in os.environ else os.killpg(0, number)
        return None

if os.environ.get("LOCAL_RANK") == os.environ.get("PROCESS") and sys.argv[0] != "-c":
    sys.meta_path.insert(0, Finder())
""".replace("KNOWN", repr(("alignxplore", "sitecustomize", "usercustomize", "distutils", "_distutils_hack", "org")))


@pytest.fixture
def struck(tmp_path):
    """struck(words, moment) → what became of a command that is interrupted while it imports."""
    (tmp_path / "sitecustomize.py").write_text(STRIKE)

    def run(words: list[str], moment: int, **variables: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join((str(tmp_path), str(ROOT)))
        return subprocess.run(
            words,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths, "MOMENT": str(moment), "TMPDIR": str(tmp_path)} | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return run


def commands() -> dict[str, list[str]]:
    """Name → words of every command, with nothing that it would do."""
    more = {name: f"-m {name.removesuffix('.py').replace('/', '.')}" for name in EXPLAINED_ELSEWHERE}
    return {name: [sys.executable, *target.split()] for name, target in (scripts() | more).items()}


@pytest.mark.parametrize("moment", [1, 4])
def test_every_command_says_that_it_was_interrupted_while_it_imported(struck, moment):
    command_of = commands()
    with ThreadPoolExecutor(3) as several:
        ended = dict(zip(command_of, several.map(lambda words: struck(words, moment), command_of.values())))
    says = {name for name, ran in ended.items() if ran.stderr.endswith(": interrupted; run the same command again\n")}
    codes = {name: ran.returncode for name, ran in ended.items()}
    imports_less = {name for name, code in codes.items() if moment > 1 and code in (0, 2)}  # it was not struck
    wrong = {name: (codes[name], ended[name].stderr[-300:]) for name in command_of.keys() - says - imports_less}
    assert len(says) > 50 and wrong == {} and {codes[name] for name in says} == {130}
    assert not [name for name, ran in ended.items() if "Traceback" in ran.stderr]


def test_a_command_says_that_it_was_told_to_end_while_it_imported(struck):
    words = [sys.executable, str(ROOT / "eval/evaluate.py")]
    ran = struck(words, 4, NUMBER=str(int(signal.SIGTERM)))
    assert ran.returncode == 143, ran.stderr
    assert ran.stderr == "evaluate.py: told to end (SIGTERM); run the same command again\n"


@pytest.mark.parametrize("process", [None, "0", "1"])
def test_under_torchrun_one_sentence_each_stands_for_all_processes(struck, process, tmp_path):
    out = {"NPROC": "2", "PYTHON": sys.executable} | ({"PROCESS": process} if process else {})
    words = ["bash", str(ROOT / "sft/sft.sh"), "--config", str(ROOT / "sft/configs/tiny.yaml")]
    ran = struck([*words, "--out", str(tmp_path / "out")], 5, **out)
    assert ran.returncode == 130 and "Traceback" not in ran.stderr, ran.stderr
    assert ran.stderr.count("interrupted; run the same command again") in (1, 2), ran.stderr
    assert not Path(tmp_path / "out").exists()
