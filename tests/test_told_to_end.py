"""SIGTERM, as Slurm sends it, ends a long command as Ctrl-C does: with a sentence, nothing half written, and the same
command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.reliability.kills import Stage
from tests.reliability.test_kills import data, server, summaries, synthesis  # noqa: F401  # fixtures, too

SAYS = {
    signal.SIGINT: "interrupted; run the same command again",
    signal.SIGTERM: "told to end (SIGTERM); run the same command again",
}


def start(stage: Stage, out: Path, on_ctrl_c=signal.default_int_handler) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in stage.command(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, on_ctrl_c),
    )


@pytest.mark.parametrize(
    ("kind", "number", "on_ctrl_c"),
    [
        (summaries, signal.SIGINT, signal.default_int_handler),
        (summaries, signal.SIGTERM, signal.default_int_handler),
        (summaries, signal.SIGTERM, signal.SIG_IGN),  # in the background of a script
        (synthesis, signal.SIGTERM, signal.default_int_handler),
    ],
)
def test_a_long_command_ends_with_a_sentence_and_goes_on(data, server, tmp_path, kind, number, on_ctrl_c):  # noqa: F811
    stage, out = kind(data, server), tmp_path / "out"
    stage.prepare(out)
    process, deadline = start(stage, out, on_ctrl_c), time.monotonic() + 120
    while not stage.begun(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, text[-2000:]
    assert text.splitlines()[-1].endswith(SAYS[number]) and "Traceback" not in text, text[-2000:]
    units = stage.finished(out)
    assert units
    again = start(stage, out)
    text = again.communicate(timeout=300)[1]
    assert again.returncode == 0, text[-2000:]
    assert units.keys() < stage.finished(out).keys(), "what was there is kept, and the rest is added"


WORKERS = """
import os, signal, sys, time
sys.argv[0] = "tool.py"
from alignxplore.errors import one_sentence

with one_sentence():
    ready, say_ready = os.pipe()
    if not (pid := os.fork()):
        os.write(say_ready, b"x")  # what comes while Python still forks, Python loses
        time.sleep(30)
        os._exit(1)
    os.read(ready, 1)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""


def test_workers_that_a_command_ends_say_nothing():
    ran = subprocess.run(
        [sys.executable, "-c", WORKERS],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout.split(), ran.stderr) == ([str(-signal.SIGTERM), "True"], "")
