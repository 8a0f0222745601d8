"""From scores to numbers: one result a cell, with its interval clustered by person and by chosen item, and the values
of all registered metrics (metrics.py, measures.py).

Policies named NAME#1, NAME#2 ... are training runs of one policy. Beside a result of each they have one together,
whose interval is over training runs, persons and items.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from alignxplore.evaluation.metrics import by_record
from alignxplore.evaluation.registry import ACCURACY, AMONG_K, MEASURES, READING, WRITTEN, mean_of, of_kind
from alignxplore.evaluation.rows import Result
from alignxplore.evaluation.worth import Key, Score
from alignxplore.records import person_of
from alignxplore.statistics import design_effect, estimate, estimate_over_runs


def value_of(score: Score) -> float | None:
    """What a table is of, unless it says otherwise."""
    return score.value


def result_rows(scores: Iterable[Score]) -> list[Result]:
    """One result for each (policy, setting, benchmark, judge, protocol), in order of appearance; then those of several
    training runs."""
    return [result_of(key, group) for key, group in cells_of(scores).items()]


def cells_of(scores: Iterable[Score]) -> dict[Key, list[Score]]:
    """The scores of each cell of the tables; those of several training runs of a policy also together."""
    groups: dict[Key, list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.key].append(score)
    return groups | pooled(groups)


def run_of(policy: str) -> tuple[str, str]:
    """(policy, which training run of it) of a name NAME#1, NAME#2 ...; the run is "" where the name does not say."""
    name, _, run = policy.rpartition("#")
    return (name, run) if name and run.isdigit() else (policy, "")


def of_several_runs(key: Key, scores: Sequence[Score]) -> bool:
    """Whether a cell is that of all training runs of a policy together (`pooled`)."""
    return bool(scores) and scores[0].policy != key.policy


def pooled(groups: Mapping[Key, Sequence[Score]]) -> dict[Key, list[Score]]:
    """The scores of all training runs of a policy under one key, where several of them have a score."""
    return {key: group for key, group in by_policy(groups).items() if key not in groups}


def by_policy(groups: Mapping[Key, Sequence[Score]]) -> dict[Key, list[Score]]:
    """The scores of each policy once: those of several training runs together, where the first of them stood."""
    runs_of: dict[Key, list[Key]] = defaultdict(list)
    for key, run_scores in groups.items():
        name, run = run_of(key.policy)
        if run and any(score.value is not None for score in run_scores):
            runs_of[key._replace(policy=name)].append(key)
    together: dict[Key, list[Score]] = {}
    for key, group in groups.items():
        name_key = key._replace(policy=run_of(key.policy)[0])
        keys = runs_of[name_key] if run_of(key.policy)[1] else []
        if len(keys) < 2:
            together[key] = list(group)
        else:
            pool_key = name_key._replace(policy=f"{name_key.policy} ({len(keys)} training runs)")
            together[pool_key] = [score for run_key in keys for score in groups[run_key]]
    return together


class Sample(NamedTuple):
    """Values with what makes them depend on each other: training run, person and chosen item of each."""

    values: list[float]
    runs: list[str]
    persons: list[str]
    items: list[str]


@dataclass(frozen=True)
class OverRuns:
    """Values of records, run by run, with what makes them depend on each other."""

    values: dict[tuple[str, str], float]  # (run, record)
    persons: list[str]
    items: list[str]

    @property
    def runs(self) -> list[str]:
        return [run for run, _ in self.values]

    @property
    def sample(self) -> Sample:
        return Sample(list(self.values.values()), self.runs, self.persons, self.items)


def over_runs(scores: Sequence[Score], of: Callable[[Score], float | None] = value_of) -> OverRuns:
    """The values of several training runs of a policy; mean over generation seeds."""
    values: dict[tuple[str, str], float] = {}
    by_run: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_run[run_of(score.policy)[1]].append(score)
    for run, run_scores in by_run.items():
        values |= {(run, record): value for record, value in values_by_record(run_scores, of).items()}
    persons, items = shared(scores, [record for _, record in values])
    return OverRuns(values, persons, items)


def result_of(key: Key, scores: list[Score]) -> Result:
    """The number of one cell of `cells_of`."""
    return (_over_runs if of_several_runs(key, scores) else _result)(key, scores)


