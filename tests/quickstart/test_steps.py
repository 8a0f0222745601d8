"""The steps of the quick start and the studies: whatever ends a run, nothing of it stays, and the same command goes
on. Stand-ins work."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests import ROOT

SCRIPT = """
set -euo pipefail
cd "$ROOT"
source quickstart/steps.bash
expect first 1; expect second 1; expect third 1
first() { echo made >"$OUT/made"; }
# A server, a worker in a session of its own (KIND stubborn: that does not heed the first signal), and what the step
# itself runs.
second() {
    serve url some/model judge
    echo "asked $url"
    [[ ! -e $OUT/go ]] || return 0
    worker "$OUT/apart" "$KIND" & worker "$OUT/plain"
    echo "must not be reached" >"$OUT/reached"
}
step first first
step second second
serve url some/model judge
step third echo "$url"
where_the_time_went
"""
WORKER = """
import os, signal, sys, time
if sys.argv[2:]:
    os.setsid()
if sys.argv[2:] == ["stubborn"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""
SERVER = """
import os, sys, time
open(os.environ["OUT"] + "/server", "w").write(str(os.getpid()))
print("ready: some/model at http://127.0.0.1:1/v1", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """start() → the script, running as the leader of a session, as in a terminal; what it says goes to
    tmp_path/log."""
    tools, out = tmp_path / "bin", tmp_path / "out"
    tools.mkdir(), out.mkdir()
    (
        (tmp_path / "worker.py").write_text(WORKER),
        (tmp_path / "server.py").write_text(SERVER),
        (tmp_path / "steps.sh").write_text(SCRIPT),
    )
    for name, code in (
        ("worker", f'exec {sys.executable} {tmp_path}/worker.py "$@"'),
        ("python", f"exec {sys.executable} {tmp_path}/server.py"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{code}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {"ROOT": str(ROOT), "OUT": str(out), "PATH": f"{tools}:{os.environ['PATH']}"}
    started = []

    def begin(kind="heeding"):
        with (tmp_path / "log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    ["bash", str(tmp_path / "steps.sh")],
                    env=environment | {"KIND": kind},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(condition, limit=60):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def belongs(process, out):
    """Is this a process of the run? All of them know OUT, but for the shell's own forks."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("OUT") == str(out)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


@pytest.mark.parametrize(
    ("number", "whole_group", "kind"),
    [
        (signal.SIGINT, True, "heeding"),
        (signal.SIGTERM, False, "heeding"),
        (signal.SIGKILL, False, "stubborn"),
        (signal.SIGTERM, True, "heeding"),
        (signal.SIGKILL, True, "heeding"),
    ],
)
def test_nothing_stays_and_the_same_command_goes_on(start, tmp_path, number, whole_group, kind):
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(kind)
    pids = [out / name for name in ("apart", "plain", "server")]
    until(lambda: all(path.exists() and path.read_text() for path in pids))
    (os.killpg if whole_group else os.kill)(process.pid, number)
    until(lambda: not any(belongs(p, out) for p in psutil.process_iter()), 45)
    assert process.wait(20) != 0 and not (out / "reached").exists()
    assert ("to go on run the same command again" in log.read_text()) == (number != signal.SIGKILL)
    (out / "go").touch()
    assert start().wait(60) == 0, log.read_text()
    text = log.read_text()
    assert "-- first: done before" in text and text.count("asked http://127.0.0.1:1/v1") == 2
    assert (out / "logs" / "third.log").read_text() == "http://127.0.0.1:1/v1\n"
    until(lambda: not any(belongs(p, out) for p in psutil.process_iter()))


def test_a_signal_is_heard_at_once(start, tmp_path):
    """And not only when the step that runs has ended by itself, after ten minutes."""
    process = start()
    until((tmp_path / "out" / "plain").exists)
    process.send_signal(signal.SIGTERM)
    until(lambda: "to go on run the same command again" in (tmp_path / "log").read_text())
    assert process.wait(45) == 130


def test_a_failed_step_says_where_to_look_and_leaves_no_server(start, tmp_path):
    script = tmp_path / "steps.sh"
    script.write_text(SCRIPT.replace('    echo "asked $url"\n', '    echo "asked $url"\n    false\n'))
    assert start().wait(60) == 1
    assert "step 'second' failed; its output is in" in (tmp_path / "log").read_text()
    assert not (tmp_path / "out" / "plain").exists() and not (tmp_path / "out" / "steps" / "second").exists()
    until(lambda: not any(belongs(p, tmp_path / "out") for p in psutil.process_iter()))


LITTLE = """
set -euo pipefail
cd "$ROOT"
source quickstart/steps.bash
expect one 1; expect two 1
speak() { show env WORD="two words" sh -c 'echo "said $WORD"'; }
step one speak
step two echo second
where_the_time_went
"""


@pytest.fixture
def little(tmp_path):
    """Runs two quick steps in a folder whose name has a space; returns what they said."""

    def run():
        done = subprocess.run(
            ["bash", "-c", LITTLE],
            env=os.environ | {"ROOT": str(ROOT), "OUT": str(tmp_path / "out put")},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_a_folder_may_have_a_space_and_commands_are_printed_as_they_run(little):
    text = little()
    assert "$ env WORD=two\\ words sh -c" in text and "said two words" in text
    told = [line.split()[0] for line in text.partition("Where the time went")[2].splitlines()[1:]]
    assert told == ["one", "two"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="knows a commit only where there is one")
def test_a_folder_that_other_code_worked_on_is_named(little, tmp_path):
    commits = tmp_path / "out put" / "commits"
    assert "warning" not in little() and "warning" not in little() and len(commits.read_text().splitlines()) == 1
    commits.write_text("0123456789ab\n")
    for _ in range(2):
        text = little()
        assert text.count("worked on by other code (0123456789ab; now ") == 1 and "-- one: done before" in text


def test_waiting_for_another_run_is_said(little, tmp_path):
    (tmp_path / "out put").mkdir()
    with (tmp_path / "out put" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timer = threading.Timer(2, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        timer.start()
        assert "waiting up to 30 s" in little()
        timer.join()


def test_out_is_a_folder_as_seen_by_who_calls(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$2" = alignxplore.environment ]\n')  # every step fails
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "quickstart.sh"), "--no-install", "--out", "results"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert "step 'world' failed" in done.stderr and (tmp_path / "results" / "logs" / "world.log").exists()
