"""Benchmarks across tasks: the history of a user from one task, the target of the same user from another.
`eval/cross_task.py` writes them and explains what for.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from alignxplore.command import Checkable, option, planned
from alignxplore.errors import at_least_one
from alignxplore.evaluation.benchmarks import Benchmark, load_benchmarks
from alignxplore.evaluation.derived import refuse_taken_places, write_copy, write_names
from alignxplore.records import RecordError, UserRecord, content_hash


@dataclass(kw_only=True)
class CrossTaskOptions(Checkable):
    """The two tasks."""

    data: list[str] = option("two benchmarks that share users: NAME=FILE NAME=FILE, or a folder or hub data set")
    out: str = option("folder for the files")
    benchmarks: list[str] | None = option("the two names to take, where there are more", None)
    limit: int | None = option("people in both files that are kept (a fixed sample by content hash)", None)

    def __post_init__(self) -> None:
        at_least_one(self, "limit")


def shared_people(first: Benchmark, second: Benchmark, limit: int | None = None) -> list[str]:
    """The people who are in both, in a fixed order.

    Raises:
        RecordError: there are none.
    """
    people = {record.person for record in first.records} & {record.person for record in second.records}
    if not people:
        raise RecordError(f"shares no user with {second.path}; the ids ('userid', up to a '#') must agree", first.path)
    return sorted(people, key=lambda person: content_hash(["cross task", person]))[:limit]


def crossed(source: Benchmark, target: Benchmark, people: list[str]) -> Iterator[UserRecord]:
    """The targets of one benchmark, each with its user's history from the other. Of several rows of a person one is
    drawn by hash."""
    histories, targets = _by_person(source), _by_person(target)
    for person in people:
        for record in targets[person]:
            choices = histories[person]
            source_record = min(choices, key=lambda other: content_hash(["cross task", record.id, other.id]))
            yield replace(record, history=source_record.history)


def _by_person(benchmark: Benchmark) -> dict[str, list[UserRecord]]:
    rows = defaultdict(list)
    for record in benchmark.records:
        rows[record.person].append(record)
    return rows


def write_crossed(options: CrossTaskOptions) -> str | None:
    """Write both directions, and both tasks alone, of the people who are in both.

    Raises:
        ValueError: more or fewer than two benchmarks.
    """
    benchmarks = load_benchmarks(options.data, options.benchmarks)
    if len(benchmarks) != 2:
        listing = ", ".join(benchmark.name for benchmark in benchmarks)
        raise ValueError(f"exactly two benchmarks are crossed; found {listing} (--benchmarks names two)")
    first, second = benchmarks
    people, out = shared_people(first, second, options.limit), Path(options.out)
    persons = set(people)
    names = [f"{first.name}~to~{second.name}", second.name, f"{second.name}~to~{first.name}", first.name]
    refuse_taken_places(out, names, benchmarks)
    if options.check:
        return planned(options, f"{len(names)} files of {len(people)} people: {' '.join(names)}")
    for source, target in ((first, second), (second, first)):
        records = (record for record in target.records if record.person in persons)
        for name, rows, task in (
            (f"{source.name}~to~{target.name}", crossed(source, target, people), source.task),
            (target.name, records, target.task),
        ):
            count = write_copy(out, name, rows, target, task=task)
            print(f"{name}: {count} rows of {len(people)} people")
    write_names(out, names)
    return None
