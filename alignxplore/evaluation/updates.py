"""Summaries that go on: new interactions of persons whose summaries a finished run wrote, and what is to be forgotten.
`eval/gen_preference.py --continue` and `--forget` run it.

    RUN/updates/POLICY/BENCHMARK.SETTING.sSEED.streams.jsonl   a line a person: the slices, oldest first
    RUN/updates/POLICY/BENCHMARK.SETTING.sSEED.jsonl           a line a version: what a slice made of the one before
    RUN/updates/POLICY/BENCHMARK.SETTING.sSEED.current.jsonl   a line a person: the summary that stands

A version's id is the hash of all slices up to it. So the same data twice are one update; what is derived anew after
something was forgotten has the id, the seed and the text that it would have had if that had never been seen; and a
killed run finds what it had done. An update in bad format, or without an answer, replaces nothing: the person keeps
the older summary, and the slice is read again together with the next new interactions.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.fits import fit_of, stage_slices
from alignxplore.history import protocol_slices
from alignxplore.journal import FAILED, OK, Journal
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, content_hash, read_jsonl, write_jsonl
from alignxplore.serving.failures import UNANSWERED, failed
from alignxplore.serving.models import Model
from alignxplore.summarize import Sampling, StageSummary, stage_seed, write_stage


@dataclass(frozen=True)
class Part:
    """Interactions that came in one file, and its name."""

    source: str
    interactions: tuple[Interaction, ...]

    @classmethod
    def of(cls, row: dict) -> "Part":
        return cls(row["source"], tuple(Interaction(**x) for x in row["interactions"]))


@dataclass(frozen=True)
class Slice:
    """What one version was written from, oldest first; parts of several files where an update was read again."""

    parts: tuple[Part, ...]

    @property
    def interactions(self) -> tuple[Interaction, ...]:
        return tuple(x for part in self.parts for x in part.interactions)

    @property
    def sources(self) -> list[str]:
        """Names of the files, each once."""
        return list(dict.fromkeys(part.source for part in self.parts))

    @classmethod
    def of(cls, row: dict) -> "Slice":
        """From a line of streams.jsonl; older ones have one source a slice, and no parts."""
        return cls(tuple(map(Part.of, row.get("parts", [row]))))


@dataclass(frozen=True)
class Stream:
    """A person's slices, oldest first; `key` seeds what is written of them."""

    user: str
    key: tuple[str, ...]
    slices: tuple[Slice, ...]

    @property
    def versions(self) -> list[str]:
        """Ids of the versions, one a slice."""
        interactions = [[asdict(x) for x in one.interactions] for one in self.slices]
        return [content_hash([*self.key, interactions[: end + 1]]) for end in range(len(interactions))]

    @property
    def counts(self) -> Counter[Interaction]:
        return Counter(x for one in self.slices for x in one.interactions)

    def new(self, interactions: Iterable[Interaction]) -> tuple[Interaction, ...]:
        """Those that the stream does not hold yet: of a whole history the rest, of data given twice nothing."""
        counts, additions = self.counts, []
        for x in interactions:
            if counts[x]:
                counts[x] -= 1
            else:
                additions.append(x)
        return tuple(additions)

    def grown(self, source: str, interactions: tuple[Interaction, ...], unread: bool) -> "Stream":
        """With another slice; where the last one is `unread` (no version came of it), the two as one, in which each
        part keeps the file that it came in."""
        part = Part(source, interactions)
        if not unread:
            return replace(self, slices=(*self.slices, Slice((part,))))
        return replace(self, slices=(*self.slices[:-1], Slice((*self.slices[-1].parts, part))))

    def without(self, is_forgotten: Callable[[str, Interaction], bool]) -> "Stream":
        """Without the interactions of which `is_forgotten(source, interaction)`, and parts and slices of nothing
        else."""

        def rest(part: Part) -> Part:
            return replace(part, interactions=tuple(x for x in part.interactions if not is_forgotten(part.source, x)))

        slices = (Slice(tuple(filter(lambda part: part.interactions, map(rest, one.parts)))) for one in self.slices)
        return replace(self, slices=tuple(one for one in slices if one.parts))

    def row(self) -> dict:
        return {"user": self.user, "key": list(self.key), "slices": [asdict(one) for one in self.slices]}

    @classmethod
    def of(cls, row: dict) -> "Stream":
        return cls(row["user"], tuple(row["key"]), tuple(map(Slice.of, row["slices"])))


