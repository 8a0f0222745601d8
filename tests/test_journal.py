"""Nothing is lost: kill -9 at any moment, torn and damaged lines, a second process, a full disk."""

import errno
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest

from alignxplore import journal as journal_module
from alignxplore.journal import REFUSED, TOO_LONG, TRANSPORT_ERROR, Journal, RunLock, RunLocked
from alignxplore.quickstart.folder import RunFolder
from alignxplore.records import RecordError

# Works through 400 units of different lengths; prints each id it really works on.
WORKER = """
import sys, time
from alignxplore.journal import Journal, RunLock
with RunLock(sys.argv[1]), Journal(sys.argv[1] + "/journal.jsonl") as journal:
    print("ready", flush=True)
    for i in range(400):
        unit = f"u{i}"
        if unit not in journal:
            print(unit, flush=True)
            journal.append(unit, {"text": "é" * (i * 37 % 4000)})
            time.sleep(0.0005)
print("finished", flush=True)
"""


def run_worker(folder, generator=None):
    """Run the worker; with a generator, kill -9 it after a random number of units, a random moment later."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True)
    out = []
    if generator is not None:
        out = [process.stdout.readline().strip() for _ in range(1 + generator.randrange(20))]
        time.sleep(generator.uniform(0, 0.002))
        process.send_signal(signal.SIGKILL)
    out += process.communicate(timeout=120)[0].split()
    return [word for word in out if word.startswith("u")], "finished" in out


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def test_kill_at_twenty_random_points_then_resume(tmp_path):
    generator = random.Random(0)
    path, done_before, redone = tmp_path / "journal.jsonl", set(), 0
    for _ in range(20):
        worked, _ = run_worker(tmp_path, generator)
        assert not done_before & set(worked), "a finished unit was done again"
        rows = lines(path) if path.exists() else []
        done_before = {json.loads(row)["id"] for row in rows if row.endswith(b"\n")}
        redone += len(set(worked) - done_before)
        if generator.random() < 0.5 and rows:  # what a kill inside a write leaves behind
            with path.open("ab") as out:
                out.write(b'{"id": "u399", "status": "ok", "te')
    worked, finished = run_worker(tmp_path)
    ids = [json.loads(row)["id"] for row in lines(path)]
    assert finished and ids == [f"u{i}" for i in range(400)]  # each once, the same set as an undisturbed run
    assert redone <= 20  # at most the one in flight, each time
    assert 20 < len(done_before) < 400, "the kills came too early or too late to test anything"


def test_torn_last_line_is_cut_off_and_redone(tmp_path, caplog):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id": "a", "status": "ok"}\n{"id": "b", "sta')
    with caplog.at_level(logging.WARNING), Journal(path) as journal:
        assert "a" in journal and "b" not in journal
        journal.append("b", {"x": 1})
    assert f"{path}:2: cut off the last line" in caplog.text
    assert [json.loads(row)["id"] for row in lines(path)] == ["a", "b"]


def test_last_line_without_newline_is_torn_even_if_it_parses(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id": "a", "status": "ok"}\n{"id": "b", "status": "ok"}')
    with Journal(path) as journal:
        assert "b" not in journal
        journal.append("c", {})
    assert [json.loads(row)["id"] for row in lines(path)] == ["a", "c"]


@pytest.mark.parametrize(
    "damage",
    [b'{"id": "b", "sta', b"\x00\x00\x00", b'{"no": "id"}', b'{"id": "b"}', b"[1]", b'{"id": "\xff"}', b"3", b""],
)
def test_damaged_middle_line_is_named_and_nothing_is_lost(tmp_path, damage):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id": "a", "status": "ok"}\n' + damage + b'\n{"id": "c", "status": "ok"}\n')
    before = path.read_bytes()
    with pytest.raises(RecordError, match=f"^{path}:2: this line is damaged; delete it and run again"), Journal(path):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("failed", [TRANSPORT_ERROR, REFUSED])
def test_what_failed_is_asked_again_and_other_outcomes_are_final(failed, tmp_path):
    path = tmp_path / "sub" / "j.jsonl"
    with Journal(path) as journal:
        journal.append("a", {"status": failed, "error": "HTTP 502"})
        journal.append("b", {"status": TOO_LONG})
        journal.append("c", {"summary": ""})
    with Journal(path) as journal:
        assert ["a" in journal, "b" in journal, "c" in journal, "d" in journal] == [False, True, True, False]
        assert journal.get("a")["error"] == "HTTP 502" and journal.get("d") is None and len(journal) == 2
        journal.append("a", {"summary": "now"})
        assert "a" in journal and journal["a"]["summary"] == "now" and len(journal) == 3
    with Journal(path) as journal:
        assert journal["a"] == {"id": "a", "status": "ok", "summary": "now"}
    assert len(lines(path)) == 4  # what failed stays on record


def test_memory_holds_places_and_not_rows(tmp_path):
    text, gathered = "x" * 1000, 0
    with Journal(tmp_path / "j") as journal:
        tracemalloc.start()
        for i in range(5000):
            journal.append(f"u{i}", {"text": text})
    with Journal(tmp_path / "j") as journal:
        gathered = sum(len(row["text"]) for row in journal.rows())
        assert journal["u4999"] == {"id": "u4999", "status": "ok", "text": text} and journal.finished() == {
            f"u{i}" for i in range(5000)
        }
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert gathered == 5_000_000 and peak < 2_500_000


def test_the_unit_is_the_id_whatever_the_row_holds(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("unit", {"id": "something else"})
    with Journal(tmp_path / "j") as journal:
        assert "unit" in journal and "something else" not in journal


@pytest.mark.parametrize("text", ["é\u2028\n\r", "half \ud83d", "\x00", "日本" * 5000])
def test_any_text_comes_back(tmp_path, text):
    with Journal(tmp_path / "j") as journal:
        journal.append("a", {"text": text})
        journal.append("b", {})
    with Journal(tmp_path / "j") as journal:
        assert journal["a"]["text"] == text and "b" in journal


def test_a_row_is_in_the_file_when_append_returns(tmp_path):
    with Journal(tmp_path / "j") as journal:
        for i in range(3):
            journal.append(f"u{i}", {})
            assert len(lines(tmp_path / "j")) == i + 1


def test_a_full_disk_is_said_and_leaves_no_stump(tmp_path):
    """A limit on the file size cuts a write short, like a full disk does; the next line must not be glued to the
    stump."""
    path, old = tmp_path / "j", resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Journal(path) as journal:
            journal.append("a", {})
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
            with pytest.raises(OSError, match="is the disk full"):
                journal.append("b", {"text": "x" * 500})
            assert "b" not in journal
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            journal.append("c", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [json.loads(row)["id"] for row in lines(path)] == ["a", "c"]


def test_a_second_process_says_so_and_stops(tmp_path):
    with RunLock(tmp_path):
        out = subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path)], capture_output=True, text=True, timeout=120
        )
        assert out.returncode != 0 and "ready" not in out.stdout
        assert f"RunLocked: {tmp_path}: process {os.getpid()} on " in out.stderr and "is writing here" in out.stderr


def test_a_lock_is_free_again_after_its_block(tmp_path):
    lock = RunLock(tmp_path)
    with lock:
        pass
    with RunLock(tmp_path), pytest.raises(RunLocked), lock:
        pass


def names_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("beside", [False, True])
def test_a_command_that_wrote_nothing_leaves_nothing_behind(tmp_path, beside):
    with pytest.raises(ValueError, match="refused"), RunLock(tmp_path / "new" / "out", beside):
        raise ValueError("refused")
    assert names_under(tmp_path) == []
    (tmp_path / "there").mkdir()
    with RunLock(tmp_path / "there", beside):
        pass
    assert (tmp_path / "there").is_dir(), "whoever made it may need it"
    with RunLock(tmp_path / "out", beside):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "run.json").touch()
    assert {"out", "out/run.json", ".out.lock" if beside else "out/.lock"} <= set(names_under(tmp_path))


def test_a_lock_that_was_taken_away_is_held_by_nobody(tmp_path, monkeypatch):
    """Between another process's look at the file and its lock, the one that had it may take it away."""
    inodes, take = [], journal_module.take_lock

    def take_late(file, folder):
        if not inodes:
            (folder / ".lock").unlink()
        inodes.append(os.fstat(file).st_ino)
        take(file, folder)

    monkeypatch.setattr(journal_module, "take_lock", take_late)
    with RunLock(tmp_path) as lock:
        assert os.fstat(lock.fileno()).st_ino == (tmp_path / ".lock").stat().st_ino and len(inodes) == 2


def test_a_lock_names_the_newest_holder(tmp_path):
    (tmp_path / ".lock").write_text("process 999999999999999999 on an old machine with a very long name")
    with RunLock(tmp_path), pytest.raises(RunLocked) as caught, RunLock(tmp_path):
        pass
    assert f"process {os.getpid()} on" in str(caught.value) and "old machine" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, caplog, number):
    """Lustre mounted without flock; a person has no other disk there."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with RunLock(tmp_path), RunFolder(tmp_path).claimed():
        pass
    assert caplog.text.count(f"{tmp_path}: its file system knows no locks") == 2
    number = errno.EIO
    with pytest.raises(OSError), RunLock(tmp_path):
        pass


def test_a_killed_holder_lets_go(tmp_path):
    command = f"""import time; from alignxplore.journal import RunLock
with RunLock({str(tmp_path)!r}):
    print("held", flush=True)
    time.sleep(60)"""
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunLocked), RunLock(tmp_path):
        pass
    process.kill()
    process.wait()
    with RunLock(tmp_path):
        pass
