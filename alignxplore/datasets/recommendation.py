"""From events (user, time, item) to records: order by time, drop repetitions, draw what was passed over.

MovieLens and Amazon tell what a user took, not what the user left; the rejected item is drawn (`drawing.py`):

* published: from items the user never took.
* matched: as popular over all time (11 % of the ratings of MovieLens latest-small have no match and are dropped).
* matched_both: as popular over all time and before the choice.
* liked: only items with four stars or more, or with the user's own mean or more, count as chosen. What is set against
  them is an item with fewer stars of the same user, or where none of these fits one that the user never took; either
  is matched as in matched_both.

A user's draws come from a hash of seed and user: other users change them through the popularity of items alone. The
order of files does not matter, but for Amazon's reviews that one user wrote at the same time: it says which came
first. Uniform ones are made for all users of a chunk at once (`Sampler.draw_all`).
Suffixes of arrays: `U` users, `Q` questions.
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
    events = Ordered(engine, catalogue, ties, job)
    taken_count = sum(count > 0 for count in events.takings.counts)
    job.counts["items in the catalogue"], job.counts["items taken by a user"] = len(catalogue), taken_count
    from_all = job.protocol == "published" and pool == "catalogue"
    drawer = RecommendationDrawer(job, catalogue, events.takings, from_all)
    return Records(engine, job, drawer, events.chunks, events.users)


class RecommendationDrawer(Drawer):
    """Makes rows of what users took.

    Args:
        from_all: in place of items that some user took, all are drawn from.
    """

    def __init__(self, job: Job, catalogue: Catalogue, takings: Takings, from_all: bool):
        super().__init__(job)
        self.catalogue, self.takings, self.from_all = catalogue, takings, from_all

    @cached_property
    def sampler(self) -> Sampler:
        """Draws from all items that may be set against another one."""
        items_taken = [item for item, count in enumerate(self.takings.counts) if count]
        pool: Sequence[int] = range(len(self.catalogue)) if self.from_all else items_taken
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
        twin, draws, start, begin = self.catalogue.twin, self._draw(chunk), 0, 0
        pairs: list[Pair] = list(zip(*(column.tolist() for column in draws[1:])))
        for user, stop, end in zip(chunk.users, chunk.ends.tolist(), draws.ends.tolist()):
            others, own_pairs = self._others(chunk, begin, stop), pairs[start:end]
            exclusions = {twin[item] for item in (*others.own_times, *(rejected for _, rejected, _ in own_pairs))}
            yield from self.offers.widen(finish(user, own_pairs, self.catalogue, others, self.job), exclusions)
            start, begin = end, stop

    def made(self, chunk: Chunk) -> Part:
        """The same as lines, put together for all users at once."""
        job = self.job
        if job.items is not None:
            return super().made(chunk)
        draws, people, start = self._draw(chunk), 0, 0
        unseen = [0, *np.cumsum(np.asarray(self.takings.first)[draws.rejected] >= draws.times).tolist()]
        names, users, starts, targets = list[str](), list[int](), list[int](), list[int]()
        for place, (user, end) in enumerate(zip(chunk.users, draws.ends.tolist())):
            rows = rows_of(user, end - start, job)
            if rows:
                people += 1
                job.counts[_UNSEEN] += unseen[end] - unseen[start]
            for name, offset, target in rows:
                names.append(name)
                users.append(place)
                starts.append(start + offset)
                targets.append(start + target)
            start = end
        if not names:
            return Part(b"", b"", 0, 0, {})
        popularity_lines = "".join(
            map(popularity_line, names, self._popularity(chunk, users, draws, targets))
        ).encode()
        return Part(
            self.writer.lines(names, np.array(starts), np.array(targets), draws),
            popularity_lines,
            len(names),
            people,
            {},
        )

    def _popularity(self, chunk: Chunk, users: list[int], draws: Drawn, targets: list[int]) -> Iterator[Popularity]:
        """How popular the items of some users' targets are."""
        others = OthersOfMany(self.takings, chunk.ends, chunk.items, chunk.times)
        users_Q, times = np.array(users), draws.times[targets]
        chosen, rejected = (others.counted(users_Q, items[targets], times) for items in (draws.chosen, draws.rejected))
        columns = chosen[0], rejected[0], chosen[1], rejected[1]
        return map(Popularity, *(column.tolist() for column in columns))

    def _others(self, chunk: Chunk, start: int, end: int) -> Others:
        """All but the user who took the items from start to end."""
        time_of = zip(chunk.items[start:end].tolist(), chunk.times[start:end].tolist())
        return Others(self.takings, dict(time_of))

    def _draw(self, chunk: Chunk) -> Drawn:
        """The users' choices with what is set against them."""
        job, start = self.job, 0
        if type(self.sampler) is Sampler:
            rejected = self.sampler.draw_all(self._seeds(chunk.users), chunk.ends, chunk.items)
            mask = rejected >= 0
            if unmatched := len(mask) - int(mask.sum()):
                job.counts[_UNMATCHED] += unmatched
            ends = np.cumsum(mask)[chunk.ends - 1]
            return Drawn(ends, chunk.items[mask], rejected[mask], chunk.times[mask])
        # Matching asks for one choice after another.
        draw, dice = _liked_pairs if job.protocol == "liked" else _matched_pairs, random.Random()
        items, times, stars = (column.tolist() for column in (chunk.items, chunk.times, chunk.stars))
        pairs, ends_U = list[Pair](), list[int]()
        for user, end in zip(chunk.users, chunk.ends.tolist()):
            choices = Taken(items[start:end], times[start:end], stars[start:end])
            dice.seed(hash_seed(job.seed, job.dataset.name, user))
            pairs += draw(choices, self._others(chunk, start, end), self.sampler, dice, job)
            ends_U.append(len(pairs))
            start = end
        columns = np.array(pairs, np.int64).reshape(-1, 3).T
        return Drawn(np.array(ends_U), *columns)

    def _seeds(self, users: Sequence[str]) -> np.ndarray:
        """64 bits for the draws of each user."""
        prefix = f"{self.job.seed}\t{self.job.dataset.name}\t"
        hashes = [hashlib.blake2b(f"{prefix}{user}".encode(), digest_size=8).digest() for user in users]
        return np.frombuffer(b"".join(hashes), "<u8")


