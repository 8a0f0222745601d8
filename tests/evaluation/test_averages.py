"""Averages over benchmarks: each counts the same, and a training run or a person that stands in several of them is one
cluster."""

import re

import numpy as np
import pytest
from scipy.stats import t as student

from alignxplore.evaluation.averages import average_interval, paired_average
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.results import Sample, result_rows
from alignxplore.statistics import Paired, estimate, paired, runs_error
from tests.evaluation.made_up import run_of, score

RUNS = {1: 0.50, 2: 0.60, 3: 0.70}


def rows(policy, benchmark, right, persons=200, prefix=""):
    """Scores of `persons`, of whom the first ones are right."""
    return [
        score(
            policy=policy,
            benchmark=benchmark,
            record=f"{benchmark} {i}",
            user=f"{prefix}{i}",
            target=f"{benchmark} {i}",
            item=f"{benchmark} {i}",
            value=float(i < right * persons),
        )
        for i in range(persons)
    ]


def ends(text):
    return [float(end) / 100 for end in re.findall(r"[+−]?[\d.]+", text.split("[")[1].replace("−", "-"))]


def tables(score_rows):
    """(the wide table, the paired one)."""
    run = run_of(**{row.benchmark: 200 for row in score_rows})
    first, others = writing.all_tables(result_rows(score_rows), score_rows, run)
    return first[0], next((table for table in others if table.name.startswith("paired")), None)


def covered(generator, benchmarks, spread, repeats=200, persons=60):
    """(share of intervals that hold the truth, share of p below 0.05) of averages of three runs that differ by
    `spread`, against a policy that is as good."""
    hits, ps = [], []
    for _ in range(repeats):
        rates = 0.6 + np.repeat(generator.normal(0, spread, 3), persons)
        runs = [str(run) for run in range(3) for _ in range(persons)]
        samples, differences, intervals, tests = [], [], [], []
        for benchmark in range(benchmarks):
            names = [f"{benchmark} {i}" for i in range(persons)] * 3
            values = (generator.random(3 * persons) < rates).astype(float)
            base = np.tile((generator.random(persons) < 0.6).astype(float), 3)
            samples.append(Sample(values.tolist(), runs, names, names))
            differences.append(Sample((values - base).tolist(), runs, names, names))
            intervals.append(half_of(samples[-1]))
            low, high = half_of(differences[-1])
            tests.append(Paired(np.mean(values - base), low, high, 1.0, len(values), persons))
        middle = np.mean([value for sample in samples for value in sample.values])
        hits.append(abs(middle - 0.6) <= average_interval(samples, intervals))
        ps.append(paired_average(differences, tests).p_value)
    return np.mean(hits), np.mean(np.array(ps) < 0.05)


def half_of(sample):
    """The interval of one benchmark but for its bootstrap, which takes most of the time."""
    error, freedom = runs_error(*sample)
    half = error * student.ppf(0.975, freedom)
    return np.mean(sample.values) - half, np.mean(sample.values) + half


@pytest.mark.parametrize("spread", [0.015, 0.06])
def test_the_interval_of_an_average_over_runs_covers_the_truth(spread):
    """As if benchmarks were independent it covers 75 %, and finds a difference in 31 % where there is none."""
    share, wrong = covered(np.random.default_rng(5), 6, spread)
    luck = 3 * np.sqrt(0.95 * 0.05 / 200)
    assert share > 0.95 - luck and wrong < 0.05 + luck


def simulated(generator, persons):
    """Rows whose persons share a common part; the true mean is 0.6."""
    codes = np.repeat(np.arange(persons), generator.integers(1, 6, persons))
    return (generator.random(len(codes)) < generator.beta(3, 2, persons)[codes]).astype(float), codes.tolist()


