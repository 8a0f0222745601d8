"""The score of a choice among k items, from what a cue or a downstream model makes of each of them."""

from collections.abc import Sequence

from alignxplore.evaluation.answers import Answer
from alignxplore.evaluation.measures import accuracy_at_1, all_of, ranked
from alignxplore.evaluation.rows import Found
from alignxplore.judging.ranking import Ranking
from alignxplore.records import Offer


def of_scores(offer: Offer, scores: Sequence[float] | None, outcome: str = "ok") -> Found:
    """What scores of the candidates are worth; None: nothing is known of the items, which is worth chance, by rule
    and not by observation."""
    found = ranked([0.0] * len(offer.candidates) if scores is None else scores, len(offer.taken))
    return Found(
        value=accuracy_at_1(found),
        outcome=outcome,
        k=len(offer.candidates),
        chance=chance_of(offer),
        by_rule=scores is None or len(found.tiers) == 1,
        measures=all_of(found),
    )


def chance_of(offer: Offer) -> float:
    """Accuracy@1 of who knows nothing of the items."""
    return accuracy_at_1(ranked([0.0] * len(offer.candidates), len(offer.taken)))


def unknown(offer: Offer) -> Found:
    """Of a choice that nobody said anything of."""
    return Found(value=None, outcome="missing", k=len(offer.candidates), chance=chance_of(offer))


def of_answers(offer: Offer, answers: Sequence[Answer]) -> Found:
    """The score of one question from its judgements; several are averaged."""
    given = [one.said for one in answers if isinstance(one.said, Ranking) and one.said.ok]
    if not given:
        return unknown(offer)
    each = [of_scores(offer, one.averaged) for one in given]
    masses = [one.mass for one in given if one.mass is not None]
    return Found(
        value=_mean([_known(found.value) for found in each]),
        outcome="parse_failure" if any(one.unparsed for one in given) else "ok",
        p=_mean([_share(one.averaged, len(offer.taken)) for one in given]),
        flips=tuple(one.first_differs for one in given if not one.unparsed),
        mass=_mean(masses) if masses else None,
        k=len(offer.candidates),
        chance=chance_of(offer),
        by_rule=False,
        measures={name: _mean([found.measures[name] for found in each]) for name in each[0].measures},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _share(scores: Sequence[float], chosen: int) -> float:
    """P of the chosen items together."""
    return sum(scores[:chosen]) / sum(scores)
