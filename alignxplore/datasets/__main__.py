"""Benchmarks from raw files, and from a table of one's own.

    python -m alignxplore.datasets list                       the data sets, their tasks and terms
    python -m alignxplore.datasets describe movielens         raw files it reads, protocols, the published options
    python -m alignxplore.datasets build movielens --raw ml-32m --out movielens_upi.jsonl --split test --users 3000
    python -m alignxplore.datasets build movielens --raw ml-32m --out movielens_upi.jsonl --check
    python -m alignxplore.datasets build movielens --raw ml-32m --out movielens_upi.jsonl --items 20     k = 20
    python -m alignxplore.datasets import mine.csv --user user_id --item title --time when --rating stars

`build` writes three files. The last of them, the benchmark, never stands without the other two:

    *.popularity.jsonl   for recommendation sets: how many other users took each of the target's items, over all time
                         and before the target; the popularity baselines read it
    *.build.json         options, what was read, kept and dropped, and the content's hash
    the benchmark        one user a line, as `eval/` and `sft/` read it

The same raw files, options and seed give the same bytes on any machine.
"""

import dataclasses
import hashlib
import importlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

from alignxplore.command import Checkable, option, run_commands
from alignxplore.datasets import DATASETS, Dataset, get, name_of
from alignxplore.datasets.building import CLEANED, Example, Job, account, only_wanted, take
from alignxplore.datasets.importing import import_table
from alignxplore.datasets.own_events import Import
from alignxplore.datasets.parts import Part, Records, line_of, part_of
from alignxplore.datasets.sidecars import manifest_path, popularity_path
from alignxplore.errors import naming, not_empty
from alignxplore.locks import turn_in
from alignxplore.records import aside_of, place_of, refuse_same_files, write_json, write_lines


def builder(job: Job) -> ModuleType:
    """The module that knows the raw files; ValueError for a data set that has none."""
    if job.dataset.module is None:
        raise ValueError(f"{job.dataset.name} is simulated: python -m alignxplore.world writes it")
    return importlib.import_module(f"alignxplore.datasets.{job.dataset.module}")


def build(job: Job, out: Path) -> dict:
    """Build one benchmark; returns what `*.build.json` holds. An earlier build stands whole until all of the new one
    is written."""
    module = builder(job)
    out.parent.mkdir(parents=True, exist_ok=True)
    out, manifest, popularity = map(place_of, (out, manifest_path(out), popularity_path(out)))
    job.scratch = job.scratch or out.parent
    aside, beside_it = aside_of(out), aside_of(popularity)
    start = time.monotonic()
    try:
        digest = hashlib.sha256()
        with naming(out), beside_it.open("wb") as beside:
            write_lines(aside, _lines(module.build(job), job, beside, digest))
            wrote_popularity = beside.tell() > 0
        options = {name: getattr(job, name) for name in ("protocol", "min_interactions", "users", "split", "seed")}
        if job.windows:
            options |= {"windows": job.windows, "length": job.length}
        if job.items:
            options |= {"items": job.items, "negatives": job.negatives}
        if job.whole:
            options["items"] = "whole"
        if job.persons != (0.0, 1.0):
            options["persons"] = list(job.persons)
        if job.markup == "kept" or job.counts.get(CLEANED):  # else the texts are those of the raw files either way
            options["markup"] = job.markup
        result = {
            "dataset": job.dataset.name,
            "edition": job.edition,
            **options,
            "counts": dict(job.counts),
            "sha256": digest.hexdigest(),
        }
        with turn_in(out.parent):
            for earlier in (out, manifest, popularity):  # the benchmark first: alone it could pass for another one
                earlier.unlink(missing_ok=True)
            if wrote_popularity:
                os.replace(beside_it, popularity)
            write_json(manifest, result)
            os.replace(aside, out)
    finally:
        for path in (aside, beside_it):
            path.unlink(missing_ok=True)
    return result | {"seconds": time.monotonic() - start}


def _lines(
    examples: Iterable[Example], job: Job, popularity_file: BinaryIO, digest: "hashlib._Hash"
) -> Iterator[bytes]:
    """Lines of the benchmark; those of the popularity file are written beside it."""
    parts: Iterable[Part]
    if not isinstance(examples, Records):  # whose engine has left out what is not wanted
        examples = only_wanted(examples, job)
    if in_parts := isinstance(examples, Records) and job.users is None:
        parts = examples.parts()
    else:
        parts = (part_of([line_of(example)], {}) for example in take(examples, job))
    rows = people = 0
    for part in parts:
        popularity_file.write(part.popularity)
        digest.update(part.lines)
        yield part.lines
        rows, people = rows + part.rows, people + part.people
        for event, count in part.counts.items():
            job.counts[event] += count
    if in_parts:
        account(job, rows, people)


