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

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from alignxplore.datasets.building import Example, Job, Popularity
from alignxplore.datasets.catalogue import Catalogue, Quoted
from alignxplore.datasets.drawing import Choice, Sampler, sampler_of
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.events import Chunk, Ordered
from alignxplore.datasets.offers import Offers
from alignxplore.datasets.parts import Drawer, Line, Records, popularity_line
from alignxplore.datasets.takings import Others, Takings
from alignxplore.records import Interaction, UserRecord, as_json, hash_seed

LIKED = 4.0  # stars of five that are enough in the protocol `liked`, whatever the user's mean


class Taken(NamedTuple):
    """What a user took, in order: items, when, and how many stars of five they got."""

    items: list[int]
    times: list[int]
    stars: list[float]


class Pair(NamedTuple):
    """A chosen item, what is set against it, and when it was chosen (None: not known)."""

    chosen: int
    rejected: int
    time: int | None


def build_records(engine: Engine, catalogue: Catalogue, job: Job, *, pool: str, ties: str) -> Records:
    """Records of all users whose events lie in the engine, negatives drawn by the job's protocol.

    Args:
        pool: what `published` draws from, "catalogue" (any item) or "taken" (items that some user took).
        ties: what orders events of a user at the same time, "item" (the order of rows does not matter then) or "row".
    """
    ordered = Ordered(engine, catalogue, ties, job)
    taken = sum(count > 0 for count in ordered.takings.counts)
    job.counts["items in the catalogue"], job.counts["items taken by a user"] = len(catalogue), taken
    anything = job.protocol == "published" and pool == "catalogue"
    drawer = RecommendationDrawer(job, catalogue, ordered.takings, anything)
    return Records(engine, job, drawer, ordered.chunks, ordered.users)


class RecommendationDrawer(Drawer):
    """Makes rows of what users took.

    Args:
        anything: in place of items that some user took, all are drawn from.
    """

    def __init__(self, job: Job, catalogue: Catalogue, takings: Takings, anything: bool):
        super().__init__(job)
        self.catalogue, self.takings, self.anything = catalogue, takings, anything

    @cached_property
    def sampler(self) -> Sampler:
        """Draws from all items that may be set against another one."""
        rated = [item for item, count in enumerate(self.takings.counts) if count]
        pool: Sequence[int] = range(len(self.catalogue)) if self.anything else rated
        return sampler_of(self.job, pool, self.catalogue.twin, self.takings)

    @cached_property
    def offers(self) -> Offers:
        """Draws the other items of targets among k."""
        return Offers(self.job, self.catalogue, self.sampler.pool, self.takings.counts)

    @cached_property
    def writer(self) -> "Writer":
        """Makes lines."""
        return Writer(self.catalogue, self.job)

    def examples(self, chunk: Chunk) -> Iterator[Example]:
        twin = self.catalogue.twin
        for user, pairs, others in self._drawn(chunk):
            used = {twin[item] for item in (*others.own, *(pair.rejected for pair in pairs))}
            yield from self.offers.widen(finish(user, pairs, self.catalogue, others, self.job), used)

    def lines(self, chunk: Chunk) -> Iterator[Line]:
        if self.job.items is not None:
            yield from super().lines(chunk)
            return
        for user, pairs, others in self._drawn(chunk):
            for window in windows(user, pairs, others, self.job):
                yield Line(user, self.writer.line(window), popularity_line(window.name, window.popularity))

    def _drawn(self, chunk: Chunk) -> Iterator[tuple[str, list[Pair], Others]]:
        """Each user's choices with what is set against them."""
        job, dice, start = self.job, random.Random(), 0
        draw = _liked_pairs if job.protocol == "liked" else _pairs
        items, times, stars = (column.tolist() for column in (chunk.items, chunk.times, chunk.stars))
        for user, end in zip(chunk.users, chunk.ends.tolist()):
            taken = Taken(items[start:end], times[start:end], stars[start:end])
            others = Others(self.takings, dict(zip(taken.items, taken.times)))
            dice.seed(hash_seed(job.seed, job.dataset.name, user))
            yield user, draw(taken, others, self.sampler, dice, job), others
            start = end


def _pairs(taken: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user took, and one that the user never took."""
    banned = {sampler.twin[item] for item in taken.items}
    # Never twice, so that a rejected target does not stand in the history.
    drawn = sampler.draw_each(taken.items, taken.times, others, banned, dice)
    pairs = [
        Pair(item, rejected, time)
        for item, rejected, time in zip(taken.items, drawn, taken.times)
        if rejected is not None
    ]
    if len(pairs) < len(drawn):
        job.counts["dropped: no item to set against it"] += len(drawn) - len(pairs)
    return pairs


def _liked_pairs(taken: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user liked, and one that the user liked less, or never took where none of these fits."""
    twin, pairs = sampler.twin, []
    bar = min(LIKED, sum(taken.stars) / len(taken.stars))
    low = [item for item, stars in zip(taken.items, taken.stars) if stars < bar]
    own = sampler_of(job, low, twin, others.takings)
    banned = {twin[item] for item in taken.items}
    used = banned - {twin[item] for item in low}
    for item, time, stars in zip(*taken):
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


class Window(NamedTuple):
    """A row in the making: its name, its choices, the last of which is the target, and how popular that is."""

    name: str
    pairs: list[Pair]
    popularity: Popularity


def windows(user: str, pairs: list[Pair], others: Others, job: Job) -> Iterator[Window]:
    """The rows of a user's choices (`Job.rows`); none when fewer than the job's minimum are left."""
    if len(pairs) < job.least:
        job.counts[f"users dropped: fewer than {job.least} interactions with an alternative"] += 1
        return
    rows = job.rows(user, len(pairs))
    if not rows:
        job.counts[f"users dropped: no choice has {job.length} before it"] += 1
        return
    job.counts["interactions kept"] += len(pairs)
    first = others.takings.first
    job.counts["rejected items that nobody had taken before the choice"] += sum(
        [time is not None and first[rejected] >= time for _, rejected, time in pairs]
    )
    for name, start, place in rows:
        yield Window(name, pairs[start : place + 1], popularity(pairs[place], others))


def finish(user: str, pairs: list[Pair], catalogue: Catalogue, others: Others, job: Job) -> Iterator[Example]:
    """The same as examples."""
    query = job.dataset.default_query
    for name, chosen, counts in windows(user, pairs, others, job):
        *history, target = (Interaction(catalogue.text(a), catalogue.text(b), query) for a, b, _ in chosen)
        yield Example(UserRecord(name, tuple(history), target), counts)


class Writer:
    """Windows as lines of a benchmark file: what `user_row` and `json` make of their examples, ten times as fast."""

    def __init__(self, catalogue: Catalogue, job: Job):
        self._texts = Quoted(catalogue)
        self._end = f', "query": {as_json(job.dataset.default_query)}}}'

    def line(self, window: Window) -> str:
        """The line of a window."""
        texts, end = self._texts, self._end
        pairs = [f'{{"chosen": {texts[a]}, "rejected": {texts[b]}{end}' for a, b, _ in window.pairs]
        name, target = as_json(window.name), pairs.pop()
        return f'{{"userid": {name}, "history": [{", ".join(pairs)}], "target": {target}}}\n'


def popularity(pair: Pair, others: Others) -> Popularity:
    """How many others took either item, over all time and, where the time of the choice is known, before it."""
    counts = others.count(pair.chosen), others.count(pair.rejected)
    if pair.time is None:
        return Popularity(*counts)
    return Popularity(*counts, others.before(pair.chosen, pair.time), others.before(pair.rejected, pair.time))
