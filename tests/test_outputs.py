"""What a command writes: never in the place of a pipe or a device, through links, and files that belong together
whole, whoever writes them at the same time."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from alignxplore import locks
from alignxplore.command import run_commands
from alignxplore.datasets import __main__ as command
from alignxplore.datasets.__main__ import COMMANDS
from alignxplore.datasets.sidecars import popularity_path, read_manifest, sha256
from alignxplore.errors import SAID
from alignxplore.records import read_jsonl, write_json, write_jsonl
from alignxplore.rl.rows import RowOptions, convert
from tests import ROOT
from tests.test_benchmark_files import USER, pair

LATEST_SMALL = ROOT / "data/movielens/ml-latest-small"
BUILD = ["build", "movielens", "--raw", str(LATEST_SMALL), "--min_interactions", "60"]


def build(out: Path, users: int = 12) -> None:
    try:
        run_commands(COMMANDS, "", [*BUILD, "--users", str(users), "--out", str(out)])
    except SystemExit as end:
        raise ValueError(end.code) from None


def imports(out: Path) -> None:
    """The files are OUT_upi.jsonl and others."""
    table = out.with_name("mine.csv")
    table.write_text("user,film,stars\n" + "".join(f"{u},{i} by {u},{i % 2}\n" for u in "ab" for i in range(8)))
    words = [str(table), "--user", "user", "--item", "film", "--label", "stars", "--test_share", "0.5", "--out"]
    try:
        run_commands(COMMANDS, "", ["import", *words, str(out).removesuffix("_upi.jsonl")])
    except SystemExit as end:
        raise ValueError(end.code) from None


def rows(out: Path) -> None:
    write_jsonl(out.with_name("rows.jsonl"), [USER | {"history": [pair(), pair(chosen="another")]}])
    convert(RowOptions(data=str(out.with_name("rows.jsonl")), out=str(out), stages=1))


WRITERS = [lambda path: write_json(path, {}), lambda path: write_jsonl(path, [{}]), build, imports, rows]


@pytest.mark.parametrize("write", WRITERS, ids=["json", "jsonl", "build", "import", "parquet"])
def test_a_pipe_or_a_device_in_the_place_of_the_file_stays(tmp_path, write: Callable[[Path], object]):
    out, device = tmp_path / "x_upi.jsonl", tmp_path / "y_upi.jsonl"
    os.mkfifo(out)
    device.symlink_to("/dev/null")
    for path in (out, device):
        with pytest.raises(SAID, match=f"{path}: a pipe or a device stands where a file is written; name a file"):
            write(path)
    assert out.is_fifo() and device.is_char_device() and device.is_symlink()
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.build.json"))


@pytest.mark.parametrize("write", WRITERS, ids=["json", "jsonl", "build", "import", "parquet"])
def test_a_link_stays_and_the_file_that_it_leads_to_is_written(tmp_path, write: Callable[[Path], object]):
    out, target = tmp_path / "x_upi.jsonl", tmp_path / "elsewhere" / "file"
    target.parent.mkdir()
    for old_text in (None, "earlier"):  # the link leads to nothing yet, then to a file
        if old_text:
            target.write_text(old_text)
        out.unlink(missing_ok=True)
        out.symlink_to(target)
        write(out)
        assert out.is_symlink() and target.is_file() and target.read_bytes() != b"earlier"
        assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_link_that_leads_back_to_itself_is_named(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(OSError, match="Too many levels"):
        write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").is_symlink()


SLOW = """
import os, sys, time
from pathlib import Path
from alignxplore.command import run_commands
from alignxplore.datasets.__main__ import COMMANDS
replace, folder = os.replace, Path(sys.argv[1])
def late(aside, path):
    if str(path).endswith("_upi.jsonl"):
        (folder / "waits").touch()
        for _ in range(100):
            if (folder / "other").exists():
                break
            time.sleep(0.1)
    replace(aside, path)
os.replace = late
run_commands(COMMANDS, "", sys.argv[2:])
"""


def test_two_builds_of_one_file_leave_all_files_of_one_of_them(tmp_path, monkeypatch):
    """One is about to put its benchmark file in place when the other one puts its three."""
    out, environment = tmp_path / "x_upi.jsonl", os.environ | {"PYTHONPATH": str(ROOT)}
    slow = [sys.executable, "-c", SLOW, str(tmp_path), *BUILD, "--users", "12", "--out", str(out)]

    def turn_in(folder: Path) -> AbstractContextManager[None]:
        threading.Timer(0.5, (tmp_path / "other").touch).start()  # it waits by then
        return locks.turn_in(folder)

    monkeypatch.setattr(command, "turn_in", turn_in, raising=False)
    with subprocess.Popen(slow, env=environment) as first:
        while first.poll() is None and not (tmp_path / "waits").exists():
            time.sleep(0.05)
        build(out, users=13)
        (tmp_path / "other").touch()
    assert first.returncode == 0
    assert read_manifest(out)["sha256"] == sha256(out)
    users = [[row["userid"] for _, row in read_jsonl(path)] for path in (out, popularity_path(out))]
    assert users[0] == users[1] and len(users[0]) == read_manifest(out)["users"] == 13
