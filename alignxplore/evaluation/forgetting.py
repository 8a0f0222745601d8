"""What a run is to forget: persons, single interactions, or all that came in one file.

A JSONL file, one thing a line: {"userid": U} a person; {"userid": U, "chosen": ..., "rejected"?: ..., "query"?: ...}
an interaction, everywhere in the person's history; {"source": FILE} what came in a file of that name, with "userid"
only that person's. A person is all rows `U#1`, `U#2`, ...; the id of one of these rows is that row alone. What rests
on it goes from disk: slices, versions, summaries of the run itself. Where nobody knows any more what a summary was
written from, it goes, too.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignxplore.benchmark_files import parse_user_id
from alignxplore.evaluation.beginnings import Origins, own_rows
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.fits import fit_of, stage_slices
from alignxplore.evaluation.forgotten import ForgottenWriter, person_key
from alignxplore.evaluation.statements import same, statements_of
from alignxplore.evaluation.updates import Updates, begin
from alignxplore.history import protocol_slices
from alignxplore.records import Interaction, RecordError, UserRecord, names_of, person_of, read_jsonl, write_jsonl
from alignxplore.summarize import StageSummary

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

    def names(self, user: str) -> bool:
        """Whether a line names the row or its person."""
        return self.whole(user) or not self.parts.keys().isdisjoint(names_of(user))

    def concerns(self, user: str) -> bool:
        """Whether something may have to be forgotten of a row."""
        return bool(self.sources) or self.names(user)

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


@dataclass
class Cut:
    """What was forgotten of a set.

    Attributes:
        summaries: user → the summary that stood, of those whom it concerned.
        unknown: of these, those whose whole summary went, since nobody knows what it was written from.
    """

    summaries: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class _Rests:
    """Which of the run's own rows rest on what is to be forgotten, or on what was forgotten before."""

    def __init__(self, updates: Updates, deletions: Deletions):
        self.updates, self.deletions = updates, deletions
        self.meta = updates.target.meta()
        self.rows: dict[str, list[dict]] = {}  # record → its rows
        for row in own_rows(updates.target, deletions.concerns):
            self.rows.setdefault(row["record"], []).append(row)
        self.bad_rows: list[dict] = []
        self.unknown_rows: list[dict] = []

    def look_up(self, forgotten: ForgottenWriter) -> None:
        """Find the records of the rows, begin their streams, and tell the rows apart.

        Raises:
            UserError: a file of the run that may have one of them is not where it was.
        """
        origins = Origins(self.updates.target, self.meta, (row for rows in self.rows.values() for row in rows))
        for source, record, old_records in origins.look_up():
            is_forgotten = self.deletions.of(record.user)
            forgotten.add_interactions(record.user, (x for x in record.history if is_forgotten(source, x)))
            for old in old_records:
                self._take(source, old)
        lost_ids = set().union(*origins.lost.values())
        lost_rows = [row for record, rows in self.rows.items() if record in lost_ids for row in rows]
        names = {path.name for path in origins.files} if "files" in (self.meta or {}) else self.deletions.sources
        self.unknown_rows = [row for row in lost_rows if self._may_rest(row, names)]
        if any(not self.deletions.whole(row["user"]) for row in self.unknown_rows):
            origins.check_files()

    def _take(self, source: str, record: UserRecord) -> None:
        """The rows of a record that a file of the run has."""
        meta, rows, is_forgotten = self.meta or {}, self.rows[record.id], self.deletions.of(record.user)
        run_rows = [row for row in rows if row["run"] == meta.get("run")]
        if run_rows and self.updates.stream(record.user) is None:
            begin(self.updates, record, meta, run_rows[-1], source)
        is_cut = self._is_cut(record)
        for row in rows:
            slices: Iterable[tuple[Interaction, ...]] = [record.history]  # another run may have shown all of it
            if row in run_rows:
                counts = [stage["dropped"] for stage in row["stages"]]
                slices = stage_slices(fit_of(meta), meta["task"], record.history, counts)
            if is_cut or any(is_forgotten(source, x) for part in slices for x in part):
                self.bad_rows.append(row)

    def _is_cut(self, record: UserRecord) -> bool:
        """Whether the stream of a record has lost what each run shows of it."""
        stream = self.updates.stream(record.user)
        if stream is None or stream.key[0] != record.id:
            return False
        (least,) = protocol_slices(record.history, (self.meta or {})["task"], 1)
        return bool(Counter(least) - stream.counts)

    def _may_rest(self, row: dict, names: set[str]) -> bool:
        """Whether a row of which no file has the record may rest on what is to be forgotten; `names` are those of the
        files that it may have come in."""
        user, stages = row["user"], [StageSummary(**stage) for stage in row["stages"]]
        stream = self.updates.stream(user)
        if not self.deletions.whole(user) and stream and stream.key[0] == row["record"]:
            versions = [self.updates.version(unit) for unit in stream.versions[: len(stages)]]
            if [version.stage for version in versions if version] == stages:
                return False  # it is the beginning of its stream, which is cut by itself
        return self.deletions.names(user) or not self.deletions.sources.isdisjoint(names)


