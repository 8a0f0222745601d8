"""A file system of a test's own, which can be full or read-only."""

import os
import subprocess
from pathlib import Path

import pytest

LARGE = 64 << 20  # bytes


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()
        process = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], capture_output=True)
        if process.returncode:
            pytest.skip("no file system can be mounted here")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def used(self) -> int:
        about = os.statvfs(self.path)
        return (about.f_blocks - about.f_bfree) * about.f_frsize

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


def size_of(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
