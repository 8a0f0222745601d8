"""Numbers with their uncertainty: accuracy, AUC, clustered bootstrap intervals, paired tests. Used by every table.

Rows that share a user or a target are not independent, so whole clusters (connected components of such rows) are
resampled or sign-flipped, never single rows. All randomness comes from a fixed seed: the same rows give the same
numbers.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

RESAMPLES = 4000
_BATCH = 250  # resamples at a time, so that memory stays flat in the number of resamples


class Estimate(NamedTuple):
    """A mean over n rows in c clusters with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    clusters: int


class Paired(NamedTuple):
    """Mean difference a - b over the same n rows, its 95 % interval, and the two-sided p of a cluster sign-flip
    test."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    clusters: int


def cluster_rows(users: Sequence[Hashable], targets: Sequence[Hashable]) -> np.ndarray:
    """Cluster number of each row, shape [n]: rows are connected when they share a user or a target."""
    user_codes, target_codes = _codes(users), _codes(targets)
    n_users = int(user_codes.max(initial=-1)) + 1
    size = n_users + int(target_codes.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(user_codes)), (user_codes, n_users + target_codes)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return np.unique(component[user_codes], return_inverse=True)[1]


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values], dtype=int)


def _cluster_sums(values_N: np.ndarray, clusters_N: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    codes_N = np.unique(np.asarray(clusters_N), return_inverse=True)[1]
    return np.bincount(codes_N, weights=values_N), np.bincount(codes_N).astype(float)


def _bootstrap_means(sums_C: np.ndarray, sizes_C: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES // _BATCH):
        picks_BC = generator.integers(0, len(sums_C), size=(_BATCH, len(sums_C)))
        means.append(sums_C[picks_BC].sum(1) / sizes_C[picks_BC].sum(1))
    return np.concatenate(means)


def estimate(values: Sequence[float], clusters: Sequence[int], seed: int = 0) -> Estimate:
    """Mean of scores in [0, 1] with a 95 % percentile interval of the cluster bootstrap.

    With a single cluster the interval is [nan, nan]. Where all clusters agree the bootstrap shows no spread, which is
    no certainty: the interval is then the exact one of Clopper and Pearson, as of so many of so many clusters. Only
    scores that are all one half are chance by rule (bad format, ties) and keep an interval of width zero.
    """
    values_N = np.asarray(values, dtype=float)
    return _estimate(values_N, clusters, seed, least=0.0, by_rule=bool(np.all(values_N == 0.5)))


def _estimate(values_N: np.ndarray, clusters: Sequence[int], seed: int, least: float, by_rule: bool) -> Estimate:
    """`estimate` of values in [least, 1], which are what they are `by_rule` or by observation."""
    if not len(values_N):
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    sums_C, sizes_C = _cluster_sums(values_N, clusters)
    if len(sums_C) < 2:
        return Estimate(float(values_N.mean()), np.nan, np.nan, len(values_N), len(sums_C))
    mean = float(values_N.mean())
    low, high = np.quantile(_bootstrap_means(sums_C, sizes_C, seed), [0.025, 0.975])
    if np.ptp(sums_C / sizes_C) < 1e-12 and not by_rule:
        alike = 0.025 ** (
            1 / len(sums_C)
        )  # at least this share of all clusters is like these; the others may be anything
        low, high = alike * mean + (1 - alike) * least, alike * mean + (1 - alike)
    return Estimate(mean, float(low), float(high), len(values_N), len(sums_C))


def paired(a: Sequence[float], b: Sequence[float], clusters: Sequence[int], seed: int = 0) -> Paired:
    """Compare two policies on the same rows: cluster bootstrap of the difference and a cluster sign-flip test."""
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same rows: {len(a)} against {len(b)}")
    a_N, b_N = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    difference_N = a_N - b_N
    whole = _estimate(
        difference_N, clusters, seed, least=-1.0, by_rule=bool(np.all(a_N == 0.5) and np.all(b_N == 0.5))
    )
    sums_C, _ = _cluster_sums(difference_N, clusters)
    generator = np.random.default_rng(seed)
    observed, extreme = abs(sums_C.sum()), 0
    for _ in range(RESAMPLES // _BATCH):
        signs_BC = generator.choice(np.array([-1.0, 1.0]), size=(_BATCH, len(sums_C)))
        extreme += int((np.abs(signs_BC @ sums_C) >= observed - 1e-12).sum())
    return Paired(whole.mean, whole.low, whole.high, (extreme + 1) / (RESAMPLES + 1), whole.n, whole.clusters)


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve of `scores` against `labels` (ties count half); nan when a class is absent."""
    labels_N = np.asarray(labels, dtype=bool)
    positives, negatives = int(labels_N.sum()), int((~labels_N).sum())
    if not positives or not negatives:
        return float("nan")
    ranks_N = rankdata(np.asarray(scores, dtype=float))
    return float((ranks_N[labels_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def design_effect(values: Sequence[float], clusters: Sequence[int]) -> float:
    """How many times the variance of a mean is that of as many independent rows: clustered over independent variance,
    at least 1."""
    values_N = np.asarray(values, dtype=float)
    sums_C, sizes_C = _cluster_sums(values_N, clusters)
    independent = float(((values_N - values_N.mean()) ** 2).sum()) if len(values_N) else 0.0
    if len(sums_C) < 2 or not independent:
        return 1.0
    clustered = float(((sums_C - values_N.mean() * sizes_C) ** 2).sum()) * len(sums_C) / (len(sums_C) - 1)
    return max(1.0, clustered / (independent * len(values_N) / (len(values_N) - 1)))


def two_sample_interval(
    ours: Estimate, theirs: float, their_n: int, design: float = 1.0
) -> tuple[float, float, float]:
    """(difference, low, high) of our mean against a published proportion of which only n is known (normal
    approximation).

    Args:
        design: `design_effect` of our rows of the same benchmark. The published rows share users and targets as ours
            do, so their variance is taken for as many times that of independent rows.
    """
    if not 0 <= theirs <= 1:
        raise ValueError(f"a published accuracy is a proportion between 0 and 1, not {theirs}")
    our_error = (ours.high - ours.low) / 2 / 1.96
    error = float(np.hypot(our_error, np.sqrt(design * theirs * (1 - theirs) / their_n)))
    difference = ours.mean - theirs
    return difference, difference - 1.96 * error, difference + 1.96 * error
