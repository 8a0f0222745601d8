"""What `--check` of `eval/gen_preference.py` and `eval/evaluate.py` says of files."""

import re
from collections.abc import Iterable
from pathlib import Path

from alignxplore.evaluation.benchmarks import Benchmark, BenchmarkFile


def sizes(benchmarks: Iterable[BenchmarkFile | Benchmark]) -> list[str]:
    """One line a benchmark: how many users it has, and how many of them could copy the target from the history."""
    return [
        "{}: {} users, {} with the target in the history".format(benchmark.name, *benchmark.sizes)
        for benchmark in benchmarks
    ]


def not_there(data: Iterable[str]) -> list[str]:
    """Files and folders of `--data` that are not there (yet); a data set on the hub is never among them."""
    specs = [spec for spec in data if not Path(spec).exists()]  # an existing path is one, whatever signs it has
    places = [(spec, spec.partition("=")[2] if "=" in spec else spec) for spec in specs]
    return [
        path
        for spec, path in places
        if not Path(path).exists() and ("=" in spec or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[^/]+)?", path))
    ]
