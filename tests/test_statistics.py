"""Intervals, paired tests and AUC against theory, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest
from scipy.stats import t as student

from alignxplore.statistics import (
    Estimate,
    agreement,
    auc,
    design_effect,
    estimate,
    estimate_over_runs,
    holm,
    least_difference,
    paired,
    paired_over_runs,
    runs_error,
    share_of_outcomes,
    two_sample_interval,
    two_way_error,
)


def simulated(generator, clusters=60):
    """Rows whose clusters share a common part; the true mean is 0.6."""
    sizes = generator.integers(1, 6, clusters)
    codes = np.repeat(np.arange(clusters), sizes)
    rates = generator.beta(3, 2, clusters)
    return (generator.random(len(codes)) < rates[codes]).astype(float), codes


TABLES = 1000
LUCK = 3 * np.sqrt(0.95 * 0.05 / TABLES)  # three standard errors of a share of 95 % among so many tables


def coverage(tables, truth=0.6):
    """In how many tables the interval holds the truth."""
    return np.mean([interval.low <= truth <= interval.high for interval in tables])


def test_interval_covers_the_truth_as_often_as_it_says():
    """One of 90 or of 99 % would not pass."""
    generator = np.random.default_rng(1)
    share = coverage(estimate(*simulated(generator)) for _ in range(TABLES))
    assert 0.95 - LUCK <= share <= 0.95 + LUCK


@pytest.mark.parametrize("persons", [5, 23])
def test_of_few_persons_the_interval_covers_the_truth_as_often_too(persons):
    """Persons of many rows; a bootstrap by itself covers 84 % of five. A difference is a mean as well."""
    generator, tables, differences = np.random.default_rng(13), [], []
    for _ in range(400):
        sizes = generator.integers(4, 14, persons)
        codes = np.repeat(np.arange(persons), sizes)
        values = (generator.random(len(codes)) < generator.normal(0.6, 0.1, persons)[codes]).astype(float)
        tables.append(estimate(values, codes))
        differences.append(paired(values, np.zeros(len(values)), codes))
    luck = 3 * np.sqrt(0.95 * 0.05 / 400)
    assert coverage(tables) > 0.95 - luck and coverage(differences) > 0.95 - luck


def rated(generator, persons=80, items=120, each=6):
    """Rows of persons who choose among items, some of them often; persons and items are right at rates of their own,
    0.6 on average."""
    person_P, item_I = generator.uniform(-0.2, 0.2, persons), generator.uniform(-0.2, 0.2, items)
    often = 1 / np.arange(3, items + 3)
    chosen = np.concatenate([generator.choice(items, each, replace=False, p=often / often.sum()) for _ in person_P])
    person_codes = np.repeat(np.arange(persons), each)
    right = generator.random(persons * each) < 0.6 + person_P[person_codes] + item_I[chosen]
    return right.astype(float), person_codes, chosen


def test_rows_that_share_persons_and_items_are_covered_by_two_way_intervals_and_not_by_those_of_persons():
    generator = np.random.default_rng(6)
    tables = [rated(generator) for _ in range(TABLES)]
    intervals = [estimate(*table) for table in tables]
    assert 0.93 <= coverage(intervals) <= 0.97
    assert coverage(estimate(*table[:2]) for table in tables) < 0.88, "as of persons alone"
    assert np.mean([interval.two_way for interval in intervals]) > 0.9


def test_equal_policies_that_know_other_items_differ_in_five_tables_of_a_hundred():
    """A sign-flip over persons alone finds a difference too often."""
    generator, ps = np.random.default_rng(7), []
    for _ in range(300):
        _, persons, chosen = rated(generator)
        difference = generator.normal(0, 0.2, 120)[chosen] + generator.normal(0, 0.3, len(chosen))
        zeros = np.zeros(len(chosen))
        ps.append([paired(difference, zeros, *ways).p_value for ways in ((persons, chosen), (persons,))])
    luck = 3 * np.sqrt(0.05 * 0.95 / 300)
    share_two_way, share_one_way = (np.array(ps) < 0.05).mean(0)
    assert share_two_way < 0.05 + luck < 0.15 < share_one_way


def test_the_two_way_variance_is_that_of_its_formula():
    """Against the sum over all pairs of rows that share a person or an item, each way with its correction for few
    clusters."""
    values, persons, chosen = rated(np.random.default_rng(8), persons=50, items=25, each=4)
    deviations = values - values.mean()

    def of_pairs(alike, clusters):
        return (np.outer(deviations, deviations) * alike).sum() / len(values) ** 2 * clusters / (clusters - 1)

    same_person, same_item = persons[:, None] == persons, chosen[:, None] == chosen
    items, pairs = len(set(chosen)), len(set(zip(persons, chosen)))
    expected = of_pairs(same_person, 50) + of_pairs(same_item, items) - of_pairs(same_person & same_item, pairs)
    error, freedom = two_way_error(values, persons, chosen)
    assert freedom == items - 1 and error**2 == pytest.approx(expected)
    assert expected > max(of_pairs(same_person, 50), of_pairs(same_item, items)), "else the larger one is said"


def test_the_wider_interval_is_said():
    values, codes = simulated(np.random.default_rng(3))
    over_persons = estimate(values, codes)
    assert estimate(values, codes, range(len(values)))[:5] == pytest.approx(over_persons[:5], abs=0.02)
    items = (np.arange(len(values)) * 7 % 5).tolist()  # everybody chose among five
    wide = estimate(values * (np.array(items) < 3), codes, items)
    narrow = estimate(values * (np.array(items) < 3), codes)
    assert wide.two_way and not narrow.two_way and wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert 0 <= wide.low and wide.high <= 1
    assert estimate([1, 0, 1], [1, 2, 3], ["x"] * 3) == estimate([1, 0, 1], [1, 2, 3]), "of one item nothing is known"
    assert estimate([1.0] * 24, range(24), [0, 1, 2] * 8).low == pytest.approx(0.025 ** (1 / 3)), "three items agree"


def test_interval_width_matches_theory():
    """Equal clusters: the mean of cluster means, whose standard error is known in closed form."""
    generator = np.random.default_rng(2)
    means = generator.normal(0.5, 0.1, 200)
    values, codes = np.repeat(means, 4), np.repeat(np.arange(200), 4)
    interval = estimate(values, codes)
    width = 2 * 1.96 * means.std() / np.sqrt(200)
    assert interval.mean == pytest.approx(means.mean()) and (interval.n, interval.clusters) == (800, 200)
    assert interval.high - interval.low == pytest.approx(width, rel=0.06)
    rowwise = estimate(values, range(800))
    assert (interval.high - interval.low) / (rowwise.high - rowwise.low) == pytest.approx(
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
    assert paired(values, 1 - values, codes) == paired(values, 1 - values, codes)
    assert paired(values, values * 0 + 0.6, codes, seed=1) != paired(values, values * 0 + 0.6, codes)


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
    comparison = paired([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3])
    assert comparison.difference == 1 and comparison.p_value == pytest.approx(
        2 / 16, abs=3 * np.sqrt(0.125 * 0.875 / 4000)
    )


def test_sign_flip_flips_clusters_not_rows():
    """A hundred rows that differ alike in three clusters are three pieces of evidence: p cannot fall below 2/8."""
    comparison = paired([1] * 99, [0] * 99, np.repeat([0, 1, 2], 33))
    assert comparison.p_value > 0.2 and comparison.clusters == 3


def test_a_real_difference_is_found():
    generator = np.random.default_rng(5)
    a, codes = simulated(generator, 200)
    b = np.where(generator.random(len(a)) < 0.3, 0.0, a)
    comparison = paired(a, b, codes)
    assert comparison.p_value < 0.001 and comparison.low > 0 and comparison.difference == pytest.approx(np.mean(a - b))


def test_equal_policies_have_p_one():
    difference, low, high, p = paired([1, 0, 1], [1, 0, 1], [0, 1, 2])[:4]
    assert (difference, p) == (0, 1) and low == -high < -0.5  # three users who agree say little of the others


@pytest.mark.parametrize("right", [0, 24])
def test_rows_that_all_agree_are_not_taken_for_certainty(right):
    """Against the interval of Clopper and Pearson, on the number of clusters: two rows of one user say as much as
    one."""
    exact = binomtest(right, 24).proportion_ci(method="exact")
    interval = estimate([right / 24] * 48, [i // 2 for i in range(48)])
    assert (
        interval.mean == right / 24
        and (interval.low, interval.high) == pytest.approx((exact.low, exact.high))
        and interval.clusters == 24
    )
    _, low, high = two_sample_interval(interval, 0.9, 10**9)
    assert high - low == pytest.approx(exact.high - exact.low, rel=1e-3)


def test_what_is_chance_by_rule_is_exact():
    assert estimate([0.5] * 24, range(24))[:3] == (0.5, 0.5, 0.5)
    assert paired([0.5] * 24, [0.5] * 24, range(24))[:3] == (0, 0, 0)


def test_a_difference_that_all_share_is_not_certain():
    comparison = paired([1] * 24, [0] * 24, range(24))
    assert (
        comparison.difference == comparison.high == 1 and 0.7 < comparison.low < 0.75
    )  # at most 14 % of the users are otherwise, each by 2


def test_holm_adjusts_in_the_order_of_p_and_never_lowers_one():
    """By hand: 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.9 x 1, none smaller than the one before it."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.4, 0.5]) == pytest.approx([0.8, 0.8]) and holm([]) == []
    generator = np.random.default_rng(9)
    wrong = np.mean([min(holm(generator.random(10).tolist())) < 0.05 for _ in range(TABLES)])
    assert abs(wrong - 0.05) < 3 * np.sqrt(0.05 * 0.95 / TABLES), "ten true nulls a table"


