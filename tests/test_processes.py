"""Families of processes: all of one is found and ended, whoever started it, and nothing outlives its owner."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from alignxplore import processes
from alignxplore.errors import UserError
from alignxplore.processes import MARK, Family, members

# Writes its pid to the file that it is given; TERM: "asked" goes to the file as well, after which it ends, or stays.
WORKER = """
import os, signal, sys, time
path, *kinds = sys.argv[1:]
if "apart" in kinds:
    os.setsid()
def asked(*_):
    open(path, "a").write("asked\\n")
    if "stubborn" not in kinds:
        sys.exit(0)
signal.signal(signal.SIGTERM, asked)
if "titled" in kinds:
    import setproctitle
    setproctitle.setproctitle("a title that is longer than the command line was " * 20)
open(path, "a").write(f"{os.getpid()}\\n")
while True:
    time.sleep(0.1)
"""
OWNER = """
import fcntl, sys, time
from alignxplore.processes import Family
lock = open(sys.argv[2], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
family = Family(["bash", "-c", sys.argv[1]], grace=1, keep=[lock.fileno()])
time.sleep(600)
"""

# Ends what it began when it is interrupted, and says so; a later Ctrl-C is heard again.
IMPATIENT = """
import signal, sys, time
from alignxplore.processes import Family
family = Family(["bash", "-c", sys.argv[1]], grace=2)
try:
    time.sleep(600)
except KeyboardInterrupt:
    family.end()
    print("ended;", "heard again" * (signal.getsignal(signal.SIGINT) is signal.default_int_handler))
"""


@pytest.fixture
def worker(tmp_path):
    """worker(name, *kinds) → the command of one; worker.pid(name) waits until it runs; worker.text(name) is what it
    wrote."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def command(name, *kinds):
        return f"{sys.executable} {script} {tmp_path / name} {' '.join(kinds)}"

    def text(name):
        path = tmp_path / name
        return path.read_text().split() if path.exists() else []

    def pid(name):
        until(lambda: text(name))
        return int(text(name)[0])

    command.pid, command.text = pid, text
    return command


def until(condition, limit=60):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def bash(code, **options):
    return Family(["bash", "-c", code], **options)


def test_all_of_a_family_is_asked_and_nothing_of_it_stays(worker):
    family = bash(f"{worker('one', 'apart')} & {worker('two')} & ({worker('three', 'apart', 'titled')} &) ; wait")
    pids = [worker.pid(name) for name in ("one", "two", "three")]
    assert {process.pid for process in members(family.name)} >= {family.pid, *pids}
    assert family.end() == [] and not any(map(alive, [*pids, family.pid, family.guard.pid]))
    assert all("asked" in worker.text(name) for name in ("one", "two", "three"))
    assert family.end() == []


def test_one_that_has_a_parent_in_the_family_is_asked_once_that_is_gone(worker, tmp_path):
    """A launcher ends its workers in order by itself; a second signal from outside would come between."""
    end = f"sleep 0.5; echo launcher >>{tmp_path / 'one'}; kill $child; wait $child; exit"
    family = bash(f"trap '{end}' TERM; {worker('one', 'apart')} & child=$!; wait")
    worker.pid("one")
    family.end()
    assert worker.text("one")[1:] == ["launcher", "asked"]


def test_who_does_not_heed_is_killed_and_named(worker):
    family = bash(f"{worker('one', 'apart', 'stubborn')} & {worker('two')}", grace=1)
    pids = [worker.pid(name) for name in ("one", "two")]
    (killed,) = family.end()
    assert killed.startswith(f"{pids[0]} ") and "stubborn" in killed and not any(map(alive, pids))


def test_signals_are_tried_in_turn(worker):
    family = bash(f"exec {worker('one')}")  # Python ends at INT without the handler of TERM
    worker.pid("one")
    assert family.end((signal.SIGINT, 30), (signal.SIGTERM, 30)) == [] and "asked" not in worker.text("one")
    assert family.returncode == -signal.SIGINT


def test_a_second_ctrl_c_leaves_nothing_half_ended(worker):
    owner = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, f"exec {worker('one', 'stubborn')}"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    pid = worker.pid("one")
    owner.send_signal(signal.SIGINT)
    until(lambda: "asked" in worker.text("one"))
    for number in (signal.SIGINT, signal.SIGTERM):
        owner.send_signal(number)
    assert owner.communicate()[0] == b"ended; heard again\n" and not alive(pid)


@pytest.mark.parametrize("kind", ["", "stubborn"])
def test_a_killed_owner_leaves_nothing_and_its_lock_is_held_until_then(worker, tmp_path, kind):
    lock, code = tmp_path / "lock", f"{worker('one', 'apart', kind)} & {worker('two')}"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, code, str(lock)])
    pids = [worker.pid(name) for name in ("one", "two")]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with lock.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert not any(map(alive, pids))


