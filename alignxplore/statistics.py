"""Numbers with their uncertainty: accuracy, AUC, clustered bootstrap intervals, paired tests. Used by every table.

Rows of one person are not independent, so whole persons are resampled or sign-flipped, never single rows. Nor are
rows in which the same item was chosen: who knows the item is right in all of them. Where the items are given, the
variance is also taken by two-way clustering, V_person + V_item - V_both (Cameron, Gelbach and Miller 2011,
doi 10.1198/jbes.2010.07136); what is said is the wider of both intervals, and the larger of both p. A bootstrap of few
persons is too narrow, so the interval is never narrower than t times the clustered standard error. Nor are rows of
one training run independent: several runs of a policy are a third way. All randomness comes from a fixed seed: the
same rows give the same numbers.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from alignxplore.records import person_of

RESAMPLES = 4000
_BATCH = 250  # resamples at a time, so that memory stays flat in the number of resamples


class Estimate(NamedTuple):
    """A mean over n rows in c clusters with its 95 % interval; `two_way`: that of persons and items, since it is the
    wider one."""

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    two_way: bool = False


class Paired(NamedTuple):
    """Mean difference a - b over the same n rows, its 95 % interval, and the two-sided p: of a cluster sign-flip test,
    or of two-way clustering where that is larger."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    clusters: int


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values], dtype=int)


