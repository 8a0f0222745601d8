"""How sure a downstream model is of each of k items (`Offer`): one question with k letters in the place of k - 1
pairs.

The answer is prefilled as for a pair, and the letters of up to 26 items are read at the one position, in one request.
Two rotations of an order that is drawn by a hash are asked by default and averaged, so that no item stands at one
place only. More than 26 items are asked in groups that share one item, the anchor: what a group says of an item is its
log-probability above the anchor's, and these are put together. That is right as far as the odds of two items do not
depend on which others are shown (Luce). A model whose tokenizer knows the letters A and B alone is asked in groups of
two, by the question about a pair. P(Yes) item by item, the other way, would need a prompt of its own and 25 times as
many requests, and would compare nothing.

Models that answer in free form give one vote a question; a yes/no reader is asked about each item by itself.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.judgement import JudgeError, Reply, mean_mass, taken
from alignxplore.judging.letter_tokens import MOST
from alignxplore.prompts import Messages
from alignxplore.records import Interaction, Offer, hash_seed
from alignxplore.serving.failures import UNANSWERED, failed

PURPOSE = "choose"  # the template
ROTATIONS = 2


@dataclass(frozen=True)
class Ranking(Reply):
    """What a downstream model makes of k items.

    `rotations`: of each order that was asked, P(item) of each candidate as they stand in the `Offer`; their sum is 1,
    but for a yes/no reader, who has one P(Yes) each.
    """

    rotations: tuple[tuple[float, ...], ...] = ()

    @property
    def averaged(self) -> list[float]:
        """Mean score of each candidate over the orders asked."""
        return [sum(scores) / len(scores) for scores in zip(*self.rotations, strict=True)]

    @property
    def first_differs(self) -> bool | None:
        """Whether the orders put another item first; None where one order was asked."""
        winners = {max(range(len(scores)), key=lambda place: scores[place]) for scores in self.rotations}
        return None if len(self.rotations) < 2 else len(winners) > 1


def groups(offer: Offer, key: Any, seed: int, limit: int = MOST) -> list[list[int]]:
    """Places of the candidates in the questions that are asked: one group in an order drawn by a hash, or of more than
    `limit` several of like size, each with the same anchor at its head."""
    items = offer.candidates
    order = sorted(range(len(items)), key=lambda place: hash_seed("item order", key, items[place], seed))
    if len(order) <= limit:
        return [order]
    anchor, *members = order
    count = math.ceil(len(members) / (limit - 1))
    bounds = [len(members) * i // count for i in range(count + 1)]
    return [[anchor, *members[start:end]] for start, end in zip(bounds, bounds[1:])]


def purpose_of(judge: Downstream, of_pairs: str) -> str:
    """The template that a downstream model is asked with; `of_pairs` is that of its question about a pair."""
    return PURPOSE if judge.items_at_once > 2 else of_pairs


def rotated(group: Sequence[int], rotation: int, rotations: int) -> list[int]:
    """The same group that begins at another of its items; rotations are spread evenly."""
    start = rotation * len(group) // rotations
    return [*group[start:], *group[:start]]


def first_shares(offer: Offer, key: Any, seed: int, rotations: int) -> tuple[float, ...]:
    """How often each candidate stands first in a question."""
    heads = [
        rotated(group, rotation, rotations)[0] for group in groups(offer, key, seed) for rotation in range(rotations)
    ]
    return tuple(heads.count(place) / len(heads) for place in range(len(offer.candidates)))


def question(
    judge: Downstream,
    summary: str | None,
    history: Sequence[Interaction] | None,
    offer: Offer,
    places: Sequence[int] | None = None,
) -> Messages:
    """The prompt about some of the candidates; without `places` one as long as any that is asked about this offer."""
    items = offer.candidates
    if places is None:
        places = sorted(range(len(items)), key=lambda place: -len(items[place]))[: judge.items_at_once]
    return judge.about(summary, history, offer.query, [items[place] for place in places])


def longest_item(offer: Offer) -> Interaction:
    """The longest candidate with nothing beside it, for who is asked about one item at a time."""
    return Interaction(max(offer.candidates, key=len), "", offer.query)


async def rank(
    judge: Downstream,
    summary: str | None,
    history: Sequence[Interaction] | None,
    offer: Offer,
    key: Any,
    rotations: int = ROTATIONS,
) -> Ranking:
    """Ask about all candidates, after a summary or, in its place, a raw history. `key` draws the order."""
    try:
        if judge.items_at_once == 1:
            return await _each_alone(judge, history, offer)
        parts = groups(offer, key, judge.seed, judge.items_at_once)
        orders = [[rotated(group, rotation, rotations) for group in parts] for rotation in range(rotations)]
        ask = partial(question, judge, summary, history, offer)
        answers = await asyncio.gather(*(judge.say(ask(places), len(places)) for order in orders for places in order))
    except UNANSWERED as error:
        return Ranking(**failed(error))
    shares = []
    for rotation, order in enumerate(orders):
        rotation_answers = answers[rotation * len(parts) : (rotation + 1) * len(parts)]
        shares.append(
            _together(len(offer.candidates), order, [answer.scores for answer in rotation_answers], parts[0][0])
        )
    unread = tuple(answer.unread for answer in answers if answer.unread is not None)
    return Ranking(
        rotations=tuple(shares), mass=mean_mass(answer.mass for answer in answers), unparsed=len(unread), unread=unread
    )


def _together(
    count: int, order: Sequence[Sequence[int]], logs: Sequence[Sequence[float]], anchor: int
) -> tuple[float, ...]:
    """P of each of `count` candidates from what the groups of one rotation say, each above the anchor of all."""
    levels = [0.0] * count
    for places, group_logs in zip(order, logs, strict=True):
        level = group_logs[list(places).index(anchor)]
        for place, log in zip(places, group_logs, strict=True):
            levels[place] = log - level
    top = max(levels)
    weights = [math.exp(log - top) for log in levels]
    return tuple(weight / sum(weights) for weight in weights)


async def _each_alone(judge: Downstream, history: Sequence[Interaction] | None, offer: Offer) -> Ranking:
    questions = [question(judge, None, history, offer, [place]) for place in range(len(offer.candidates))]
    answers = await asyncio.gather(*(judge.say(messages, 1) for messages in questions))
    scores = tuple(answer.scores[0] for answer in answers)
    return Ranking(rotations=(scores,), mass=mean_mass(answer.mass for answer in answers))


async def check(judge: Downstream, questions: Sequence[tuple[Any, Interaction]]) -> float:
    """Refuse a model that does not answer with one of the letters. Returns the mean mass on them (free form: the share
    of answers that name an item).

    Args:
        questions: (what the judge reads, offer); a summary, or for a yes/no reader a history.

    Raises:
        JudgeError: mass below 0.9 on average.
    """
    offers = [(context, offer) for context, offer in questions if isinstance(offer, Offer)]
    if judge.items_at_once == 1:
        return await judge.check([(context, longest_item(offer)) for context, offer in offers])
    limit = judge.items_at_once
    requests = [
        (question(judge, summary, None, offer), min(limit, len(offer.candidates))) for summary, offer in offers
    ]
    _, answers = await taken(requests, lambda request: judge.say(*request))
    masses = [float(answer.unread is None) if answer.mass is None else answer.mass for answer in answers]
    mass = sum(masses) / len(masses)
    if not mass >= judge.least_mass:  # nor if it is NaN
        raise JudgeError(
            f"{judge.name} is no judge among several items: only {mass:.3f} of its answers is a letter of one of them"
        )
    return mass
