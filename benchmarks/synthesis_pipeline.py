"""Data synthesis with every user on their own way, against four phase barriers a round, on the same server.

    python benchmarks/synthesis_pipeline.py                            # 150 users, 64 answers at once; about 2 minutes
    python benchmarks/synthesis_pipeline.py --users 400 --sigma 1.2

For each 1,000 users the published code ("theirs") goes twice through all drafts, all verifications, all merges, all
verifications of the merged. Each phase waits for the last answer of the one before. Ours and theirs run the same code
of alignxplore/synthesis/rounds.py, ask the same questions and get the same answers after the same time; the barrier is
all that differs. (All users are one batch here: with batches of 1,000 there would be more barriers, so that the
comparison favours theirs.)

The server is local and controlled. It works on --slots requests at once, as an engine with that many sequences. It
answers after a time that depends on the request alone. What the teacher writes takes a log-normal time with the given
--sigma (lengths of reasoning are long-tailed). The one token of a judge takes a constant time. The server does not
slow down when it is full. What is measured is waiting, not computing, so the ratio is that of any engine whose answers
have such lengths. The last line is JSON.
"""

import asyncio
import contextvars
import json
import math
import random
import re
import time
from collections import Counter
from dataclasses import dataclass

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

from aiohttp import web

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import above_zero, at_least_one, not_negative
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.models import Model
from alignxplore.summarize import Sampling
from alignxplore.synthesis.rounds import DONE, Thresholds, Workshop, synthesise_user
from alignxplore.world.tiny import make_tokenizer

CHOICES = 18  # a user's choices: six to read and five targets in each round
FAULTY = 0.3  # share of drafts that mislead the judge, so that some users leave early
current_user: contextvars.ContextVar[int] = contextvars.ContextVar("current_user")


@dataclass(kw_only=True)
class PipelineOptions(Checkable):
    """Users, and the server's speed."""

    users: int = option("users taken through", 150)
    slots: int = option("requests that the server works on at once", 64)
    median: float = option("seconds of a teacher's answer", 1.0)
    sigma: float = option("spread of their logarithm (0.8: the longest of 100 takes 6 times the median)", 0.8)
    judge_seconds: float = option("seconds of a judge's answer", 0.05)

    def __post_init__(self) -> None:
        at_least_one(self, "users", "slots")
        above_zero(self, "median")
        not_negative(self, "sigma", "judge_seconds")


class SlowServer:
    """Answers as a teacher and as a judge that follows the colour it is told; the time an answer takes is drawn from
    its request."""

    def __init__(self, tokenizer, slots: int, median: float, sigma: float, judge_seconds: float):
        self.letters = find_letters(tokenizer).tokens
        self.slots, self.median, self.sigma, self.judge_seconds = (
            asyncio.Semaphore(slots),
            median,
            sigma,
            judge_seconds,
        )
        self.busy = 0.0  # seconds of work given to slots

    async def work(self, seconds: float) -> None:
        async with self.slots:
            await asyncio.sleep(seconds)
        self.busy += seconds

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["max_tokens"] == 1:
            await self.work(self.judge_seconds)
            text = body["messages"][-2]["content"]
            match = re.search(r"Likes (\w+)\.", text)
            colour = match[1] if match else ""
            p = 0.9 if re.search(rf"Item A: {colour}", text) else 0.1
            tops = [{"token": f"token_id:{i}", "logprob": math.log(q)} for i, q in zip(self.letters, (p, 1 - p))]
            content = [tops[0] | {"top_logprobs": tops}]
            return web.json_response(
                {"choices": [{"index": 0, "message": {"content": "A"}, "logprobs": {"content": content}}]}
            )
        rng = random.Random(hash_seed("answer", body["messages"][-1]["content"], body["seed"]))
        await self.work(self.median * math.exp(rng.gauss(0, self.sigma)))
        text = f"<think>\nseen\n</think>\n\nLikes {'blue' if rng.random() < FAULTY else 'red'}."
        if "Annotator 1" in body["messages"][-1]["content"]:
            text = "<joined_reasoning>seen</joined_reasoning><joined_description>Likes red.</joined_description>"
        return web.json_response({"choices": [{"index": 0, "message": {"content": text}}]})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "slow", "max_model_len": 16384}]})


