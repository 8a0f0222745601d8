"""Judgements per second of our judge, against the published way and against the most that the same server gives to
anybody.

    python benchmarks/judge_throughput.py                        # a tiny judge, made here; about 2 minutes on a CPU
    python benchmarks/judge_throughput.py --judge Qwen/Qwen3-8B  # any model that vLLM serves here

A judgement is one scored order of two items. Three ways take turns on one server, each with questions it has never
seen:

    theirs    as the published reward does it: one after another, the list of models asked each time, 16 sampled tokens
              with log-probabilities; the connection stays open, which is kinder than the published client
    ours      alignxplore/judging/letters.py: prefilled, one token, many in flight
    ceiling   the same prompts as token ids to /v1/completions, one token and nothing read, by a bare client with as
              many in flight

A tiny judge is not trained: speed does not depend on what it says. The published way is also run with as many tokens
as the JSON answer has, where a trained judge would stop. The last line is JSON.
"""

import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import aiohttp
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.server import serve
from alignxplore.world import tiny
from alignxplore.world.users import draw_choice, draw_user, render_summary

GOAL, GOAL_OF_CEILING = 8.0, 0.85
PUBLISHED_TOKENS = 16


@dataclass(kw_only=True)
class ThroughputOptions(Checkable):
    """Which judge, how often."""

    judge: str | None = option("folder or Hub id of the judge; default: a tiny one, made here", None)
    rounds: int = option("rounds after the warm-up", 8)
    questions: int = option("questions a round, two judgements each", 64)
    serial: int = option("judgements a round of the published way", 8)
    concurrency: int = option("requests in flight", 64)
    summary_tokens: int = option("length of a summary", 200)

    def __post_init__(self) -> None:
        at_least_one(self, "rounds", "questions", "serial", "concurrency", "summary_tokens")


class Question(NamedTuple):
    """A summary and the two items that it is judged by."""

    summary: str
    item: Interaction


def make_questions(tokenizer: PreTrainedTokenizerBase, tokens: int) -> Iterator[Question]:
    """Endless questions of the simulated world; summaries of several users are joined to about `tokens` tokens."""
    for number in itertools.count():
        rng, summary = random.Random(hash_seed("judge throughput", number)), ""
        while len(tokenizer.encode(summary, add_special_tokens=False)) < tokens:
            user = draw_user(1, "throughput", rng.randrange(10**9))
            summary += render_summary(user.late, rng) + "\n"
        yield Question(summary.rstrip(), draw_choice(user.late, "films", rng).interaction)


def orders(prompts: PromptSet, questions: Sequence[Question]) -> list[Messages]:
    """Both orders of each question."""
    pairs = [
        (s, a, b) for s, item in questions for a, b in ((item.chosen, item.rejected), (item.rejected, item.chosen))
    ]
    return [prompts.judge(summary, None, a, b) for summary, a, b in pairs]


async def post(session: aiohttp.ClientSession, url: str, body: dict) -> dict:
    """The reply to a request that must succeed."""
    async with session.post(url, json=body) as reply:
        reply.raise_for_status()
        return await reply.json()


async def published(url: str, model: str, prompts: Sequence[Messages], tokens: int) -> float:
    """Judgements per second of the published way, with answers of `tokens` tokens."""
    async with aiohttp.ClientSession() as session:
        began = time.monotonic()
        for messages in prompts:
            async with session.get(url + "/models") as reply:
                await reply.json()
            await post(
                session,
                url + "/chat/completions",
                {
                    "model": model,
                    "messages": messages,
                    "max_tokens": tokens,
                    "logprobs": True,
                    "top_logprobs": 1,
                    "chat_template_kwargs": {"enable_thinking": False},
                },
            )
        return len(prompts) / (time.monotonic() - began)


async def ours(judge: Judge, questions: Sequence[Question]) -> float:
    """Judgements per second of alignxplore/judging/letters.py, both orders of each question."""
    began = time.monotonic()
    judgements = await asyncio.gather(*(judge.score(q.summary, q.item, i) for i, q in enumerate(questions)))
    seconds = time.monotonic() - began
    if failure := next((j for j in judgements if not j.ok), None):
        raise SystemExit(f"a judgement failed ({failure.status}: {failure.error}); see the server's log")
    return sum(len(j.orders) for j in judgements) / seconds


