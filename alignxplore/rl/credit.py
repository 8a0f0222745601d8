"""Who gets which reward in a stream of K stages. Pure functions on lists; no torch, no verl.

In stage k the policy wrote a group of n summaries, each judged by its own target (reward r_k); one of them, the drawn
one, became the past summary of stage k+1. The drawn summary answers for what was built on it:

    R_k = r_k + discount * mean(R_{k+1})          R_K = r_K

`paper` and `centered` say what the summaries that were not drawn get in place of that mean (paper section 3.3; 0.5 and
discount 0.9 are constants of the published code). `centered` gives them what the judge says without any summary. What
summaries add to that is paid to the drawn one by either.

A reward of None is a judgement that failed: the row is left out, never scored 0. A summary in bad format has reward 0
and gets no bonus of any kind.
"""

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from alignxplore.records import hash_seed

Credit = Literal["paper", "centered"]
Rewards = Sequence[float | None]

# A judge that knows nothing says 0.5: what `paper` pays every summary that was not drawn for the stages it did not
# see.
PAPER_CONSTANT = 0.5


class Scored(NamedTuple):
    """One group: a reward for each rollout (None: its judgement failed) and whether each is well-formed."""

    rewards: Rewards
    well_formed: Sequence[bool]


class StageReturns(NamedTuple):
    """Returns of one group (None: not to be trained on) and what the drawn rollout got above the others (None: no
    draw)."""

    returns: list[float | None]
    drawn_bonus: float | None = None


def draw_order(count: int, *key: object) -> list[int]:
    """The order in which the members of a group are tried as past summary: a permutation hashed from `key`."""
    return random.Random(hash_seed("draw", *key)).sample(range(count), count)


def propagate(baselines: Sequence[float], discount: float) -> list[float]:
    """What would be earned without any summary from each stage on: b_k = p_k + discount * b_{k+1}, where p_k is the
    judge's confidence in target k."""
    values: list[float] = []
    for p in reversed(baselines):
        values.insert(0, p + discount * (values[0] if values else 0.0))
    return values


def stream_returns(
    stages: Sequence[Scored],
    drawn: Sequence[int | None],
    credit: Credit,
    discount: float,
    baselines: Sequence[float] | None = None,
) -> list[StageReturns]:
    """Returns of a chain in which one summary of each stage is continued.

    Args:
        stages: the groups in order.
        drawn: for each stage but the last, which member was continued; None if none was well-formed.
        baselines: confidence without a summary in the target of each stage after the first (`centered` needs it; see
            `propagate`): nothing is paid for having written the first.
    """
    if credit == "centered":
        if baselines is None or len(baselines) != len(stages) - 1:
            raise ValueError(
                f"credit 'centered' needs one baseline for each of the {len(stages) - 1} stages after the first"
            )
        stand_in = propagate(baselines, discount)
    elif credit == "paper":
        stand_in = [PAPER_CONSTANT] * (len(stages) - 1)
    else:
        raise ValueError(f"credit '{credit}' has no returns; known: {', '.join(get_args(Credit))}")

    later: list[float | None] = []  # returns of stage k+1, failed judgements included
    results: list[StageReturns] = []
    for k in range(len(stages) - 1, -1, -1):
        group, is_last = stages[k], k == len(stages) - 1
        other_bonus = 0.0 if is_last else discount * stand_in[k]
        # When every judgement of the next stage failed nothing is known of what was built on the drawn one.
        values = [value for value in later if value is not None]
        drawn_bonus = discount * sum(values) / len(values) if values else other_bonus
        continuation = None if is_last else drawn[k]
        later = [
            _total(reward, is_well_formed, drawn_bonus if i == continuation else other_bonus)
            for i, (reward, is_well_formed) in enumerate(zip(group.rewards, group.well_formed, strict=True))
        ]
        results.insert(
            0, StageReturns(_at_least_two(later), None if continuation is None else drawn_bonus - other_bonus)
        )
    return results


def shuffled(returns: StageReturns, *key: object) -> StageReturns:
    """The control: the returns of a group dealt out anew among its members by a permutation hashed from `key`, those
    of bad format and of failed judgements too.

    GRPO compares within a group, so every group keeps the advantages that it would have had, and which summary gets
    which of them says nothing about it: what a run gains by them it has not learnt from the judges.
    """
    order = draw_order(len(returns.returns), "shuffled rewards", *key)
    return StageReturns([returns.returns[i] for i in order])  # nobody is paid for having been drawn


def too_alike(rewards: Rewards, least_spread: float) -> bool:
    """Whether the rewards of a group (bad format 0, failed judgements left out) lie so close together that it is not
    trained on: what GRPO would scale up is then noise, or the bonus for having been drawn (DAPO's dynamic sampling,
    without the refilling)."""
    values = [reward for reward in rewards if reward is not None]
    return bool(values) and max(values) - min(values) < least_spread


def _total(reward: float | None, is_well_formed: bool, bonus: float) -> float | None:
    if not is_well_formed:
        return 0.0
    if reward is None or not math.isfinite(reward):
        return None
    return reward + bonus


def _at_least_two(returns: list[float | None]) -> list[float | None]:
    # GRPO hands a group of one its raw reward as advantage.
    return returns if sum(value is not None for value in returns) >= 2 else [None] * len(returns)
