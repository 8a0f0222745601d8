"""From events (user, time, item) to records: order by time, drop repetitions, draw what was passed over.

MovieLens and Amazon tell what a user took, not what the user left; the rejected item is drawn (`drawing.py`):

* published: from items the user never took.
* matched: as popular over all time (11 % of the ratings of MovieLens latest-small have no match and are dropped).
* matched_both: as popular over all time and before the choice.
* liked: only items with four stars or more, or with the user's own mean or more, count as chosen. What is set against
  them is an item with fewer stars of the same user, or where none of these fits one that the user never took; either
  is matched as in matched_both.

A user's draws come from a hash of seed and user: neither the order of the input nor other users change them, except
through the popularity of items.
"""

import hashlib
import random
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TextIO

from alignxplore.datasets.building import Example, Job, Popularity, UserGroups, temporary_text
from alignxplore.datasets.drawing import Choice, Sampler, sampler_of
from alignxplore.datasets.offers import Offers
from alignxplore.datasets.takings import Others, Takings
from alignxplore.records import Interaction, UserRecord, hash_seed

LIKED = 4.0  # stars of five that are enough in the protocol `liked`, whatever the user's mean


class Catalogue:
    """Items by key, numbered as they are added; their texts lie on disk.

    Attributes:
        index: key → number of the item.
        twin: number of the item → number of the first item with the same text, for no reader can tell these apart.
    """

    def __init__(self, scratch: Path | None):
        self.index: dict[str, int] = {}
        self.twin = array("L")
        self._by_text: dict[int, int] = {}
        self._file = tempfile.TemporaryFile("w+b", dir=scratch)  # noqa: SIM115 (it lives as long as the catalogue)
        self._ends = array("Q", [0])
        self.text = lru_cache(maxsize=1 << 16)(self._text)

    def __len__(self) -> int:
        return len(self.twin)

    def add(self, key: str, text: str) -> None:
        """Add an item; a key that is already there keeps its first text."""
        if key in self.index:
            return
        item = self.index[key] = len(self)
        data = text.encode("utf-8", "surrogatepass")
        self.twin.append(
            self._by_text.setdefault(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"), item)
        )
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def _text(self, item: int) -> str:
        self._file.seek(self._ends[item])
        return self._file.read(self._ends[item + 1] - self._ends[item]).decode("utf-8", "surrogatepass")


class Event(NamedTuple):
    """A user took an item (its number in the catalogue) and gave it so many stars of five."""

    user: str
    time: int
    item: int
    stars: float


class Taken(NamedTuple):
    """An event of a user who is known."""

    time: int
    item: int
    stars: float


class Pair(NamedTuple):
    """A chosen item, what is set against it, and when it was chosen (None: not known)."""

    chosen: int
    rejected: int
    time: int | None


def order_events(
    events: Iterable[Event], catalogue: Catalogue, ties: str, job: Job
) -> tuple[Iterator[tuple[str, list[Taken]]], Takings]:
    """Group events by user on disk, sort each user's by time, keep the first of what the user took repeatedly.

    Returns:
        an iterator over (user, what the user took, in order) of the job's split in hash order, and the takings of all
        users.
    """
    groups = UserGroups(job.seed, job.scratch)
    for name, time, item, stars in events:
        groups.add(name, f"{time} {item} {stars:g}")
    takings, ordered = Takings(len(catalogue), job.scratch), temporary_text(job.scratch)
    for user, rows in groups:
        job.counts["users read"] += 1
        taken = list(map(_taken, rows))
        taken.sort(key=None if ties == "item" else itemgetter(0))
        items = _first_of(taken, [item for _, item, _ in taken])
        unique = _first_of(items, [catalogue.twin[item] for _, item, _ in items])
        job.counts["dropped: the user took the same item before"] += len(taken) - len(items)
        job.counts["dropped: the user took an item with the same text before"] += len(items) - len(unique)
        for moment, place, _ in unique:
            takings.add(place, moment)
        if not job.wanted(user):
            job.counts[f"users left out: not in split {job.split}"] += 1
        elif len(unique) < job.least:
            job.counts[f"users dropped: fewer than {job.least} interactions"] += 1
        else:
            ordered.write("\t".join([user, *(" ".join(map(str, event)) for event in unique)]) + "\n")
    groups.close()
    takings.close()
    return _read_ordered(ordered), takings


def _taken(text: str) -> Taken:
    time, item, stars = text.split(" ")
    return Taken(int(time), int(item), float(stars))


def _first_of(taken: list[Taken], keys: list[int]) -> list[Taken]:
    """The first of those with the same key, in order."""
    first: dict[int, Taken] = {}
    for key, event in zip(keys, taken):
        first.setdefault(key, event)
    return list(first.values())


def _read_ordered(file: TextIO) -> Iterator[tuple[str, list[Taken]]]:
    with file:
        file.seek(0)
        for line in file:
            user, *events = line.rstrip("\n").split("\t")
            yield user, list(map(_taken, events))


def build_records(
    events: Iterable[Event], catalogue: Catalogue, job: Job, *, pool: str, ties: str
) -> Iterator[Example]:
    """Records of all users, negatives drawn by the job's protocol.

    Args:
        events: consumed before the first record is yielded.
        pool: what `published` draws from, "catalogue" (any item) or "taken" (items that some user took).
        ties: what orders events of a user at the same time, "item" (the order of rows does not matter then) or "row".
    """
    ordered, takings = order_events(events, catalogue, ties, job)
    rated = [item for item, count in enumerate(takings.counts) if count]
    job.counts["items in the catalogue"], job.counts["items taken by a user"] = len(catalogue), len(rated)
    anything = job.protocol == "published" and pool == "catalogue"
    sampler = sampler_of(job, range(len(catalogue)) if anything else rated, catalogue.twin, takings)
    offers = Offers(job, catalogue, sampler.pool, takings.counts)
    for user, taken in ordered:
        others = Others(takings, {event.item: event.time for event in taken})
        dice = random.Random(hash_seed(job.seed, job.dataset.name, user))
        if job.protocol == "liked":
            pairs = _liked_pairs(taken, others, sampler, dice, job)
        else:
            pairs = _pairs(taken, others, sampler, dice, job)
        used = {catalogue.twin[item] for item in (*others.own, *(pair.rejected for pair in pairs))}
        yield from offers.widen(finish(user, pairs, catalogue, others, job), used)


def _pairs(taken: list[Taken], others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user took, and one that the user never took."""
    twin, pairs = sampler.twin, []
    banned = {twin[event.item] for event in taken}
    for time, item, _ in taken:
        rejected = sampler.draw(Choice(item, time, others), banned, dice)
        if rejected is None:
            job.counts["dropped: no item to set against it"] += 1
            continue
        banned.add(twin[rejected])  # never twice, so that a rejected target does not stand in the history
        pairs.append(Pair(item, rejected, time))
    return pairs


def _liked_pairs(taken: list[Taken], others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user liked, and one that the user liked less, or never took where none of these fits."""
    twin, pairs = sampler.twin, []
    bar = min(LIKED, sum(event.stars for event in taken) / len(taken))
    low = [event.item for event in taken if event.stars < bar]
    own = sampler_of(job, low, twin, others.takings)
    used, banned = {twin[event.item] for event in taken if event.stars >= bar}, {twin[event.item] for event in taken}
    for time, item, stars in taken:
        if stars < bar:
            job.counts["not chosen: few stars"] += 1
            continue
        choice = Choice(item, time, others)
        rejected = own.draw(choice, used, dice)
        job.counts["rejected items with few stars of the same user"] += rejected is not None
        if rejected is None:
            rejected = sampler.draw(choice, banned, dice)
        if rejected is None:
            job.counts["dropped: no item to set against it"] += 1
            continue
        used.add(twin[rejected])
        banned.add(twin[rejected])
        pairs.append(Pair(item, rejected, time))
    return pairs


def finish(user: str, pairs: list[Pair], catalogue: Catalogue, others: Others, job: Job) -> Iterator[Example]:
    """The rows of a user's choices (`Job.rows`); none when fewer than the job's minimum are left."""
    if len(pairs) < job.least:
        job.counts[f"users dropped: fewer than {job.least} interactions with an alternative"] += 1
        return
    rows = job.rows(user, len(pairs))
    if not rows:
        job.counts[f"users dropped: no choice has {job.length} before it"] += 1
        return
    job.counts["interactions kept"] += len(pairs)
    job.counts["rejected items that nobody had taken before the choice"] += sum(
        time is not None and not others.takings.before(rejected, time) for _, rejected, time in pairs
    )
    query = job.dataset.default_query
    history = [Interaction(catalogue.text(pair.chosen), catalogue.text(pair.rejected), query) for pair in pairs]
    for name, first, place in rows:
        yield Example(UserRecord(name, tuple(history[first:place]), history[place]), popularity(pairs[place], others))


def popularity(pair: Pair, others: Others) -> Popularity:
    """How many others took either item, over all time and, where the time of the choice is known, before it."""
    counts = others.count(pair.chosen), others.count(pair.rejected)
    if pair.time is None:
        return Popularity(*counts)
    return Popularity(*counts, others.before(pair.chosen, pair.time), others.before(pair.rejected, pair.time))
