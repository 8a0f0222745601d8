"""From events (user, time, item) to records: order by time, drop repetitions, draw what was passed over.

MovieLens and Amazon tell what a user took, not what the user left; the rejected item is drawn (`drawing.py`):

* published: from items the user never took.
* matched: as popular over all time (11 % of the ratings of MovieLens latest-small have no match and are dropped).
* matched_both: as popular over all time and before the choice.
* liked: only items with four stars or more, or with the user's own mean or more, count as chosen. What is set against
  them is an item with fewer stars of the same user, or where none of these fits one that the user never took; either
  is matched as in matched_both.

A user's draws come from a hash of seed and user: neither the order of the input nor other users change them, except
through the popularity of items. Uniform ones are made for all users of a chunk at once (`Sampler.draw_all`).
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as arrow

from alignxplore.datasets.building import Example, Job, Popularity
from alignxplore.datasets.catalogue import Catalogue, Quoted
from alignxplore.datasets.drawing import Choice, Sampler, sampler_of
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.events import Chunk, Ordered
from alignxplore.datasets.offers import Offers
from alignxplore.datasets.parts import Drawer, Part, Records, popularity_line
from alignxplore.datasets.takings import Others, OthersOfMany, Takings
from alignxplore.records import HALF_CHARACTERS, Interaction, UserRecord, as_json, hash_seed

_UNMATCHED = "dropped: no item to set against it"
_UNSEEN = "rejected items that nobody had taken before the choice"
LIKED = 4.0  # stars of five that are enough in the protocol `liked`, whatever the user's mean


class Taken(NamedTuple):
    """What a user took, in order: items, when, and how many stars of five they got."""

    items: list[int]
    times: list[int]
    stars: list[float]


# A chosen item, what is set against it, and when it was chosen (None: not known). Millions are made: a plain tuple.
Pair = tuple[int, int, int | None]


class Drawn(NamedTuple):
    """What some users chose and what is set against it, in order: that of user i is from ends[i - 1] to ends[i]."""

    ends: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    times: np.ndarray


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
        twin, drawn, start, begin = self.catalogue.twin, self._draw(chunk), 0, 0
        pairs: list[Pair] = list(zip(*(column.tolist() for column in drawn[1:])))
        for user, stop, end in zip(chunk.users, chunk.ends.tolist(), drawn.ends.tolist()):
            others, own = self._others(chunk, begin, stop), pairs[start:end]
            used = {twin[item] for item in (*others.own, *(rejected for _, rejected, _ in own))}
            yield from self.offers.widen(finish(user, own, self.catalogue, others, self.job), used)
            start, begin = end, stop

    def made(self, chunk: Chunk) -> Part:
        """The same as lines, put together for all users at once."""
        job = self.job
        if job.items is not None:
            return super().made(chunk)
        drawn, people, start = self._draw(chunk), 0, 0
        unseen = [0, *np.cumsum(np.asarray(self.takings.first)[drawn.rejected] >= drawn.times).tolist()]
        names, users, first, last = list[str](), list[int](), list[int](), list[int]()
        for place, (user, end) in enumerate(zip(chunk.users, drawn.ends.tolist())):
            rows = rows_of(user, end - start, job)
            if rows:
                people += 1
                job.counts[_UNSEEN] += unseen[end] - unseen[start]
            for name, shown, target in rows:
                names.append(name)
                users.append(place)
                first.append(start + shown)
                last.append(start + target)
            start = end
        if not names:
            return Part(b"", b"", 0, 0, {})
        beside = "".join(map(popularity_line, names, self._popularity(chunk, users, drawn, last))).encode()
        return Part(self.writer.lines(names, np.array(first), np.array(last), drawn), beside, len(names), people, {})

    def _popularity(self, chunk: Chunk, users: list[int], drawn: Drawn, targets: list[int]) -> Iterator[Popularity]:
        """How popular the items of some users' targets are."""
        others = OthersOfMany(self.takings, chunk.ends, chunk.items, chunk.times)
        who, times = np.array(users), drawn.times[targets]
        chosen, rejected = (others.counted(who, items[targets], times) for items in (drawn.chosen, drawn.rejected))
        columns = chosen[0], rejected[0], chosen[1], rejected[1]
        return map(Popularity, *(column.tolist() for column in columns))

    def _others(self, chunk: Chunk, start: int, end: int) -> Others:
        """All but the user who took the items from start to end."""
        own = zip(chunk.items[start:end].tolist(), chunk.times[start:end].tolist())
        return Others(self.takings, dict(own))

    def _draw(self, chunk: Chunk) -> Drawn:
        """The users' choices with what is set against them."""
        job, start = self.job, 0
        if type(self.sampler) is Sampler:
            rejected = self.sampler.draw_all(self._seeds(chunk.users), chunk.ends, chunk.items)
            kept = rejected >= 0
            if dropped := len(kept) - int(kept.sum()):
                job.counts[_UNMATCHED] += dropped
            ends = np.cumsum(kept)[chunk.ends - 1]
            return Drawn(ends, chunk.items[kept], rejected[kept], chunk.times[kept])
        # Matching asks for one choice after another.
        draw, dice = _liked_pairs if job.protocol == "liked" else _matched_pairs, random.Random()
        items, times, stars = (column.tolist() for column in (chunk.items, chunk.times, chunk.stars))
        pairs, ends_U = list[Pair](), list[int]()
        for user, end in zip(chunk.users, chunk.ends.tolist()):
            taken = Taken(items[start:end], times[start:end], stars[start:end])
            dice.seed(hash_seed(job.seed, job.dataset.name, user))
            pairs += draw(taken, self._others(chunk, start, end), self.sampler, dice, job)
            ends_U.append(len(pairs))
            start = end
        columns = np.array(pairs, np.int64).reshape(-1, 3).T
        return Drawn(np.array(ends_U), *columns)

    def _seeds(self, users: Sequence[str]) -> np.ndarray:
        """64 bits for the draws of each user."""
        own = f"{self.job.seed}\t{self.job.dataset.name}\t"
        hashes = [hashlib.blake2b(f"{own}{user}".encode(), digest_size=8).digest() for user in users]
        return np.frombuffer(b"".join(hashes), "<u8")