def cut(updates: Updates, deletions: Deletions, forgotten: ForgottenWriter) -> Cut:
    """Take it out of a set, and write down what that was.

    What is forgotten is written down first, as hashes. Then the run's own summaries go, then the interactions, then
    the versions: killed in between, the same command goes on.
    """
    rests = _Rests(updates, deletions)
    rests.look_up(forgotten)
    result, new_streams = Cut(), {}
    for row in [*rests.bad_rows, *rests.unknown_rows]:
        result.summaries[row["user"]] = row["stages"][-1]["summary"] if row["stages"] else ""
    for stream in updates.streams():
        is_forgotten = deletions.of(stream.user)
        new_stream = stream.without(is_forgotten)
        if new_stream != stream:
            new_streams[stream.user] = new_stream
            current = updates.standing(stream)
            result.summaries[stream.user] = current[1].stage.summary if current and current[1].stage else ""
            forgotten.add_interactions(stream.user, (stream.counts - new_stream.counts).keys())
    forgotten.add(*(row["record"] for row in rests.unknown_rows))
    users = {row["user"] for row in rests.unknown_rows if not deletions.whole(row["user"])}
    result.unknown = sorted(users)
    bad_ids = {(row["run"], row["record"]) for row in [*rests.bad_rows, *rests.unknown_rows]}

    def is_dropped(row: dict) -> bool:
        user = row["user"]
        return user in new_streams or deletions.whole(user) or (row["run"], row["record"]) in bad_ids

    drop_summaries(updates.target, is_dropped)
    updates.replace(new_streams)
    return result


def drop_summaries(target: SummarySet, is_dropped: Callable[[dict], bool]) -> None:
    """Take rows out of the run's own journal."""
    path = target.journal_path
    if path.exists() and any(is_dropped(row) for _, row in read_jsonl(path)):
        write_jsonl(path, (row for _, row in read_jsonl(path) if not is_dropped(row)))


def forget(folder: Path, targets: Iterable[SummarySet], deletions: Deletions) -> dict[SummarySet, Cut]:
    """Take it out of every set of a run, whoever wrote it."""
    cuts = {}
    with ForgottenWriter(folder) as forgotten:
        forgotten.add(*(person_key(name) for name in sorted(deletions.persons)))
        for target in targets:
            with Updates(target) as updates:
                cuts[target] = cut(updates, deletions, forgotten)
                updates.write_current()
    return cuts


def exports_of(out: Path, deletions: Deletions) -> list[Path]:
    """Folders of `eval/export.py` under the output folder that hold persons of whom something may be forgotten."""

    def is_concerned(path: Path) -> bool:
        try:
            users = pq.read_table(path, columns=["user"])["user"].unique().to_pylist()
        except (pa.ArrowInvalid, KeyError):
            return True  # nobody knows whom it holds
        return any(map(deletions.concerns, users))

    hubs = [out / "hub", *sorted(out.glob("tables/*/hub"))]
    return [hub for hub in hubs if any(map(is_concerned, hub.glob("*.parquet*")))]  # what a killed one began, too


def drop_exports(out: Path, deletions: Deletions) -> None:
    """Remove their files. Where this is killed, the same command finds what is left."""
    for hub in exports_of(out, deletions):
        for path in [hub / "README.md", *hub.glob("*.parquet*")]:
            path.unlink(missing_ok=True)
        print(f"{hub}: its files held persons that --forget names, and are removed; export.py writes them again")


def report_deletions(cuts: dict[SummarySet, Cut]) -> None:
    """Of the statements that stood, how many are gone: the check of what was to be forgotten."""
    if not any(x.summaries for x in cuts.values()):
        print("Nothing of it stands in these summaries.")
    for target, before in ((target, x.summaries) for target, x in cuts.items() if x.summaries):
        gone_count = kept_count = waiting_count = 0
        with Updates(target) as updates:
            for user, summary in before.items():
                stream = updates.stream(user)
                if stream is None:
                    gone_count += len(statements_of(summary))
                    continue
                current = updates.standing(stream)
                waiting_count += current is None or stream.versions[-1] not in updates.journal
                new_statements = statements_of(current[1].stage.summary) if current and current[1].stage else []
                repeats = [any(same(old.text, new.text) for new in new_statements) for old in statements_of(summary)]
                kept_count, gone_count = kept_count + sum(repeats), gone_count + repeats.count(False)
        persons = len({person_of(user) for user in before})
        rows = f" ({len(before)} rows)" if len(before) != persons else ""
        line = (
            f"{target.title}: forgotten of {persons} persons{rows}; of {gone_count + kept_count} statements of their "
            f"summaries {gone_count} are gone, {kept_count} are there again"
        )
        if waiting_count:
            line += f"; {waiting_count} wait for --model {target.policy}=..., which derives their summaries anew"
        print(line)
        if unknown_users := cuts[target].unknown:
            names = ", ".join(unknown_users[:3]) + (", ..." if len(unknown_users) > 3 else "")
            print(
                f"It took the whole summary of {len(unknown_users)} of these rows ({names}): the data no longer "
                "hold the row that it was written from. gen_preference.py --out writes them anew from the data now"
            )
    print(
        "Files of --data, reports and judgements still hold what they held. So do exports that were uploaded, or that "
        "export.py --report wrote into another folder."
    )