def _matched_pairs(choices: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user took, and one as popular that the user never took. Nothing is drawn twice, so that a
    rejected target does not stand in the history."""
    exclusions, pairs = {sampler.twin[item] for item in choices.items}, list[Pair]()
    for item, time in zip(choices.items, choices.times):
        rejected = sampler.draw(Choice(item, time, others), exclusions, dice)
        if rejected is None:
            job.counts[_UNMATCHED] += 1
        else:
            exclusions.add(sampler.twin[rejected])
            pairs.append((item, rejected, time))
    return pairs


def _liked_pairs(choices: Taken, others: Others, sampler: Sampler, dice: random.Random, job: Job) -> list[Pair]:
    """Each item that the user liked, and one that the user liked less, or never took where none of these fits."""
    twin, pairs = sampler.twin, list[Pair]()
    bar = min(LIKED, sum(choices.stars) / len(choices.stars))
    disliked = [item for item, stars in zip(choices.items, choices.stars) if stars < bar]
    own_sampler = sampler_of(job, disliked, twin, others.takings)
    exclusions = {twin[item] for item in choices.items}
    exclusions_of_own = exclusions - {twin[item] for item in disliked}
    for item, time, stars in zip(*choices):
        if stars < bar:
            job.counts["not chosen: few stars"] += 1
            continue
        choice = Choice(item, time, others)
        rejected = own_sampler.draw(choice, exclusions_of_own, dice)
        job.counts["rejected items with few stars of the same user"] += rejected is not None
        if rejected is None:
            rejected = sampler.draw(choice, exclusions, dice)
        if rejected is None:
            job.counts[_UNMATCHED] += 1
            continue
        exclusions_of_own.add(twin[rejected])
        exclusions.add(twin[rejected])
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
    first_taking = others.takings.first
    job.counts[_UNSEEN] += sum([time is not None and first_taking[rejected] >= time for _, rejected, time in pairs])
    for name, start, place in rows:
        yield Window(name, pairs[start : place + 1], popularity(pairs[place], others))


def finish(user: str, pairs: list[Pair], catalogue: Catalogue, others: Others, job: Job) -> Iterator[Example]:
    """The same as examples."""
    query = job.dataset.default_query
    for name, window_pairs, counts in windows(user, pairs, others, job):
        *history, target = (Interaction(catalogue.text(a), catalogue.text(b), query) for a, b, _ in window_pairs)
        yield Example(UserRecord(name, tuple(history), target), counts)


class Writer:
    """Makes lines of a benchmark file: what `user_row` and `json` make of examples, for many at once."""

    def __init__(self, catalogue: Catalogue, job: Job):
        self._chosen = Quoted(catalogue, '{"chosen": ', ', "rejected": ')
        self._rejected = Quoted(catalogue, "", f', "query": {as_json(job.dataset.default_query)}}}')

    def lines(self, names: list[str], starts: np.ndarray, targets: np.ndarray, draws: Drawn) -> bytes:
        """The lines of rows whose choices are those from first to last, which is the target."""
        sizes = targets - starts + 1
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1]) + np.repeat(starts - ends + sizes, sizes)
        chosen, rejected = self._chosen.take(draws.chosen[places]), self._rejected.take(draws.rejected[places])
        pairs = arrow.binary_join_element_wise(chosen, rejected, _bytes(b""))
        # Of each row a list for the history, and one for the target.
        parts = np.concatenate(([0], np.stack((ends - 1, ends), 1).ravel()))
        json_texts = arrow.binary_join(pa.LargeListArray.from_arrays(parts, pairs), _bytes(b", "))
        histories, target_texts = (json_texts.take(np.arange(part, len(json_texts), 2)) for part in (0, 1))
        users = pa.array([as_json(name).encode("utf-8", HALF_CHARACTERS) for name in names], pa.large_binary())
        texts = (b'{"userid": ', users, b', "history": [', histories, b'], "target": ', target_texts, b"}\n", b"")
        line_array = arrow.binary_join_element_wise(*(_bytes(x) if isinstance(x, bytes) else x for x in texts))
        return line_array.buffers()[2].to_pybytes()


def _bytes(text: bytes) -> pa.LargeBinaryScalar:
    return pa.scalar(text, pa.large_binary())


def popularity(pair: Pair, others: Others) -> Popularity:
    """How many others took either item, over all time and, where the time of the choice is known, before it."""
    chosen, rejected, time = pair
    counts = others.count(chosen), others.count(rejected)
    if time is None:
        return Popularity(*counts)
    return Popularity(*counts, others.before(chosen, time), others.before(rejected, time))
