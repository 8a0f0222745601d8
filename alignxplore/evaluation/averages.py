"""Averages over benchmarks, each of which counts the same, with their uncertainty. Used by the wide tables and by the
paired ones.

Benchmarks are not independent of each other: the same training runs stand in all of them, and the two directions of a
cross-task table have the same people. What a run is better by does not become surer with the number of benchmarks. So
all rows are taken together, and one run, person or item is one cluster in whichever benchmarks it stands. Equal ids of
two data sets are two persons, unless the run crosses these (`of_whom`).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student

from alignxplore.datasets import DATASETS
from alignxplore.evaluation.results import Sample
from alignxplore.statistics import Paired, cluster_error, runs_error, two_way_error


def of_whom(sample: Sample, benchmark: str, benchmarks: Iterable[str]) -> Sample:
    """The same with persons that stand in other benchmarks under equal ids only if they are the same people: "455" of
    MovieLens is nobody of PersonaMem. Files of one's own and the simulated world may share people, as any two do that
    cross_task.py has crossed.

    Args:
        benchmarks: all of the run.
    """
    crossed_names = {part for name in benchmarks if "~to~" in name for part in name.split("~to~")}
    is_alone = benchmark in DATASETS and DATASETS[benchmark].column and benchmark not in crossed_names
    return sample._replace(persons=[f"{benchmark} {x}" for x in sample.persons]) if is_alone else sample


def average_error(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """(standard error, degrees of freedom) of an average over benchmarks; None of a single person."""
    rows = sum(len(sample.values) for sample in samples)
    deviations = [
        (np.array(sample.values) - np.mean(sample.values)) * (rows / len(samples) / len(sample.values))
        for sample in samples
    ]
    values = np.concatenate(deviations).tolist()
    runs = [run for sample in samples for run in sample.runs]
    persons = [person for sample in samples for person in sample.persons]
    items = [item for sample in samples for item in sample.items]
    return (
        runs_error(values, runs, persons, items)
        or two_way_error(values, persons, items)
        or cluster_error(values, persons)
    )


def average_interval(samples: Sequence[Sample], intervals: Sequence[tuple[float, float]]) -> float:
    """Half the width of the 95 % interval of an average over benchmarks, each of which has its own (low, high). Never
    narrower than if they shared nothing: where all rows of one agree, only its own interval says how little that
    is."""
    error = average_error(samples)
    return max(_apart(intervals), error[0] * float(student.ppf(0.975, error[1])) if error else 0.0)


def _apart(intervals: Sequence[tuple[float, float]]) -> float:
    """The same of benchmarks that share nothing."""
    return float(np.linalg.norm([(high - low) / 2 for low, high in intervals])) / len(intervals)


def paired_average(samples: Sequence[Sample], tests: Sequence[Paired]) -> Paired:
    """The average of the differences on several benchmarks, each counting the same whatever its n.

    Args:
        samples: the differences of each benchmark.
        tests: what each says by itself. p is the larger one of both ways of `average_interval`.
    """
    difference = float(np.mean([test.difference for test in tests]))
    intervals = [(test.low, test.high) for test in tests]
    half, apart, error = average_interval(samples, intervals), _apart(intervals), average_error(samples)
    p_value = float(2 * normal.sf(abs(difference) / apart * 1.96)) if apart else float(difference == 0)
    if error and error[0]:
        p_value = max(p_value, 2 * float(student.sf(abs(difference) / error[0], error[1])))
    n, clusters = sum(test.n for test in tests), len({person for sample in samples for person in sample.persons})
    return Paired(difference, difference - half, difference + half, p_value, n, clusters)
