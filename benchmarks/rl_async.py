"""Seconds of a step of streaming GRPO where a few answers are long: the synchronous trainer against the asynchronous
one, `MODE=async`.

    python benchmarks/rl_async.py                      # two rollout engines on a CPU; about 6 minutes
    python benchmarks/rl_async.py --engines 1 --steps 40

Both are real runs of verl/examples/grpo_trainer/run_streaming_8p.sh: verl, Ray, FSDP2, vLLM. They take turns. A tiny
policy, made here, writes answers whose lengths have a long tail: the number of words is log-normal. The judge is a
local server that answers after a fixed time. The learning rate is so small that lengths stay what they are. The first
two steps of a run are left out; the mean of the others counts, as an asynchronous step that waits long is followed by
one that does not. The last line is JSON.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import torch
from transformers import AutoTokenizer

from alignxplore.command import Checkable, option, planned, run
from alignxplore.environment import ROOT
from alignxplore.errors import UserError
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, write_jsonl
from alignxplore.rl.rows import RowOptions, convert
from alignxplore.world import tiny
from alignxplore.world.users import draw_stream, draw_user

GOAL = 1.3
MODES = ("sync", "async")
LEFT_OUT = 2  # steps of each run: an asynchronous one is in full swing from its third on
WORDS = ("rain", "snow", "sun", "wind", "fog")


@dataclass(kw_only=True)
class AsyncOptions(Checkable):
    """Sizes of a step, and how long answers are."""

    engines: int = option("rollout engines, and as many training ranks", 2)
    users: int = option("users a step", 16)
    rollouts: int = option("summaries a user and stage", 4)
    tokens: int = option("the longest answer", 320)
    median: int = option("words of half the answers, at most", 12)
    sigma: float = option("spread of the words' logarithm (1.0: one of 100 has ten times the median)", 1.0)
    steps: int = option("steps of a run", 20)
    turns: int = option("runs of each mode", 2)
    latency: float = option("seconds that the judge takes", 0.1)

    def __post_init__(self) -> None:
        if self.steps <= LEFT_OUT:
            raise ValueError(f"--steps {self.steps}: the first {LEFT_OUT} of a run are left out, so it needs more")


def answer(options: AsyncOptions, rng: random.Random) -> str:
    """Of a log-normal number of words."""
    count = min(options.tokens // 2, round(options.median * rng.lognormvariate(0, options.sigma)) + 1)
    return f"<think>\n{' '.join(rng.choices(WORDS, k=count))}\n</think>\n\n{rng.choice(WORDS)}<|im_end|>"


def write_policy(folder: Path, options: AsyncOptions, histories: Sequence[Sequence[Interaction]]) -> None:
    """A Qwen3 of some 0.2 M parameters that has learnt to write such answers, in about half a minute."""
    prompts, rng = PromptSet(), random.Random(1)
    tokenizer = tiny.make_tokenizer(1, 800, prompts)
    model = tiny.make_model(tokenizer, 1, 64, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps = 300
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / steps)
        rows = []
        for history in rng.sample(list(histories), 8):
            prompt = tokenizer.apply_chat_template(
                prompts.infer(history[:3], None), add_generation_prompt=True, tokenize=True, return_dict=False
            )
            rows.append((list(prompt), tokenizer.encode(answer(options, rng), add_special_tokens=False)))
        width = max(len(prompt) + len(ids) for prompt, ids in rows)
        ids = torch.tensor([p + a + [0] * (width - len(p) - len(a)) for p, a in rows])
        labels = torch.tensor([[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in rows])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(folder: Path, users: int) -> list[list[Interaction]]:
    """RL rows of simulated users, seven interactions each; returns their histories."""
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
    return histories


async def train(folder: Path, mode: str, turn: int, judge: str, options: AsyncOptions) -> list[float]:
    """Seconds of each step of one run, of those that count."""
    out = folder / f"{mode}{turn}"
    variables = {
        "PRESET": "tiny",
        "MODE": mode,
        "MODEL": str(folder / "policy"),
        "TRAIN": str(folder / "train.parquet"),
        "VAL": str(folder / "val.parquet"),
        "JUDGES": f"slow={judge}",
        "OUT": str(out),
        "GPUS": str(options.engines),
        "BATCH": str(options.users),
        "MINI_BATCH": str(options.users),
        "ROLLOUTS": str(options.rollouts),
        "PROMPT_LENGTH": "512",
        "RESPONSE_LENGTH": str(options.tokens),
        "STEPS": str(options.steps),
        "SAVE_EVERY": str(options.steps),
        "TEST_EVERY": "-1",
        "LR": "1e-9",
        "LOGGER": "[console]",
        "PYTHON": sys.executable,
    }
    script = ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(script),
        "trainer.val_before_train=false",
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise UserError(f"{mode}: the run ended with code {process.returncode}: {output.decode()[-2000:]}")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][LEFT_OUT:]
    seconds = [row["timing_s/step"] for row in rows]
    print(
        f"{mode:5} {statistics.fmean(seconds):6.2f} s a step, of which writing "
        f"{statistics.fmean(row['timing_s/gen'] for row in rows):5.2f}; "
        f"{statistics.mean(row['response_length/mean'] for row in rows):.0f} tokens an answer, the longest "
        f"{max(row['response_length/max'] for row in rows):.0f}; "
        f"{100 * statistics.mean(row['training/off_policy/trajectory_staleness_worst/mean'] for row in rows):.0f} % "
        "begun with older weights",
        flush=True,
    )
    return seconds


async def measure(folder: Path, options: AsyncOptions) -> dict[str, list[list[float]]]:
    """Seconds of the steps of each run, by mode."""
    from rl_overlap import SlowJudge  # beside this script, which is on the path only where it is run

    judge = SlowJudge(str(folder / "policy"), AutoTokenizer.from_pretrained(folder / "policy"))
    judge.latency = options.latency
    seconds: dict[str, list[list[float]]] = {mode: [] for mode in MODES}
    async with judge.serve() as url:
        for turn in range(options.turns):
            for mode in MODES:
                seconds[mode].append(await train(folder, mode, turn, url, options))
    return seconds


def compare(options: AsyncOptions) -> str | None:
    """Make policy and rows, train in turns, print."""
    if options.check:
        return planned(options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_policy(folder / "policy", options, write_rows(folder, 4 * options.users + 4))
        seconds = asyncio.run(measure(folder, options))
    sync, late = (statistics.fmean(sum(seconds[mode], [])) for mode in MODES)
    return json.dumps(
        {
            "name": "rl_async",
            "ratio": round(sync / late, 3),
            "goal": GOAL,
            "ours": round(60 / late, 2),
            "theirs": round(60 / sync, 2),
            "unit": "steps a minute",
            "n": len(sum(seconds["async"], [])),
            "engines": options.engines,
            "ratio_of_turns": [
                round(statistics.fmean(a) / statistics.fmean(b), 3) for a, b in zip(seconds["sync"], seconds["async"])
            ],
        }
    )


if __name__ == "__main__":
    run(compare, AsyncOptions, __doc__)
