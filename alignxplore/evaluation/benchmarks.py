"""What generation and scoring agree on: benchmarks, settings, where summaries lie, and the id of each unit of work.

OUT/summaries/POLICY/BENCHMARK.SETTING.sSEED.jsonl   one line a user: the stages' answers, journalled
OUT/summaries/POLICY/BENCHMARK.SETTING.sSEED.meta.json   what made them: model, prompts, sampling
OUT/shards/I-of-N/summaries/...                       the same of one shard's persons (shards.py)
OUT/judgements/JUDGE/PROTOCOL.jsonl                   one line a judgement, journalled
OUT/results.json, OUT/report.md, ...                  everything computed from the above
"""

import functools
import heapq
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignxplore import datasets
from alignxplore.benchmark_files import read_users
from alignxplore.datasets.sidecars import read_manifest
from alignxplore.errors import UserError
from alignxplore.evaluation.shards import WHOLE, Shard, folders
from alignxplore.evaluation.stage_rows import check_row
from alignxplore.history import protocol_slices
from alignxplore.records import Interaction, Offer, RecordError, UserRecord, content_hash, read_jsonl, read_object

log = logging.getLogger(__name__)
SETTINGS = ("full", "streaming")
BENCHMARK_FILES = "benchmarks: NAME=FILE, a folder of NAME_upi.jsonl files, or a hub data set (ID[@REVISION])"  # help
FORMAT = 1  # of prompts and answers: to be raised with code that renders or reads them otherwise than before
TASKS = ("recommendation", "selection")  # of a benchmark that the registry does not know


@dataclass(frozen=True)
class Benchmark:
    """Records of one data set in a fixed order, with the task that decides which part of a history is shown."""

    name: str
    task: str
    records: tuple[UserRecord, ...]
    path: Path

    @property
    def among_k(self) -> bool:
        """Whether its targets are choices among k items, and not pairs."""
        return any(isinstance(record.target, Offer) for record in self.records[:1])

    @property
    def leaked(self) -> int:
        """Rows whose target also stands in the history; they are kept, counted and reported."""
        return sum(record.leaked for record in self.records)

    @property
    def sizes(self) -> tuple[int, int]:
        """As `BenchmarkFile.sizes`."""
        return len(self.records), self.leaked


@dataclass(frozen=True)
class BenchmarkFile:
    """A benchmark that is read anew whenever its records are asked for, so that memory does not grow with them.

    Summaries are written of these; scoring has all records in memory (`Benchmark`).

    Attributes:
        limit: users kept, those with the smallest record ids: a fixed sample; None: all.
        shard: the persons that are kept, of the sample where there is one.
        is_left_out: whether a record that would be kept is left out all the same.
    """

    name: str
    task: str
    path: Path
    limit: int | None = None
    shard: Shard = WHOLE
    is_left_out: Callable[[UserRecord], bool] = lambda record: False

    def __iter__(self) -> Iterator[UserRecord]:
        records = iter(self._sample) if self.limit else self._read(allow_duplicates=True)
        return (record for record in records if not self.is_left_out(record))

    def _read(self, allow_duplicates: bool) -> Iterator[UserRecord]:
        dataset = datasets.DATASETS.get(self.name.partition("~")[0])
        shard = WHOLE if self.limit else self.shard
        return read_users(
            self.path,
            default_query=dataset.default_query if dataset else None,
            allow_duplicates=allow_duplicates,
            is_wanted=functools.partial(shard.holds, self.name),
        )

    def checked(self) -> Iterator[UserRecord]:
        """All records; the first time they are read.

        Raises:
            RecordError: no records, a user who stands there twice, or pairs and choices among k in one file.
        """
        kinds = set()
        for record in self._read(allow_duplicates=False):
            kinds.add(isinstance(record.target, Offer))
            if len(kinds) > 1:
                problem = "a text in some rows and a list in others; write pairs and choices among k into two files"
                raise RecordError(problem, self.path, field="target.rejected")
            yield record
        if not kinds and (self.shard == WHOLE or self.limit):
            raise RecordError("no records in this file", self.path)

    @functools.cached_property
    def _sample(self) -> tuple[UserRecord, ...]:
        sample = heapq.nsmallest(self.limit or 0, self.checked(), key=lambda record: record.id)
        return tuple(record for record in sample if self.shard.holds(self.name, record.user))

    @functools.cached_property
    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for record in self._sample if self.limit else self.checked():
            is_left_out = self.is_left_out(record)
            counts["left out"] += is_left_out
            counts["users"] += not is_left_out
            counts["leaks"] += not is_left_out and record.leaked
        return counts

    @property
    def sizes(self) -> tuple[int, int]:
        """(users, rows whose target also stands in the history; they are kept, counted and reported)."""
        return self._counts["users"], self._counts["leaks"]

    @property
    def left_out(self) -> int:
        """Records that are left out, and not among the users."""
        return self._counts["left out"]

    def loaded(self) -> Benchmark:
        """With all records in memory."""
        return Benchmark(self.name, self.task, self._sample if self.limit else tuple(self.checked()), self.path)


