"""What a run is to forget: persons, single interactions, or all that came in one file.

A JSONL file, one thing a line: {"userid": U} a person; {"userid": U, "chosen": ..., "rejected"?: ..., "query"?: ...}
an interaction, everywhere in the person's history; {"source": FILE} what came in a file of that name, with "userid"
only that person's. A person is all rows `U#1`, `U#2`, ...; the id of one of these rows is that row alone. What rests
on it goes from disk: slices, versions, summaries of the run itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alignxplore.benchmark_files import parse_user_id
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.updates import Stream, Updates
from alignxplore.records import Interaction, RecordError, names_of, read_jsonl, write_jsonl

KEYS = ("userid", "uid", "chosen", "rejected", "query", "source")


@dataclass
class Deletions:
    """What to forget; an interaction is told by the fields that its line gives.

    Names are of persons, or of single rows `person#row`.
    """

    persons: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    parts: dict[str, list[dict[str, str | None]]] = field(default_factory=lambda: defaultdict(list))  # of one person

    def whole(self, user: str) -> bool:
        """Whether all of a row is to be forgotten."""
        return not self.persons.isdisjoint(names_of(user))

    def concerns(self, user: str) -> bool:
        """Whether something may have to be forgotten of a row."""
        return bool(self.sources) or self.whole(user) or not self.parts.keys().isdisjoint(names_of(user))

    def of(self, user: str) -> Callable[[str, Interaction], bool]:
        """Whether an interaction from a source is to be forgotten of a row."""
        parts = [part for name in names_of(user) for part in self.parts.get(name, ())]

        def forgotten(source: str, x: Interaction) -> bool:
            if self.whole(user) or source in self.sources:
                return True
            values = {"source": source, "chosen": x.chosen, "rejected": x.rejected, "query": x.query}
            return any(all(values[name] == value for name, value in part.items()) for part in parts)

        return forgotten


def read_deletions(path: str | Path) -> Deletions:
    """Read the file.

    Raises:
        RecordError: a line that names nothing, or a field that there is not.
    """
    deletions = Deletions()
    for line, row in read_jsonl(path):
        if unknown_fields := sorted(set(row) - set(KEYS)):
            raise RecordError(
                f"no field of what is forgotten; these are: {', '.join(KEYS)}", path, line, unknown_fields[0]
            )
        for name in ("chosen", "rejected", "query", "source"):
            if not isinstance(row.get(name), str | None):
                raise RecordError(f"expected text or null, found {type(row[name]).__name__}", path, line, name)
        if "/" in (row.get("source") or ""):
            raise RecordError("name the file alone, without its folder", path, line, "source")
        part = {name: row[name] for name in ("source", "chosen", "rejected", "query") if name in row}
        if "userid" in row or "uid" in row:
            user = parse_user_id(row, path, line)
            if part:
                deletions.parts[user].append(part)
            else:
                deletions.persons.add(user)
        elif set(part) == {"source"} and part["source"]:
            deletions.sources.add(part["source"])
        else:
            raise RecordError("name a person (userid), or a file whose data are to be forgotten (source)", path, line)
    return deletions


def cut(updates: Updates, users: Iterable[str], deletions: Deletions) -> dict[str, str]:
    """Take it out of these persons' streams; user → the summary that stood, of those whom it concerned.

    The run's own summaries of them go first, then the interactions, then the versions: killed in between, the same
    command goes on.
    """
    new_streams: dict[str, Stream] = {}
    old_summaries: dict[str, str] = {}
    for user in users:
        if stream := updates.stream(user):
            new_stream = stream.without(deletions.of(user))
            if new_stream != stream:
                new_streams[user] = new_stream
                current = updates.standing(stream)
                old_summaries[user] = current[1].stage.summary if current and current[1].stage else ""
    drop_summaries(updates.target, lambda user: user in new_streams or deletions.whole(user))
    updates.replace(new_streams)
    return old_summaries


def drop_summaries(target: SummarySet, is_dropped: Callable[[str], bool]) -> None:
    """Take these persons' rows out of the run's own journal, whatever run of that name wrote them."""
    path = target.journal_path
    if path.exists() and any(is_dropped(row["user"]) for _, row in read_jsonl(path)):
        write_jsonl(path, (row for _, row in read_jsonl(path) if not is_dropped(row["user"])))
