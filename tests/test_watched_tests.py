"""test.sh: what tests leave behind is ended and named, and the tests themselves end in time."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests import ROOT

LEAVES = """
import subprocess, sys
def test_it():
    code = "import os, signal, sys, time\\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\\n" + (
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)")
    subprocess.Popen([sys.executable, "-c", code, {pid!r}], start_new_session=True)
    import os, time
    while not (os.path.exists({pid!r}) and os.path.getsize({pid!r})):
        time.sleep(0.1)
"""
SLEEPS = "import time\ndef test_it():\n    open({pid!r}, 'w').write('here')\n    time.sleep(600)\n"

HEARS = """
import signal
def test_it():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # {pid}
"""


@pytest.fixture
def watched(tmp_path):
    """watched(test, limit) → the running process of tests that watch that text; tmp_path/pid is written by it."""
    started = []

    def start(text, limit="600"):
        (tmp_path / "test_one.py").write_text(text.format(pid=str(tmp_path / "pid")))
        plain = ["-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests", *plain, str(tmp_path / "test_one.py")],
            cwd=ROOT,
            env=os.environ | {"TIME_LIMIT": limit},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_does_not_end_with_the_tests_is_killed_by_pid_and_named(watched, tmp_path):
    process = watched(LEAVES)
    text, _ = process.communicate(timeout=60)
    pid = (tmp_path / "pid").read_text()
    assert process.returncode == 0 and "1 passed" in text
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    assert f"these did not end with the tests and were killed:\n{pid} " in text


def test_tests_that_take_too_long_are_ended_and_say_how_far_they_came(watched):
    process = watched(SLEEPS, limit="3")
    text, _ = process.communicate(timeout=90)
    assert process.returncode == 124 and "the tests took 3 s" in text and "KeyboardInterrupt" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_tests(watched, tmp_path, number, code):
    process = watched(SLEEPS)
    while not (tmp_path / "pid").exists():
        time.sleep(0.1)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code and "KeyboardInterrupt" in text and "were killed" not in text


def test_the_tests_hear_ctrl_c_also_where_a_script_runs_them_in_the_background(watched):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = watched(HEARS)
    finally:
        signal.signal(signal.SIGINT, before)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "1 passed" in text