def _cluster_sums(values_N: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    codes_N = _codes(clusters)
    return np.bincount(codes_N, weights=values_N), np.bincount(codes_N).astype(float)


def _bootstrap_means(sums_C: np.ndarray, sizes_C: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES // _BATCH):
        picks_BC = generator.integers(0, len(sums_C), size=(_BATCH, len(sums_C)))
        means.append(sums_C[picks_BC].sum(1) / sizes_C[picks_BC].sum(1))
    return np.concatenate(means)


def _variance(deviations_N: np.ndarray, codes_N: np.ndarray) -> float:
    """Variance of a mean whose rows may depend on each other within clusters, with the correction for few clusters."""
    sums_C = np.bincount(codes_N, weights=deviations_N)
    return float((sums_C**2).sum()) / len(codes_N) ** 2 * len(sums_C) / (len(sums_C) - 1)


def cluster_error(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, int] | None:
    """(standard error, degrees of freedom) of a mean over rows that share clusters; None with fewer than two."""
    codes_N = _codes(clusters)
    if not codes_N.any():
        return None
    return float(np.sqrt(_variance(np.asarray(values, dtype=float) - np.mean(values), codes_N))), int(codes_N.max())


def two_way_error(
    values: Sequence[float], persons: Sequence[Hashable], items: Sequence[Hashable]
) -> tuple[float, int] | None:
    """(standard error, degrees of freedom) of a mean over rows that share persons and items; None with fewer than two
    persons or items, of whose spread nothing is known. Never less than with one of both ways alone."""
    person_N, item_N, both_N = _codes(persons), _codes(items), _codes(list(zip(persons, items, strict=True)))
    freedom = min(int(person_N.max(initial=0)), int(item_N.max(initial=0)))
    if not freedom:
        return None
    deviations_N = np.asarray(values, dtype=float) - np.mean(values)
    person, item, both = (_variance(deviations_N, codes_N) for codes_N in (person_N, item_N, both_N))
    return float(np.sqrt(max(person + item - both, person, item))), freedom


def estimate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    items: Sequence[Hashable] | None = None,
    seed: int = 0,
    by_rule: bool | None = None,
) -> Estimate:
    """Mean of scores in [0, 1] with a 95 % interval: the percentiles of the cluster bootstrap, or the t interval of
    the clustered (with items two-way) standard error where that is wider.

    With a single cluster the interval is [nan, nan]. Where all clusters agree the bootstrap shows no spread, which is
    no certainty: the interval is then the exact one of Clopper and Pearson, as of so many of so many clusters (or
    items, if these are fewer). Only scores that are all one half are chance by rule (bad format, ties) and keep an
    interval of width zero.

    Args:
        clusters: whose rows these are, a person each.
        items: what was chosen in each row.
        by_rule: whether all scores are chance by rule; by default where all are one half.
    """
    values_N = np.asarray(values, dtype=float)
    by_rule = bool(np.all(values_N == 0.5)) if by_rule is None else by_rule
    return _estimate(values_N, clusters, items, seed, least=0.0, by_rule=by_rule)


def share_of_outcomes(outcomes: Sequence[tuple[str, bool]]) -> Estimate:
    """`estimate` of the share that came true, of (user id, whether it did); rows of one person are a cluster."""
    return estimate([float(value) for _, value in outcomes], [person_of(user) for user, _ in outcomes])


def _estimate(
    values_N: np.ndarray,
    clusters: Sequence[Hashable],
    items: Sequence[Hashable] | None,
    seed: int,
    least: float,
    by_rule: bool,
) -> Estimate:
    """`estimate` of values in [least, 1], which are what they are `by_rule` or by observation."""
    if not len(values_N):
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    sums_C, sizes_C = _cluster_sums(values_N, clusters)
    mean = float(values_N.mean())
    if len(sums_C) < 2:
        return Estimate(mean, np.nan, np.nan, len(values_N), len(sums_C))
    low, high = np.quantile(_bootstrap_means(sums_C, sizes_C, seed), [0.025, 0.975])
    if np.ptp(sums_C / sizes_C) < 1e-12 and not by_rule:
        units = min(len(sums_C), len(sums_C) if items is None else len(set(items)))
        alike = 0.025 ** (1 / units)  # at least this share of all is like these; the others may be anything
        low, high = alike * mean + (1 - alike) * least, alike * mean + (1 - alike)
    by_items = two_way_error(values_N.tolist(), clusters, items) if items is not None else None
    error = by_items or cluster_error(values_N.tolist(), clusters)
    half = error[0] * float(student.ppf(0.975, error[1])) if error else 0.0
    if wider := bool(2 * half > high - low):
        low, high = max(least, mean - half), min(1.0, mean + half)
    two_way = wider and by_items is not None
    return Estimate(mean, float(low), float(high), len(values_N), len(sums_C), two_way)


def paired(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    items: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Paired:
    """Compare two policies on the same rows: the interval of their difference, as `estimate` makes it, and a cluster
    sign-flip test, or the test of two-way clustering where that is less sure."""
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same rows: {len(a)} against {len(b)}")
    a_N, b_N = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    difference_N = a_N - b_N
    interval = _estimate(
        difference_N, clusters, items, seed, least=-1.0, by_rule=bool(np.all(a_N == 0.5) and np.all(b_N == 0.5))
    )
    sums_C, _ = _cluster_sums(difference_N, clusters)
    generator = np.random.default_rng(seed)
    statistic, extremes = abs(sums_C.sum()), 0
    for _ in range(RESAMPLES // _BATCH):
        signs_BC = generator.choice(np.array([-1.0, 1.0]), size=(_BATCH, len(sums_C)))
        extremes += int((np.abs(signs_BC @ sums_C) >= statistic - 1e-12).sum())
    p_value = (extremes + 1) / (RESAMPLES + 1)
    error = two_way_error(difference_N.tolist(), clusters, items) if items is not None else None
    if error and error[0]:
        p_value = max(p_value, 2 * float(student.sf(abs(interval.mean) / error[0], error[1])))
    return Paired(interval.mean, interval.low, interval.high, p_value, interval.n, interval.clusters)


def runs_error(
    values: Sequence[float],
    runs: Sequence[Hashable],
    persons: Sequence[Hashable],
    items: Sequence[Hashable] | None = None,
) -> tuple[float, float] | None:
    """(standard error, degrees of freedom) of a mean over several training runs; None with fewer than two runs or
    persons.

    Runs and persons are crossed ways of clustering: V_users + V_runs - V_both, never less than one of them alone. Few
    runs say little of their own spread, so the degrees of freedom are those of Welch and Satterthwaite: near the
    number of runs less one where runs differ most, near that of persons where persons do.
    """
    run_N, person_N, both_N = _codes(runs), _codes(persons), _codes(list(zip(runs, persons, strict=True)))
    if not run_N.any() or not person_N.any():
        return None
    deviations_N = np.asarray(values, dtype=float) - np.mean(values)
    run_variance, pair_variance = _variance(deviations_N, run_N), _variance(deviations_N, both_N)
    user_variance, users_freedom = _variance(deviations_N, person_N), int(person_N.max())
    if items is not None and (two_way := two_way_error(values, persons, items)) is not None:
        user_variance, users_freedom = max(user_variance, two_way[0] ** 2), two_way[1]
    total = max(user_variance + run_variance - pair_variance, user_variance, run_variance)
    if not total:
        return 0.0, float(users_freedom)
    return float(np.sqrt(total)), total**2 / (run_variance**2 / int(run_N.max()) + user_variance**2 / users_freedom)


def estimate_over_runs(
    values: Sequence[float],
    runs: Sequence[Hashable],
    persons: Sequence[Hashable],
    items: Sequence[Hashable] | None = None,
) -> Estimate:
    """Mean of scores in [0, 1] of several training runs of one policy, with the 95 % interval for other runs and other
    users; `estimate` where there is one run."""
    over_persons = estimate(values, persons, items)
    error = runs_error(values, runs, persons, items)
    if error is None:
        return over_persons
    half = error[0] * float(student.ppf(0.975, error[1]))
    low, high = max(0.0, over_persons.mean - half), min(1.0, over_persons.mean + half)
    # What all agree on is no certainty: never narrower than over the users of these runs.
    return over_persons._replace(low=min(low, over_persons.low), high=max(high, over_persons.high), two_way=True)


def paired_over_runs(
    a: Sequence[float],
    b: Sequence[float],
    runs: Sequence[Hashable],
    persons: Sequence[Hashable],
    items: Sequence[Hashable] | None = None,
) -> Paired:
    """The comparison of two policies of which one or both were trained several times; `paired` where there is one
    run."""
    over_persons = paired(a, b, persons, items)
    difference = (np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).tolist()
    error = runs_error(difference, runs, persons, items)
    if error is None or not error[0]:
        return over_persons
    half = error[0] * float(student.ppf(0.975, error[1]))
    p_value = 2 * float(student.sf(abs(over_persons.difference) / error[0], error[1]))
    return over_persons._replace(
        low=min(over_persons.low, max(-1.0, over_persons.difference - half)),
        high=max(over_persons.high, min(1.0, over_persons.difference + half)),
        p_value=max(over_persons.p_value, p_value),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p of each of several tests, such that all of those below 0.05 are wrong together in at most five cases of a
    hundred (Holm 1979)."""
    adjusted_p_values, running_maximum = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running_maximum = max(running_maximum, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted_p_values[place] = running_maximum
    return adjusted_p_values


def least_difference(test: Paired) -> float:
    """The smallest true difference that a comparison as precise as this one finds in four cases of five (two-sided
    5 %); normal approximation, nan without an interval."""
    return (test.high - test.low) / 2 * (1.96 + 0.8416) / 1.96


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve of `scores` against `labels` (ties count half); nan when a class is absent."""
    labels_N = np.asarray(labels, dtype=bool)
    positives, negatives = int(labels_N.sum()), int((~labels_N).sum())
    if not positives or not negatives:
        return float("nan")
    ranks_N = rankdata(np.asarray(scores, dtype=float))
    return float((ranks_N[labels_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def design_effect(
    values: Sequence[float], clusters: Sequence[Hashable], items: Sequence[Hashable] | None = None
) -> float:
    """How many times the variance of a mean is that of as many independent rows: clustered over independent variance,
    by persons or by persons and items, whichever is larger, and at least 1."""
    values_N, codes_N = np.asarray(values, dtype=float), _codes(clusters)
    variance = float(np.var(values_N)) / (len(values_N) - 1) if len(values_N) > 1 else 0.0
    if not variance or not codes_N.any():
        return 1.0
    error = two_way_error(values, clusters, items) if items is not None else None
    return max(1.0, _variance(values_N - values_N.mean(), codes_N) / variance, (error or (0.0,))[0] ** 2 / variance)


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


class Agreement(NamedTuple):
    """Of n things that two readers sorted: the share that both sorted alike, and Cohen's kappa with its 95 %
    interval."""

    share: float
    kappa: float
    low: float
    high: float
    n: int


def agreement(a: Sequence[Hashable], b: Sequence[Hashable], clusters: Sequence[Hashable], seed: int = 0) -> Agreement:
    """How far two readers agree beyond what the shares of their answers would give by chance (Cohen 1960).

    The interval is made as that of `estimate`: by a bootstrap over clusters, or t times the clustered standard error
    where that is wider. Where they always agree it is that of Clopper and Pearson. It is nan where a reader always
    says the same, or with a single cluster.
    """
    kinds = {kind: place for place, kind in enumerate(dict.fromkeys([*a, *b]))}
    codes_N, size = _codes(clusters), len(kinds)
    cells_N = np.array([kinds[x] * size + kinds[y] for x, y in zip(a, b, strict=True)], dtype=int)
    clusters_C = int(codes_N.max(initial=-1)) + 1
    counts_CK = np.zeros((clusters_C, size * size))
    np.add.at(counts_CK, (codes_N, cells_N), 1)
    share, kappa = _kappa(counts_CK.sum(0)[None], size)
    low = high = np.nan
    if clusters_C > 1 and not np.isnan(kappa[0]):
        generator, kappas = np.random.default_rng(seed), []
        for _ in range(RESAMPLES // _BATCH):
            weights_BC = generator.multinomial(clusters_C, np.full(clusters_C, 1 / clusters_C), size=_BATCH)
            kappas.append(_kappa(weights_BC @ counts_CK, size)[1])
        low, high = np.nanquantile(np.concatenate(kappas), [0.025, 0.975])
        low, high = _widened(float(kappa[0]), float(low), float(high), cells_N, size, clusters)
    return Agreement(float(share[0]), float(kappa[0]), float(low), float(high), len(cells_N))


def _widened(
    kappa: float, low: float, high: float, cells_N: np.ndarray, size: int, clusters: Sequence[Hashable]
) -> tuple[float, float]:
    """The interval of kappa that few clusters allow.

    Args:
        cells_N: the answers of both, row by row, as first * size + second.
    """
    shares_xy = np.bincount(cells_N, minlength=size * size).reshape(size, size) / len(cells_N)
    first_x, second_y = shares_xy.sum(1), shares_xy.sum(0)
    alike, beyond_chance = np.trace(shares_xy), 1 - float(first_x @ second_y)
    if alike > 1 - 1e-12:
        return max(-1.0, 1 - (1 - 0.025 ** (1 / len(set(clusters)))) / beyond_chance), 1.0
    # What one row more of a kind would move: kappa is (alike - chance) / (1 - chance), and chance the sum of products.
    slopes_xy = np.eye(size) / beyond_chance - (1 - alike) / beyond_chance**2 * (second_y[:, None] + first_x)
    error = cluster_error(slopes_xy.ravel()[cells_N].tolist(), clusters)
    half = error[0] * float(student.ppf(0.975, error[1])) if error else 0.0
    return (max(-1.0, kappa - half), min(1.0, kappa + half)) if 2 * half > high - low else (low, high)


def _kappa(counts_BK: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(share alike, kappa) of each of several tables of counts, one row a table of size x size."""
    shares_Bxy = (counts_BK / counts_BK.sum(1, keepdims=True)).reshape(-1, size, size)
    alike_B = np.trace(shares_Bxy, axis1=1, axis2=2)
    chance_B = (shares_Bxy.sum(2) * shares_Bxy.sum(1)).sum(1)
    certain_B = np.isclose(chance_B, 1)
    return alike_B, np.where(certain_B, np.nan, (alike_B - chance_B) / np.where(certain_B, 1, 1 - chance_B))