def test_the_least_difference_is_found_in_four_cases_of_five():
    generator, detections = np.random.default_rng(10), []
    test = paired(generator.normal(0, 1, 400), np.zeros(400), range(400))
    for _ in range(300):
        comparison = paired(generator.normal(least_difference(test), 1, 400), np.zeros(400), range(400))
        detections.append(comparison.low > 0)
    assert abs(np.mean(detections) - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 300) + 0.03, (
        "and the width of one table is luck, too"
    )


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


@pytest.mark.parametrize("size", [4, 6, 60])
def test_agreement_s_interval_covers_the_true_kappa(size):
    """Persons of three rows, the whole person alike or not; 200 tables, of which 95 % should hold the truth. Of 4
    persons the bootstrap alone holds it in 77 %."""
    generator, hits = np.random.default_rng(3), 0
    for _ in range(200):
        a, b, persons = [], [], []
        for person in range(size):
            copies = generator.random() < 0.4  # the second reader copies the first; else both toss a coin
            for _ in range(3):
                x = bool(generator.random() < 0.5)
                a.append(x)
                b.append(x if copies else bool(generator.random() < 0.5))
                persons.append(person)
        kappa = agreement(a, b, persons)
        hits += kappa.low <= 0.4 <= kappa.high
    assert 0.90 <= hits / 200 <= 0.985