@dataclass(frozen=True)
class Version:
    """What one slice made of the summary before it.

    Attributes:
        past: id of the version whose summary was shown; None at the beginning.
        model: identity of the policy, `when` in UTC; None where an earlier run did not record it.
        stage: the answer; None of an update without one, for which `error` says why.
    """

    user: str
    number: int
    past: str | None
    model: str
    prompt: str
    when: str | None
    stage: StageSummary | None
    status: str = OK
    error: str | None = None

    @property
    def holds(self) -> bool:
        """Whether its summary stands: well-formed and not empty."""
        return self.stage is not None and self.stage.problem is None and bool(self.stage.summary.strip())

    def row(self) -> dict:
        return asdict(self)

    @classmethod
    def of(cls, row: dict) -> "Version":
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**values | {"stage": row["stage"] and StageSummary(**row["stage"])})


class Updates:
    """The updates of one set of summaries; a context in which they may be read and added to."""

    def __init__(self, target: SummarySet):
        self.target = target
        folder = target.folder / "updates" / target.policy
        name = target.journal_path.name.removesuffix(".jsonl")
        self.streams_path, self.versions_path = folder / f"{name}.streams.jsonl", folder / f"{name}.jsonl"
        self.current_path = folder / f"{name}.current.jsonl"

    def __enter__(self) -> "Updates":
        self._streams = Journal(self.streams_path).__enter__()
        self.journal = Journal(self.versions_path).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.journal.__exit__(*error)
        self._streams.__exit__(*error)

    def stream(self, user: str) -> Stream | None:
        return Stream.of(self._streams[user]) if user in self._streams else None

    def keep(self, stream: Stream) -> Stream:
        """Written down before anything is asked, so that a killed run knows what is left."""
        self._streams.append(stream.user, stream.row())
        return stream

    def streams(self) -> Iterator[Stream]:
        return map(Stream.of, self._streams.rows())

    def version(self, unit: str) -> Version | None:
        return Version.of(self.journal[unit]) if unit in self.journal else None

    def standing(self, stream: Stream, before: int | None = None) -> tuple[str, Version] | None:
        """Id and version of the summary that stands after all slices, or after the first `before` of them."""
        for unit in reversed(stream.versions[:before]):
            if (version := self.version(unit)) and version.holds:
                return unit, version
        return None

    def unread(self, stream: Stream) -> bool:
        """Whether nothing came of the last slice, although the policy was asked."""
        last = self.version(stream.versions[-1]) if stream.slices else None
        return last is not None and not last.holds

    def replace(self, streams: dict[str, Stream]) -> None:
        """Other streams in the place of these persons' (without slices: none), and no version that is of no stream.
        Both files are written anew, so that what is gone is gone from disk."""
        self.__exit__(None, None, None)
        try:
            if streams:
                rows = (
                    streams[row["user"]].row() if row["user"] in streams else row for row in newest(self.streams_path)
                )
                write_jsonl(self.streams_path, (self._line(row) for row in rows if row["slices"]))
            alive = {unit for row in newest(self.streams_path) for unit in Stream.of(row).versions}
            if any(row["id"] not in alive for _, row in read_jsonl(self.versions_path)):
                write_jsonl(self.versions_path, (row for row in newest(self.versions_path) if row["id"] in alive))
        finally:
            self.__enter__()

    @staticmethod
    def _line(row: dict) -> dict:
        return {"id": row["user"], "status": OK} | row

    def write_current(self) -> None:
        """The summary that stands, of each person who has one."""

        def rows() -> Iterator[dict]:
            for stream in self.streams():
                if current := self.standing(stream):
                    _, version = current
                    assert version.stage is not None
                    yield {
                        "user": stream.user,
                        "summary": version.stage.summary,
                        "version": version.number + 1,
                        "slices": len(stream.slices),
                        "model": version.model,
                        "when": version.when,
                    }

        write_jsonl(self.current_path, rows())