async def ceiling(url: str, model: str, prompts_ids: Sequence[list[int]], concurrency: int) -> float:
    """Requests per second of a bare client: token ids in, one token out."""
    queue = iter(prompts_ids)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for ids in queue:
                await post(
                    session, url + "/completions", {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0}
                )

        began = time.monotonic()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        return len(prompts_ids) / (time.monotonic() - began)


async def measure(model: str, log_path: Path, options: ThroughputOptions) -> dict[str, list[float]]:
    """Serve the judge: judgements per second of each way, one figure a round."""
    tokenizer, prompts = AutoTokenizer.from_pretrained(model), PromptSet()
    stream = make_questions(tokenizer, options.summary_tokens)
    rates: dict[str, list[float]] = {"theirs": [], "theirs, short": [], "ours": [], "ceiling": []}

    def questions(count: int) -> list[Question]:
        return list(itertools.islice(stream, count))

    async with (
        serve(model, log_path=log_path, arguments=["--max-model-len", "2048"]) as url,
        Endpoint(url, concurrency=options.concurrency) as endpoint,
    ):
        judge = Judge(endpoint, tokenizer, prompts)
        answer = len(tokenizer.encode('{"selection": "Item A"}', add_special_tokens=False)) + 1
        for number in range(options.rounds + 1):
            serial = [orders(prompts, questions(options.serial)) for _ in range(2)]
            batch, orders_of_batch = questions(options.questions), orders(prompts, questions(options.questions))
            tail = {"role": "assistant", "content": find_letters(tokenizer).prefill}
            ids = [
                tokenizer.apply_chat_template(
                    [*m, tail], continue_final_message=True, enable_thinking=False, tokenize=True, return_dict=False
                )
                for m in orders_of_batch
            ]
            if number == 0:  # the first requests of a server are slow
                print(
                    f"{sum(map(len, ids)) / len(ids):.0f} tokens a prompt, {len(ids)} judgements a round, "
                    f"{options.concurrency} in flight; the published way: {len(serial[0][::2])} judgements a round, "
                    f"an answer has {answer} tokens",
                    flush=True,
                )
            rates_of_round = {
                "theirs": await published(url, endpoint.model, serial[0][::2], PUBLISHED_TOKENS),
                "ours": await ours(judge, batch),
                "theirs, short": await published(url, endpoint.model, serial[1][::2], answer),
                "ceiling": await ceiling(url, endpoint.model, ids, options.concurrency),
            }
            print(
                f"{f'round {number}' if number else 'warm-up'}: "
                + ", ".join(f"{k} {v:.1f}/s" for k, v in rates_of_round.items()),
                flush=True,
            )
            for way, rate in rates_of_round.items():
                rates[way] += [rate] * bool(number)
    return rates


def compare(options: ThroughputOptions) -> str | None:
    """Measure, print."""
    if options.check:
        return planned(options)
    with tempfile.TemporaryDirectory() as scratch:
        model = options.judge or f"{scratch}/judge"
        if not options.judge:
            tiny.write_model(tiny.TinyOptions(out=model, seed=2))
        rates = asyncio.run(measure(model, Path(scratch) / "serve.log", options))
    median = {way: statistics.median(values) for way, values in rates.items()}
    share = statistics.median(a / b for a, b in zip(rates["ours"], rates["ceiling"]))
    ratio, short_ratio = median["ours"] / median["theirs"], median["ours"] / median["theirs, short"]
    print(
        f"ours {median['ours']:.1f}/s: {ratio:.1f} x published (goal {GOAL:.0f}; {short_ratio:.1f} x where its "
        f"answers end with the JSON), {100 * share:.0f} % of the ceiling of {median['ceiling']:.1f}/s "
        f"(goal {100 * GOAL_OF_CEILING:.0f} %)"
    )
    print(
        json.dumps(
            {
                "name": "judge_throughput",
                "ratio": round(ratio, 2),
                "goal": GOAL,
                "ours": round(median["ours"], 2),
                "theirs": round(median["theirs"], 2),
                "unit": "judgements/s",
                "n": options.rounds * options.questions * 2,
                "ratio_short_answers": round(short_ratio, 2),
                "ceiling": round(median["ceiling"], 2),
                "share_of_ceiling": round(share, 3),
                "goal_share_of_ceiling": GOAL_OF_CEILING,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, ThroughputOptions, __doc__)
