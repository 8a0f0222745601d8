"""What is set against a chosen item: draws from a pool, at random or as popular as the chosen one.

* uniform: from a pool of items the user never took (the published way). Popular items are taken more often than they
  are drawn, so item popularity alone tells the chosen item well.
* matched: from items as popular as the chosen one. Where none has exactly its number of other users, a fair coin
  decides between the next more popular and the next less popular ones, so popularity alone is right half of the time.
  Only the nearest five of either side are drawn. Where more are equally near, it is the first five above and the last
  five below, in the order of the catalogue.
* matched in both: popularity over all time counts what came after the choice, too. Here neither that count nor the one
  before the choice is right in more than half, and nothing is drawn that nobody had taken yet.

A choice that has no match is dropped by the callers, with a count: items at either end of popularity, with none left
beyond them, and those that nobody else took.

Suffixes of arrays: `U` users, `E` events, `O` those of them that have no item yet.
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

    def draw(self, choice: Choice, exclusions: set[int], dice: random.Random) -> int | None:
        """An item whose twin is not in `exclusions`; None when there is no fitting one."""
        return self._pick(0, len(self.pool), exclusions, dice)

    def draw_all(self, seeds_U: np.ndarray, ends_U: np.ndarray, items_E: np.ndarray) -> np.ndarray:
        """The same for all items of many users, each a hash of the user's seed and the item's place: nobody's draws
        depend on who else is there. Nothing that a user took is drawn, and nothing twice for one user.

        Args:
            seeds_U: 64 bits for each user.
            ends_U: items of user i are those from ends_U[i - 1] to ends_U[i].
            items_E: what was taken, event by event.

        Returns:
            An item for each event, -1 where there is no fitting one.
        """
        sizes_U = np.diff(ends_U, prepend=0)
        users_E = np.repeat(np.arange(len(sizes_U)), sizes_U)
        places_E = np.arange(len(items_E)) - np.repeat(ends_U - sizes_U, sizes_U)
        streams_E = _mixed(seeds_U[users_E] + places_E.astype(np.uint64))
        base_E, twin, pool = users_E * len(self.twin), self._twins, self._pool
        exclusions, draws_E = np.sort(base_E + twin[items_E]), np.full(len(items_E), -1)
        open_O = np.arange(len(items_E)) if len(pool) else np.arange(0)
        for attempt in range(TRIES):
            if not len(open_O):
                return draws_E
            candidates_O = pool[_mixed(streams_E[open_O] + np.uint64(attempt)) % np.uint64(len(pool))]
            keys_O = base_E[open_O] + twin[candidates_O]
            is_free_O = exclusions[np.searchsorted(exclusions, keys_O) % len(exclusions)] != keys_O
            is_free_O[is_free_O] = _first(keys_O[is_free_O])
            draws_E[open_O[is_free_O]] = candidates_O[is_free_O]
            exclusions = np.sort(np.concatenate((exclusions, keys_O[is_free_O])))
            open_O = open_O[~is_free_O]
        return self._draw_left(draws_E, open_O, ends_U, items_E, streams_E)

    def _draw_left(
        self, draws_E: np.ndarray, open_O: np.ndarray, ends_U: np.ndarray, items_E: np.ndarray, streams_E: np.ndarray
    ) -> np.ndarray:
        """Those for which many draws found nothing, out of lists of what is free."""
        for event in open_O.tolist():
            user = int(np.searchsorted(ends_U, event, "right"))
            span = slice(ends_U[user - 1] if user else 0, ends_U[user])
            exclusions = np.concatenate((items_E[span], draws_E[span][draws_E[span] >= 0]))
            free = self._pool[~np.isin(self._twins[self._pool], self._twins[exclusions])]
            if len(free):
                draws_E[event] = free[int(streams_E[event]) % len(free)]
        return draws_E

    @cached_property
    def _pool(self) -> np.ndarray:
        return np.asarray(self.pool, np.int64)

    @cached_property
    def _twins(self) -> np.ndarray:
        return np.asarray(self.twin, np.int64)

    def _pick(self, low: int, high: int, exclusions: set[int], dice: random.Random) -> int | None:
        """One of pool[low:high] that is not banned, each with the same chance."""
        size, draw = high - low, dice.getrandbits
        bits = size.bit_length()
        for _ in range(TRIES if size > 0 else 0):
            while (place := draw(bits)) >= size:  # what randrange does, without its checks
                pass
            item = self.pool[low + place]
            if self.twin[item] not in exclusions:
                return item
        return self._one_of(low, high, exclusions, dice)

    def _one_of(self, low: int, high: int, exclusions: set[int], dice: random.Random) -> int | None:
        """The same out of a list of those that are not banned."""
        candidates = list(self._free(range(low, high), exclusions))
        return dice.choice(candidates) if candidates else None

    def _free(self, places: Iterable[int], exclusions: set[int]) -> Iterator[int]:
        return (self.pool[place] for place in places if self.twin[self.pool[place]] not in exclusions)


class MatchedSampler(Sampler):
    """Draws an item that as many others took as the chosen one, or a fair coin's choice of more or less popular."""

    def __init__(self, pool: Sequence[int], twin: Sequence[int], popularity: Sequence[int]):
        super().__init__(sorted(pool, key=lambda item: (popularity[item], item)), twin)
        self.counts = [popularity[item] for item in self.pool]

    def draw(self, choice: Choice, exclusions: set[int], dice: random.Random) -> int | None:
        """See `Sampler.draw`. Items at either end have no match: without items on both sides no coin is fair."""
        count = choice.others.count(choice.item)
        low, high = bisect_left(self.counts, count), bisect_right(self.counts, count)
        match = self._pick(low, high, exclusions, dice)
        if match is not None:
            return match
        upper = list(islice(self._free(range(high, len(self.pool)), exclusions), NEIGHBOURS))
        lower = list(islice(self._free(range(low - 1, -1, -1), exclusions), NEIGHBOURS))
        return dice.choice(upper if dice.random() < 0.5 else lower) if upper and lower else None