def test_a_family_in_a_family_ends_with_it(worker, tmp_path):
    code = f"{sys.executable} -c '{OWNER}' '{worker('inner', 'stubborn')}' {tmp_path / 'lock'}"
    outer = bash(code, grace=1)
    inner = worker.pid("inner")
    names = psutil.Process(inner).environ()[MARK].split(":")
    assert names[-2] == outer.name  # before it those around the tests, after it the inner one
    (killed,) = outer.end()
    assert "inner" in killed and not alive(inner)
    with (tmp_path / "lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the inner guard has ended, too


def test_what_cannot_be_started_leaves_no_guard():
    children = set(psutil.Process().children())
    with pytest.raises(FileNotFoundError):
        Family(["/no/such/command"])
    assert set(psutil.Process().children()) == children


def test_a_leader_without_an_environment_is_ended_all_the_same():
    family = Family(["env", "-i", "/bin/sleep", "600"])
    until(lambda: psutil.Process(family.pid).name() == "sleep" and not members(family.name))
    family.end()
    assert family.returncode == -signal.SIGKILL


def test_what_was_set_and_where_it_goes_is_passed_on(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        family = Family(["sh", "-c", "echo $WORD $PWD"], environment={"WORD": "said"}, cwd=tmp_path, stdout=log)
        assert family.wait() == 0
    family.end()
    assert (tmp_path / "log").read_text() == f"said {os.path.realpath(tmp_path)}\n"


def test_sockets_of_runs_that_were_killed_are_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "axp-ray-999999999-x").mkdir()
    (tmp_path / "axp-ray-1-alive").mkdir()
    folder = processes.socket_folder("axp-ray", "")
    assert {path.name for path in tmp_path.iterdir()} == {"axp-ray-1-alive", folder.name}


def test_sockets_of_another_container_stay_while_it_lives(tmp_path, monkeypatch):
    """It sees the same disk, and has process ids of its own."""
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(tmp_path))
    first = processes.socket_folder("axp-ray", "")
    monkeypatch.setattr(processes.psutil, "pid_exists", lambda _: False)
    second = processes.socket_folder("axp-ray", "")
    assert first.is_dir(), "its process holds it"
    code = "import os, sys; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/.lock', 'w')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "axp-ray-77-killed"], check=True)
    third = processes.socket_folder("axp-ray", "")
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, third.name}


def test_sockets_stand_where_their_paths_are_short_enough(tmp_path, monkeypatch):
    """A TMPDIR of 45 characters is too long for Ray, whose sockets have 67 more."""
    long = tmp_path / ("x" * 45)
    long.mkdir()
    monkeypatch.setattr(processes.tempfile, "gettempdir", lambda: str(long))
    folder = processes.socket_folder("axp-ray", "/" + "y" * 66)
    try:
        assert folder.parent == Path("/tmp") and len(str(folder)) + 67 <= 107 and not list(long.iterdir())
        with pytest.raises(UserError, match=f"TMPDIR={long} is too long for sockets"):
            processes.socket_folder("axp-ray", "/" + "y" * 99)
    finally:
        shutil.rmtree(folder)


