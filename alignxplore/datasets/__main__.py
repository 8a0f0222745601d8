"""Benchmarks from raw files.

    python -m alignxplore.datasets list                       the data sets, their tasks and terms
    python -m alignxplore.datasets describe movielens         raw files it reads, protocols, the published options
    python -m alignxplore.datasets build movielens --raw ml-32m --out movielens_upi.jsonl --split test --users 3000

`build` writes three files: `*.popularity.jsonl` (for recommendation sets: how many other users took each of the
target's items; the popularity baseline reads it), `*.build.json` (options, what was read, kept and dropped, and the
content's hash) and, last, the benchmark (one user a line, as `eval/` and `sft/` read it), which never stands without
the other two. The same raw files, options and seed give the same bytes on any machine.
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from alignxplore.datasets import DATASETS, Dataset, get
from alignxplore.datasets.building import Example, Job, take
from alignxplore.datasets.sidecars import manifest_path, popularity_path, popularity_row, sha256
from alignxplore.records import user_row, write_json, write_jsonl


def build(job: Job, out: Path) -> dict:
    """Build one benchmark; returns what `*.build.json` holds. An earlier build stands whole until all of the new one
    is written."""
    if job.dataset.module is None:
        raise ValueError(f"{job.dataset.name} is simulated: python -m alignxplore.world writes it")
    out.parent.mkdir(parents=True, exist_ok=True)
    job.scratch = job.scratch or out.parent
    manifest, popularity = manifest_path(out), popularity_path(out)
    aside, beside_it = (path.with_name(f".{path.name}.{os.getpid()}.partial") for path in (out, popularity))
    module = importlib.import_module(f"alignxplore.datasets.{job.dataset.module}")
    start = time.monotonic()
    try:
        with beside_it.open("w", encoding="utf-8") as beside:
            write_jsonl(aside, _rows(take(module.build(job), job), beside))
            wrote_popularity = beside.tell() > 0
        options = {name: getattr(job, name) for name in ("protocol", "min_interactions", "users", "split", "seed")}
        result = {
            "dataset": job.dataset.name,
            "edition": job.edition,
            **options,
            "counts": dict(job.counts),
            "sha256": sha256(aside),
        }
        for earlier in (
            out,
            manifest,
            popularity,
        ):  # the benchmark first: without its manifest it could pass for another one
            earlier.unlink(missing_ok=True)
        if wrote_popularity:
            os.replace(beside_it, popularity)
        write_json(manifest, result)
        os.replace(aside, out)
    finally:
        for path in (aside, beside_it):
            path.unlink(missing_ok=True)
    return result | {"seconds": time.monotonic() - start}


def _rows(examples: Iterator[Example], beside: TextIO) -> Iterator[dict]:
    for record, popularity in examples:
        if popularity is not None:
            beside.write(json.dumps(popularity_row(record.user, popularity)) + "\n")
        yield user_row(record)


def describe(dataset: Dataset) -> str:
    """What the project knows about a data set, for reading."""
    layouts = "\n".join(f"    {layout}" for layout in dataset.layouts) or "    simulated: python -m alignxplore.world"
    published = dataset.published or "the defaults"
    if not dataset.public:
        published = f"cannot be built: how it was made of the raw files is not public (nearest: {published})"
    return textwrap.dedent("""\
        {name}: column "{column}" of the paper's tables, task {task}{domain}
          default query     {default_query}
          raw files (--raw)
        {layouts}
          terms             {terms}
          protocols         {protocols}
          min interactions  {min_interactions}
          as published      {published}""").format(
        **dataclasses.asdict(dataset)
        | {
            "layouts": layouts,
            "protocols": ", ".join(dataset.protocols),
            "published": published,
            "domain": ", in-domain" if dataset.in_domain else "",
        }
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignxplore.datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all data sets")
    about = commands.add_parser("describe", help="one data set: raw files, terms, protocols")
    about.add_argument("name", choices=DATASETS, metavar="NAME")
    make = commands.add_parser(
        "build", help="raw files → benchmark file", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    make.add_argument(
        "name",
        choices=[name for name, dataset in DATASETS.items() if dataset.module],
        metavar="NAME",
        help="one of: %(choices)s",
    )
    make.add_argument(
        "--raw", required=True, type=Path, metavar="DIR", help="folder of the official files, any layout"
    )
    make.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="benchmark file to write, e.g. movielens_upi.jsonl"
    )
    make.add_argument(
        "--protocol",
        default="published",
        help="where rejected items come from. published: as in the paper's benchmark; matched: as popular "
        "(answers: as long) as the chosen one, so that this gives nothing away; what has no match is dropped; "
        "reviewed (amazon): any item that somebody reviewed",
    )
    make.add_argument(
        "--min-interactions",
        type=int,
        metavar="N",
        help="keep users with at least N that have an alternative, the target included (none: the published value, see describe)",
    )
    make.add_argument("--users", type=int, metavar="N", help="a sample of N users, drawn by seed (none: all)")
    make.add_argument(
        "--split",
        default="all",
        choices=["all", "train", "test"],
        help="one user in five is a test user, the same for every seed",
    )
    make.add_argument("--seed", type=int, default=42, help="of sampled users and rejected items")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.command == "list":
        for name, dataset in DATASETS.items():
            print(
                f"{name:20} {dataset.column or '-':10} {dataset.task:15} {dataset.terms or 'simulated by this project'}"
            )
        return 0
    if options.command == "describe":
        print(describe(get(options.name)))
        return 0
    try:
        if not options.raw.is_dir():
            raise FileNotFoundError(f"{options.raw}: no such folder")
        job = Job(
            get(options.name),
            options.raw,
            options.protocol,
            options.min_interactions,
            options.users,
            options.split,
            options.seed,
            progress=sys.stderr.isatty(),
        )
        result = build(job, options.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for what, count in result["counts"].items():
        print(f"{count:>12,}  {what}")
    print(f"{options.out}: sha256 {result['sha256'][:16]}, {result['seconds']:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
