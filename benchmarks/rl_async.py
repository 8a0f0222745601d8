"""Steps a minute of streaming GRPO where a few answers are long: the synchronous trainer against the asynchronous one.
Writing takes seeded delays instead of processor time.

    python benchmarks/rl_async.py                      # about 6 minutes on two cores
    python benchmarks/rl_async.py --spread 0.5 --token 1e-6

Both are runs of verl/examples/grpo_trainer/run_streaming_8p.sh, and they take turns. Real are the trainers, verl,
Ray, the streams, FSDP2's updates of a tiny policy, the sending of weights, and the HTTP of the judge. Simulated is the
rollout engine (benchmarks/simulated_engine.py). The lengths of answers are log-normal. An answer takes its length
times a step of decoding, and it is stopped and gone on with for new weights. The judge answers after a fixed time. All
of this is assumed, and printed; the seconds of training are what this machine takes.

The first two steps of a run are left out, and the mean of the others counts. An asynchronous step that waits long is
followed by one that does not. Beside what was measured stand two figures: what alignxplore/rl/step_model.py foretells
from the same delays, and the bound. A user's stream has the time of two steps to be written in. So no trainer that is
one step behind waits for less than half of what a synchronous one does. The last line is JSON.
"""

import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import numpy as np
from aiohttp import web
from transformers import AutoTokenizer

from alignxplore.command import Checkable, option, planned, run
from alignxplore.environment import ROOT
from alignxplore.errors import UserError, above_zero, at_least_one, not_negative
from alignxplore.prompts import PromptSet
from alignxplore.records import hash_seed, write_jsonl
from alignxplore.rl.rows import RowOptions, convert
from alignxplore.rl.step_model import Engine, a_step_behind
from alignxplore.world import tiny
from alignxplore.world.users import draw_stream, draw_user

if TYPE_CHECKING:
    from rl_overlap import SlowJudge

GOAL = 1.3
MODES = ("sync", "async")
LEFT_OUT = 2  # steps of each run: an asynchronous one is in full swing from its third on
TRIALS = 20  # steps that the step model draws
DELAYS = ("median", "spread", "slots", "weights", "token", "prompt")


@dataclass(kw_only=True)
class AsyncOptions(Checkable):
    """Sizes of a step, and the delays. The engine's are in the proportions of two H100s that write with an 8B."""

    users: int = option("users a step", 16)
    rollouts: int = option("summaries a user and stage", 4)
    longest: int = option("tokens of an answer, at most", 320)
    median: int = option("tokens of half the answers, at most", 40)
    spread: float = option("of the logarithm of an answer's tokens (1.0: one of 100 has ten times the median)", 1.0)
    slots: int = option("answers that the engine writes at once, at most", 256)
    weights: float = option("seconds of a decoding step, each of which gives an answer one token", 0.01)
    token: float = option("seconds that a step takes longer for each token in the cache", 5e-8)
    prompt: float = option("seconds of reading one token of a prompt", 3e-5)
    latency: float = option("seconds that the judge takes", 0.1)
    steps: int = option("steps of a run", 14)
    turns: int = option("runs of each mode", 2)

    def __post_init__(self) -> None:
        at_least_one(self, "users", "rollouts", "longest", "median", "slots", "turns")
        above_zero(self, "weights")
        not_negative(self, "spread", "token", "prompt", "latency")
        if self.steps <= LEFT_OUT:
            raise ValueError(f"--steps {self.steps}: the first {LEFT_OUT} of a run are left out, so it needs more")


def seeded_judge(model: Path) -> "SlowJudge":
    """A judge whose confidence is a hash of the question, so that summaries of a group earn different rewards."""
    from rl_overlap import SlowJudge  # a neighbour, which is found when Python starts this script

    class SeededJudge(SlowJudge):
        async def _chat(self, request: web.Request) -> web.Response:
            return await self.reply(0.2 + 0.6 * (hash_seed(await request.text()) % 1000) / 1000)

    return SeededJudge(str(model), AutoTokenizer.from_pretrained(model))


def write_policy(folder: Path) -> None:
    """A Qwen3 of some 0.2 M parameters whose last layer is zero, as the simulated engine needs it."""
    tokenizer = tiny.make_tokenizer(1, 800, PromptSet())
    model = tiny.make_model(tokenizer, 1, 64, 2)
    model.lm_head.weight = type(model.lm_head.weight)(model.lm_head.weight.detach() * 0)
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(folder: Path, users: int) -> None:
    """RL rows of simulated users, seven interactions each."""
    histories = [
        [choice.interaction for choice in draw_stream(draw_user(1, "async", i), "films", 7, 3, 1)]
        for i in range(users)
    ]
    rows = [
        {"uid": f"u{i}", "history": [asdict(x) for x in history], "mid_position": 3}
        for i, history in enumerate(histories)
    ]
    write_jsonl(folder / "rl.jsonl", rows)
    train, held_out = str(folder / "train.parquet"), str(folder / "val.parquet")
    convert(RowOptions(data=str(folder / "rl.jsonl"), out=train, val_out=held_out, val_users=4))