def standing_versions(target: SummarySet) -> Iterator[tuple[Stream, list[Version]]]:
    """Each person of the updates, in all shards, with the versions that hold, oldest first: the last one stands. Only
    reads, so that it may be called while a run goes on."""
    for part in target.parts:
        updates = Updates(part)
        if not updates.versions_path.exists():
            continue
        version_of = {row["id"]: Version.of(row) for _, row in read_jsonl(updates.versions_path)}
        stream_of = {row["user"]: Stream.of(row) for _, row in read_jsonl(updates.streams_path)}
        for stream in stream_of.values():
            versions = [version_of[unit] for unit in stream.versions if unit in version_of]
            if holding_versions := [version for version in versions if version.holds]:
                yield stream, holding_versions


def newest(path: Path) -> Iterator[dict]:
    """The rows of a journal, of each unit the last one."""
    with Journal(path) as journal:
        yield from journal.rows()


def begin(updates: Updates, record: UserRecord, meta: dict, row: dict | None, source: str) -> Stream:
    """The stream that a finished run began: its slices, and its stages as the first versions.

    Args:
        record: the person's row of the benchmark that the run was about.
        meta: what the run says of itself (`SummarySet.meta`).
        row: its summaries of that record; None where it has none, so that all is to be written.
    """
    setting = updates.target.setting
    drop_counts = [stage["dropped"] for stage in row["stages"]] if row else []
    slices = stage_slices(fit_of(meta), meta["task"], record.history, drop_counts)
    slices = slices or protocol_slices(record.history, meta["task"], meta["stages"])
    stream = Stream(record.user, (record.id, setting), tuple(Slice((Part(source, xs),)) for xs in slices))
    for number, (unit, stage) in enumerate(zip(stream.versions, row["stages"] if row else ())):
        past = stream.versions[number - 1] if number else None
        version = Version(
            record.user, number, past, meta["identity"], meta["prompt_hash"], None, StageSummary(**stage)
        )
        updates.journal.append(unit, version.row())
    return updates.keep(stream)


@dataclass(frozen=True)
class Writer:
    """A policy and how it is asked."""

    model: Model
    prompts: PromptSet
    sampling: Sampling
    window: int

    async def derive(self, updates: Updates, stream: Stream) -> dict:
        """The row of the last version; those before it that are missing are written and journalled first."""
        for number, unit in enumerate(stream.versions):
            if unit not in updates.journal:
                row = (await self._version(updates, stream, number)).row()
                if row["status"] in FAILED or number + 1 == len(stream.slices):
                    return row  # what comes after a failed one waits for it
                updates.journal.append(unit, row)
        return updates.journal[stream.versions[-1]]

    async def _version(self, updates: Updates, stream: Stream, number: int) -> Version:
        current = updates.standing(stream, number)
        past = current[1].stage.summary if current and current[1].stage else ""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        version = Version(
            stream.user,
            number,
            current[0] if current else None,
            self.model.identity,
            self.prompts.hash("infer"),
            now,
            None,
        )
        try:
            stage = await write_stage(
                self.model.endpoint,
                self.model.tokenizer,
                self.prompts,
                stream.slices[number].interactions,
                past,
                self.sampling,
                stage_seed(list(stream.key), number, self.sampling.seed),
                self.window,
                self.window - self.sampling.max_tokens,
            )
        except UNANSWERED as error:
            return replace(version, **failed(error))
        return replace(version, stage=stage)
