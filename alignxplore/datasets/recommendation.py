"""From events (user, time, item) to records: order by time, drop repetitions, draw what was passed over.

MovieLens and Amazon tell what a user took, not what the user left; the rejected item is drawn here:

* uniform: from a pool of items the user never took (the published way). Popular items are taken more often than they
  are drawn, so item popularity alone tells the chosen item well.
* matched: from taken items as popular as the chosen one. Where none has exactly its number of other users, a fair coin
  decides between the next more popular and the next less popular ones, so popularity alone is right half of the time.
  Items at either end, with none left beyond them, get no rejected item and are dropped with a count: those that nobody
  else took, and the most popular ones (11 % of the ratings of MovieLens latest-small).

A user's draws come from a hash of seed and user: neither the order of the input nor other users change them, except
through the popularity of items.
"""

import hashlib
import random
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TextIO

from alignxplore.datasets.building import Example, Job, Popularity, UserGroups, temporary_text
from alignxplore.records import Interaction, UserRecord, hash_seed

NEIGHBOURS = 5  # how many of the next more (or less) popular items a matched negative is drawn from


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


class Sampler:
    """Draws a rejected item for a chosen one, from a pool, uniformly.

    Args:
        pool: items to draw from.
        twin: item → the first item with its text; what is banned is banned under all its numbers.
    """

    def __init__(self, pool: Sequence[int], twin: Sequence[int]):
        self.pool, self.twin = pool, twin

    def draw(self, chosen: int, banned: set[int], dice: random.Random) -> int | None:
        """An item whose twin is not in `banned`; None when there is no fitting one."""
        return self._pick(0, len(self.pool), banned, dice)

    def _pick(self, low: int, high: int, banned: set[int], dice: random.Random) -> int | None:
        """One of pool[low:high] that is not banned, each with the same chance."""
        for _ in range(16 if high > low else 0):
            item = self.pool[dice.randrange(low, high)]
            if self.twin[item] not in banned:
                return item
        rest = list(self._free(range(low, high), banned))
        return dice.choice(rest) if rest else None

    def _free(self, places: range, banned: set[int]) -> Iterator[int]:
        return (self.pool[place] for place in places if self.twin[self.pool[place]] not in banned)


class MatchedSampler(Sampler):
    """Draws an item that as many others took as the chosen one, or a fair coin's choice of more or less popular."""

    def __init__(self, pool: Sequence[int], twin: Sequence[int], popularity: Sequence[int]):
        super().__init__(sorted(pool, key=lambda item: (popularity[item], item)), twin)
        self.popularity = popularity
        self.counts = [popularity[item] for item in self.pool]

    def draw(self, chosen: int, banned: set[int], dice: random.Random) -> int | None:
        """See `Sampler.draw`. Items at either end have no match: without items on both sides no coin is fair."""
        others = self.popularity[chosen] - 1
        low, high = bisect_left(self.counts, others), bisect_right(self.counts, others)
        same = self._pick(low, high, banned, dice)
        if same is not None:
            return same
        above = list(islice(self._free(range(high, len(self.pool)), banned), NEIGHBOURS))
        below = list(islice(self._free(range(low - 1, -1, -1), banned), NEIGHBOURS))
        return dice.choice(above if dice.random() < 0.5 else below) if above and below else None


