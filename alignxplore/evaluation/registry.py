"""What is measured. A metric is one function, registered with its heading and a line that says what it is: the tables,
results.csv, the glossary below them and `--help` come from here. The metrics themselves are in metrics.py (of all
scores of a cell) and measures.py (of one choice among k items).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alignxplore.evaluation.worth import Score

# Kinds of metrics, in the order of results.csv: of every number, of choices among k items, of how a judge read, and
# of written answers (HiCUPID), which have a table of their own and no column there.
ACCURACY, AMONG_K, READING, WRITTEN = "accuracy", "among k", "reading", "written"
KINDS = (ACCURACY, AMONG_K, READING, WRITTEN)

Compute = Callable[[Sequence[Score]], float | None]


@dataclass(frozen=True)
class Metric:
    """A function of the scores of one cell (None: it cannot be known). `name` is its field in results.json, `heading`
    its column in a table, where `in_table`, and `description` its line of the glossary."""

    name: str
    heading: str
    description: str
    kind: str
    in_table: bool
    compute: Compute

    def __call__(self, scores: Sequence[Score]) -> float | None:
        return self.compute(scores)


@dataclass(frozen=True)
class Ranked:
    """One choice among k items as it was ranked. `tiers`: (how many items, how many of them chosen) of each group of
    equal ones, the best first."""

    tiers: tuple[tuple[int, int], ...]
    chosen: int
    passed_over: int


METRICS: dict[str, Metric] = {}
MEASURES: dict[str, Callable[[Ranked], float]] = {}  # of one choice among k items
PARTS: dict[str, str] = {}  # of a written answer: its name and heading
_ORIGINS: dict[str, tuple[str, str]] = {}  # metric → where it was defined


def metric(heading: str, description: str, kind: str = ACCURACY, in_table: bool = True) -> Callable[[Compute], Metric]:
    """Register a function of the scores of one cell."""

    def register(compute: Compute) -> Metric:
        return _enter(Metric(compute.__name__, heading, description, kind, in_table, compute), compute)

    return register


def measure(heading: str, description: str) -> Callable[[Callable[[Ranked], float]], Metric]:
    """Register a function of one choice among k items: each score holds its value, a result their mean with its
    interval."""

    def register(compute: Callable[[Ranked], float]) -> Metric:
        mean = _enter(_mean_of(compute.__name__, heading, description, AMONG_K), compute)
        MEASURES[compute.__name__] = compute
        return mean

    return register


def part(name: str, heading: str, description: str) -> Metric:
    """Register a part of the score of a written answer, which hicupid.py puts into its journal."""
    mean = _enter(_mean_of(name, heading, description, WRITTEN), None)
    PARTS[name] = heading
    return mean


def _mean_of(name: str, heading: str, description: str, kind: str) -> Metric:
    def mean(scores: Sequence[Score]) -> float | None:
        return mean_of(score.measures.get(name) for score in scores)

    return Metric(name, heading, description, kind, True, mean)


def _enter(entry: Metric, function: Callable | None) -> Metric:
    """Make a metric known; ValueError where its name is taken. The same function of a module that is read again takes
    its own place."""
    origin = (function.__module__, function.__qualname__) if function else ("a part of written answers", entry.heading)
    if entry.name in METRICS and _ORIGINS[entry.name] != origin:
        raise ValueError(
            f"there is a metric {entry.name} already, in {_ORIGINS[entry.name][0]}; give this one another name"
        )
    METRICS[entry.name], _ORIGINS[entry.name] = entry, origin
    return entry


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def of_kind(*kinds: str) -> list[Metric]:
    """The metrics of some kinds, kind by kind, each in the order of their definitions."""
    return [entry for kind in kinds for entry in METRICS.values() if entry.kind == kind]


def glossary(metrics: Iterable[Metric]) -> str:
    """What each metric is, in one line."""
    return "; ".join(f"{entry.heading.removesuffix(' %')}: {entry.description}" for entry in metrics) + "."
