"""What a report's folder holds beside results and scores: run.json, which says what made the numbers, and
samples.jsonl. Each is read whole and in the form that evaluate.py writes, or refused by file, line and field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from alignxplore.evaluation.rows import REMEDY, checked, rows_of
from alignxplore.records import read_json

RUN, SAMPLES = "run.json", "samples.jsonl"


class _Partial(TypedDict):
    """A JSON object with more fields than are asked for."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)  # type: ignore[misc]


class _Built(_Partial):
    edition: str | None
    protocol: str
    min_interactions: int | None
    split: str | None
    taken_out: int


class _Benchmark(_Partial):
    n: int
    target_in_history: int
    built: NotRequired[_Built | None]
    hub: NotRequired[str | None]


class _Set(_Partial):
    """How the summaries of one benchmark, setting and seed were made."""

    identity: str
    prompt_hash: str
    stages: int
    window: int | None
    sampling: dict[str, int | float | str | None]
    not_sent: NotRequired[list[str]]
    prompt_set: NotRequired[str]


class _Policy(_Partial):
    identity: str
    prompt: NotRequired[str | None]
    sets: NotRequired[dict[str, _Set]]


class _Judge(_Partial):
    identity: str
    format: str
    answer_tokens: NotRequired[int | None]
    not_sent: NotRequired[list[str]]


class _Names(TypedDict):
    judges: dict[str, str | None]
    policies: dict[str, str | None]


class _Run(_Partial):
    arguments: NotRequired[dict[str, Any]]
    benchmarks: dict[str, _Benchmark]
    judges: dict[str, _Judge]
    policies: dict[str, _Policy]
    prompt_hashes: dict[str, str]
    versions: dict[str, str | None]
    commit: str | None
    published_names: NotRequired[_Names]


class _Interaction(_Partial):
    chosen: Any
    rejected: Any


class _Stage(_Partial):
    summary: str
    problem: str | None
    dropped: int
    reasoning: NotRequired[str]
    text: NotRequired[str]
    prompt: NotRequired[int]


class _Written(_Partial):
    policy: str
    setting: str
    seed: int
    stages: list[_Stage]


class _Asked(_Partial):
    policy: str
    setting: str
    seed: int
    judge: str
    protocol: str
    value: float | None
    outcome: str
    unread: list[str]


class _Sample(_Partial):
    benchmark: str
    record: str
    user: str
    kinds: list[str]
    target: dict[str, Any]
    history: list[_Interaction]
    prompts: list[str]
    summaries: list[_Written]
    scores: list[_Asked]


_RUN: TypeAdapter[Mapping[str, Any]] = TypeAdapter(_Run)
_SAMPLE: TypeAdapter[Any] = TypeAdapter(_Sample)


def read_run(folder: Path) -> dict[str, Any]:
    """What made the numbers of a folder (`writing.provenance`); RecordError by field."""
    path = folder / RUN
    return dict(checked(_RUN.validate_python, read_json(path, REMEDY), path))


def texts_of(run: Mapping[str, Any]) -> str:
    """Whether texts may stand in the pages of a folder: what evaluate.py was told (`--texts`). Whatever writes a page
    again keeps to it."""
    return run.get("arguments", {}).get("texts", "all")


def read_samples(folder: Path) -> list[dict]:
    """The samples of a folder (`samples.Sample`), none where there is no such file; RecordError by line and field."""
    path = folder / SAMPLES
    return list(rows_of(path, _SAMPLE.validate_python)) if path.is_file() else []
