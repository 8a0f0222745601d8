"""Measures of a choice among k items: accuracy@1, MRR, NDCG, hit rate and AUC of one row, and what chance gives.

Ties are worth what drawing lots between them gives on average. So a row that says nothing (bad format, the bound of
chance) has the value of k equal scores: 1/k for accuracy@1 where one item was chosen, 0.5 for AUC. Of several chosen
items MRR is the mean of all their 1/rank, as MIND has it; accuracy@1 and hit rate ask for any of them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from alignxplore.journal import OK, TOO_LONG
from alignxplore.judging.letters import TIE
from alignxplore.judging.ranking import Ranking
from alignxplore.records import Offer

if TYPE_CHECKING:
    from alignxplore.evaluation.conditions import Question

# Field of a row → its heading. `value` of a row is accuracy@1.
MEASURES = {
    "mrr": "MRR",
    "ndcg_5": "nDCG@5",
    "ndcg_10": "nDCG@10",
    "hr_5": "HR@5",
    "hr_10": "HR@10",
    "auc_each": "AUC",
}


def tiers(scores: Sequence[float], chosen: int) -> list[tuple[int, int]]:
    """(how many items, how many of them were chosen) of each group of equal scores, the best first; the first
    `chosen` scores are those of the chosen items. Scores are equal that differ by a millionth of the greater one."""
    order, found = sorted(range(len(scores)), key=lambda place: -scores[place]), list[tuple[int, int]]()
    level = math.inf
    for place in order:
        if not found or level - scores[place] > TIE * abs(level):
            level = scores[place]
            found.append((0, 0))
        size, right = found[-1]
        found[-1] = size + 1, right + (place < chosen)
    return found


def measures(scores: Sequence[float], chosen: int) -> dict[str, float]:
    """All measures of one row, by field; `value` is accuracy@1.

    Args:
        scores: of each candidate, higher is better, those of the `chosen` items first.
    """
    found = tiers(scores, chosen)
    return {
        "value": _hit(found, 1),
        "mrr": _gain(found, lambda rank: 1 / rank) / chosen,
        **{f"ndcg_{most}": _ndcg(found, chosen, most) for most in (5, 10)},
        **{f"hr_{most}": _hit(found, most) for most in (5, 10)},
        "auc_each": _auc(found, chosen, len(scores) - chosen),
    }


def _gain(found: Iterable[tuple[int, int]], weight) -> float:
    """Sum over the chosen items of the mean weight of the ranks that each may have."""
    total, above = 0.0, 0
    for size, right in found:
        if right:
            total += right / size * sum(weight(above + rank) for rank in range(1, size + 1))
        above += size
    return total


def _ndcg(found: Iterable[tuple[int, int]], chosen: int, most: int) -> float:
    def discount(rank: int) -> float:
        return 1 / math.log2(rank + 1) if rank <= most else 0.0

    return _gain(found, discount) / sum(discount(rank) for rank in range(1, chosen + 1))


def _hit(found: Iterable[tuple[int, int]], most: int) -> float:
    """Probability that one of the chosen items is among the first `most`."""
    above = 0
    for size, right in found:
        places = min(size, most - above)
        if right and places > 0:
            return 1 - math.comb(size - right, places) / math.comb(size, places)
        above += size
    return 0.0


def _auc(found: Iterable[tuple[int, int]], chosen: int, passed_over: int) -> float:
    """Share of (chosen, passed over) pairs in the right order, ties counted half."""
    right_above, pairs = 0, 0.0
    for size, right in found:
        pairs += (size - right) * (right_above + right / 2)
        right_above += right
    return pairs / (chosen * passed_over)


def chance(offer: Offer) -> dict[str, float]:
    """What says nothing about the items is worth."""
    return measures([0.0] * len(offer.candidates), len(offer.taken))


def fields(offer: Offer, scores: Sequence[float] | None) -> dict:
    """What a score row holds beside its outcome; `scores` None: nothing is known of the items. `by_rule`: the value is
    chance, by rule and not by observation."""
    uninformed = chance(offer)
    found = uninformed if scores is None else measures(scores, len(offer.taken))
    by_rule = scores is None or len(tiers(scores, 0)) == 1
    return {**found, "k": len(offer.candidates), "chance": uninformed["value"], "by_rule": by_rule}


def unknown(offer: Offer) -> dict:
    """What a score row holds where nobody said anything."""
    return {"value": None, "outcome": "missing", "k": len(offer.candidates), "chance": chance(offer)["value"]}


def score(question: "Question", offer: Offer, answers: Sequence[dict | None]) -> dict:
    """The score of one question from the journal rows of its judgements; several are averaged."""
    # Items that do not fit after a summary are nobody's fault (see `metrics.score_rows`).
    too_long = any(row is not None and row["status"] == TOO_LONG for row in answers)
    if question.problem or too_long and question.history is not None:
        return fields(offer, None) | {"outcome": "bad_format"}
    given = [Ranking(**row_of(row)) for row in answers if row is not None and row["status"] == OK]
    if not given:
        return unknown(offer)
    each = [fields(offer, averaged(one.rotations)) for one in given]
    masses = [one.mass for one in given if one.mass is not None]
    return {
        **{name: sum(row[name] for row in each) / len(each) for name in ("value", *MEASURES)},
        "k": each[0]["k"],
        "chance": each[0]["chance"],
        "by_rule": False,
        "outcome": "parse_failure" if any(one.unparsed for one in given) else "ok",
        "p": sum(_share(averaged(one.rotations), len(offer.taken)) for one in given) / len(given),
        "flips": [_first_differs(one.rotations) for one in given if not one.unparsed],
        "mass": sum(masses) / len(masses) if masses else None,
    }


def row_of(row: dict) -> dict:
    """The fields of a `Ranking` in a journal row."""
    return {name: row[name] for name in ("status", "rotations", "mass", "error", "unparsed")}


def averaged(rotations: Sequence[Sequence[float]]) -> list[float]:
    """Mean score of each candidate over the orders asked."""
    return [sum(scores) / len(scores) for scores in zip(*rotations, strict=True)]


def _share(scores: Sequence[float], chosen: int) -> float:
    """P of the chosen items together."""
    return sum(scores[:chosen]) / sum(scores)


def _first_differs(rotations: Sequence[Sequence[float]]) -> bool | None:
    """Whether the orders put another item first; None where one order was asked."""
    best = {max(range(len(scores)), key=lambda place: scores[place]) for scores in rotations}
    return None if len(rotations) < 2 else len(best) > 1
