"""Seconds of a step's rollout phase (writing and judging, both stages) with a judge of fixed latency: three ways to
order it.

    python benchmarks/rl_overlap.py                 # tiny policy behind vLLM; about 4 minutes on a CPU
    python benchmarks/rl_overlap.py --spread 0      # all summaries equally long: the least that overlap can gain

Three ways with one vLLM server, from the same prompts, the same number of tokens for each summary:

    serial     as published: write stage 1, judge it one call after another with the list of models asked each time;
               write stage 2, judge it likewise
    barriers   the same four phases, each with everything in flight at once
    ours       alignxplore/rl/chain.py: a summary is judged the moment it is written; a stage waits for nothing but its
               past summary

Two things are controlled. The judge is a local server that answers after a fixed time. An untrained policy's noise is
replaced by summaries of the simulated world, so that all are well-formed; `--spread` says how much their lengths
differ. Only the first calls of "serial" are made, the rest is computed: its calls all take the same time. The
latencies are shares of the seconds that writing one stage takes. The last line is JSON.
"""

import asyncio
import contextlib
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import aiohttp
from aiohttp import web
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one, shares
from alignxplore.judging.letters import find_letters
from alignxplore.prompts import PromptSet, parse_answer
from alignxplore.records import Interaction
from alignxplore.rl.chain import ChainRunner, Generation, Prompt, rollout_seed
from alignxplore.rl.credit import draw_order
from alignxplore.rl.dataset import Stage, cut_stages
from alignxplore.rl.reward import Judges
from alignxplore.rl.settings import Streaming
from alignxplore.serving.server import free_port, serve
from alignxplore.summarize import fit_prompt
from alignxplore.world import tiny
from alignxplore.world.users import User, draw_stream, draw_user, render_summary

GOAL = 1.3
SHARES = (0.0, 0.25, 0.5, 1.0)  # latencies of the judge, as shares of the time that writing a stage takes
SERIAL_CALLS = 4  # calls a stage that "serial" really makes


@dataclass(kw_only=True)
class OverlapOptions(Checkable):
    """Which policy, how many summaries."""

    policy: str | None = option("folder or Hub id of the policy; default: a tiny one, made here", None)
    users: int = option("users a step", 16)
    rollouts: int = option("summaries a user and stage", 4)
    tokens: int = option("the longest summary", 128)
    spread: float = option("the shortest is so much shorter, as a share", 0.5)
    rounds: int = option("turns at each latency, the median counts", 3)

    def __post_init__(self) -> None:
        at_least_one(self, "users", "rollouts", "tokens", "rounds")
        shares(self, "spread")