def test_readers_who_always_agree_are_not_taken_for_certain():
    """As `estimate` of 24 clusters that are all right; chance is a half here."""
    answers, persons = [i % 2 for i in range(48)], [i // 2 for i in range(48)]
    interval = estimate([1.0] * 48, persons)
    assert agreement(answers, answers, persons)[1:4] == pytest.approx((1, 2 * interval.low - 1, 1))


def trained(generator, runs, spread, persons=80, each=3):
    """Rows of several training runs of one policy on the same persons. Runs differ by `spread`, persons by 0.12, and
    what a run makes of a person by 0.1; 0.6 is right on average."""
    rates_RP = 0.6 + generator.normal(0, spread, (runs, 1)) + generator.normal(0, 0.12, persons)
    rates_RP = (rates_RP + generator.normal(0, 0.1, rates_RP.shape)).clip(0, 1)
    right = generator.random((runs, persons, each)) < rates_RP[..., None]
    person_codes = np.repeat(np.arange(persons), each)
    return right.ravel().astype(float), np.repeat(np.arange(runs), persons * each), np.tile(person_codes, runs)


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("spread", [0.04, 0.08])
def test_an_interval_over_few_training_runs_covers_another_run_and_one_over_users_does_not(runs, spread):
    generator = np.random.default_rng(100 * runs + int(100 * spread))
    tables = [trained(generator, runs, spread) for _ in range(TABLES)]
    assert 0.93 <= coverage(runs_interval(*table) for table in tables) <= 0.97 + LUCK / 3
    assert coverage(estimate(values, persons) for values, _, persons in tables[:150]) < 0.93, "over users only"


def runs_interval(values, runs, persons):
    """The interval of `estimate_over_runs` but for its bootstrap, which takes most of the time."""
    error, freedom = runs_error(values, runs, persons)
    half = error * student.ppf(0.975, freedom)
    return Estimate(values.mean(), values.mean() - half, values.mean() + half, len(values), len(set(persons)))


def test_what_is_said_of_runs_is_never_narrower_than_over_users_and_of_one_run_the_same():
    values, runs, persons = trained(np.random.default_rng(1), 3, 0.05)
    over_runs, over_persons = estimate_over_runs(values, runs, persons), estimate(values, persons)
    assert (
        over_runs.mean == over_persons.mean and over_runs.low < over_persons.low and over_persons.high < over_runs.high
    )
    expected = runs_interval(values, runs, persons)
    assert (over_runs.low, over_runs.high) == pytest.approx((expected.low, expected.high))
    assert estimate_over_runs(values, [0] * len(values), persons) == over_persons
    assert runs_error(values, [0] * len(values), persons) is None is runs_error(values, runs, [0] * len(values))
    assert estimate_over_runs([1.0] * 6, [0, 1] * 3, [0, 0, 1, 1, 2, 2]).low < 1, "all right in six rows"


def test_equal_policies_of_three_runs_each_differ_in_five_tables_of_a_hundred():
    generator, ps = np.random.default_rng(2), []
    for _ in range(100):
        (a, runs, persons), (b, *_) = (trained(generator, 3, 0.05) for _ in range(2))
        ps.append([paired_over_runs(a, b, runs, persons).p_value, paired(a, b, persons).p_value])
    share_over_runs, share_over_persons = (np.array(ps) < 0.05).mean(0)
    assert share_over_runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100) < 0.15 < share_over_persons


def test_a_share_of_outcomes_is_taken_over_persons_who_may_have_several_rows():
    outcomes = [("a#1", True), ("a#2", False), ("b", True), ("c#1", True), ("c", False)]
    assert share_of_outcomes(outcomes) == estimate([1, 0, 1, 1, 0], list("aabcc"))
