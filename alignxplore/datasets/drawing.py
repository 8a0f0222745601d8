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

    def draw_each(
        self, items: Sequence[int], times: Sequence[int], others: Others, banned: set[int], dice: random.Random
    ) -> list[int | None]:
        """The same for each of a user's items in turn; what is drawn is banned from then on."""
        pool, twin, size, draw = self.pool, self.twin, len(self.pool), dice.getrandbits
        bits, drawn = size.bit_length(), list[int | None]()
        while len(drawn) < len(items):  # the loop of a build: `_pick`, written out
            for _ in range(TRIES if size else 0):
                while (place := draw(bits)) >= size:
                    pass
                item = pool[place]
                if (own := twin[item]) not in banned:
                    banned.add(own)
                    drawn.append(item)
                    break
            else:
                drawn.append(self._one_of(0, size, banned, dice))
                banned.update(twin[item] for item in drawn[-1:] if item is not None)
        return drawn

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

    def draw_each(
        self, items: Sequence[int], times: Sequence[int], others: Others, banned: set[int], dice: random.Random
    ) -> list[int | None]:
        """The same for each of a user's items in turn; what is drawn is banned from then on."""
        drawn = []
        for item, time in zip(items, times):
            found = self.draw(Choice(item, time, others), banned, dice)
            if found is not None:
                banned.add(self.twin[found])
            drawn.append(found)
        return drawn

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
