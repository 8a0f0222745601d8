"""Measures of a choice among k items: accuracy@1, MRR, NDCG, hit rate and AUC of one row, and what chance gives.

Ties are worth what drawing lots between them gives on average. So a row that says nothing (bad format, the bound of
chance) has the value of k equal scores: 1/k for accuracy@1 where one item was chosen, 0.5 for AUC. Of several chosen
items MRR is the mean of all their 1/rank, as MIND has it; accuracy@1 and hit rate ask for any of them.
"""

import math
from collections.abc import Callable, Sequence

from alignxplore.evaluation.registry import AMONG_K, MEASURES, Ranked, mean_of, measure, metric
from alignxplore.evaluation.worth import Score
from alignxplore.judging.judgement import TIE


def tiers(scores: Sequence[float], chosen: int) -> list[tuple[int, int]]:
    """(how many items, how many of them were chosen) of each group of equal scores, the best first; the first
    `chosen` scores are those of the chosen items. Scores are equal that differ by a millionth of the greater one."""
    order, groups = sorted(range(len(scores)), key=lambda place: -scores[place]), list[tuple[int, int]]()
    level = math.inf
    for place in order:
        if not groups or level - scores[place] > TIE * abs(level):
            level = scores[place]
            groups.append((0, 0))
        size, right = groups[-1]
        groups[-1] = size + 1, right + (place < chosen)
    return groups


def ranked(scores: Sequence[float], chosen: int) -> Ranked:
    """What the measures are taken of.

    Args:
        scores: of each candidate, higher is better, those of the `chosen` items first.
    """
    return Ranked(tuple(tiers(scores, chosen)), chosen, len(scores) - chosen)


@metric("k", "items to choose from, on average", AMONG_K, in_table=False)
def k(scores: Sequence[Score]) -> float | None:
    return mean_of(score.k for score in scores)


@metric("chance %", "what saying nothing is worth", AMONG_K, in_table=False)
def chance(scores: Sequence[Score]) -> float | None:
    return mean_of(score.chance for score in scores)


@measure("MRR %", "mean of 1/rank over the chosen items")
def mrr(ranking: Ranked) -> float:
    return _gain(ranking, lambda rank: 1 / rank) / ranking.chosen


@measure("nDCG@5 %", "gain of the chosen items among the first five, discounted by the logarithm of the rank")
def ndcg_5(ranking: Ranked) -> float:
    return _ndcg(ranking, 5)


@measure("nDCG@10 %", "the same among the first ten")
def ndcg_10(ranking: Ranked) -> float:
    return _ndcg(ranking, 10)


@measure("HR@5 %", "one of the chosen items is among the first five")
def hr_5(ranking: Ranked) -> float:
    return _hit(ranking, 5)


@measure("HR@10 %", "one of them is among the first ten")
def hr_10(ranking: Ranked) -> float:
    return _hit(ranking, 10)


@measure("AUC %", "share of (chosen, passed over) in the right order, row by row; ties count half")
def auc_each(ranking: Ranked) -> float:
    right_above, pairs = 0, 0.0
    for size, right in ranking.tiers:
        pairs += (size - right) * (right_above + right / 2)
        right_above += right
    return pairs / (ranking.chosen * ranking.passed_over)


def accuracy_at_1(ranking: Ranked) -> float:
    """The value of a choice among k items: an item that was chosen stands first."""
    return _hit(ranking, 1)


def _gain(ranking: Ranked, weight: Callable[[int], float]) -> float:
    """Sum over the chosen items of the mean weight of the ranks that each may have."""
    total, offset = 0.0, 0
    for size, right in ranking.tiers:
        if right:
            total += right / size * sum(weight(offset + rank) for rank in range(1, size + 1))
        offset += size
    return total


def _ndcg(ranking: Ranked, limit: int) -> float:
    def discount(rank: int) -> float:
        return 1 / math.log2(rank + 1) if rank <= limit else 0.0

    return _gain(ranking, discount) / sum(discount(rank) for rank in range(1, ranking.chosen + 1))


def _hit(ranking: Ranked, limit: int) -> float:
    """Probability that one of the chosen items is among the first `limit`."""
    offset = 0
    for size, right in ranking.tiers:
        places = min(size, limit - offset)
        if right and places > 0:
            return 1 - math.comb(size - right, places) / math.comb(size, places)
        offset += size
    return 0.0


def all_of(ranking: Ranked) -> dict[str, float]:
    """Every registered measure of one choice, by name."""
    return {name: compute(ranking) for name, compute in MEASURES.items()}
