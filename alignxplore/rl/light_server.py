"""vLLM's server in Ray as a class that is cheap to hear of; RL on a CPU registers it with verl.

Ray loads an actor's class in each process that is given its handle. That of verl's server takes all of vLLM with it:
200 MB and four seconds of processor in the load balancer, and again in each process that runs streams. The class here
goes to Ray by value and knows verl's by name alone, which is imported where the server runs.
"""

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import ray


def _passed_on(name: str) -> Callable[..., Awaitable[Any]]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self._server, name)(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return method


def by_name(server: type) -> type:
    """A class with the public methods of `server`, all of them coroutines, that imports it when an object of it is
    made. It is in no module, so it is pickled by value."""
    module, name = server.__module__, server.__qualname__

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        self._server = getattr(importlib.import_module(module), name)(*args, **kwargs)

    methods = [method for method, _ in inspect.getmembers(server, inspect.isfunction) if not method.startswith("_")]
    return type(f"Light{name}", (), {"__init__": start} | {method: _passed_on(method) for method in methods})


def light_replica() -> type:
    """verl's replica of vLLM with such servers, as verl's registry asks for it."""
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

    class LightReplica(vLLMReplica):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.server_class = ray.remote(by_name(vLLMHttpServer))

    return LightReplica