def load_benchmarks(
    data: Iterable[str], names: Iterable[str] | None = None, limit: int | None = None
) -> list[Benchmark]:
    """Those of `find_benchmarks`, with all records in memory."""
    return [file.loaded() for file in find_benchmarks(data, names, limit)]


def load_benchmark(data: str, limit: int | None = None, option: str = "data") -> Benchmark:
    """The one benchmark that the value of an option names, with all records in memory.

    Raises:
        UserError: a folder or hub data set that holds several.
    """
    files = find_benchmarks([data], limit=limit)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"--{option} {data} holds {names}; name one of them: --{option} {files[0].name}={files[0].path}"
        )
    return files[0].loaded()


def find_benchmarks(
    data: Iterable[str], names: Iterable[str] | None = None, limit: int | None = None, shard: Shard = WHOLE
) -> list[BenchmarkFile]:
    """Benchmarks from NAME=FILE, from a file or folder of NAME_upi.jsonl files, or from a data set on the hub.

    `mind~shuffled` is a variant of `mind` (perturb.py, cross_task.py): it has the task of `mind`, which decides what
    is shown. A name that the registry does not know is a benchmark of its own, NAME:TASK=FILE or NAME=FILE
    (selection).

    Args:
        names: only these, in this order; all that are there by default.
        limit, shard: see `BenchmarkFile`.

    Raises:
        FileNotFoundError: one of the names is nowhere.
        ValueError: two files of one name, or a name or task that cannot be.
    """
    files: dict[str, tuple[str, Path]] = {}

    def take(name: str, task: str, path: Path) -> None:
        if name in files and name in (selection or files):
            raise ValueError(f"{files[name][1]} and {path} are both {name}; give them different names: NAME=FILE")
        files[name] = task, path

    selection, places = list(dict.fromkeys(names or ())), []
    for spec in data:
        head, equals, file = spec.partition("=")
        if equals and not Path(spec).exists():  # an existing path is one, whatever signs it has
            name, _, task = head.partition(":")
            take(name, task, Path(file))
        elif Path(spec).is_file():
            take(*next((name, "", path) for name, path in datasets.locate(spec).items()))
        else:
            places.append(spec)
    # Of folders and hub data sets what no file was named for.
    open_names = [name for name in selection if name not in files]
    for spec in places if open_names or not selection else ():
        for name, path in datasets.locate(spec, open_names or None).items():
            take(name, "", path)
    if missing_names := [name for name in selection if name not in files]:
        raise FileNotFoundError(
            f"no benchmark {', '.join(missing_names)} among {', '.join(files)} (--benchmarks picks by name)"
        )
    return [
        BenchmarkFile(name, task_of(name, *files[name]), files[name][1], limit, shard) for name in selection or files
    ]


def task_of(name: str, task_given: str, path: Path) -> str:
    """The task of a benchmark: that of the registry, or as given, or as its manifest says (copies), or selection,
    which is said."""
    dataset = datasets.DATASETS.get(name.partition("~")[0])
    if dataset:
        if task_given not in ("", dataset.task):
            raise ValueError(f"{name}:{task_given}: the task of {dataset.name} is {dataset.task}")
        return dataset.task
    if not re.fullmatch(r"\w[\w.~+-]*", name) or datasets.name_of(name):
        namesake = datasets.name_of(name)
        reason = (
            f"it would be taken for {namesake}"
            if namesake
            else "a letter or digit begins it, and letters, digits and . _ + - are in it"
        )
        raise ValueError(f"'{name}' cannot be the name of a benchmark: {reason}")
    task = task_given or read_manifest(path).get("task")
    if task is None:
        log.warning(
            "%s: no data set that is known (%s); taken for a selection task, whose histories are shown whole "
            "(%s:recommendation=FILE: the first two thirds)",
            name,
            ", ".join(datasets.DATASETS),
            name,
        )
    elif task not in TASKS:
        raise ValueError(f"{name}:{task}: the task is one of {', '.join(TASKS)}")
    return task or "selection"


