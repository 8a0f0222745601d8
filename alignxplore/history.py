"""Cutting a history into slices, and fitting it into a token budget. Used by synthesis, RL and eval alike."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from alignxplore.errors import UserError
from alignxplore.records import Interaction

T = TypeVar("T")
CHARACTERS = 128  # of a token, at most; what is longer than its budget by that is not even rendered and tokenised
_GUESSES = 6  # of the number of interactions that fit, before it is found by halving


class HistoryError(UserError, ValueError):
    """A history that cannot be cut or fitted as asked."""


class Fitted(NamedTuple):
    """The newest interactions that fit the budget, how many older ones were dropped whole, and the tokens counted."""

    interactions: tuple[Interaction, ...]
    dropped: int
    tokens: int


def split_stages(history: Sequence[T], stages: int) -> list[tuple[T, ...]]:
    """Cut a history into `stages` contiguous slices, oldest first, whose sizes differ by at most one.

    The last slice is never shorter than the first: the newest choices tell most. A history shorter than `stages` gives
    fewer slices, each of one interaction: an empty slice would ask for a summary of nothing.
    """
    if stages < 1:
        raise HistoryError(f"the number of stages must be at least 1, not {stages}")
    if not history:
        raise HistoryError("an empty history has no stages")
    stages = min(stages, len(history))
    bounds = [len(history) * k // stages for k in range(stages + 1)]
    return [tuple(history[start:end]) for start, end in zip(bounds, bounds[1:])]


def protocol_slices(history: Sequence[T], task: str, stages: int) -> list[tuple[T, ...]]:
    """The slices that the published protocol shows the policy (`stages` = 1 is the full-history setting).

    Args:
        history: all interactions, oldest first.
        task: "recommendation" uses the first two thirds of the history; "selection" and "generation" use all of it.
        stages: K; streaming cuts into K slices what full history reads at once.
    """
    if task == "recommendation":
        history = history[: 2 * (len(history) // 3)] if len(history) >= 3 else history[:1]
    elif task not in ("selection", "generation"):
        raise HistoryError(f"unknown task '{task}'; choose recommendation, selection or generation")
    return split_stages(history, stages)


def halve(history: Sequence[Interaction], count: Callable[[Sequence[Interaction]], int], limit: float) -> Fitted:
    """The published way to shorten a history: its newer half, again and again, until the rendered prompt takes fewer
    than `limit` tokens.

    Raises:
        HistoryError: not even the newest interaction fits.
    """
    newer = tuple(history)
    while (tokens := count(newer)) >= limit:
        if len(newer) == 1:
            raise HistoryError(
                f"the prompt takes {tokens} tokens with the newest interaction alone, the limit is {limit:.0f}"
            )
        newer = newer[-(len(newer) // 2) :]
    return Fitted(newer, len(history) - len(newer), tokens)


def fit(interactions: Sequence[Interaction], count: Callable[[Sequence[Interaction]], int], budget: int) -> Fitted:
    """Drop the oldest interactions, whole, until the rendered prompt fits.

    Args:
        interactions: oldest first.
        count: tokens of the whole rendered prompt with the given interactions (it never shrinks when one is added).
        budget: the largest number of prompt tokens.

    Raises:
        HistoryError: when not even the newest interaction fits; its text would have to be cut, which is never done.
    """
    tokens = count(interactions)
    if tokens <= budget:
        return Fitted(tuple(interactions), 0, tokens)
    # The number to drop lies in [low, high]; with `high` it fits, and len(interactions) would leave nothing.
    low, high, fits = 1, len(interactions), 0
    too_long, looks = tokens, 0  # tokens where low - 1 are dropped
    while low < high:
        # Interactions of one history are about as long: where the budget would be met is looked at first. Should they
        # differ much, halving finds it.
        share = (too_long - budget) / (too_long - fits) if looks < _GUESSES and too_long > fits else 0.5
        middle = min(high - 1, max(low, math.ceil(low - 1 + share * (high - low + 1))))
        tokens, looks = count(interactions[middle:]), looks + 1
        if tokens <= budget:
            high, fits = middle, tokens
        else:
            low, too_long = middle + 1, tokens
    if low >= len(interactions):
        newest_tokens = count(interactions[-1:])
        raise HistoryError(
            f"the prompt takes {newest_tokens} tokens with the newest interaction alone, the budget is {budget}"
        )
    return Fitted(tuple(interactions[low:]), low, fits)


def too_old(interactions: Sequence[Interaction], budget: int) -> int:
    """How many of the oldest have more characters behind them than so many tokens could hold.

    Raises:
        HistoryError: the newest alone has.
    """
    budget_left = CHARACTERS * budget
    for newer, interaction in enumerate(reversed(interactions)):
        length = len(interaction.chosen) + len(interaction.rejected or "")
        budget_left -= length
        if budget_left < 0 and newer:
            return len(interactions) - newer
        if budget_left < 0:
            raise HistoryError(
                f"the prompt takes more than {budget} tokens with the newest interaction alone: "
                f"its items have {length:,} characters"
            )
    return 0