async def train(folder: Path, mode: str, turn: int, judge: str, options: AsyncOptions) -> list[dict]:
    """One run: its rows of metrics.jsonl that count."""
    out = folder / f"{mode}{turn}"
    variables = {
        "PRESET": "tiny",
        "MODE": mode,
        "MODEL": str(folder / "policy"),
        "TRAIN": str(folder / "train.parquet"),
        "VAL": str(folder / "val.parquet"),
        "JUDGES": f"slow={judge}",
        "OUT": str(out),
        "BATCH": str(options.users),
        "MINI_BATCH": str(options.users),
        "ROLLOUTS": str(options.rollouts),
        "PROMPT_LENGTH": "768",
        "RESPONSE_LENGTH": str(options.longest),
        "STEPS": str(options.steps),
        "SAVE_EVERY": str(options.steps),
        "TEST_EVERY": "-1",
        "LR": "1e-9",  # probabilities stay what the engine says that they are
        "LOGGER": "[console]",
        "PYTHON": sys.executable,
        "VERL_USE_EXTERNAL_MODULES": "simulated_engine",
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    delays = ",".join(f"{name}:{getattr(options, name)}" for name in DELAYS)
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"),
        "trainer.val_before_train=false",
        "actor_rollout_ref.rollout.name=simulated",
        f"+actor_rollout_ref.rollout.engine_kwargs.simulated={{{delays}}}",
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise UserError(f"{mode}: the run ended with code {process.returncode}: {output.decode()[-2000:]}")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][LEFT_OUT:]
    print(parts(mode, rows), flush=True)
    return rows


def mean(rows: Sequence[dict], *names: str) -> float:
    """Of the sum of these metrics."""
    return statistics.fmean(sum(row[name] for name in names) for row in rows)


def parts(mode: str, rows: Sequence[dict]) -> str:
    """Where the time of a run's steps went."""
    step, waited = mean(rows, "timing_s/step"), mean(rows, "timing_s/gen")
    trained = mean(rows, "timing_s/old_log_prob", "timing_s/update_actor")
    return (
        f"{mode:5} {step:5.2f} s a step: {waited:5.2f} waiting for rollouts, {trained:4.2f} training, "
        f"{step - waited - trained:4.2f} all else; a stream takes {mean(rows, 'chain_seconds'):.2f} s on average; "
        f"{mean(rows, 'response_length/mean'):.0f} tokens an answer, the longest "
        f"{max(row['response_length/max'] for row in rows):.0f}; begun with older weights "
        f"{100 * mean(rows, 'training/off_policy/trajectory_staleness_worst/mean'):.0f} %, gone on with "
        f"{100 * (mean(rows, 'training/off_policy/trajectory_spans/mean') - 1):.0f} %"
    )


async def measure(folder: Path, options: AsyncOptions) -> dict[str, list[list[dict]]]:
    """The runs of each mode."""
    judge = seeded_judge(folder / "policy")
    judge.latency = options.latency
    runs: dict[str, list[list[dict]]] = {mode: [] for mode in MODES}
    async with judge.serve() as url:
        for turn in range(options.turns):
            for mode in MODES:
                runs[mode].append(await train(folder, mode, turn, url, options))
    return runs


def foretold(options: AsyncOptions, prompt: float) -> tuple[float, float]:
    """Seconds in which a step waits for rollouts, synchronous and a step behind, by the step model.

    Args:
        prompt: mean tokens of a prompt.
    """
    engine = Engine(options.slots, math.inf, options.weights, options.token, options.prompt)
    rng = np.random.default_rng(hash_seed("rl async"))
    alone, behind = [], []
    for _ in range(TRIALS):
        tokens = options.median * rng.lognormal(0, options.spread, (2 * options.users, 2, options.rollouts))
        answers = np.clip(tokens, 1, options.longest).astype(int)
        prompts = np.full(answers.shape[:2], round(prompt))
        one, two = (engine.write(prompts[:users], answers[:users])[0] for users in (options.users, 2 * options.users))
        alone.append(one + options.latency)
        behind.append(a_step_behind(one + options.latency, two + options.latency))
    return statistics.fmean(alone), statistics.fmean(behind)


def compare(options: AsyncOptions) -> str | None:
    """Make policy and rows, train in turns, print."""
    if options.check:
        return planned(options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_policy(folder / "policy")
        write_rows(folder, 4 * options.users + 4)
        print(planned(options).rpartition("\n")[0], flush=True)
        runs = asyncio.run(measure(folder, options))
    rows = {mode: sum(runs[mode], []) for mode in MODES}
    sync, late = (mean(rows[mode], "timing_s/step") for mode in MODES)
    waited = mean(rows["sync"], "timing_s/gen")
    alone, behind = foretold(options, mean(rows["sync"], "prompt_length/mean"))
    print(
        f"foretold by the step model: waiting {alone:.2f} s a synchronous step and {behind:.2f} one step behind, so "
        f"{(alone + sync - waited) / (behind + sync - waited):.2f}; at most {sync / (sync - waited / 2):.2f}, "
        "with half of the waiting"
    )
    print(
        json.dumps(
            {
                "name": "rl_async",
                "ratio": round(sync / late, 3),
                "goal": GOAL,
                "ours": round(60 / late, 2),
                "theirs": round(60 / sync, 2),
                "unit": "steps a minute, seeded delays in the place of writing",
                "n": len(rows["async"]),
                "ratio_of_turns": [
                    round(mean(a, "timing_s/step") / mean(b, "timing_s/step"), 3)
                    for a, b in zip(runs["sync"], runs["async"])
                ],
                "foretold": round((alone + sync - waited) / (behind + sync - waited), 3),
                "bound": round(sync / (sync - waited / 2), 3),
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, AsyncOptions, __doc__)