def slices_of(
    benchmark: Benchmark | BenchmarkFile, record: UserRecord, setting: str, stages: int
) -> list[tuple[Interaction, ...]]:
    """The interactions that each stage of a setting reads: "full" reads at once what "streaming" reads in `stages`
    slices."""
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
    def title(self) -> str:
        """How messages name it."""
        return f"{self.policy} {self.benchmark} {self.setting} seed {self.seed}"

    @property
    def journal_path(self) -> Path:
        return self.folder / "summaries" / self.policy / f"{self.benchmark}.{self.setting}.s{self.seed}.jsonl"

    @property
    def meta_path(self) -> Path:
        return self.journal_path.with_suffix(".meta.json")

    @property
    def parts(self) -> "list[SummarySet]":
        """The sets that it is read from: its own, and those of the shards."""
        return [self, *(replace(self, folder=folder) for folder in folders(self.folder))]

    def meta(self) -> dict | None:
        """What made the summaries, `spent` by all shards together; None when this set was never begun.

        Raises:
            RecordError: two shards were made in different ways.
        """
        paths = [part.meta_path for part in self.parts if part.meta_path.exists()]
        metas = [read_object(path, "run", remedy="run gen_preference.py again") for path in paths]
        for path, meta in zip(paths, metas):
            if meta["run"] != metas[0]["run"]:
                problem = f"made in another way than {paths[0]}: run both again with the same model and options"
                raise RecordError(problem, path)
        if len(metas) < 2:
            return metas[0] if metas else None
        costs = [meta.get("spent", {}) for meta in metas]
        gpus = max(cost.get("gpus", 0) for cost in costs)
        sums = {name: sum(cost.get(name, 0) for cost in costs) for name in ("seconds", "summaries")}
        return metas[0] | {"spent": sums | {"gpus": gpus}}

    def rows(self, run: str | None = None, fields: Sequence[str] = ()) -> Iterator[dict]:
        """Rows of one run, one by one as they stand on disk, by default of the current one; what another model or
        prompt wrote is passed over. Only reads, so that it may be called while a run goes on. `fields`: see
        `stage_rows.check_row`."""
        run = run or (self.meta() or {}).get("run")
        for path in [part.journal_path for part in self.parts if run and part.journal_path.exists()]:
            for line, row in read_jsonl(path):
                check_row(row, path, line, fields)
                if row["run"] == run:
                    yield row

    def by_record(self, run: str | None = None, fields: Sequence[str] = ()) -> dict[str, dict]:
        """The newest row of each record (see `rows`), by its id."""
        return {row["record"]: row for row in self.rows(run, fields)}


def run_id(**settings: Any) -> str:
    """Hash of everything that shapes a set of summaries: model, prompt, sampling, stages, and the code (`FORMAT`)."""
    return content_hash(settings | {"format": FORMAT})


def find_sets(folder: Path, policies: Iterable[str] | None = None) -> list[SummarySet]:
    """All sets of summaries under an output folder, those of its shards among them, in a fixed order."""
    paths = (p for part in (folder, *folders(folder)) for p in (part / "summaries").glob("*/*.meta.json"))
    sets = []
    for policy, file in sorted({(path.parent.name, path.name) for path in paths}):
        benchmark, setting, seed = file.removesuffix(".meta.json").rsplit(".", 2)
        sets.append(SummarySet(folder, policy, benchmark, setting, int(seed.removeprefix("s"))))
    names = list(policies or [])
    missing_names = set(names) - {s.policy for s in sets}
    if missing_names:
        raise FileNotFoundError(
            f"{folder}/summaries holds nothing of {', '.join(sorted(missing_names))}; run gen_preference.py first"
        )
    order = {policy: i for i, policy in enumerate(names)}
    return sorted((s for s in sets if not names or s.policy in order), key=lambda s: order.get(s.policy, 0))


def check_recipes(sets: Iterable[SummarySet]) -> None:
    """One number is of one policy: what other weights, prompts, sampling or numbers of stages wrote under its name is
    not averaged with it.

    Raises:
        RecordError: two such files, named.
    """
    first: dict[tuple[str, str], SummarySet] = {}
    for summaries in sets:
        other = first.setdefault((summaries.policy, summaries.setting), summaries)
        if (summaries.meta() or {}).get("recipe") != (other.meta() or {}).get("recipe"):
            raise RecordError(
                "these summaries were made in another way (weights, tokenizer, prompt, sampling, stages, fit) than "
                f"{other.journal_path}, under the same name; write both again with gen_preference.py, remove one, or "
                "give one model another name",
                summaries.journal_path,
            )


def check_tasks(sets: Iterable[SummarySet], benchmarks: dict[str, Benchmark]) -> None:
    """A summary is of what the benchmark's task shows of a history.

    Raises:
        RecordError: one that was written when the benchmark had another task.
    """
    for summaries in sets:
        task = benchmarks[summaries.benchmark].task
        old_task = (summaries.meta() or {}).get("task", task)
        if old_task != task:
            raise RecordError(
                f"these summaries were written as of a {old_task} task, {summaries.benchmark} is a {task} task now, "
                "which shows another part of a history; write them again with gen_preference.py",
                summaries.journal_path,
            )


def judgement_id(judge: str, prompt_hash: str, protocol: dict, record: UserRecord, summary: str | None) -> str:
    """Id of one judgement: the same summary of the same record is judged once, whoever wrote it."""
    return content_hash([FORMAT, judge, prompt_hash, protocol, record.id, summary])
