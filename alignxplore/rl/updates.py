"""Which rows of a step make which of its updates, and which rank adds up which of them (alignxplore/rl/trainer.py).

The rows of a step are put in the order of a hash and cut into updates of equal size; the rows of each update are then
shared out so that every rank has as many of them and about as much to compute. So an update holds the same rows on any
number of ranks, and no rank waits long for another, which it would have to do at the end of every update.
"""

from collections.abc import Sequence

import torch
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions


def update_order(keys: Sequence[str], tags: Sequence[dict], rows: int) -> list[int]:
    """The order in which the rows of a step are cut into updates of `rows`: by a hash of user, step and seed, then by
    their keys. Whoever ends first stands first in verl's own order, and that would be those who write little. What
    verl adds where rows were lost is spread over the updates: one that held nothing else would have no loss."""
    padding = [i for i, tag in enumerate(tags) if tag.get("is_padding", False)]
    real = sorted(set(range(len(keys))) - set(padding), key=lambda i: (tags[i]["order"], keys[i].partition("_")[2]))
    updates = max(1, len(keys) // rows)
    order: list[int] = []
    for u in range(updates):
        part = real[len(real) * u // updates : len(real) * (u + 1) // updates]
        order += part + [padding.pop() for _ in range(min(len(padding), rows - len(part)))]
    return order


def share_out(lengths: Sequence[int], rows: int, ranks: int) -> list[list[list[int]]]:
    """The rows of each update on each rank: [rank][update] → indices of rows, in the order in which they came.

    Args:
        lengths: tokens of each row of a step, in the order of `update_order`; a multiple of `rows`.
        rows: of an update; a multiple of `ranks`.
    """
    shares: list[list[list[int]]] = [[] for _ in range(ranks)]
    for start in range(0, len(lengths), rows):
        work = calculate_workload(torch.tensor(lengths[start : start + rows], dtype=torch.int64)).tolist()
        for share, part in zip(shares, get_seqlen_balanced_partitions(work, ranks, equal_size=True), strict=True):
            share.append([start + i for i in part])
    return shares


def slowest_rank(lengths: Sequence[int], shares: Sequence[Sequence[Sequence[int]]]) -> float:
    """How many times the mean number of tokens the rank with the most of them has in an update; the mean over the
    updates. 1: nobody waits."""
    updates = list(zip(*shares, strict=True))
    tokens = [[sum(lengths[i] for i in part) for part in update] for update in updates]
    return sum(max(ranks) * len(ranks) / sum(ranks) for ranks in tokens) / len(updates)