def _matched_pairs(taken: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user took, and one as popular that the user never took. Nothing is drawn twice, so that a
    rejected target does not stand in the history."""
    banned, pairs = {sampler.twin[item] for item in taken.items}, list[Pair]()
    for item, time in zip(taken.items, taken.times):
        rejected = sampler.draw(Choice(item, time, others), banned, dice)
        if rejected is None:
            job.counts[_UNMATCHED] += 1
        else:
            banned.add(sampler.twin[rejected])
            pairs.append((item, rejected, time))
    return pairs


def _liked_pairs(taken: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user liked, and one that the user liked less, or never took where none of these fits."""
    twin, pairs = sampler.twin, list[Pair]()
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
            job.counts[_UNMATCHED] += 1
            continue
        used.add(twin[rejected])
        banned.add(twin[rejected])
        pairs.append((item, rejected, time))
    return pairs


class Window(NamedTuple):
    """A row in the making: its name, its choices, the last of which is the target, and how popular that is."""

    name: str
    pairs: list[Pair]
    popularity: Popularity


def rows_of(user: str, choices: int, job: Job) -> list[tuple[str, int, int]]:
    """The rows of a user with so many choices (`Job.rows`); none when these are fewer than the job's minimum."""
    if choices < job.least:
        job.counts[f"users dropped: fewer than {job.least} interactions with an alternative"] += 1
        return []
    rows = job.rows(user, choices)
    if rows:
        job.counts["interactions kept"] += choices
    else:
        job.counts[f"users dropped: no choice has {job.length} before it"] += 1
    return rows


def windows(user: str, pairs: list[Pair], others: Others, job: Job) -> Iterator[Window]:
    """The rows of a user's choices."""
    if not (rows := rows_of(user, len(pairs), job)):
        return
    first = others.takings.first
    job.counts[_UNSEEN] += sum([time is not None and first[rejected] >= time for _, rejected, time in pairs])
    for name, start, place in rows:
        yield Window(name, pairs[start : place + 1], popularity(pairs[place], others))


def finish(user: str, pairs: list[Pair], catalogue: Catalogue, others: Others, job: Job) -> Iterator[Example]:
    """The same as examples."""
    query = job.dataset.default_query
    for name, chosen, counts in windows(user, pairs, others, job):
        *history, target = (Interaction(catalogue.text(a), catalogue.text(b), query) for a, b, _ in chosen)
        yield Example(UserRecord(name, tuple(history), target), counts)


class Writer:
    """Makes lines of a benchmark file: what `user_row` and `json` make of examples, for many at once."""

    def __init__(self, catalogue: Catalogue, job: Job):
        self._chosen = Quoted(catalogue, '{"chosen": ', ', "rejected": ')
        self._rejected = Quoted(catalogue, "", f', "query": {as_json(job.dataset.default_query)}}}')

    def lines(self, names: list[str], first: np.ndarray, last: np.ndarray, drawn: Drawn) -> bytes:
        """The lines of rows whose choices are those from first to last, which is the target."""
        sizes = last - first + 1
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1]) + np.repeat(first - ends + sizes, sizes)
        chosen, rejected = self._chosen.take(drawn.chosen[places]), self._rejected.take(drawn.rejected[places])
        pairs = arrow.binary_join_element_wise(chosen, rejected, _bytes(b""))
        # Of each row a list for the history, and one for the target.
        parts = np.concatenate(([0], np.stack((ends - 1, ends), 1).ravel()))
        joined = arrow.binary_join(pa.LargeListArray.from_arrays(parts, pairs), _bytes(b", "))
        histories, targets = (joined.take(np.arange(part, len(joined), 2)) for part in (0, 1))
        users = pa.array([as_json(name).encode("utf-8", HALF_CHARACTERS) for name in names], pa.large_binary())
        texts = (b'{"userid": ', users, b', "history": [', histories, b'], "target": ', targets, b"}\n", b"")
        whole = arrow.binary_join_element_wise(*(_bytes(x) if isinstance(x, bytes) else x for x in texts))
        return whole.buffers()[2].to_pybytes()


def _bytes(text: bytes) -> pa.LargeBinaryScalar:
    return pa.scalar(text, pa.large_binary())


def popularity(pair: Pair, others: Others) -> Popularity:
    """How many others took either item, over all time and, where the time of the choice is known, before it."""
    chosen, rejected, time = pair
    counts = others.count(chosen), others.count(rejected)
    if time is None:
        return Popularity(*counts)
    return Popularity(*counts, others.before(chosen, time), others.before(rejected, time))
