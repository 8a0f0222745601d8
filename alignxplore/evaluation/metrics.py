"""The metrics: each is one function of the scores of a cell, registered with its heading and its line of the glossary
(registry.py). Those of choices among k items stand in measures.py. results.py computes them.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from alignxplore.evaluation import measures
from alignxplore.evaluation.registry import READING, mean_of, metric, part
from alignxplore.evaluation.worth import Score
from alignxplore.judging.judgement import correctness
from alignxplore.statistics import auc as area

Scores = Sequence[Score]
BAD_WRONG = "bad format wrong"


def judged(scores: Scores) -> list[Score]:
    """Those that a summary or history in format was read for. A judge's parse failure says nothing about the
    summary."""
    return [score for score in scores if score.outcome not in ("bad_format", "missing")]


def by_record(scores: Iterable[Score], values: Iterable[float | None]) -> dict[str, float]:
    """Mean value of each record over generation seeds; records without any are left out."""
    values_of: dict[str, list[float]] = {}
    for score, value in zip(scores, values, strict=True):
        if value is not None:
            values_of.setdefault(score.record, []).append(value)
    return {record: float(np.mean(record_values)) for record, record_values in values_of.items()}


@metric(f"{BAD_WRONG} %", "accuracy when a summary in bad format is wrong, whatever it holds")
def accuracy_bad_wrong(scores: Scores) -> float | None:
    values = [0.0 if score.outcome == "bad_format" else score.value for score in scores]
    return mean_of(by_record(scores, values).values())


@metric("well-formed only %", "accuracy of the rows whose summary is in format")
def accuracy_well_formed(scores: Scores) -> float | None:
    return mean_of(score.value for score in judged(scores))


@metric("bad format %", "share of rows whose summary is not in the form that was asked for")
def bad_format(scores: Scores) -> float | None:
    return _share(scores, "bad_format")


@metric("parse failures %", "share of rows whose judge gave an answer that names no item")
def parse_failures(scores: Scores) -> float | None:
    return _share(scores, "parse_failure")


@metric("coverage %", "share of rows that have a score")
def coverage(scores: Scores) -> float | None:
    return 1 - _share(scores, "missing")


@metric("mean P(chosen) %", "mean probability that the judge gives the chosen item")
def mean_p(scores: Scores) -> float | None:
    return mean_of(score.p for score in judged(scores))


@metric("AUC %", "P(A) as a score of 'A is chosen', over rows in one order; among k items the mean of the rows' own")
def auc(scores: Scores) -> float | None:
    if any(not score.of_pair for score in scores):
        return mean_of(score.measures.get(measures.auc_each.name) for score in scores)
    first, second = by_order(judged(scores))
    if not first and not second:
        return None
    area_share = area([*first, *(1 - p for p in second)], [True] * len(first) + [False] * len(second))
    return None if np.isnan(area_share) else area_share


@metric("first %", "accuracy with the chosen item in the first place", READING, in_table=False)
def accuracy_chosen_first(scores: Scores) -> float | None:
    return mean_of(correctness(p) for p in by_order(_placed(scores))[0])


@metric("second %", "accuracy with the chosen item in the second place", READING, in_table=False)
def accuracy_chosen_second(scores: Scores) -> float | None:
    return mean_of(correctness(p) for p in by_order(_placed(scores))[1])


@metric("flips %", "share of rows in which the two orders name two items", READING)
def flip_rate(scores: Scores) -> float | None:
    return mean_of(float(flip) for score in _placed(scores) for flip in score.flips or () if flip is not None)


@metric(
    "mass %", "mean probability of the letters together, before they are made to add up to 1", READING, in_table=False
)
def mass(scores: Scores) -> float | None:
    return mean_of(score.mass for score in judged(scores))


@metric("truncated %", "share of rows whose oldest interactions did not fit the window of who read them", READING)
def truncated(scores: Scores) -> float | None:
    return mean_of(float(score.dropped > 0) for score in scores if score.dropped is not None)


@metric("shown otherwise %", "share of rows of which the other fit (--fit) would have shown another part", READING)
def shown_otherwise(scores: Scores) -> float | None:
    return mean_of(score.shown_otherwise for score in scores)


win = part("win", "wins %", "share of verdicts for the answer")
tie = part("tie", "ties %", "share of verdicts for neither")
lose = part("lose", "losses %", "share of verdicts for the reference answer")
bleu = part("bleu", "BLEU", "overlap of the answer with the reference, 100 is the same")
rouge_l = part("rouge_l", "ROUGE-L", "longest common subsequence with the reference, F1")


def _share(scores: Scores, outcome: str) -> float:
    return sum(score.outcome == outcome for score in scores) / len(scores)


def _placed(scores: Scores) -> list[Score]:
    """Those whose judge saw both items in one question, so that their places could matter."""
    return [score for score in judged(scores) if score.flips is not None]


def by_order(scores: Scores) -> tuple[list[float], list[float]]:
    """P(chosen) with the chosen item first, and with it second."""
    pairs = [pair for score in scores for pair in score.orders]
    first, second = ([pair[place] for pair in pairs if pair[place] is not None] for place in (0, 1))
    return first, second  # type: ignore[return-value]  # None is left out
