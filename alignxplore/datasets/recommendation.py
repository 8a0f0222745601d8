"""From events (user, time, item) to records: order by time, drop repetitions, draw what was passed over.

MovieLens and Amazon tell what a user took, not what the user left; the rejected item is drawn here:

* uniform: from a pool of items the user never took (the published way). Popular items are taken more often than they
  are drawn, so item popularity alone tells the chosen item well.
* matched: from items as popular as the chosen one. Where none has exactly its number of other users, a fair coin
  decides between the next more popular and the next less popular ones, so popularity alone is right half of the time.

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
from pathlib import Path
from typing import Protocol, TextIO

from alignxplore.datasets.building import Example, Job, Popularity, UserGroups, temporary_text
from alignxplore.records import Interaction, UserRecord, hash_seed

NEIGHBOURS = 5  # how many of the next more (or less) popular items a matched negative is drawn from


class Catalogue:
    """Items by key, their texts on disk. Items with the same text are one item, for no reader could tell them apart."""

    def __init__(self, scratch: Path | None):
        self.index: dict[str, int] = {}
        self._by_text: dict[int, int] = {}
        self._file = tempfile.TemporaryFile("w+b", dir=scratch)  # noqa: SIM115 (it lives as long as the catalogue)
        self._ends = array("Q", [0])
        self.text = lru_cache(maxsize=1 << 16)(self._text)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, key: str, text: str) -> None:
        """Add an item; a key that is already there keeps its first text."""
        if key in self.index:
            return
        data = text.encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        if digest not in self._by_text:
            self._by_text[digest] = len(self)
            self._file.seek(self._ends[-1])
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))
        self.index[key] = self._by_text[digest]

    def _text(self, item: int) -> str:
        self._file.seek(self._ends[item])
        return self._file.read(self._ends[item + 1] - self._ends[item]).decode("utf-8", "surrogatepass")


class Sampler(Protocol):
    """Draws a rejected item for a chosen one, none of `banned`; None when there is no fitting item."""

    def __call__(self, chosen: int, banned: set[int], draw: random.Random) -> int | None: ...


def uniform(pool: Sequence[int]) -> Sampler:
    """Any item of the pool with the same chance."""

    def sample(chosen: int, banned: set[int], draw: random.Random) -> int | None:
        return _pick(pool, 0, len(pool), banned, draw)

    return sample


def matched(pool: Sequence[int], popularity: Sequence[int]) -> Sampler:
    """An item as popular as the chosen one is among the other users, or a fair coin's choice of more or less popular."""
    ranked = sorted(pool, key=lambda item: (popularity[item], item))
    counts = [popularity[item] for item in ranked]

    def sample(chosen: int, banned: set[int], draw: random.Random) -> int | None:
        others = popularity[chosen] - 1
        low, high = bisect_left(counts, others), bisect_right(counts, others)
        same = _pick(ranked, low, high, banned, draw)
        if same is not None:
            return same
        above, below = (
            list(islice((ranked[place] for place in places if ranked[place] not in banned), NEIGHBOURS))
            for places in (range(high, len(ranked)), range(low - 1, -1, -1))
        )
        # Without both sides the coin could not be fair: the most popular items have no match.
        return draw.choice(above if draw.random() < 0.5 else below) if above and below else None

    return sample


def _pick(pool: Sequence[int], low: int, high: int, banned: set[int], draw: random.Random) -> int | None:
    """One of pool[low:high] that is not banned, each with the same chance; None when all of them are banned."""
    if low == high:
        return None
    for _ in range(16):
        item = pool[draw.randrange(low, high)]
        if item not in banned:
            return item
    rest = [item for item in (pool[place] for place in range(low, high)) if item not in banned]
    return draw.choice(rest) if rest else None


def order_events(events: Iterable[tuple[str, int, int]], job: Job, items: int) -> tuple[Iterator[tuple[str, list[int]]], array, int]:
    """Group events by user on disk, sort each user's by time (ties by item), keep the first of each item.

    Returns:
        an iterator over (user, items in order) of the job's split in hash order, the number of users per item (over
        all users), and the number of users in all.
    """
    groups = UserGroups(job.seed, job.scratch)
    for user, time, item in events:
        groups.add(user, f"{time} {item}")
    popularity, users = array("L", [0]) * items, 0
    ordered = temporary_text(job.scratch)
    for user, rows in groups:
        users += 1
        taken = sorted((int(time), int(item)) for time, item in (row.split(" ") for row in rows))
        unique = list(dict.fromkeys(item for _, item in taken))
        job.counts["dropped: the user took the same item before"] += len(taken) - len(unique)
        for item in unique:
            popularity[item] += 1
        if not job.wanted(user):
            job.counts[f"users left out: not in split {job.split}"] += 1
        elif len(unique) < job.min_interactions:
            job.counts[f"users dropped: fewer than {job.min_interactions} interactions"] += 1
        else:
            ordered.write(f"{user}\t{' '.join(map(str, unique))}\n")
    groups.close()
    return _read_ordered(ordered), popularity, users


def _read_ordered(file: TextIO) -> Iterator[tuple[str, list[int]]]:
    with file:
        file.seek(0)
        for line in file:
            user, _, items = line.rstrip("\n").partition("\t")
            yield user, [int(item) for item in items.split(" ")]


def build_records(events: Iterable[tuple[str, int, int]], catalogue: Catalogue, pool: str, job: Job) -> Iterator[Example]:
    """Records of all users, negatives drawn by the job's protocol.

    Args:
        events: (user, time, item index in the catalogue), in any order. Consumed before the first record is yielded.
        pool: what `published` draws from, "catalogue" (any item) or "taken" (items that some user took).
    """
    ordered, popularity, job.counts["users read"] = order_events(events, job, len(catalogue))
    taken = [item for item, count in enumerate(popularity) if count]
    job.counts["items in the catalogue"], job.counts["items taken by a user"] = len(catalogue), len(taken)
    if job.protocol == "matched":
        sample = matched(taken, popularity)
    else:
        sample = uniform(range(len(catalogue)) if job.protocol == "published" and pool == "catalogue" else taken)
    for user, items in ordered:
        draw, banned, history = random.Random(hash_seed(job.seed, job.dataset.name, user)), set(items), []
        for item in items:
            rejected = sample(item, banned, draw)
            if rejected is None:
                job.counts["dropped: no item to set against it"] += 1
                continue
            banned.add(rejected)  # never twice, so that a rejected target does not stand in the history
            history.append((item, rejected))
        if len(history) < 2:
            job.counts["users dropped: fewer than 2 interactions with an alternative"] += 1
            continue
        job.counts["interactions kept"] += len(history)
        pairs = [Interaction(catalogue.text(a), catalogue.text(b), job.dataset.default_query) for a, b in history]
        chosen, rejected = history[-1]
        yield Example(UserRecord(user, tuple(pairs[:-1]), pairs[-1]), Popularity(popularity[chosen] - 1, popularity[rejected]))
