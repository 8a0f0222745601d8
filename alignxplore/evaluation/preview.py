"""What `--check` of `eval/gen_preference.py` and `eval/evaluate.py` says of models and files: it starts no server and
asks no endpoint.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from alignxplore.evaluation.benchmarks import Benchmark, BenchmarkFile
from alignxplore.serving.endpoint import Endpoint, is_url
from alignxplore.serving.models import ModelSpec

CONFIGURATIONS = ("config.json", "params.json")  # one of them is in every folder that vLLM can serve


def whereabouts(spec: ModelSpec, api_key_env: str) -> str:
    """Where a model is to come from, in words.

    Args:
        api_key_env: name of the variable with the key of its endpoint; "" where it has none.

    Raises:
        ValueError: neither a model folder nor a hub id nor the URL of an endpoint, or a key that is not there.
    """
    if is_url(spec.target):
        Endpoint(spec.target, spec.served_name, api_key_env=api_key_env)  # looks at what it is given
        model = f", model {spec.served_name}" if spec.served_name else ""
        key = f", key in {api_key_env}" if api_key_env else ""
        return f"endpoint {spec.target}{model}{key}"
    if Path(spec.target).is_dir():
        if not any(Path(spec.target, name).is_file() for name in CONFIGURATIONS):
            raise ValueError(f"'{spec.target}' is no model folder: it holds no {CONFIGURATIONS[0]}")
        return f"folder {spec.target}"
    if not Path(spec.target).exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.target):
        raise ValueError(f"'{spec.target}' is neither a model folder nor a hub id (OWNER/NAME) nor a URL")
    return f"hub model {spec.target}" + (f"@{spec.revision}" if spec.revision else "")


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