class MatchedBothSampler(MatchedSampler):
    """Draws an item about as popular over all time and before the choice, so that neither count tells
    the chosen one: as popular in both, or a fair coin's choice of two on opposite sides of it in both.

    A choice whose time is not known is matched over all time.

    Args:
        was_shown: the user saw all of the pool; otherwise what nobody had taken yet cannot be drawn.
    """

    def __init__(self, pool: Sequence[int], twin: Sequence[int], takings: Takings, was_shown: bool = False):
        super().__init__(pool, twin, takings.counts)
        earliest = np.iinfo(np.int64).min
        self.first = np.array([earliest if was_shown else takings.first[item] for item in self.pool], np.int64)

    def draw(self, choice: Choice, exclusions: set[int], dice: random.Random) -> int | None:
        """See `MatchedSampler.draw`."""
        if choice.time is None:
            return super().draw(choice, exclusions, dice)
        goal = choice.popularity(choice.item)
        sides: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        for item in self._near(choice.time, goal[0], exclusions, dice):
            counts = choice.popularity(item)
            side = _sign(counts[0] - goal[0]), _sign(counts[1] - goal[1])
            sides[side].append((sum(abs(log((a + 1) / (b + 1))) for a, b in zip(counts, goal)), item))
        for candidates in sides.values():
            candidates.sort()
        opposite = {side: sides[-side[0], -side[1]] for side in sides if (-side[0], -side[1]) in sides}
        if not opposite:
            return None
        side = min(opposite, key=lambda side: (max(sides[side][0], opposite[side][0]), side))
        return dice.choice((sides[side] if dice.random() < 0.5 else opposite[side])[:NEIGHBOURS])[1]

    def _near(self, time: int, total: int, exclusions: set[int], dice: random.Random) -> Iterator[int]:
        """The next items that had been taken by then, `NEAR` more and `NEAR` less popular over all time."""
        place = dice.randint(bisect_left(self.counts, total), bisect_right(self.counts, total))
        start = max(0, place - FAR)
        candidates = np.flatnonzero(self.first[start : place + FAR] < time) + start
        middle = int(np.searchsorted(candidates, place))
        for places in (candidates[middle:], candidates[:middle][::-1]):
            yield from islice(self._free(map(int, places), exclusions), NEAR)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number of 64 bits: three rounds of shifting and multiplying, each of which can be undone."""
    numbers = (numbers + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD6E8FEB86659FD93)
    numbers = (numbers ^ numbers >> np.uint64(32)) * np.uint64(0xD6E8FEB86659FD93)
    numbers = (numbers ^ numbers >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ numbers >> np.uint64(32)


def _first(keys: np.ndarray) -> np.ndarray:
    """Whether nothing before it is the same, of each key."""
    is_first = np.zeros(len(keys), bool)
    is_first[np.unique(keys, return_index=True)[1]] = True
    return is_first


def _sign(difference: int) -> int:
    return (difference > 0) - (difference < 0)


def sampler_of(
    job: Job, pool: Sequence[int], twin: Sequence[int], takings: Takings, *, was_shown: bool = False
) -> Sampler:
    """What the job's protocol draws rejected items with, from a pool; `was_shown`: the user saw all of it."""
    if job.protocol == "matched":
        return MatchedSampler(pool, twin, takings.counts)
    if job.protocol in ("matched_both", "liked"):
        return MatchedBothSampler(pool, twin, takings, was_shown)
    return Sampler(pool, twin)
