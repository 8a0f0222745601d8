"""The score of a choice among k items, from what a cue or a downstream model makes of each of them."""

from collections.abc import Sequence

from alignxplore.evaluation.answers import Answer
from alignxplore.evaluation.measures import accuracy_at_1, all_of, ranked
from alignxplore.evaluation.worth import Outcome, Worth
from alignxplore.judging.ranking import Ranking
from alignxplore.records import Offer, RecordError


def of_scores(offer: Offer, scores: Sequence[float] | None, outcome: Outcome = "ok") -> Worth:
    """What scores of the candidates are worth; None: nothing is known of the items, which is worth chance, by rule
    and not by observation.

    Raises:
        RecordError: not as many scores as candidates.
    """
    if scores is not None and len(scores) != len(offer.candidates):
        raise RecordError(f"{len(scores)} scores of {len(offer.candidates)} items", field="target")
    ranking = ranked([0.0] * len(offer.candidates) if scores is None else scores, len(offer.taken))
    return Worth(
        value=accuracy_at_1(ranking),
        outcome=outcome,
        k=len(offer.candidates),
        chance=chance_of(offer),
        by_rule=scores is None or len(ranking.tiers) == 1,
        measures=all_of(ranking),
    )


def chance_of(offer: Offer) -> float:
    """Accuracy@1 of who knows nothing of the items."""
    return accuracy_at_1(ranked([0.0] * len(offer.candidates), len(offer.taken)))


def unknown(offer: Offer) -> Worth:
    """Of a choice that nobody said anything of."""
    return Worth(value=None, outcome="missing", k=len(offer.candidates), chance=chance_of(offer))


def of_answers(offer: Offer, answers: Sequence[Answer]) -> Worth:
    """The score of one question from its judgements; several are averaged."""
    rankings = [answer.reply for answer in answers if isinstance(answer.reply, Ranking) and answer.reply.ok]
    if not rankings:
        return unknown(offer)
    worths = [of_scores(offer, ranking.averaged) for ranking in rankings]
    masses = [ranking.mass for ranking in rankings if ranking.mass is not None]
    return Worth(
        value=_mean([_known(worth.value) for worth in worths]),
        outcome="parse_failure" if any(ranking.unparsed for ranking in rankings) else "ok",
        p=_mean([_share(ranking.averaged, len(offer.taken)) for ranking in rankings]),
        flips=tuple(ranking.first_differs for ranking in rankings if not ranking.unparsed),
        mass=_mean(masses) if masses else None,
        k=len(offer.candidates),
        chance=chance_of(offer),
        by_rule=False,
        measures={name: _mean([worth.measures[name] for worth in worths]) for name in worths[0].measures},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _share(scores: Sequence[float], chosen: int) -> float:
    """P of the chosen items together."""
    return sum(scores[:chosen]) / sum(scores)
