"""The start of a model server on a CPU: the engine as a fork (alignxplore/serving/forked_vllm.py) against vLLM's own
way, a process that imports everything again.

    python benchmarks/server_start.py            # a tiny model, made here; about a minute a turn on two cores

Both ways take turns. Each starts a server, waits until it answers, and ends it. Memory is what the server's processes
hold, shared pages counted once (PSS). The last line is JSON.
"""

import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one
from alignxplore.processes import members
from alignxplore.serving import server
from alignxplore.world import tiny


@dataclass(kw_only=True)
class StartOptions(Checkable):
    """What is served, how often."""

    model: str | None = option("folder or hub id; default: a tiny one, made here", None)
    turns: int = option("starts of each way", 3)

    def __post_init__(self) -> None:
        at_least_one(self, "turns")


class Start(NamedTuple):
    """A server that answers."""

    seconds: float
    processor_seconds: float
    megabytes: float


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Servers are started by `vllm` itself."""
    forked, executable = server.program, shutil.which("vllm") or "vllm"
    server.program = lambda: [executable]
    try:
        yield
    finally:
        server.program = forked


def start(model: str, log_path: Path) -> Start:
    """Start a server, look at it once it answers, and end it."""
    began = time.monotonic()
    process, url = server.start(model, log_path=log_path, arguments=("--max-model-len", "512"))
    try:
        server.wait_ready(process, url, log_path=log_path)
        seconds, family = time.monotonic() - began, members(process.name)
        times = [member.cpu_times() for member in family]
        return Start(
            seconds,
            sum(spent.user + spent.system for spent in times),
            sum(member.memory_full_info().pss for member in family) / 2**20,
        )
    finally:
        process.end()


def compare(options: StartOptions) -> str | None:
    """Both ways in turns."""
    if options.check:
        return planned(options)
    if not server.on_cpu():
        return "nothing to compare: this is no CPU build of vLLM, whose engine is always a process of its own"
    starts: dict[str, list[Start]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or f"{scratch}/model"
        if not options.model:
            print(tiny.write_model(tiny.TinyOptions(out=model)))
        for turn in range(options.turns):
            for way, how in (("ours", contextlib.nullcontext()), ("theirs", plain())):
                with how:
                    one = start(model, Path(scratch, "serve.log"))
                starts[way].append(one)
                print(
                    f"turn {turn + 1}: {way}: {one.seconds:.1f} s, {one.processor_seconds:.1f} s of processor, "
                    f"{one.megabytes:.0f} MB",
                    flush=True,
                )
    ours, theirs = (
        {name: statistics.median(values) for name, values in zip(Start._fields, zip(*starts[way]))}
        for way in ("ours", "theirs")
    )
    print(
        json.dumps(
            {
                "name": "server_start",
                "ratio": round(theirs["processor_seconds"] / ours["processor_seconds"], 2),
                "goal": 1.4,
                "ours": round(ours["processor_seconds"], 1),
                "theirs": round(theirs["processor_seconds"], 1),
                "unit": "seconds of processor until it answers",
                "n": options.turns,
                "seconds": [round(ours["seconds"], 1), round(theirs["seconds"], 1)],
                "megabytes": [round(ours["megabytes"]), round(theirs["megabytes"])],
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, StartOptions, __doc__)
