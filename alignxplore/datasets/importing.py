"""A table of one's own → records and RL rows: ratings, likes with and without negatives, free text, chats.

    python -m alignxplore.datasets import ratings.csv --user user_id --item title --time when --rating stars

A rating counts against the person's own mean: above it is liked, below it is not. A label says so by itself. What was
liked is set against what was not, of the same person and the nearest in time; each is used once. Without ratings and
labels everything was liked: histories then have no alternatives, and those of the targets are drawn from what others
took, as popular and about as long. An item that is a list of messages is a chat: its answers are what was chosen.

One person in five is for the test. Everything a person has goes to one side. Rows are grouped on disk (own_events.py),
so that memory holds one person (and of likes each different item once).
"""

import dataclasses
import itertools
import json
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from alignxplore.benchmark_files import user_row
from alignxplore.datasets.engine import scratch_folder
from alignxplore.datasets.own_events import Event, Import, events_of_persons, new_database, read_events
from alignxplore.datasets.sidecars import manifest_path, sha256, take_places
from alignxplore.errors import UserError, naming
from alignxplore.records import Interaction, UserRecord, hash_seed, write_json, write_jsonl
from alignxplore.texts import words_of

LEAST = 3  # liked items of a person: something to read, and two targets of RL
_NEIGHBOURS = 12  # items next in popularity that an alternative is drawn from
_EQUAL = 1e-9  # between a rating and a mean that are one, but for rounding


def import_table(job: Import, out: Path) -> dict[str, int]:
    """Write OUT_upi.jsonl (test persons, with its manifest), OUT_train.jsonl and OUT_rl.jsonl; returns the counts.

    Raises:
        RecordError: a row that cannot be read, with file, line and field.
        UserError: nobody is left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    test, train, rows = (out.with_name(f"{out.name}_{kind}.jsonl") for kind in ("upi", "train", "rl"))
    with scratch_folder(out.parent, f".{out.name}.import") as scratch, naming(test):
        database = new_database(scratch)
        read_events(job, database)
        sides = Sides(scratch)
        for person, pairs in _persons(job, database):
            sides.add(job, person, pairs)
        database.close()
        rows_by_kind = sides.close(job)
        aside = scratch / "new"
        job.counts["test persons"] = write_jsonl(aside / test.name, rows_by_kind["test"])
        job.counts["training persons"] = write_jsonl(aside / train.name, rows_by_kind["train"])
        job.counts["RL rows, of training persons"] = write_jsonl(aside / rows.name, rows_by_kind["rl"])
        about = {"dataset": out.name, "task": "selection", "edition": job.file.name} | dataclasses.asdict(job)
        del about["file"]
        about |= {"counts": dict(job.counts), "sha256": sha256(aside / test.name)}
        write_json(manifest_path(aside / test.name), about)
        take_places(aside, test, train, rows)
    return dict(job.counts)


def _persons(job: Import, database: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[Interaction]]]:
    """(person, what was liked, oldest first, with its alternatives) of those with enough of it, in hash order."""
    pool = None if job.rating or job.label else Pool(job, database)
    for person, events in events_of_persons(job, database):
        if pool is None:
            pairs = _paired(job, events)
        else:
            pairs = pool.with_alternatives(job, person, _first_answers(job, events))
        if len(pairs) < LEAST:
            job.counts[f"left out: a person with fewer than {LEAST} liked items"] += 1
        elif pairs[-1].rejected is None:
            job.counts["left out: a person without anything to set against a liked item"] += 1
        else:
            yield person, pairs


def _first_answers(job: Import, events: list[Event]) -> list[Event]:
    """Each text once, whatever was asked: the answers of chats repeat, and one that stands in the history could be
    copied, not foreseen."""
    event_of: dict[str, Event] = {}
    for event in events:
        event_of.setdefault(words_of(event.item), event)
    job.counts["left out: the same answer to another question came before"] += len(events) - len(event_of)
    return list(event_of.values())


def _paired(job: Import, events: list[Event]) -> list[Interaction]:
    """What was liked, each set against what was not: the newest first, each the nearest in time that is left and, of
    chats, answers the same question."""
    bar = 0.5 if job.label else sum(event.value or 0.0 for event in events) / len(events)
    margins = [(event.value or 0.0) - bar for event in events]
    job.counts["left out: a rating that is the person's mean"] += sum(abs(margin) <= _EQUAL for margin in margins)
    liked_events = _first_answers(job, [event for event, margin in zip(events, margins) if margin > _EQUAL])
    against: dict[str | None, list[Event]] = {}
    for event in _first_answers(job, [event for event, margin in zip(events, margins) if margin < -_EQUAL]):
        against.setdefault(event.query, []).append(event)
    pairs = []
    for event in reversed(liked_events):
        candidates = against.get(event.query, [])
        alternative = min(candidates, key=lambda candidate: abs(candidate.time - event.time), default=None)
        if alternative:
            candidates.remove(alternative)
        pairs.append(Interaction(event.item, alternative.item if alternative else None, event.query))
    job.counts["liked items without an alternative"] += sum(pair.rejected is None for pair in pairs)
    job.counts["left out: a disliked item that no liked one is set against"] += sum(map(len, against.values()))
    pairs.reverse()
    end = max((place for place, pair in enumerate(pairs) if pair.rejected is not None), default=len(pairs) - 1)
    return pairs[: end + 1]  # the last one is the target


class Pool:
    """What others took, in the order of popularity: alternatives of likes. Texts of the same words are one item."""

    def __init__(self, job: Import, database: duckdb.DuckDBPyConnection):
        self.seed = job.seed
        items_and_counts = database.execute(
            "SELECT min(item) AS text, count(DISTINCT person) AS persons FROM events GROUP BY words "
            "ORDER BY persons, text"
        ).fetchall()
        self.items = [text for text, _ in items_and_counts]
        self.counts = [count for _, count in items_and_counts]
        self.count_of = dict(zip(map(words_of, self.items), self.counts))

    def with_alternatives(self, job: Import, person: str, events: list[Event]) -> list[Interaction]:
        """What a person took, with alternatives to the targets: the last item that has a fair one, and one about in
        the middle. Where none is fair, any alternative is taken and counted."""
        dice = random.Random(hash_seed(self.seed, "import", person))
        pairs = [Interaction(event.item, None, event.query) for event in events]
        exclusions = {words_of(event.item) for event in events}
        for fair in (True, False):
            place = self._give(pairs, range(len(pairs) - 1, LEAST - 2, -1), exclusions, dice, fair)
            if place is not None:
                job.counts["alternatives that popularity could tell"] += not fair
                job.counts["left out: newer than the last item with an alternative"] += len(pairs) - 1 - place
                middle_first = sorted(range(1, place), key=lambda spot: abs(spot - _middle(place + 1)))
                self._give(pairs, middle_first, exclusions, dice, fair)
                return pairs[: place + 1]
        return pairs

    def _give(
        self,
        items: list[Interaction],
        places: Iterable[int],
        exclusions: set[str],
        dice: random.Random,
        fair: bool,
    ) -> int | None:
        """Set an alternative against the first of these places that has one; returns the place."""
        for place in places:
            alternative = self._draw(items[place].chosen, exclusions, dice, fair)
            if alternative is not None:
                exclusions.add(words_of(alternative))
                items[place] = dataclasses.replace(items[place], rejected=alternative)
                return place
        return None

    def _draw(self, item: str, exclusions: set[str], dice: random.Random, fair: bool) -> str | None:
        """An item that as many others took, or on a fair coin's side of it; of a few the most alike in length."""
        # Of others alone: the person's own taking is in no alternative's count.
        count = self.count_of[words_of(item)] - 1
        low, high = bisect_left(self.counts, count), bisect_left(self.counts, count + 1)
        start = dice.randrange(low, high) if low < high else low
        neighbours = self._free(itertools.chain(range(start, high), range(low, start)), exclusions)
        if not neighbours:
            sides = (
                self._free(range(high, len(self.items)), exclusions),
                self._free(range(low - 1, -1, -1), exclusions),
            )
            if fair and not all(sides):
                return None
            neighbours = dice.choice([side for side in sides if side] or [[]])
        sample = dice.sample(neighbours, min(4, len(neighbours)))
        return min(sample, key=lambda candidate: abs(len(candidate) - len(item)), default=None)

    def _free(self, places: Iterable[int], exclusions: set[str]) -> list[str]:
        """The first items of these places that may be drawn."""
        free = (self.items[place] for place in places if words_of(self.items[place]) not in exclusions)
        return list(itertools.islice(free, _NEIGHBOURS))


