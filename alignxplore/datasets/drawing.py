"""What is set against a chosen item: draws from a pool, at random or as popular as the chosen one.

* uniform: from a pool of items the user never took (the published way). Popular items are taken more often than they
  are drawn, so item popularity alone tells the chosen item well.
* matched: from items as popular as the chosen one. Where none has exactly its number of other users, a fair coin
  decides between the next more popular and the next less popular ones, so popularity alone is right half of the time.
* matched in both: popularity over all time counts what came after the choice, too. Here neither that count nor the one
  before the choice is right in more than half, and nothing is drawn that nobody had taken yet.

A choice that has no match is dropped by the callers, with a count: items at either end of popularity, with none left
beyond them, and those that nobody else took.
"""

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from math import log
from typing import NamedTuple

import numpy as np

from alignxplore.datasets.building import Job
from alignxplore.datasets.takings import Others, Takings

NEIGHBOURS = 5  # how many of the next more (or less) popular items a matched negative is drawn from
NEAR = 24  # how many more (and less) popular items over all time are compared by their counts before a choice
TRIES = 16  # draws of an item that is not banned, before those that are not are listed
FAR = 4096  # how far these are looked for, in places of the order of popularity


class Choice(NamedTuple):
    """An item that a user took, when (None: not known), and what the others took."""

    item: int
    time: int | None
    others: Others

    def popularity(self, item: int) -> tuple[int, int]:
        """How many others took the item, over all time and before the choice, whose time is known."""
        return self.others.count(item), self.others.before(item, self.time or 0)