def _over_runs(key: Key, scores: list[Score]) -> Result:
    """The number of a policy that was trained several times: its interval is over training runs, too."""
    outcomes, base = over_runs(scores), _result(key, scores)
    interval = estimate_over_runs(*outcomes.sample)
    means = [
        float(np.mean([value for (run, _), value in outcomes.values.items() if run == other_run]))
        for other_run in dict.fromkeys(outcomes.runs)
    ]
    return replace(
        base,
        ends={name: _ends_over_runs(scores, name) for name in base.ends},
        n=interval.n,
        accuracy=_unless_nan(interval.mean),
        ci_low=_unless_nan(interval.low),
        ci_high=_unless_nan(interval.high),
        runs=len(means),
        seed_spread=float(np.std(means, ddof=1)),
    )


def _ends_over_runs(scores: Sequence[Score], measure: str) -> tuple[float | None, float | None]:
    """The ends of the interval of one measure of choices among k items."""
    interval = estimate_over_runs(*over_runs(scores, lambda score: score.measures.get(measure)).sample)
    return _unless_nan(interval.low), _unless_nan(interval.high)


def values_by_record(scores: Sequence[Score], of: Callable[[Score], float | None] = value_of) -> dict[str, float]:
    """Mean value of each record over generation seeds; records without any are left out."""
    return by_record(scores, map(of, scores))


def shared(scores: Iterable[Score], records: Iterable[str]) -> tuple[list[str], list[str]]:
    """Person (`user` and `user#2` are one) and chosen item of each of `records`: what makes them depend on each
    other."""
    place = {score.record: (person_of(score.user), score.item) for score in scores}
    pairs = [place[record] for record in records]
    return [person for person, _ in pairs], [item for _, item in pairs]


def by_rule(scores: Iterable[Score]) -> bool | None:
    """Whether all scores are chance by rule; None: pairs, whose values say so."""
    flags = [score.by_rule for score in scores if score.value is not None and score.by_rule is not None]
    return all(flags) if flags else None


def _result(key: Key, scores: list[Score]) -> Result:
    values = values_by_record(scores)
    persons, items = shared(scores, values)
    overall = estimate(list(values.values()), persons, items, by_rule=by_rule(scores))
    by_seed = defaultdict(list)
    for score in scores:
        by_seed[score.seed].append(score.value)
    seed_means = [mean for mean in map(mean_of, by_seed.values()) if mean is not None]
    measures, ends = _measures(scores, persons, items)
    kinds = [ACCURACY, READING]
    kinds += [AMONG_K] if any(not score.of_pair for score in scores) else []
    kinds += [WRITTEN] if any(score.written for score in scores) else []
    metrics = {metric.name: metric(scores) for metric in of_kind(*kinds)} | measures
    return Result(
        **key._asdict(),
        n=overall.n,
        accuracy=_unless_nan(overall.mean),
        ci_low=_unless_nan(overall.low),
        ci_high=_unless_nan(overall.high),
        clusters=overall.clusters,
        items=len(set(items)),
        two_way=overall.two_way,
        design_effect=design_effect(list(values.values()), persons, items),
        values=metrics,
        ends=ends,
        seeds=tuple(sorted(by_seed)),
        seed_spread=float(np.std(seed_means, ddof=1)) if len(seed_means) > 1 else None,
    )


def _measures(
    scores: Sequence[Score], persons: Sequence[str], items: Sequence[str]
) -> tuple[dict[str, float | None], dict[str, tuple[float | None, float | None]]]:
    """The measures of choices among k items and the ends of their intervals; nothing of pairs."""
    means: dict[str, float | None] = {}
    ends: dict[str, tuple[float | None, float | None]] = {}
    for name in MEASURES if any(not score.of_pair for score in scores) else ():
        values = values_by_record(scores, lambda score, name=name: score.measures.get(name))  # type: ignore[misc]
        interval = estimate(list(values.values()), persons, items, by_rule=by_rule(scores))
        means[name] = _unless_nan(interval.mean)
        ends[name] = _unless_nan(interval.low), _unless_nan(interval.high)
    return means, ends


def _unless_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
