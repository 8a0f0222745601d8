"""From a pair to a choice among k items: the target's other items, drawn from those that the user never took.

Sampled-k ranking on MovieLens and Amazon (`--items 20`). The draw is by a hash of seed and row: other users do not
change it, nor does the order of files. `--negatives uniform`: each item of the pool with the same chance,
so that popularity alone tells the chosen one well (MovieLens latest-small, 109 users, k = 20: 40 % right, AUC 83).
`popularity`: in proportion to the users who took it, so that it tells little (7 %, AUC 52; chance is 5 % and 50).
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from alignxplore.datasets.building import Example, Job, Popularity
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.records import Offer, hash_seed

_TRIES = 64  # draws of an item that is free, before the free ones are listed


class Offers:
    """Widens the pairs of targets.

    Args:
        pool: items to draw from.
        popularity: item → how many users took it.
    """

    def __init__(self, job: Job, catalogue: Catalogue, pool: Sequence[int], popularity: Sequence[int]):
        self.job, self.catalogue, self.pool, self.popularity = job, catalogue, pool, popularity
        by_popularity = job.items is not None and job.negatives == "popularity"
        self._sums = list(accumulate(popularity[item] for item in pool)) if by_popularity else None

    def widen(self, examples: Iterable[Example], exclusions: set[int]) -> Iterator[Example]:
        """The rows of one user, each with a choice among k items in the place of its pair; one for which there are too
        few items is dropped. Pairs where no k was asked for.

        Args:
            exclusions: twins of all items that the user took, or that are set against others in the history.
        """
        for example in examples:
            if self.job.items is None:
                yield example
                continue
            draws = self._draw(self.job.items - 1, exclusions, example.record.user)
            if draws is None:
                self.job.counts[f"rows dropped: fewer than {self.job.items - 1} items to set against the target"] += 1
            else:
                yield self._offered(example, draws)

    def _draw(self, count: int, exclusions: set[int], row: str) -> list[int] | None:
        dice = random.Random(hash_seed(self.job.seed, "offer", self.job.dataset.name, self.job.negatives, row))
        twins, draws, twin = set(exclusions), list[int](), self.catalogue.twin
        while len(draws) < count:
            item = next((x for x in (self._one(dice) for _ in range(_TRIES)) if twin[x] not in twins), None)
            item = self._listed(twins, dice) if item is None else item
            if item is None:
                return None
            twins.add(twin[item])
            draws.append(item)
        return draws

    def _one(self, dice: random.Random) -> int:
        if self._sums is None:
            return self.pool[dice.randrange(len(self.pool))]
        return self.pool[bisect_right(self._sums, dice.random() * self._sums[-1])]

    def _listed(self, exclusions: set[int], dice: random.Random) -> int | None:
        """An item that is free, drawn from the list of them; None where there is none."""
        free = [item for item in self.pool if self.catalogue.twin[item] not in exclusions]
        weights = [self.popularity[item] for item in free] if self._sums is not None else None
        if not free or weights is not None and not any(weights):
            return None
        return dice.choices(free, weights)[0]

    def _offered(self, example: Example, draws: Sequence[int]) -> Example:
        record, popularity = example.record, example.popularity
        texts = tuple(self.catalogue.text(item) for item in draws)
        target = Offer(record.target.chosen, None, record.target.query, (), texts)
        counts = [self.popularity[item] for item in draws]
        chosen_count = popularity.chosen if popularity else 0
        return Example(
            replace(record, target=target), Popularity(chosen_count, max(counts), offered=(chosen_count, *counts))
        )