class Sampler:
    """Draws a rejected item for a chosen one, from a pool, uniformly.

    Args:
        pool: items to draw from.
        twin: item → the first item with its text; what is banned is banned under all its numbers.
    """

    def __init__(self, pool: Sequence[int], twin: Sequence[int]):
        self.pool, self.twin = pool, twin

    def draw(self, choice: Choice, banned: set[int], dice: random.Random) -> int | None:
        """An item whose twin is not in `banned`; None when there is no fitting one."""
        return self._pick(0, len(self.pool), banned, dice)

    def draw_all(self, seeds: np.ndarray, ends: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The same for all items of many users, each a hash of the user's seed and the item's place: nobody's draws
        depend on who else is there. Nothing that a user took is drawn, and nothing twice for one user.

        Args:
            seeds: (users,) of 64 bits.
            ends: (users,), items of user i are those from ends[i - 1] to ends[i].
            items: (events,)

        Returns:
            (events,) items, -1 where there is no fitting one.
        """
        sizes = np.diff(ends, prepend=0)
        users = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(items)) - np.repeat(ends - sizes, sizes)
        streams = _mixed(seeds[users] + places.astype(np.uint64))
        base, twin, pool = users * len(self.twin), self._twins, self._pool
        banned, drawn = np.sort(base + twin[items]), np.full(len(items), -1)
        left = np.arange(len(items)) if len(pool) else np.arange(0)
        for round in range(TRIES):
            if not len(left):
                return drawn
            found = pool[_mixed(streams[left] + np.uint64(round)) % np.uint64(len(pool))]
            keys = base[left] + twin[found]
            free = banned[np.searchsorted(banned, keys) % len(banned)] != keys
            free[free] = _first(keys[free])
            drawn[left[free]] = found[free]
            banned = np.sort(np.concatenate((banned, keys[free])))
            left = left[~free]
        return self._draw_left(drawn, left, ends, items, streams)

    def _draw_left(
        self, drawn: np.ndarray, left: np.ndarray, ends: np.ndarray, items: np.ndarray, streams: np.ndarray
    ) -> np.ndarray:
        """Those for which many draws found nothing, out of lists of what is free."""
        for event in left.tolist():
            user = int(np.searchsorted(ends, event, "right"))
            own = slice(ends[user - 1] if user else 0, ends[user])
            taken = np.concatenate((items[own], drawn[own][drawn[own] >= 0]))
            free = self._pool[~np.isin(self._twins[self._pool], self._twins[taken])]
            if len(free):
                drawn[event] = free[int(streams[event]) % len(free)]
        return drawn

    @cached_property
    def _pool(self) -> np.ndarray:
        return np.asarray(self.pool, np.int64)

    @cached_property
    def _twins(self) -> np.ndarray:
        return np.asarray(self.twin, np.int64)

    def _pick(self, low: int, high: int, banned: set[int], dice: random.Random) -> int | None:
        """One of pool[low:high] that is not banned, each with the same chance."""
        size, draw = high - low, dice.getrandbits
        bits = size.bit_length()
        for _ in range(TRIES if size > 0 else 0):
            while (place := draw(bits)) >= size:  # what randrange does, without its checks
                pass
            item = self.pool[low + place]
            if self.twin[item] not in banned:
                return item
        return self._one_of(low, high, banned, dice)

    def _one_of(self, low: int, high: int, banned: set[int], dice: random.Random) -> int | None:
        """The same out of a list of those that are not banned."""
        rest = list(self._free(range(low, high), banned))
        return dice.choice(rest) if rest else None

    def _free(self, places: Iterable[int], banned: set[int]) -> Iterator[int]:
        return (self.pool[place] for place in places if self.twin[self.pool[place]] not in banned)


class MatchedSampler(Sampler):
    """Draws an item that as many others took as the chosen one, or a fair coin's choice of more or less popular."""

    def __init__(self, pool: Sequence[int], twin: Sequence[int], popularity: Sequence[int]):
        super().__init__(sorted(pool, key=lambda item: (popularity[item], item)), twin)
        self.counts = [popularity[item] for item in self.pool]

    def draw(self, choice: Choice, banned: set[int], dice: random.Random) -> int | None:
        """See `Sampler.draw`. Items at either end have no match: without items on both sides no coin is fair."""
        others = choice.others.count(choice.item)
        low, high = bisect_left(self.counts, others), bisect_right(self.counts, others)
        same = self._pick(low, high, banned, dice)
        if same is not None:
            return same
        above = list(islice(self._free(range(high, len(self.pool)), banned), NEIGHBOURS))
        below = list(islice(self._free(range(low - 1, -1, -1), banned), NEIGHBOURS))
        return dice.choice(above if dice.random() < 0.5 else below) if above and below else None


class MatchedBothSampler(MatchedSampler):
    """Draws an item about as popular over all time and before the choice, so that neither count tells
    the chosen one: as popular in both, or a fair coin's choice of two on opposite sides of it in both.

    A choice whose time is not known is matched over all time.

    Args:
        shown: the user saw all of the pool; otherwise what nobody had taken yet cannot be drawn.
    """

    def __init__(self, pool: Sequence[int], twin: Sequence[int], takings: Takings, shown: bool = False):
        super().__init__(pool, twin, takings.counts)
        never = np.iinfo(np.int64).min
        self.first = np.array([never if shown else takings.first[item] for item in self.pool], np.int64)

    def draw(self, choice: Choice, banned: set[int], dice: random.Random) -> int | None:
        """See `MatchedSampler.draw`."""
        if choice.time is None:
            return super().draw(choice, banned, dice)
        goal = choice.popularity(choice.item)
        sides: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        for item in self._near(choice.time, goal[0], banned, dice):
            counts = choice.popularity(item)
            side = _sign(counts[0] - goal[0]), _sign(counts[1] - goal[1])
            sides[side].append((sum(abs(log((a + 1) / (b + 1))) for a, b in zip(counts, goal)), item))
        for found in sides.values():
            found.sort()
        opposite = {side: sides[-side[0], -side[1]] for side in sides if (-side[0], -side[1]) in sides}
        if not opposite:
            return None
        side = min(opposite, key=lambda side: (max(sides[side][0], opposite[side][0]), side))
        return dice.choice((sides[side] if dice.random() < 0.5 else opposite[side])[:NEIGHBOURS])[1]

    def _near(self, time: int, total: int, banned: set[int], dice: random.Random) -> Iterator[int]:
        """The next items that had been taken by then, `NEAR` more and `NEAR` less popular over all time."""
        place = dice.randint(bisect_left(self.counts, total), bisect_right(self.counts, total))
        start = max(0, place - FAR)
        known = np.flatnonzero(self.first[start : place + FAR] < time) + start
        middle = int(np.searchsorted(known, place))
        for places in (known[middle:], known[:middle][::-1]):
            yield from islice(self._free(map(int, places), banned), NEAR)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number of 64 bits: three rounds of shifting and multiplying, each of which can be undone."""
    numbers = (numbers + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD6E8FEB86659FD93)
    numbers = (numbers ^ numbers >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    numbers = (numbers ^ numbers >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ numbers >> np.uint64(32)


def _first(keys: np.ndarray) -> np.ndarray:
    """Whether nothing before it is the same, of each key."""
    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _sign(difference: int) -> int:
    return (difference > 0) - (difference < 0)


def sampler_of(
    job: Job, pool: Sequence[int], twin: Sequence[int], takings: Takings, *, shown: bool = False
) -> Sampler:
    """What the job's protocol draws rejected items with, from a pool; `shown`: the user saw all of it."""
    if job.protocol == "matched":
        return MatchedSampler(pool, twin, takings.counts)
    if job.protocol in ("matched_both", "liked"):
        return MatchedBothSampler(pool, twin, takings, shown)
    return Sampler(pool, twin)