def terms_of(dataset: Dataset) -> str:
    """The licence of the raw data, as far as the registry has it."""
    return dataset.terms or ("terms: not written down here" if dataset.module else "simulated by this project")


def describe(dataset: Dataset) -> str:
    """What the project knows about a data set, for reading."""
    places = [*dataset.layouts, *([dataset.where] if dataset.where else [])]
    layouts = "\n".join(f"    {line}" for line in places) or "    simulated: python -m alignxplore.world"
    published_options = dataset.published or "the defaults"
    if dataset.task == "recommendation":
        published_options += "; the nearest: users and rejected items are drawn otherwise"
    elif not dataset.public:
        published_options = (
            f"cannot be built: how it was made of the raw files is not public (nearest: {published_options})"
        )
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
            "terms": terms_of(dataset).removeprefix("terms: "),
            "protocols": ", ".join(dataset.protocols),
            "published": published_options,
            "domain": ", in-domain" if dataset.in_domain else "",
        }
    )


@dataclasses.dataclass(kw_only=True)
class NameOptions:
    """One data set."""

    name: str = option(f"one of: {', '.join(DATASETS)}")

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise ValueError(f"no data set named '{self.name}'; there are: {', '.join(DATASETS)}")


@dataclasses.dataclass(kw_only=True)
class BuildOptions(Checkable):
    """A benchmark in the making."""

    name: str = option(f"one of: {', '.join(name for name, dataset in DATASETS.items() if dataset.module)}")
    raw: Path = option("folder of the official files, any layout")
    out: Path = option("benchmark file to write, e.g. movielens_upi.jsonl")
    protocol: str = option(
        "where rejected items come from; default: the first in the list of describe. published: as in the paper's "
        "benchmark; matched: as popular (answers: as long) as the chosen one, so that this gives nothing away; what "
        "has no match is dropped; matched_both: as popular before the choice as well, and nothing that nobody had "
        "taken yet; liked (ratings): as matched_both, "
        "and only what got four stars, or the user's own mean, is chosen; reviewed (amazon): any item that somebody "
        "reviewed; evidence: the dialogues that a question names (hicupid, questions on the persona), or the "
        "conversation that it is about (personamem v2); chat (personamem, and always v1): the whole chat",
        "",
    )
    min_interactions: int | None = option(
        "keep users with at least so many that have an alternative, the target included; default: the published "
        "value, see describe",
        None,
    )
    users: int | None = option("a sample of so many users, drawn by seed; default: all", None)
    split: Literal["all", "train", "test"] = option("one user in five is a test user, the same for every seed", "all")
    persons: list[float] = option(
        "keep the persons whose hash lies between two shares: 0 0.6 for training and 0.6 1 for a test share nobody",
        [0.0, 1.0],
    )
    windows: int | None = option(
        "rows a user, each the --length choices before one of the user's choices (recommendation sets); default: one "
        "row, the whole history before the last choice",
        None,
    )
    length: int = option("choices before the target of each of the --windows", 12)
    items: int | None = option(
        "the target as a choice among so many items, the others drawn from those that the user never took (movielens, "
        "amazon); default: a pair",
        None,
    )
    negatives: Literal["uniform", "popularity"] = option(
        "how these are drawn: each item with the same chance, or in proportion to the users who took it", "uniform"
    )
    whole: bool = option(
        "the target as the whole choice that was offered: an impression with all its clicks (mind), all options of a "
        "question (personamem)",
        False,
    )
    seed: int = option("of sampled users, windows and rejected items", 42)
    memory: int = option("MB that sorting and grouping may take; what is more goes to files beside --out", 400)
    markup: Literal["removed", "kept"] = option(
        "HTML in titles and descriptions (<br>, &amp;): removed and counted, or kept, as in the published benchmarks",
        "removed",
    )

    def __post_init__(self) -> None:
        if len(self.persons) != 2:
            raise ValueError("--persons: give two shares, e.g. 0 0.6")


@dataclasses.dataclass
class NoOptions:
    """None."""


def list_all(_: NoOptions) -> str:
    """All data sets, their tasks and terms."""
    return "\n".join(
        f"{name:20} {dataset.column or '-':10} {dataset.task:15} {terms_of(dataset)}"
        for name, dataset in DATASETS.items()
    )


def describe_one(options: NameOptions) -> str:
    """One data set: raw files, terms, protocols, the published options."""
    return describe(get(options.name))


