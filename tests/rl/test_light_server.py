"""A handle of vLLM's server in Ray brings nothing of vLLM into a process."""

import asyncio
import importlib.util
import os
import subprocess
import sys

import pytest

from alignxplore.rl.light_server import by_name
from alignxplore.rl.train import environment_of_processes

HEAVY = """
class Server:
    def __init__(self, start, *, more=0):
        self.start = start + more

    async def add(self, number, twice=False):
        return self.start + number * (1 + twice)

    def told(self):
        return self.start

    def _own(self):
        pass
"""
LOADED = """
import asyncio, pickle, sys

server = pickle.load(sys.stdin.buffer)
print("heavy" in sys.modules, "alignxplore.rl.light_server" in sys.modules)
made = server(1, more=2)
print("heavy" in sys.modules, asyncio.run(made.add(4, twice=True)), asyncio.run(made.told()))
"""


@pytest.fixture
def light(tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(tmp_path)
    import heavy

    yield by_name(heavy.Server)
    sys.modules.pop("heavy")


def test_the_class_travels_without_the_module_that_it_stands_for(light, tmp_path):
    from ray import cloudpickle

    process = subprocess.run(
        [sys.executable, "-c", LOADED], input=cloudpickle.dumps(light), capture_output=True, cwd=tmp_path, check=True
    )
    assert process.stdout.decode().splitlines() == ["False False", "True 11 3"]


def test_it_has_the_public_methods_and_passes_errors_on(light):
    assert {name for name in vars(light) if not name.startswith("_")} == {"add", "told"}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        asyncio.run(light(1).add())


# In a process of its own: vLLM changes how a whole process logs.
REPLICA = """
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer
from alignxplore.rl.light_server import by_name, light_replica

print(*vars(by_name(vLLMHttpServer)))
print(by_name(vLLMHttpServer).__name__, light_replica().__mro__[1].__name__)
import logging
logging.getLogger("alignxplore.serving.endpoint").warning("trying again")
"""


def test_verls_replica_starts_such_a_server_and_our_warnings_are_told_beside_vllm(tmp_path):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    process = subprocess.run(
        [sys.executable, "-c", REPLICA],
        capture_output=True,
        text=True,
        env=os.environ | environment_of_processes(tmp_path),
        check=True,
    )
    methods, names = process.stdout.splitlines()[-2:]
    used = {"generate", "launch_server", "get_server_address", "collective_rpc", "set_global_steps", "clear_kv_cache"}
    assert used <= set(methods.split()) and names == "LightvLLMHttpServer vLLMReplica"
    assert "trying again" in process.stderr
