"""What generation and evaluation agree on: benchmarks, settings, where results lie, and the id of each unit of work.

    OUT/summaries/POLICY/BENCHMARK.SETTING.sSEED.jsonl   one line a user: the stages' answers, journalled
    OUT/summaries/POLICY/BENCHMARK.SETTING.sSEED.meta.json   what made them: model, prompts, sampling
    OUT/judgements/JUDGE/PROTOCOL.jsonl                   one line a judgement, journalled
    OUT/results.json, OUT/report.md, ...                  everything computed from the above
"""

import contextlib
import heapq
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignxplore import datasets
from alignxplore.history import protocol_slices
from alignxplore.journal import Journal
from alignxplore.records import Interaction, RecordError, UserRecord, content_hash, read_users

SETTINGS = ("full", "streaming")


@dataclass(frozen=True)
class Benchmark:
    """Records of one data set in a fixed order, with the task that decides which part of a history is shown."""

    name: str
    task: str
    records: tuple[UserRecord, ...]
    path: Path

    @property
    def leaked(self) -> int:
        """Rows whose target also stands in the history; they are kept, counted and reported."""
        return sum(record.leaked for record in self.records)


def load_benchmarks(data: Iterable[str], names: Iterable[str] | None = None, limit: int | None = None) -> list[Benchmark]:
    """Benchmarks from NAME=FILE, from a file or folder of NAME_upi.jsonl files, or from a data set on the hub.

    `mind~shuffled` is a variant of `mind` (perturb.py, cross_task.py): it has the task of `mind`, which decides what is shown.

    Args:
        names: only these (folders and hub data sets; all that are there by default).
        limit: users kept of each benchmark, those with the smallest record ids: a fixed sample.
    """
    found: dict[str, Path] = {}
    for spec in data:
        name, equals, path = spec.partition("=")
        found |= {name: Path(path)} if equals else datasets.locate(spec, list(names) if names else None)
    return [_load(name, path, limit) for name, path in found.items()]


def _load(name: str, path: Path, limit: int | None) -> Benchmark:
    entry = datasets.get(name.partition("~")[0])
    users: Iterable[UserRecord] = read_users(path, default_query=entry.default_query)
    records = tuple(heapq.nsmallest(limit, users, key=lambda record: record.id) if limit else users)
    if not records:
        raise RecordError("no records in this file", path)
    return Benchmark(name, entry.task, records, path)


def slices_of(benchmark: Benchmark, record: UserRecord, setting: str, stages: int) -> list[tuple[Interaction, ...]]:
    """The interactions that each stage of a setting reads: "full" reads at once what "streaming" reads in `stages` slices."""
    return protocol_slices(record.history, benchmark.task, 1 if setting == "full" else stages)


def shown_history(benchmark: Benchmark, record: UserRecord) -> tuple[Interaction, ...]:
    """All the interactions that a policy may read in this benchmark (what the direct setting reads, too)."""
    return protocol_slices(record.history, benchmark.task, 1)[0]


@dataclass(frozen=True)
class SummarySet:
    """The summaries of one (policy, benchmark, setting, seed) as they lie on disk."""

    folder: Path
    policy: str
    benchmark: str
    setting: str
    seed: int

    @property
    def journal_path(self) -> Path:
        return self.folder / "summaries" / self.policy / f"{self.benchmark}.{self.setting}.s{self.seed}.jsonl"

    @property
    def meta_path(self) -> Path:
        return self.journal_path.with_suffix(".meta.json")

    def meta(self) -> dict | None:
        """What made the summaries; None when this set was never begun."""
        return json.loads(self.meta_path.read_text()) if self.meta_path.exists() else None

    def by_record(self) -> dict[str, dict]:
        """Rows of the current run by record id (rows that an earlier model or prompt wrote are passed over)."""
        meta = self.meta()
        if meta is None:
            return {}
        with Journal(self.journal_path) as journal:
            return {row["record"]: row for row in journal.rows() if row["run"] == meta["run"]}


def run_id(**what: Any) -> str:
    """Hash of everything that shapes a set of summaries: model, prompt, sampling, stages."""
    return content_hash(what)


def find_sets(folder: Path, policies: Iterable[str] | None = None) -> list[SummarySet]:
    """All sets of summaries under an output folder, in a fixed order."""
    sets = []
    for path in sorted((folder / "summaries").glob("*/*.meta.json")):
        benchmark, setting, seed = path.name.removesuffix(".meta.json").rsplit(".", 2)
        sets.append(SummarySet(folder, path.parent.name, benchmark, setting, int(seed.removeprefix("s"))))
    wanted = list(policies or [])
    missing = set(wanted) - {s.policy for s in sets}
    if missing:
        raise FileNotFoundError(f"{folder}/summaries holds nothing of {', '.join(sorted(missing))}; run gen_preference.py first")
    order = {policy: i for i, policy in enumerate(wanted)}
    return sorted((s for s in sets if not wanted or s.policy in order), key=lambda s: order.get(s.policy, 0))


def judgement_id(judge: str, prompt_hash: str, protocol: dict, record: UserRecord, summary: str | None) -> str:
    """Id of one judgement: the same summary of the same record is judged once, whoever wrote it."""
    return content_hash([judge, prompt_hash, protocol, record.id, summary])




def installed_versions() -> dict[str, str]:
    """Versions of the packages that can move a number; they go into every output."""
    versions = {}
    for name in ("alignxplore", "vllm", "torch", "transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