def test_an_average_counts_each_benchmark_the_same_and_covers_the_truth():
    """Three benchmarks of other sizes with means 0.6; under the null five comparisons of a hundred are below 0.05."""
    generator, hits, ps = np.random.default_rng(11), [], []
    for _ in range(200):
        sets = [simulated(generator, persons) for persons in (40, 60, 120)]
        estimates, samples = [estimate(*x) for x in sets], [sample_of(place, *x) for place, x in enumerate(sets)]
        half = average_interval(samples, [(x.low, x.high) for x in estimates])
        hits.append(abs(np.mean([x.mean for x in estimates]) - 0.6) <= half)
        others = [simulated_again(generator, values) for values, _ in sets]
        tests = [paired(values, other, codes) for (values, codes), other in zip(sets, others)]
        differences = [
            sample._replace(values=(np.array(sample.values) - other).tolist())
            for sample, other in zip(samples, others)
        ]
        average = paired_average(differences, tests)
        ps.append(average.p_value)
        assert average.difference == pytest.approx(np.mean([test.difference for test in tests]))
        assert (average.n, average.clusters) == (sum(len(codes) for _, codes in sets), 220)
    luck = 3 * np.sqrt(0.95 * 0.05 / 200)
    assert abs(np.mean(hits) - 0.95) < luck and abs(np.mean(np.array(ps) < 0.05) - 0.05) < luck


def sample_of(place, values, codes):
    """Of one run; nobody and nothing is in another benchmark too."""
    persons, items = ([f"{place} {code}" for code in names] for names in (codes, range(len(codes))))
    return Sample(values.tolist(), [""] * len(codes), persons, items)


def simulated_again(generator, values):
    """Another policy, as good on average, that differs in every third row."""
    return np.where(generator.random(len(values)) < 1 / 3, generator.random(len(values)) < 0.6, values).astype(float)


def test_an_average_of_what_is_chance_by_rule_is_exact():
    persons = [str(i) for i in range(9)]
    same, nothing = paired([0.5] * 9, [0.5] * 9, persons), Sample([0.0] * 9, [""] * 9, persons, persons)
    assert paired_average([nothing, nothing], [same, same])[:4] == (0, 0, 0, 1)


def test_an_average_is_no_surer_of_training_runs_than_of_their_means():
    """Runs differ alike in five benchmarks of other people: five of them say no more of another run than one."""
    benchmarks = ("mind", "amazon", "movielens", "goodreads", "student_phd")
    score_rows = [
        row
        for benchmark in benchmarks
        for policy, right in [("base", 0.55), *((f"rl#{run}", right) for run, right in RUNS.items())]
        for row in rows(policy, benchmark, right, prefix=benchmark)
    ]
    wide, paired = tables(score_rows)
    half = student.ppf(0.975, 2) * np.std(list(RUNS.values()), ddof=1) / 3**0.5
    (average,) = [line[wide.head.index("average")] for line in wide.body if line[0] == "rl (3 training runs)"]
    low, high = ends(average)
    assert (low + high) / 2 == pytest.approx(0.6, abs=1e-4)
    assert (high - low) / 2 > 0.9 * half, "persons add a tenth of a degree of freedom"
    (line,) = [
        line for line in paired.body if line[0].startswith("average") and line[3] == "rl (3 training runs) − base"
    ]
    assert float(line[paired.head.index("p")]) > 0.2, "t of 0.05 / 0.058 with two degrees of freedom"


def test_two_directions_of_the_same_people_say_no_more_than_one():
    names = ("mind~to~amazon", "amazon~to~mind")
    wide, _ = tables([row for name in names for row in rows("ours", name, 0.6)])
    ((*_, one, two, average),) = [line[: wide.head.index("average") + 1] for line in wide.body]
    assert ends(average) == pytest.approx(ends(one), abs=2e-3) and ends(one) == ends(two)
    others = [row for name in names for row in rows("ours", name, 0.6, prefix=name)]
    (line,) = tables(others)[0].body
    low, high = ends(line[tables(others)[0].head.index("average")])
    assert high - low == pytest.approx((ends(one)[1] - ends(one)[0]) / 2**0.5, rel=0.05), "of other people"


@pytest.mark.parametrize("crossing", [False, True])
def test_equal_ids_of_two_data_sets_are_two_persons_unless_the_run_crosses_them(crossing):
    """Nobody of MIND is in MovieLens; a run with a copy across them says that its ids are of the same people."""

    def lines(prefixes):
        score_rows = [
            row
            for name in ("mind", "movielens")
            for policy, right in (("base", 0.4), ("ours", 0.6))
            for row in rows(policy, name, right, prefix=name if prefixes else "")
        ]
        score_rows += rows("ours", "mind~to~movielens", 0.6) if crossing else []
        wide, paired = tables(score_rows)
        average = wide.head.index("average")
        (between,) = [line for line in paired.body if line[0].startswith("average")]
        return [line[average] for line in wide.body], between

    assert (lines(True) == lines(False)) != crossing
