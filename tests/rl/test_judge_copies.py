"""verl/serve_judge.sh with real vLLM: two copies of a tiny judge that answer through alignxplore/rl/reward.py."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from alignxplore.records import Interaction
from alignxplore.rl.reward import Judges
from alignxplore.rl.settings import Streaming
from alignxplore.serving.server import free_port
from alignxplore.world import tiny
from tests import ROOT


@pytest.mark.slow
def test_two_copies_behind_one_url_and_nothing_left(tmp_path):
    tiny.write_model(tiny.TinyOptions(out=str(tmp_path / "judge")))
    variables = {
        "DEVICE": "cpu",
        "MODELS": f"judge={tmp_path / 'judge'}",
        "REPLICAS": "2",
        "PORT": str(free_port()),
        "LOGS": str(tmp_path / "logs"),
        "PYTHON": sys.executable,
    }
    process = subprocess.Popen(
        ["bash", str(ROOT / "verl/serve_judge.sh")], env=os.environ | variables, text=True, stdout=subprocess.PIPE
    )
    try:
        line = next(line for line in process.stdout if line.startswith("JUDGES="))
        rewards = asyncio.run(ask(re.search('"(.*)"', line).group(1)))
        assert all(0 < reward.value < 1 for reward in rewards)
        queues = queues_of(process.pid)
        assert queues  # between vLLM's processes
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not [path for path in queues if path.exists()]


async def ask(judges):
    connected = await Judges.connect(Streaming(judges=judges))
    try:
        return await asyncio.gather(
            *(connected.score("Likes tea.", Interaction(f"tea {i}", "coffee"), [i]) for i in range(16))
        )
    finally:
        await connected.close()


def queues_of(pid):
    """The files of shared memory that the children of a process have mapped."""
    maps = [mapping.path for child in psutil.Process(pid).children(recursive=True) for mapping in child.memory_maps()]
    return {Path(path) for path in maps if path.startswith("/dev/shm/psm_")}
