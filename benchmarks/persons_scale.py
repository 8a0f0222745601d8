"""Persons a second and peak memory of writing summaries where the model costs nothing: does the rest grow linearly?

    python benchmarks/persons_scale.py                                      # up to 1,000,000 persons: an hour
    python benchmarks/persons_scale.py --persons 1000 5000 20000            # two minutes
    python benchmarks/persons_scale.py --persons 1000 5000 20000 --shards 2 # two processes, a shard each

For each number of persons it writes a file of histories and runs `eval/gen_preference.py` on it, as anyone runs it.
The endpoint is real HTTP from a process of its own, but answers at once. So what is measured is reading, prompts,
tokens, requests and the journal. Seconds are those of the command as a whole, its start included. Memory is the peak
of one process of it (of shards, the largest), looked at five times a second. The ratio compares persons a second of
processor time: from the last but one size to the last, and from the first to the second. So the start counts in
neither, and other work on the machine hardly moves it. The last line of output is one JSON object.
"""

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import contextlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiohttp import web

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import UserError, at_least_one
from alignxplore.prompts import PromptSet
from alignxplore.serving.server import free_port
from alignxplore.world.tiny import make_tokenizer

ROOT = Path(__file__).resolve().parents[1]
GOAL = "0.8, and no more memory"
NAME = "bench"  # of the benchmark; no data set of the registry
GENRES = ("Action", "Comedy", "Crime", "Drama", "Horror", "Romance", "Sci-Fi", "Western")
ANSWER = "<think>\nThe choices share genres.\n</think>\n\nThis person likes crime and drama of the nineties."


def write_persons(path: Path, persons: int, choices: int) -> None:
    """A benchmark file of simulated persons."""
    dice = random.Random(persons)

    def film() -> str:
        return (
            f"Film number {dice.randrange(20_000)} ({1950 + dice.randrange(70)}): {', '.join(dice.sample(GENRES, 2))}"
        )

    def choice() -> dict:
        return {"query": "Which film?", "chosen": film(), "rejected": film()}

    with path.open("w") as out:
        for number in range(persons):
            row = {"userid": f"u{number}", "history": [choice() for _ in range(choices)], "target": choice()}
            out.write(json.dumps(row) + "\n")


def serve(port: int) -> None:
    """An endpoint that answers at once; a process of its own."""
    reply = {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
        "usage": {"completion_tokens": 24},
    }

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "instant", "root": "instant", "max_model_len": 16384}]})

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(reply)

    app = web.Application(client_max_size=2**24)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    """The address of one, for the length of the block."""
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.join()


@dataclass(frozen=True)
class Written:
    """What the summaries of so many persons took."""

    persons: int
    seconds: float
    cpu: float
    peak_mb: float
    journal_mb: float

    @property
    def rate(self) -> float:
        """Persons a second of wall time."""
        return self.persons / self.seconds


def more_per_second(few: Written, many: Written) -> float:
    """Persons for each second of processor time that the larger one took longer."""
    return (many.persons - few.persons) / max(many.cpu - few.cpu, 1e-9)


def write_summaries(folder: Path, persons: int, url: str, shards: int) -> Written:
    """Run the command, a process a shard; wait for all."""
    out = folder / f"out{persons}"
    command = [
        sys.executable,
        "eval/gen_preference.py",
        "--model",
        f"m={url}#{folder / 'tokenizer'}",
        "--out",
        str(out),
    ]
    command += ["--data", f"{NAME}={folder / f'{persons}.jsonl'}", "--settings", "full", "--max_tokens", "256"]
    start, jobs = time.monotonic(), []
    for shard in range(shards):
        part = ["--shard", f"{shard}/{shards}"] if shards > 1 else []
        with (folder / f"log{persons}.{shard}").open("w") as log:
            jobs.append(psutil.Popen([*command, *part], stdout=log, stderr=log, cwd=ROOT))
    peak, cpu = 0, [0.0] * shards
    while any(job.poll() is None for job in jobs):
        for number, job in enumerate(jobs):
            with contextlib.suppress(psutil.Error):
                times = job.cpu_times()
                peak, cpu[number] = max(peak, job.memory_info().rss), times.user + times.system
        time.sleep(0.2)
    seconds = time.monotonic() - start
    if any(job.returncode for job in jobs):
        raise UserError(f"the command failed: {(folder / f'log{persons}.0').read_text()[-500:]}")
    journals = [path for path in out.rglob("*.jsonl") if path.parent.parent.name == "summaries"]
    lines = sum(1 for path in journals for _ in path.open("rb"))
    if lines != persons:
        raise UserError(f"{lines} summaries of {persons} persons")
    size = sum(path.stat().st_size for path in journals)
    return Written(persons, seconds, sum(cpu), peak / 2**20, size / 2**20)


@dataclass(kw_only=True)
class ScaleOptions(Checkable):
    """How many, and where."""

    persons: list[int] = option("numbers of persons, from few to many", [10_000, 100_000, 1_000_000])
    choices: int = option("choices of each history", 12)
    shards: int = option("processes at once, each with a shard of the persons", 1)
    scratch: str | None = option("where files are written; default: the system's place", None)

    def __post_init__(self) -> None:
        if sorted(self.persons) != self.persons or len(set(self.persons)) < 3 or self.persons[0] < 1:
            raise ValueError("--persons: give three numbers or more, from few to many")
        at_least_one(self, "choices", "shards")


def compare(options: ScaleOptions) -> str | None:
    """Write all sizes, and print what each took."""
    if options.check:
        return planned(options)
    results = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as name, endpoint() as url:
        folder = Path(name)
        make_tokenizer(1, 1024, PromptSet()).save_pretrained(folder / "tokenizer")
        for persons in options.persons:
            write_persons(folder / f"{persons}.jsonl", persons, options.choices)
            result = write_summaries(folder, persons, url, options.shards)
            print(
                f"{persons:,} persons: {result.seconds:.0f} s "
                f"({1000 * result.cpu / persons:.2f} ms of processor a person), "
                f"{result.rate:.0f} persons/s, peak {result.peak_mb:.0f} MB, journal {result.journal_mb:.0f} MB",
                flush=True,
            )
            results.append(result)
    ours, theirs = more_per_second(*results[-2:]), more_per_second(*results[:2])
    print(
        json.dumps(
            {
                "name": "persons_scale",
                "ratio": ours / theirs,
                "goal": GOAL,
                "ours": ours,
                "theirs": theirs,
                "unit": "persons a second of processor time",
                "n": results[-1].persons,
                "peak_mb": {result.persons: round(result.peak_mb) for result in results},
                "persons_per_second": {result.persons: round(result.rate, 1) for result in results},
                "shards": options.shards,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, ScaleOptions, __doc__)
