"""A disk that is full, or that cannot be written to: one sentence that names a file or folder of that disk, what was
there stays whole, and with more space the same command comes to what an undisturbed run does."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from alignxplore.records import write_json
from tests import ROOT

LARGE = 64 << 20  # bytes


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip("no file system can be mounted here")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def used(self) -> int:
        about = os.statvfs(self.path)
        return (about.f_blocks - about.f_bfree) * about.f_frsize

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


async def ended(command: Sequence[object], environment: dict[str, str]) -> tuple[int, str]:
    """(exit code, what it said); the server of a test goes on answering."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, command),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def goes_on_with_more_space(
    disk: Disk, command: Sequence[object], environment: dict[str, str], needed: int, shares: Sequence[float]
) -> None:
    """Fail on a disk that cannot be written to, and on disks of shares of what the command needs; then succeed."""
    disk.remount("ro")
    code, said = await ended(command, environment)
    assert code == 1 and "Traceback" not in said and f"Read-only file system: '{disk.path}" in said, said
    disk.remount("rw")
    for share in shares:
        disk.remount(f"size={max(8192, disk.used(), int(share * needed))}")
        code, said = await ended(command, environment)
        last = said.strip().splitlines()[-1]
        assert code == 1 and "Traceback" not in said, said
        assert "[Errno 28]" in last and f"'{disk.path}" in last and last.endswith("run the same command again"), last
    disk.remount(f"size={LARGE}")
    code, said = await ended(command, environment)
    assert code == 0, said


def size_of(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


async def test_building(disk, environment, tmp_path):
    command = ["-m", "alignxplore.datasets", "build", "movielens", "--raw", "data/movielens/ml-latest-small"]
    command += ["--min_interactions", "60", "--out"]
    whole, made = tmp_path / "whole", disk.path / "out"
    assert (await ended([*command, whole / "a_upi.jsonl"], environment))[0] == 0
    await goes_on_with_more_space(disk, [*command, made / "a_upi.jsonl"], environment, size_of(whole), [0, 0.2, 0.9])
    for path in whole.iterdir():
        if not path.name.endswith(".build.json"):  # which says how long it took
            assert (made / path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in made.iterdir()} == {path.name for path in whole.iterdir()}


async def test_a_file_that_may_not_grow_is_the_same(environment, tmp_path):
    """Where no file system can be mounted: the kernel refuses to make a file larger (`ulimit -f`)."""
    write_json(tmp_path / "small.json", "x")
    command = f"""
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from alignxplore.errors import one_sentence
from alignxplore.records import write_json
with one_sentence():
    write_json({str(tmp_path / "small.json")!r}, "x" * 9000)
"""
    code, said = await ended(["-c", command], environment)
    assert code == 1 and f"File too large: '{tmp_path}/small.json'; what is done is kept" in said, said
    assert json.loads((tmp_path / "small.json").read_text()) == "x" and len(list(tmp_path.iterdir())) == 1
