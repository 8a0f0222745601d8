"""A rollout engine that computes nothing: its answers take as long as a step model says, and leave the processor free.
`benchmarks/rl_async.py` trains with it.

verl imports this module in each of its processes (VERL_USE_EXTERNAL_MODULES), which registers the engine as
`rollout.name=simulated`. Everything else of a run is real. The engine keeps what verl and the asynchronous trainer
rely on: it says which step's weights wrote an answer, it stops for new weights and gives back what is there, and it
goes on with just that answer. It reads a prompt once, until there are new weights, as vLLM's prefix cache does.

It holds no weights. The policy's last layer must be zero: then each token has the probability 1/vocabulary under the
weights of any step, and the trainer finds the probabilities that the engine names.
"""

import asyncio
import math
import os
import random
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from transformers import AutoTokenizer
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator

from alignxplore.rl.step_model import Engine

NAME = "simulated"
BLOCK = 16  # tokens of a prompt that are kept or read together
DONE = 1e-3  # tokens: timers fire a little early or late


class Form(NamedTuple):
    """Tokens of every answer's beginning and end, and those that may stand between."""

    head: list[int]
    words: list[int]
    tail: list[int]

    @classmethod
    def of(cls, tokenizer: Any) -> "Form":
        head, words, tail = (
            tokenizer.encode(text, add_special_tokens=False)
            for text in ("<think>\n", " rain snow sun wind fog", "\n</think>\n\nrain<|im_end|>")
        )
        return cls(head, words, tail)

    def answer(self, seed: int, median: float, spread: float, longest: int) -> list[int]:
        """Of a log-normal number of tokens, cut at the longest; the same for the same seed."""
        rng = random.Random(seed)
        between = min(longest, round(median * rng.lognormvariate(0, spread))) - len(self.head) - len(self.tail)
        return self.head + rng.choices(self.words, k=max(1, between)) + self.tail


@dataclass
class Request:
    """An answer that is being written: so many of its tokens are."""

    prompt: list[int]
    answer: list[int]
    ended: "asyncio.Future[int]"  # tokens that were written by then
    written: float = 0.0


class Writing:
    """The engine as alignxplore/rl/step_model.py describes it, in real time: `slots` answers at once. Each gets a
    token a decoding step, and a step takes the longer the more tokens the answers and their prompts have. While a
    prompt is read nothing is written.

    Args:
        median, spread: of an answer's tokens; `spread` is of their logarithm.
    """

    def __init__(self, engine: Engine, form: Form, median: float, spread: float):
        self.engine, self.form, self.median, self.spread = engine, form, median, spread
        self.open = asyncio.Event()
        self.open.set()
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._rest: dict[int, list[list[int]]] = defaultdict(list)  # of answers that were stopped, by what was there
        self._read: set[int] = set()
        self._reading = 0.0  # seconds that reading will still take
        self._since, self._step = 0.0, 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def write(self, prompt: list[int], seed: int, longest: int) -> tuple[list[int], bool]:
        """An answer, or as much of it as there was when the engine was stopped; and whether it is whole. A prompt that
        ends with such a beginning is answered with what is left."""
        await self.open.wait()
        rest = self._rest.get(hash(tuple(prompt)))
        answer = rest.pop() if rest else self.form.answer(seed, self.median, self.spread, longest)
        request = Request(prompt, answer, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._turn()
        written = await request.ended
        return answer[:written], written == len(answer)

    def stop(self) -> None:
        """End all answers where they are, and begin none."""
        self._turn()
        self.open.clear()
        for request in [*self._running, *self._waiting]:
            written = int(request.written)
            if written:
                self._rest[hash(tuple(request.prompt + request.answer[:written]))].append(request.answer[written:])
            request.ended.set_result(written)
        self._running.clear()
        self._waiting.clear()
        self._turn()

    def forget(self) -> None:
        """New weights: every prompt is read anew."""
        self._read.clear()
        self._reading = 0.0

    def _turn(self) -> None:
        """Account for the time since the last turn, end what is whole, begin what waits, plan the next turn."""
        loop = asyncio.get_running_loop()
        passed, self._since = loop.time() - self._since, loop.time()
        reading = min(passed, self._reading)
        self._reading -= reading
        for request in list(self._running):
            request.written += (passed - reading) / self._step
            if request.written > len(request.answer) - DONE:
                self._running.remove(request)
                request.ended.set_result(len(request.answer))
        while self._waiting and len(self._running) < self.engine.slots:
            request = self._waiting.popleft()
            self._reading += self.engine.prompt * self._unread(request.prompt)
            self._running.append(request)
        if self._timer:
            self._timer.cancel()
        if self._running:
            remaining = min(len(request.answer) - request.written for request in self._running)
            cached = sum(len(request.prompt) + request.written + remaining / 2 for request in self._running)
            self._step = self.engine.weights + self.engine.token * cached
            self._timer = loop.call_later(self._reading + remaining * self._step, self._turn)

    def _unread(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that have to be read: those behind the longest beginning that was read before."""
        blocks = {hash(tuple(prompt[:end])) for end in range(BLOCK, len(prompt) + 1, BLOCK)}
        new = len(blocks - self._read)
        self._read |= blocks
        return BLOCK * new + len(prompt) % BLOCK


class Server:
    """What verl asks of a rollout server; `delays` are the arguments of `Writing` and the fields of its `Engine`."""

    def __init__(self, model: str, delays: Mapping[str, float]):
        tokenizer = AutoTokenizer.from_pretrained(model)
        timing = {name: delays[name] for name in ("weights", "token", "prompt")}
        engine = Engine(int(delays["slots"]), math.inf, **timing)
        self.log_prob = -math.log(len(tokenizer))
        self.writing = Writing(engine, Form.of(tokenizer), delays["median"], delays["spread"])
        self.step: int | None = None

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: object
    ) -> TokenOutput:
        """verl's call for one answer."""
        ids, whole = await self.writing.write(list(prompt_ids), sampling_params["seed"], sampling_params["max_tokens"])
        return TokenOutput(
            token_ids=ids,
            log_probs=[self.log_prob] * len(ids),
            stop_reason="completed" if whole else "aborted",
            extra_fields={"global_steps": self.step},
        )

    async def set_global_steps(self, step: int) -> None:
        """There are new weights, of this step."""
        self.step = step
        self.writing.forget()

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        """Give back what is written, and wait."""
        self.writing.stop()

    async def resume_generation(self) -> None:
        """Write again."""
        self.writing.open.set()

    async def sleep(self) -> None:
        """There is no memory to free."""


class Adapter(BaseRollout):
    """The trainer's end of it: takes the weights that FSDP gathers, as a real engine would, and keeps none."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(self, weights: Any, global_steps: int | None = None, **_: object) -> None:
        """Only the number of the step is passed on."""
        async for _name, _tensor in ensure_async_iterator(weights):
            pass
        if global_steps is not None:
            server = ray.get_actor(f"{NAME}_{os.environ['RANK']}")
            await server.set_global_steps.remote(global_steps)


class Replica(RolloutReplica):
    """One engine beside one training rank."""

    async def launch_servers(self) -> None:
        """Start it as an actor of Ray."""
        name = f"{NAME}_{self.replica_rank}"
        actor = ray.remote(num_cpus=0, name=name, max_concurrency=self.max_concurrency)(Server)
        server = actor.remote(str(self.model_config.path), dict(self.config.engine_kwargs[NAME]))
        self.servers, self._server_handle, self._server_address = [server], server, name


_ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.Adapter"
RolloutReplicaRegistry.register(NAME, lambda: Replica)
