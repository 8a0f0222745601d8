"""Intervals, paired tests and AUC against theory, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from alignxplore.statistics import Estimate, auc, cluster_rows, design_effect, estimate, paired, two_sample_interval


@pytest.mark.parametrize(
    ("users", "targets", "expected"),
    [
        (["a", "b", "c"], ["x", "y", "z"], [0, 1, 2]),
        (["a", "a", "b"], ["x", "y", "z"], [0, 0, 1]),
        (["a", "b", "c"], ["x", "y", "x"], [0, 1, 0]),
        (["a", "a", "b", "c", "d"], ["w", "x", "x", "y", "z"], [0, 0, 0, 1, 2]),  # a-x-b in one chain
        (["x", "y"], ["y", "x"], [0, 1]),  # a user and a target of one name are not the same thing
        ([1, "1"], [3, 4], [0, 1]),
        ([], [], []),
    ],
)
def test_clusters_are_connected_components(users, targets, expected):
    found = cluster_rows(users, targets)
    assert len(found) == len(expected)
    assert [[a == b for b in found] for a in found] == [[a == b for b in expected] for a in expected]


def simulated(generator, clusters=60):
    """Rows whose clusters share a common part; the true mean is 0.6."""
    sizes = generator.integers(1, 6, clusters)
    codes = np.repeat(np.arange(clusters), sizes)
    rates = generator.beta(3, 2, clusters)
    return (generator.random(len(codes)) < rates[codes]).astype(float), codes


def test_interval_covers_the_truth_as_often_as_it_says():
    """200 simulated tables: 95 %, less one for the bootstrap's shortfall at 60 clusters; three standard errors of 200
    draws."""
    generator, error = np.random.default_rng(1), 3 * np.sqrt(0.95 * 0.05 / 200)
    hits = [low <= 0.6 <= high for _, low, high, _, _ in (estimate(*simulated(generator)) for _ in range(200))]
    assert 0.94 - error <= np.mean(hits) <= 0.95 + error


def test_interval_width_matches_theory():
    """Equal clusters: the mean of cluster means, whose standard error is known in closed form."""
    generator = np.random.default_rng(2)
    means = generator.normal(0.5, 0.1, 200)
    values, codes = np.repeat(means, 4), np.repeat(np.arange(200), 4)
    found = estimate(values, codes)
    width = 2 * 1.96 * means.std() / np.sqrt(200)
    assert found.mean == pytest.approx(means.mean()) and (found.n, found.clusters) == (800, 200)
    assert found.high - found.low == pytest.approx(width, rel=0.06)
    rowwise = estimate(values, range(800))
    assert (found.high - found.low) / (rowwise.high - rowwise.low) == pytest.approx(
        2, rel=0.1
    )  # four equal rows tell as much as one


def test_mean_is_over_rows_not_over_clusters():
    assert estimate([1, 1, 1, 0], [0, 0, 0, 1]).mean == 0.75


def test_degenerate_tables():
    assert estimate([], []) == pytest.approx(Estimate(np.nan, np.nan, np.nan, 0, 0), nan_ok=True)
    assert estimate([1, 0], [5, 5]) == pytest.approx(Estimate(0.5, np.nan, np.nan, 2, 1), nan_ok=True)
    assert estimate([1, 1], [0, 1]) == Estimate(1, pytest.approx(0.025**0.5), 1, 2, 2)
    assert paired([1, 0], [0, 0], [0, 0]).p_value == 1.0


def test_same_rows_give_the_same_numbers_and_cluster_names_do_not_matter():
    values, codes = simulated(np.random.default_rng(3))
    assert estimate(values, codes) == estimate(values, codes) == estimate(values, [f"c{code:03d}" for code in codes])
    assert estimate(values, codes, seed=1) != estimate(values, codes)
    assert paired(values, 1 - values, codes) == paired(values, 1 - values, codes)


def test_sign_flip_p_is_uniform_under_the_null():
    """200 comparisons of two equal policies with a shared effect in each cluster."""
    generator = np.random.default_rng(4)
    codes = np.repeat(np.arange(40), 3)
    noise = generator.normal(size=(200, 40))[:, codes] + 0.5 * generator.normal(size=(200, 120))
    ps = np.array([paired(row, np.zeros(120), codes).p_value for row in noise])
    assert kstest(ps, "uniform").pvalue > 0.01
    # The same rows taken for independent would reject far too often.
    assert np.mean([paired(row, np.zeros(120), range(120)).p_value <= 0.05 for row in noise[:60]]) > 0.15


def test_sign_flip_is_exact_for_few_clusters():
    """Four clusters of the same sign: 2 of the 16 sign patterns are as extreme."""
    found = paired([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3])
    assert found.difference == 1 and found.p_value == pytest.approx(2 / 16, abs=3 * np.sqrt(0.125 * 0.875 / 4000))


def test_sign_flip_flips_clusters_not_rows():
    """A hundred rows that differ alike in three clusters are three pieces of evidence: p cannot fall below 2/8."""
    found = paired([1] * 99, [0] * 99, np.repeat([0, 1, 2], 33))
    assert found.p_value > 0.2 and found.clusters == 3


def test_a_real_difference_is_found():
    generator = np.random.default_rng(5)
    a, codes = simulated(generator, 200)
    b = np.where(generator.random(len(a)) < 0.3, 0.0, a)
    found = paired(a, b, codes)
    assert found.p_value < 0.001 and found.low > 0 and found.difference == pytest.approx(np.mean(a - b))


def test_equal_policies_have_p_one():
    difference, low, high, p = paired([1, 0, 1], [1, 0, 1], [0, 1, 2])[:4]
    assert (difference, p) == (0, 1) and low == -high < -0.5  # three users who agree say little of the others


@pytest.mark.parametrize("right", [0, 24])
def test_rows_that_all_agree_are_not_taken_for_certainty(right):
    """Against the interval of Clopper and Pearson, on the number of clusters: two rows of one user say as much as
    one."""
    exact = binomtest(right, 24).proportion_ci(method="exact")
    found = estimate([right / 24] * 48, [i // 2 for i in range(48)])
    assert (
        found.mean == right / 24
        and (found.low, found.high) == pytest.approx((exact.low, exact.high))
        and found.clusters == 24
    )
    _, low, high = two_sample_interval(found, 0.9, 10**9)
    assert high - low == pytest.approx(exact.high - exact.low, rel=1e-3)


def test_what_is_chance_by_rule_is_exact():
    assert estimate([0.5] * 24, range(24))[:3] == (0.5, 0.5, 0.5)
    assert paired([0.5] * 24, [0.5] * 24, range(24))[:3] == (0, 0, 0)


def test_a_difference_that_all_share_is_not_certain():
    found = paired([1] * 24, [0] * 24, range(24))
    assert (
        found.difference == found.high == 1 and 0.7 < found.low < 0.75
    )  # at most 14 % of the users are otherwise, each by 2


def test_a_pairing_needs_the_same_rows():
    with pytest.raises(ValueError, match="2 against 1"):
        paired([1, 0], [1], [0, 1])


def brute_force_auc(scores, labels):
    wins = [(p > n) + (p == n) / 2 for p, lp in zip(scores, labels) if lp for n, ln in zip(scores, labels) if not ln]
    return sum(wins) / len(wins)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9]), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, labels = zip(*rows)
    if len(set(labels)) < 2:
        with np.errstate(all="raise"):
            assert np.isnan(auc(scores, labels))
    else:
        assert auc(scores, labels) == pytest.approx(brute_force_auc(scores, labels))


def test_two_sample_interval():
    ours = Estimate(0.70, 0.67, 0.73, 900, 900)
    difference, low, high = two_sample_interval(ours, 0.66, 1000)
    error = np.hypot(0.03, 1.96 * np.sqrt(0.66 * 0.34 / 1000))
    assert difference == pytest.approx(0.04) and (low, high) == pytest.approx((0.04 - error, 0.04 + error), rel=1e-3)
    with pytest.raises(ValueError, match="proportion"):
        two_sample_interval(ours, 66.1, 1000)
    error = np.hypot(0.03, 1.96 * np.sqrt(4 * 0.66 * 0.34 / 1000))
    assert two_sample_interval(ours, 0.66, 1000, design=4)[1] == pytest.approx(0.04 - error, rel=1e-3)


def test_the_design_effect_is_that_of_the_clusters():
    values = np.random.default_rng(0).integers(0, 2, 300).astype(float)
    assert design_effect(values, range(300)) == pytest.approx(1)
    assert design_effect(np.repeat(values, 3), np.repeat(np.arange(300), 3)) == pytest.approx(3, rel=0.01)
    assert design_effect(np.ravel(np.column_stack([values, 1 - values])), np.repeat(np.arange(300), 2)) == 1, (
        "pairs that differ say more, not less"
    )
    assert [design_effect([], []), design_effect([1.0, 1.0], [0, 1]), design_effect([0.0, 1.0], [0, 0])] == [1, 1, 1]