def _middle(count: int) -> int:
    return count // 2


class Sides:
    """Records dealt to test and training, on disk. The test has one person at least."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self._files = {kind: (scratch / kind).open("w", encoding="utf-8") for kind in ("test", "train", "rl")}
        self._first: tuple[str, list[Interaction]] | None = None  # is for the test where nobody else is

    def add(self, job: Import, person: str, pairs: list[Interaction]) -> None:
        """A person with what was liked, the target last."""
        if hash_seed("split", person) / 2**31 < job.test_share:
            self._test(person, pairs)
        elif self._first is None:
            self._first = person, pairs
        else:
            self._train(job, person, pairs)

    def close(self, job: Import) -> dict[str, Iterable[dict]]:
        """Rows by kind.

        Raises:
            UserError: there is nobody.
        """
        if self._first and self._files["test"].tell() == 0:
            self._test(*self._first)
        elif self._first:
            self._train(job, *self._first)
        if self._files["test"].tell() == 0:
            summary = "; ".join(f"{count:,} {event}" for event, count in job.counts.items() if count)
            raise UserError(f"{job.file}: no person is left ({summary or 'the file has no rows'})")
        for file in self._files.values():
            file.close()
        return {kind: self._rows(kind) for kind in self._files}

    def _rows(self, kind: str) -> Iterator[dict]:
        with (self.scratch / kind).open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def _test(self, person: str, pairs: list[Interaction]) -> None:
        self._write("test", _record(person, pairs))

    def _train(self, job: Import, person: str, pairs: list[Interaction]) -> None:
        self._write("train", _record(person, pairs))
        candidates = [place for place in range(1, len(pairs) - 1) if pairs[place].rejected is not None]
        if not candidates:
            job.counts["training persons without an RL row: no alternative in the middle"] += 1
            return
        middle = min(candidates, key=lambda place: abs(place - _middle(len(pairs))))
        self._write("rl", {"uid": person, "history": [dict(vars(pair)) for pair in pairs], "mid_position": middle})

    def _write(self, kind: str, row: dict) -> None:
        self._files[kind].write(json.dumps(row, ensure_ascii=False) + "\n")


def _record(person: str, pairs: list[Interaction]) -> dict:
    return user_row(UserRecord(person, tuple(pairs[:-1]), pairs[-1]))