class Barriers:
    """Opens phase n when every user who is still inside has come to it."""

    def __init__(self, users: int):
        self.inside = users
        self.phase: Counter[int] = Counter()
        self.kind: dict[int, str] = {}
        self.arrived: Counter[int] = Counter()
        self.open: dict[int, asyncio.Event] = {}

    async def enter(self, kind: str) -> None:
        """Wait until the phase of this request is open; a user's phase changes when drafting turns into verifying or
        back."""
        user = current_user.get()
        if self.kind.get(user) != kind:
            self.kind[user] = kind
            self.phase[user] += 1
            self.arrived[self.phase[user]] += 1
            self._look()
        await self.open.setdefault(self.phase[user], asyncio.Event()).wait()

    def leave(self) -> None:
        """The current user has finished, or left the funnel."""
        phase = self.phase[current_user.get()]
        for n in range(1, phase + 1):
            self.arrived[n] -= 1
        self.inside -= 1
        self._look()

    def _look(self) -> None:
        for phase, arrived in list(self.arrived.items()):
            if arrived == self.inside:
                self.open.setdefault(phase, asyncio.Event()).set()


class PhasedWorkshop(Workshop):
    """The same workshop, whose requests wait for their phase."""

    async def write(self, *request, **kind):
        await barriers.get().enter("write")
        return await super().write(*request, **kind)

    async def verify(self, *request, **kind):
        await barriers.get().enter("verify")
        return await super().verify(*request, **kind)


barriers: contextvars.ContextVar[Barriers] = contextvars.ContextVar("barriers")


async def take_all(options: PipelineOptions, tokenizer, in_phases: bool) -> dict:
    """Take all users through; returns wall time, outcomes and how busy the server was."""
    server = SlowServer(tokenizer, options.slots, options.median, options.sigma, options.judge_seconds)
    app = web.Application(client_max_size=1 << 24)
    app.add_routes([web.get("/v1/models", server.models), web.post("/v1/chat/completions", server.chat)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def ask(_, request):
        return await request()

    async def user(number: int, shop: Workshop) -> str:
        current_user.set(number)
        items = [Interaction(f"red thing {number} {i}", f"blue thing {number} {i}") for i in range(CHOICES)]
        try:
            return (await synthesise_user(shop, f"u{number}", items, dict.fromkeys(range(CHOICES), 0.95)))["outcome"]
        finally:
            if in_phases:
                barriers.get().leave()

    try:
        async with Endpoint(url, concurrency=4096) as endpoint:
            judge = Judge(endpoint, tokenizer, PromptSet())
            judge.reader._reads_ids = True
            kind = PhasedWorkshop if in_phases else Workshop
            shop = kind(
                Model("slow", endpoint, tokenizer, "slow"),
                judge,
                PromptSet(),
                Sampling(),
                Thresholds(),
                16384,
                ask,
                "slow",
            )
            barriers.set(Barriers(options.users))
            began = time.monotonic()
            outcomes = Counter(await asyncio.gather(*(user(number, shop) for number in range(options.users))))
            seconds = time.monotonic() - began
    finally:
        await runner.cleanup()
    return {
        "seconds": seconds,
        "outcomes": dict(sorted(outcomes.items())),
        "busy": server.busy / (seconds * options.slots),
    }


def compare(options: PipelineOptions) -> str | None:
    """Both ways, one after the other."""
    if options.check:
        return planned(options)
    tokenizer = make_tokenizer(1, 1024, PromptSet())
    results = {
        name: asyncio.run(take_all(options, tokenizer, in_phases))
        for name, in_phases in (("theirs", True), ("ours", False))
    }
    if results["ours"]["outcomes"] != results["theirs"]["outcomes"]:
        raise AssertionError(f"the two ways took other users through: {results}")
    for name, row in results.items():
        print(f"{name:>6}: {row['seconds']:6.1f} s, the server's slots busy {100 * row['busy']:.0f} % of the time")
    user_count = results["ours"]["outcomes"].get(DONE, 0)
    print(f"{user_count} of {options.users} users passed both rounds; outcomes {results['ours']['outcomes']}")
    ours, theirs = results["ours"]["seconds"], results["theirs"]["seconds"]
    print(
        json.dumps(
            {
                "name": "synthesis_pipeline",
                "ratio": round(theirs / ours, 2),
                "goal": "above 1",
                "ours": round(ours, 1),
                "theirs": round(theirs, 1),
                "unit": "s wall time",
                "n": options.users,
                "slots": options.slots,
                "sigma": options.sigma,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, PipelineOptions, __doc__)