def order_events(
    events: Iterable[tuple[str, int, int]], twin: Sequence[int], ties: str, job: Job
) -> tuple[Iterator[tuple[str, list[int]]], array, int]:
    """Group events by user on disk, sort each user's by time, keep the first of what the user took repeatedly.

    Returns:
        an iterator over (user, items in order) of the job's split in hash order, the number of users per item (over
        all users), and the number of users in all.
    """
    groups = UserGroups(job.seed, job.scratch)
    for user, time, item in events:
        groups.add(user, f"{time} {item}")
    popularity, users = array("L", [0]) * len(twin), 0
    ordered = temporary_text(job.scratch)
    for user, rows in groups:
        users += 1
        taken = [(int(time), int(item)) for time, item in (row.split(" ") for row in rows)]
        taken.sort(key=None if ties == "item" else itemgetter(0))
        items = list(dict.fromkeys(item for _, item in taken))
        unique = _first_of_twins(items, twin)
        job.counts["dropped: the user took the same item before"] += len(taken) - len(items)
        job.counts["dropped: the user took an item with the same text before"] += len(items) - len(unique)
        for item in unique:
            popularity[item] += 1
        if not job.wanted(user):
            job.counts[f"users left out: not in split {job.split}"] += 1
        elif len(unique) < job.least:
            job.counts[f"users dropped: fewer than {job.least} interactions"] += 1
        else:
            ordered.write(f"{user}\t{' '.join(map(str, unique))}\n")
    groups.close()
    return _read_ordered(ordered), popularity, users


def _first_of_twins(items: list[int], twin: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for item in items:
        first.setdefault(twin[item], item)
    return list(first.values())


def _read_ordered(file: TextIO) -> Iterator[tuple[str, list[int]]]:
    with file:
        file.seek(0)
        for line in file:
            user, _, items = line.rstrip("\n").partition("\t")
            yield user, [int(item) for item in items.split(" ")]


def build_records(
    events: Iterable[tuple[str, int, int]], catalogue: Catalogue, job: Job, *, pool: str, ties: str
) -> Iterator[Example]:
    """Records of all users, negatives drawn by the job's protocol.

    Args:
        events: (user, time, item's number in the catalogue). Consumed before the first record is yielded.
        pool: what `published` draws from, "catalogue" (any item) or "taken" (items that some user took).
        ties: what orders events of a user at the same time, "item" (the order of rows does not matter then) or "row".
    """
    twin = catalogue.twin
    ordered, popularity, job.counts["users read"] = order_events(events, twin, ties, job)
    taken = [item for item, count in enumerate(popularity) if count]
    job.counts["items in the catalogue"], job.counts["items taken by a user"] = len(catalogue), len(taken)
    sampler: Sampler
    if job.protocol == "matched":
        sampler = MatchedSampler(taken, twin, popularity)
    else:
        anything = job.protocol == "published" and pool == "catalogue"
        sampler = Sampler(range(len(catalogue)) if anything else taken, twin)
    for user, items in ordered:
        dice, banned = random.Random(hash_seed(job.seed, job.dataset.name, user)), {twin[item] for item in items}
        pairs: list[tuple[int, int]] = []
        for item in items:
            rejected = sampler.draw(item, banned, dice)
            if rejected is None:
                job.counts["dropped: no item to set against it"] += 1
                continue
            banned.add(twin[rejected])  # never twice, so that a rejected target does not stand in the history
            pairs.append((item, rejected))
        yield from finish(user, pairs, catalogue, popularity, job)


def finish(
    user: str, pairs: list[tuple[int, int]], catalogue: Catalogue, popularity: Sequence[int], job: Job
) -> Iterator[Example]:
    """The rows of a user's (chosen, rejected) items (`Job.rows`); none when fewer than the job's minimum are left."""
    if len(pairs) < job.least:
        job.counts[f"users dropped: fewer than {job.least} interactions with an alternative"] += 1
        return
    rows = job.rows(user, len(pairs))
    if not rows:
        job.counts[f"users dropped: no choice has {job.length} before it"] += 1
        return
    job.counts["interactions kept"] += len(pairs)
    history = [Interaction(catalogue.text(a), catalogue.text(b), job.dataset.default_query) for a, b in pairs]
    for name, first, place in rows:
        chosen, rejected = pairs[place]
        counts = Popularity(popularity[chosen] - 1, popularity[rejected])
        yield Example(UserRecord(name, tuple(history[first:place]), history[place]), counts)