def build_benchmark(options: BuildOptions) -> str:
    """Raw files → benchmark file, with *.build.json and *.popularity.jsonl beside it. --check names the raw files."""
    NameOptions(name=options.name)
    if not options.raw.is_dir():
        problem = "a file; give the folder that it lies in" if options.raw.exists() else "no such folder"
        raise FileNotFoundError(f"{options.raw}: {problem}")
    if options.out.is_dir():
        raise ValueError(f"--out {options.out}: a folder stands where a file is needed; name a file")
    place_of(options.out)
    job = Job(
        get(options.name),
        options.raw,
        options.protocol,
        options.min_interactions,
        options.users,
        options.split,
        (options.persons[0], options.persons[1]),
        options.windows,
        options.length,
        options.items,
        options.negatives,
        options.whole,
        options.seed,
        progress=sys.stderr.isatty(),
        memory=options.memory,
        markup=options.markup,
    )
    if options.check:
        files = builder(job).sources(job)
        lines = [f"would read {path} ({path.stat().st_size / 1e6:,.1f} MB)" for path in files]
        return "\n".join([*lines, f"would write {options.out}; check: nothing was read or written"])
    refuse_same_files({"--out": options.out}, {f"raw file {path.name}": path for path in builder(job).sources(job)})
    result = build(job, options.out)
    lines = [f"{count:>12,}  {event}" for event, count in result["counts"].items()]
    summary = f"{options.out}: sha256 {result['sha256'][:16]}, {result['seconds']:.1f} s"
    return "\n".join([*lines, summary])


@dataclasses.dataclass(kw_only=True)
class ImportOptions:
    """A table of one's own."""

    file: Path = option("CSV, JSONL or Parquet file, one interaction a row")
    user: str = option("column of the person")
    item: str = option("column of what was chosen, as text (a title, a note), or of a chat: messages {role, content}")
    time: str | None = option("column of when: dates, or numbers in one unit; default: the order of the rows", None)
    rating: str | None = option("column of a number: above the person's own mean is liked, below it is not", None)
    label: str | None = option("column of yes or no (1, true, like, ... or 0, false, dislike, ...)", None)
    query: str | None = option("what is asked of the person, e.g. 'Recommend a film.'; chats have their own", None)
    out: Path | None = option("where to: OUT_upi.jsonl, OUT_train.jsonl, OUT_rl.jsonl; default: the file's name", None)
    test_share: float = option("share of the persons who are for the test; all others are for training", 0.2)
    seed: int = option("of drawn alternatives", 42)

    def __post_init__(self) -> None:
        not_empty(self, "user", "item", "time", "rating", "label", "query")
        if self.rating and self.label:
            raise ValueError("--rating and --label: give one of them")
        if not 0 < self.test_share <= 1:
            raise ValueError(f"--test_share {self.test_share}: a share above 0 and up to 1")


def refuse_published_name(out: Path) -> None:
    """ValueError for a name by which evaluation and synthesis would give a table of one's own a published data set's
    task and requests."""
    namesake = name_of(out.name.partition("~")[0])
    if namesake:
        raise ValueError(
            f"--out {out}: its files would be taken for the published data set {namesake}, by their names; give "
            "another --out (default: the table's name)"
        )


def serves(options: ImportOptions, out: Path) -> str:
    """What the files of an import are good for."""
    if options.rating is None and options.label is None:
        return (
            "Likes alone serve evaluation and RL, and give no SFT rows: import ratings or passed-over items, too "
            "(--rating or --label)"
        )
    return (
        "SFT rows: training persons with at least 9 liked items, 4 of them with an alternative in the second third "
        f"and 4 in the last, can give some; count them: python sft/synthesize.py --data {out}_train.jsonl --check"
    )


def import_own(options: ImportOptions) -> str:
    """CSV, JSONL or Parquet → OUT_upi.jsonl (test persons, as eval/ reads them), OUT_train.jsonl (records for
    synthesis) and OUT_rl.jsonl (RL rows). Every row that is left out is counted."""
    fields = {name: getattr(options, name) for name in vars(options) if name != "out"}
    out = options.out or Path(options.file.stem)
    refuse_published_name(out)
    outputs = {f"OUT_{kind}.jsonl": out.with_name(f"{out.name}_{kind}.jsonl") for kind in ("upi", "train", "rl")}
    outputs["its popularity file"] = popularity_path(outputs["OUT_upi.jsonl"])  # an older build's is removed
    refuse_same_files(outputs, {"the table": options.file})
    counts = import_table(Import(**fields), out)
    lines = [f"{count:>12,}  {event}" for event, count in counts.items() if count]
    written = f"{out}_upi.jsonl, {out}_train.jsonl and {out}_rl.jsonl are written"
    return "\n".join([*lines, written, serves(options, out)])


COMMANDS: dict[str, tuple[Callable[[Any], str], type]] = {
    "build": (build_benchmark, BuildOptions),
    "import": (import_own, ImportOptions),
    "list": (list_all, NoOptions),
    "describe": (describe_one, NameOptions),
}

if __name__ == "__main__":
    run_commands(COMMANDS, __doc__)
