"""A page in the browser: watch a summary being written, see what it rests on, change it, and see who chooses what.

    python -m alignxplore.demo                                   after ./quickstart.sh; then open the address it prints
    python -m alignxplore.demo --model a=DIR b=DIR --judge http://host:8000/v1 --data mine_upi.jsonl

Folders and hub ids are served here by `vllm serve` and end with the page (Ctrl-C); an endpoint is used as it is.
It listens on this machine alone unless --host says otherwise; nobody is asked for a password. Nothing is fetched from
the internet, nothing is sent there, and what is typed is not stored.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alignxplore.ask.finished import RUN, Finished, reads_genres
from alignxplore.ask.models import ModelOptions, opened, places
from alignxplore.command import option, planned, run
from alignxplore.demo.page import Demo
from alignxplore.demo.site import application, serve
from alignxplore.errors import check_port
from alignxplore.evaluation.benchmarks import Benchmark, load_benchmark
from alignxplore.films.titles import REQUEST, complete
from alignxplore.serving.models import ModelSpec, parse_all
from alignxplore.serving.server import ServerError, taken

LOOPBACK = "127.0.0.1"


@dataclass(kw_only=True)
class DemoOptions(ModelOptions):
    """Which models, whose histories, where."""

    model: list[str] = option("policies as NAME=TARGET; default: those of --run", [])
    judge: list[str] = option("downstream models as NAME=TARGET; default: those of --run", [])
    data: str | None = option("benchmark file whose persons can be chosen; default: that of --run", None)
    run: Path = option("folder of a finished quick start, for what is not given", RUN)
    host: str = option("address to listen at; 0.0.0.0 lets everybody in who can reach this machine", LOOPBACK)
    port: int = option("port of the page", 7860)
    logs: Path = option("what the servers say goes there", Path("outputs/demo"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_port(self.port, least=1)


class Parts(NamedTuple):
    """What the page is made of. `of_films`: some of its models are the quick start's."""

    policies: list[ModelSpec]
    judges: list[ModelSpec]
    benchmark: Benchmark
    of_films: bool


def parts_of(options: DemoOptions) -> Parts:
    """What the options leave out is that of the finished run."""
    policies, judges, data = options.model, options.judge, options.data
    if not policies or not judges or not data:
        finished_run = Finished.read(options.run)
        policies, judges = policies or list(finished_run.policies), judges or list(finished_run.judges)
        data = data or str(finished_run.benchmark)
    benchmark = load_benchmark(data)
    policy_specs, judge_specs = parse_all(policies), parse_all(judges)
    return Parts(policy_specs, judge_specs, benchmark, any(map(reads_genres, (*policy_specs, *judge_specs))))


async def show(options: DemoOptions) -> str | None:
    """Open the models, then serve the page until Ctrl-C."""
    policies, judges, benchmark, of_films = parts_of(options)
    names = ", ".join(spec.name for spec in (*policies, *judges))
    if problem := taken(options.host, options.port):
        raise ServerError(f"{problem}; choose another --port")
    if options.check:
        return planned(options, *places((*policies, *judges), options), f"persons: {len(benchmark.records)}")
    print(f"Starting {names} ...", flush=True)
    async with opened(policies, judges, options) as (writers, choosers):
        film_arguments = (complete, REQUEST) if of_films else ()
        page = Demo(writers, choosers, benchmark, *film_arguments)
        await serve(application(page), options.host, options.port)
    return None


if __name__ == "__main__":
    run(show, DemoOptions, __doc__)