class SlowJudge:
    """An OpenAI-compatible judge that answers "A or B, equally" after `latency` seconds, however many ask at once."""

    def __init__(self, folder: str, tokenizer: PreTrainedTokenizerBase):
        self.folder, self.latency = folder, 0.0
        self.letters = find_letters(tokenizer).tokens

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve for the length of a with-block; yields the base URL."""
        app, port = web.Application(), free_port()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "slow", "root": self.folder}]})

    async def _chat(self, request: web.Request) -> web.Response:
        await request.read()
        return await self.reply(0.5)

    async def reply(self, p: float) -> web.Response:
        """The answer whose probability of the letter A is `p`."""
        await asyncio.sleep(self.latency)
        tops = [{"token": f"token_id:{i}", "logprob": math.log(q)} for i, q in zip(self.letters, (p, 1 - p))]
        content = [tops[0] | {"top_logprobs": tops}]
        return web.json_response({"choices": [{"message": {"content": " A"}, "logprobs": {"content": content}}]})


class Engine(NamedTuple):
    """The rollout engine and what all policies share."""

    session: aiohttp.ClientSession
    url: str
    model: str
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptSet
    tokens: int
    spread: float


class WorldPolicy:
    """A user's policy (alignxplore/rl/chain.py): the engine's work is real, the text comes from the simulated world.

    Args:
        salt: differs between arms, so that no arm finds the prompts of another in the engine's prefix cache.
    """

    def __init__(self, engine: Engine, user: User, salt: str):
        self.engine, self.user, self.salt = engine, user, salt

    async def prompt(self, interactions: Sequence[Interaction], past_summary: str | None) -> Prompt:
        tokenizer, prompts = self.engine.tokenizer, self.engine.prompts
        excerpt = fit_prompt(tokenizer, prompts, interactions, past_summary, 1024)
        ids = tokenizer.apply_chat_template(
            prompts.infer(excerpt.interactions, past_summary),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return Prompt(list(ids), excerpt.dropped)

    async def write(self, prompt: Prompt, seed: int) -> Generation:
        engine, rng = self.engine, random.Random(seed)
        length = round(engine.tokens * (1 - engine.spread * rng.random()))
        body = {
            "model": engine.model,
            "prompt": prompt.ids,
            "max_tokens": length,
            "ignore_eos": True,
            "temperature": 1.0,
            "seed": seed,
            "logprobs": 0,
            "cache_salt": self.salt,
        }
        async with engine.session.post(engine.url + "/completions", json=body) as reply:
            reply.raise_for_status()
            tokens = (await reply.json())["usage"]["completion_tokens"]
        if tokens != length:
            raise RuntimeError(f"the engine wrote {tokens} tokens, asked for were {length}")
        return Generation(
            [0] * tokens, None, f"<think>\nIt shows.\n</think>\n\n{render_summary(self.user.late, rng)}", ()
        )


class Arm(NamedTuple):
    """Seconds of one rollout phase; of the arms with barriers also the seconds of their phases of writing."""

    seconds: float
    writing: float = 0.0


Judging = Callable[[Sequence[tuple[str, Stage, list, int]]], Awaitable[float]]


async def phases(
    policies: Sequence[WorldPolicy], streams: Sequence[Sequence[Stage]], settings: Streaming, judge: Judging
) -> Arm:
    """All users write a stage, then all of it is judged, then the next stage. `judge` returns the seconds it takes."""
    past_summaries: list[str | None] = [None] * len(policies)
    parents: list[int | None] = [None] * len(policies)
    write_seconds = judge_seconds = 0.0
    for k in range(settings.stages):
        began = time.monotonic()
        prompts = [
            await policy.prompt(stages[k].interactions, text)
            for policy, stages, text in zip(policies, streams, past_summaries)
        ]
        generations = await asyncio.gather(
            *(
                p.write(prompt, rollout_seed(settings.seed, 0, p.user.name, k, parent, i))
                for p, prompt, parent in zip(policies, prompts, parents)
                for i in range(settings.rollouts)
            )
        )
        write_seconds += time.monotonic() - began
        summaries = [parse_answer(generation.text).summary for generation in generations]
        groups = [summaries[i : i + settings.rollouts] for i in range(0, len(summaries), settings.rollouts)]
        judge_seconds += await judge(
            [
                (text, stages[k], [policy.user.name, k], i)
                for policy, stages, group in zip(policies, streams, groups)
                for i, text in enumerate(group)
            ]
        )
        orders = [draw_order(len(group), settings.seed, 0, p.user.name, k) for p, group in zip(policies, groups)]
        parents = [order[0] for order in orders]
        past_summaries = [group[order[0]] for group, order in zip(groups, orders)]
    return Arm(write_seconds + judge_seconds, write_seconds)


async def all_at_once(judges: Judges, calls: Sequence[tuple[str, Stage, list, int]]) -> float:
    """Seconds of judging everything concurrently."""
    began = time.monotonic()
    await asyncio.gather(*(judges.score(text, stage.targets[0], group, i) for text, stage, group, i in calls))
    return time.monotonic() - began


async def one_by_one(judges: Judges, calls: Sequence[tuple[str, Stage, list, int]]) -> float:
    """Seconds of judging one after another, in one order each and the models listed each time; by its first calls."""
    began = time.monotonic()
    for text, stage, group, i in calls[:SERIAL_CALLS]:
        await judges.judges[0].endpoint.connect()
        await judges.score(text, stage.targets[0], group, i)
    return (time.monotonic() - began) * len(calls) / SERIAL_CALLS


async def overlapped(
    policies: Sequence[WorldPolicy], streams: Sequence[Sequence[Stage]], settings: Streaming, judges: Judges
) -> Arm:
    """What a training run does: one chain a user, all at once."""
    began = time.monotonic()
    chains = await asyncio.gather(
        *(
            ChainRunner(policy.user.name, stages, policy, judges, settings, 0, settings.rollouts).run()
            for policy, stages in zip(policies, streams)
        )
    )
    seconds = time.monotonic() - began
    if any(rollout.total is None for chain in chains for group in chain.groups for rollout in group.rollouts):
        raise RuntimeError("a rollout was lost")
    return Arm(seconds)


async def measure(model: str, log_path: Path, options: OverlapOptions) -> dict[float, dict[str, float]]:
    """Serve the policy: median seconds of each arm at each latency; latency 0 first, from which the others follow."""
    users = [draw_user(1, "overlap", i) for i in range(options.users)]
    streams = [
        cut_stages([choice.interaction for choice in draw_stream(u, "films", 13, 6, 1)], [6, 12]) for u in users
    ]
    tokenizer = AutoTokenizer.from_pretrained(model)
    slow, table, runs = SlowJudge(model, tokenizer), {}, 0
    # vLLM closes what has been idle for 5 s, as connections are between two phases; one that is closed while it is
    # used is an error.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with (
        serve(model, log_path=log_path, arguments=["--max-model-len", "2048"]) as url,
        slow.serve() as judge_url,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        engine = Engine(session, url, model, tokenizer, PromptSet(), options.tokens, options.spread)
        settings = Streaming(judges=f"slow={judge_url}", rollouts=options.rollouts)
        judges = await Judges.connect(settings)
        published_judges = await Judges.connect(Streaming(judges=f"slow={judge_url}", judge_orders="per_rollout"))
        ways = {
            "serial": lambda policies: phases(
                policies, streams, settings, lambda calls: one_by_one(published_judges, calls)
            ),
            "barriers": lambda policies: phases(policies, streams, settings, lambda calls: all_at_once(judges, calls)),
            "ours": lambda policies: overlapped(policies, streams, settings, judges),
        }

        async def turn(way: str) -> Arm:
            nonlocal runs
            runs += 1
            return await ways[way]([WorldPolicy(engine, user, f"arm {runs}") for user in users])

        await turn("ours")  # warm-up
        stage_seconds = 0.0
        for share in SHARES:
            slow.latency = share * stage_seconds
            arms_of: dict[str, list[Arm]] = {"serial": [await turn("serial")], "barriers": [], "ours": []}
            for _ in range(options.rounds):  # they take turns, so that whatever else the machine does hits both
                for way in ("barriers", "ours"):
                    arms_of[way].append(await turn(way))
            if not share:
                stage_seconds = statistics.median(arm.writing for arm in arms_of["barriers"]) / settings.stages
            table[share] = {way: statistics.median(arm.seconds for arm in arms) for way, arms in arms_of.items()} | {
                "latency": slow.latency
            }
            table[share]["ratio"] = statistics.median(
                a.seconds / b.seconds for a, b in zip(arms_of["barriers"], arms_of["ours"])
            )
            print(
                f"judge {slow.latency:5.2f} s: "
                + ", ".join(f"{way} {' '.join(f'{a.seconds:.2f}' for a in arms)} s" for way, arms in arms_of.items()),
                flush=True,
            )
        await judges.close()
        await published_judges.close()
    return table


def compare(options: OverlapOptions) -> str | None:
    """Measure, print."""
    if options.check:
        return planned(options)
    with tempfile.TemporaryDirectory() as scratch:
        model = options.policy or f"{scratch}/policy"
        if not options.policy:
            tiny.write_model(tiny.TinyOptions(out=model))
        table = asyncio.run(measure(model, Path(scratch) / "serve.log", options))
    lengths = f"{options.tokens * (1 - options.spread):.0f} to {options.tokens} tokens"
    print(f"\n{options.users} users x {options.rollouts} summaries a stage, {lengths} each; seconds:")
    print("judge latency  serial (computed)  barriers   ours   barriers/ours   of the latency ours does not hide")
    for row in table.values():
        remainder = (row["ours"] - table[0.0]["ours"]) / row["latency"] if row["latency"] else 0.0
        print(
            f"{row['latency']:13.2f}  {row['serial']:17.1f}  {row['barriers']:8.2f} {row['ours']:6.2f}   "
            f"{row['ratio']:13.2f}   {f'{remainder:.2f} x' if row['latency'] else '-':>6}"
        )
    even_row = table[1.0]
    print(
        json.dumps(
            {
                "name": "rl_overlap",
                "ratio": round(even_row["ratio"], 3),
                "goal": GOAL,
                "ours": round(even_row["ours"], 2),
                "theirs": round(even_row["barriers"], 2),
                "unit": "s a rollout phase, judging as long as writing",
                "n": options.users * options.rollouts * 2,
                "spread": options.spread,
                "ratio_serial": round(even_row["serial"] / even_row["ours"], 1),
                "not_hidden": {
                    share: round((row["ours"] - table[0.0]["ours"]) / row["latency"], 2)
                    for share, row in table.items()
                    if share
                },
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, OverlapOptions, __doc__)