def test_temporary_files_of_a_command_go_with_its_folder(tmp_path, monkeypatch):
    """Locks and sockets do; what torch compiles is found by the next run."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    code = "import tempfile; tempfile.mkstemp(); print(tempfile.gettempdir())"
    variables = processes.temporary_files(tmp_path)
    process = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True)
    assert process.stdout.strip() == variables["TMPDIR"] and len(list((tmp_path / "tmp").iterdir())) == 1
    assert not Path(variables["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(tmp_path)


# Writes the name of a semaphore that it holds, and stays whoever asks it to end.
HOLDS = """
import multiprocessing, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = multiprocessing.get_context("spawn").Lock()
open(sys.argv[1], "w").write(lock._semlock.name + "\\n")
time.sleep(600)
"""
OWN_FAMILY = """
import fcntl, os, subprocess, sys, time
from alignxplore.processes import own_family
lock = open(sys.argv[2], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with own_family(grace=0.5, keep=[lock.fileno()]) as variables:
    subprocess.Popen(["bash", "-c", sys.argv[1]], env=os.environ | variables, start_new_session=True)
    sys.stdin.read()
"""
needs_shm = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")


@pytest.fixture
def holder(tmp_path):
    """holder.command: of a process that holds a semaphore; holder.path(): where that is, once it runs."""
    (tmp_path / "holds.py").write_text(HOLDS)
    name = tmp_path / "semaphore"

    def path():
        until(lambda: name.exists() and name.read_text().endswith("\n"))
        return Path(f"/dev/shm/sem.{name.read_text().strip().removeprefix('/')}")

    return SimpleNamespace(command=[sys.executable, str(tmp_path / "holds.py"), str(name)], path=path)


@needs_shm
def test_semaphores_go_with_a_family_that_is_killed(holder):
    """Python's tracker takes them away, once it is alone; it is no process that had to be killed."""
    family = Family(holder.command, grace=0.2)
    path = holder.path()
    assert path.exists() and len(members(family.name)) == 2
    (killed,) = family.end()
    assert killed.startswith(f"{family.pid} ") and not path.exists() and not members(family.name)


@needs_shm
def test_a_tracker_has_its_time_where_looking_round_takes_longer(holder, monkeypatch):
    """On a machine under load: the time begins when its users are seen to be gone."""
    family = Family(holder.command, grace=0.2)
    path, (tracker,) = holder.path(), (p for p in members(family.name) if p.pid != family.pid)
    tracker.suspend()
    looks = []

    def slowly(*names):
        if looks and looks[-1] == [tracker]:
            tracker.resume()
        time.sleep(1)
        looks.append(members(*names))
        return looks[-1]

    monkeypatch.setattr(processes, "_CLEANING", 0.5)
    monkeypatch.setattr(processes, "members", slowly)
    family.end()
    assert [tracker] in looks and not path.exists()


def test_a_tracker_whose_user_is_not_of_the_family_does_not_stay(monkeypatch):
    monkeypatch.setattr(processes, "_CLEANING", 0.2)
    code = "import os; from multiprocessing.resource_tracker import getfd; os.set_inheritable(getfd(), True)"
    code += "; os.execve('/bin/sleep', ['sleep', '600'], {})"
    family = Family([sys.executable, "-c", code], grace=0.2)
    until(lambda: psutil.Process(family.pid).name() == "sleep")
    assert len(members(family.name)) == 1
    assert family.end() == [] and not members(family.name)


@needs_shm
@pytest.mark.parametrize("killed", [True, False])
def test_what_a_library_started_goes_with_its_owner(holder, tmp_path, killed):
    command = [sys.executable, "-c", OWN_FAMILY, shlex.join(holder.command) + " & wait", str(tmp_path / "lock")]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE)
    path = holder.path()
    (bash,) = (child for child in psutil.Process(owner.pid).children() if child.name() == "bash")
    assert path.exists()
    if killed:
        owner.kill()
    owner.communicate()
    with (tmp_path / "lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert not path.exists() and not alive(bash.pid)
