"""Benchmarks across tasks: the history of a user from one task, the target of the same user from another. For the
cross-task table.

    python eval/cross_task.py --data world_films=test_films_upi.jsonl world_news=test_news_upi.jsonl --out outputs/cross_task/data

writes, for the people who are in both files, A~to~B_upi.jsonl and B~to~A_upi.jsonl, and A_upi.jsonl and B_upi.jsonl
(history and target of one task, for comparison). eval/ reads them like any benchmark: what is shown of a history
follows the rule of its own task. The 1,000 users of the published cross-task table are not public; any two files that
share users give such a table.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignxplore.errors import at_least_one
from alignxplore.evaluation.benchmarks import Benchmark, load_benchmarks
from alignxplore.evaluation.derived import write_copy, write_names
from alignxplore.records import RecordError, UserRecord, content_hash


@dataclass
class CrossTaskArguments:
    """The two tasks."""

    data: list[str] = field(
        metadata={"help": "two benchmarks that share users: NAME=FILE NAME=FILE, or a folder or hub data set"}
    )
    out: str = field(metadata={"help": "folder for the files"})
    benchmarks: list[str] | None = field(
        default=None, metadata={"help": "the two names to take, where there are more"}
    )
    limit: int | None = field(
        default=None, metadata={"help": "people in both files that are kept (a fixed sample by content hash)"}
    )

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
            drawn = min(choices, key=lambda other: content_hash(["cross task", record.id, other.id]))
            yield replace(record, history=drawn.history)


def _by_person(benchmark: Benchmark) -> dict[str, list[UserRecord]]:
    rows = defaultdict(list)
    for record in benchmark.records:
        rows[record.person].append(record)
    return rows


def main() -> None:
    from trl import TrlParser

    parser = TrlParser(CrossTaskArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (arguments,) = parser.parse_args_and_config()
    found = load_benchmarks(arguments.data, arguments.benchmarks)
    if len(found) != 2:
        parser.error(
            f"exactly two benchmarks are crossed; found {', '.join(b.name for b in found) or 'none'} (--benchmarks names two)"
        )
    people = shared_people(*found, arguments.limit)
    kept, out, names = set(people), Path(arguments.out), []
    for source, target in (found, found[::-1]):
        own = (record for record in target.records if record.person in kept)
        for name, rows, task in (
            (f"{source.name}~to~{target.name}", crossed(source, target, people), source.task),
            (target.name, own, target.task),
        ):
            written = write_copy(out, name, rows, target, task=task)
            names.append(name)
            print(f"{name}: {written} rows of {len(people)} people")
    write_names(out, names)
