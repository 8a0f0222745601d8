"""Do the rollout engines hold the model that is trained? Asked at every step before an update is made
(alignxplore/rl/trainer.py).

Three signs: the steps whose weights each row says it was written with; the token probabilities of rollout and trainer
over all rows; and the same by group, because all rows of a prompt come from one engine (verl's router keeps a request
id at its server) and one bad engine of many hardly moves a mean over all. Tokens of older weights, which asynchronous
training has, cannot be compared: the trainer no longer holds what wrote them.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from alignxplore.rl.metrics import Numbers
from alignxplore.rl.settings import RunStopped, Tolerance

PROBABILITIES = "training/rollout_probs_diff_"
# Share of groups that may lie above the limit. The published run has 32 engines, so a bad one writes 3 % of the
# groups; a quarter of that if its answers are so long that it gets fewer. A sound engine has none: rounding averages
# out over a group's tokens.
GROUPS_ABOVE = 0.005


def check_versions(tags: Sequence[dict], step: int, lag: int = 0) -> None:
    """Raise `RunStopped` unless every row was written with the weights that the step before left, or those of up to
    `lag` steps before that. Sees an engine that was not sent new weights whatever the dtype, not one that lost them
    on arrival."""
    low, high = step - 1 - lag, step - 1
    versions: set[tuple[Any, Any]] = {(tag.get("min_global_steps"), tag.get("max_global_steps")) for tag in tags}
    strays = {pair for pair in versions if None in pair or not low <= pair[0] <= pair[1] <= high}
    if strays:
        raise RunStopped(
            f"rows were written with weights of steps {min(strays, key=str)} and not of "
            f"{f'{low} to {high}' if lag else high}: a rollout engine was not sent the weights that are trained"
        )


def check_probabilities(metrics: Numbers, tolerance: Tolerance) -> None:
    """Raise `RunStopped` unless the rollout engine and the trainer agree on the probabilities of the sampled tokens.

    They differ when new weights did not reach the rollout engine, when the two compute different things, or when
    sampling was not from the full distribution. Absent or NaN is a failure: it would mean that nobody looked.
    """
    for statistic in ("max", "mean"):
        limit, value = getattr(tolerance, statistic), metrics.get(PROBABILITIES + statistic)
        if value is None or not math.isfinite(value):
            raise RunStopped(
                f"{PROBABILITIES}{statistic} is {value}: rollout and trainer probabilities could not be compared"
            )
        if limit is not None and value > limit:
            raise RunStopped(
                f"{PROBABILITIES}{statistic} is {value:.2e}, allowed is {limit:.0e}: the rollout engine does not hold "
                "the weights that are trained, computes with other precision or sampling settings, or the model has "
                "more output tokens than its tokenizer (the rollout engine never writes those, the trainer counts "
                "them)"
            )


def token_differences(
    tags: Sequence[dict], trainer: Sequence[torch.Tensor], rollout: Sequence[torch.Tensor], version: int
) -> list[torch.Tensor]:
    """How far the two probabilities of each token lie apart: of each row, the tokens that the weights of step
    `version` wrote (tag `versions`: pairs of step and tokens, in the order of writing); of padding none.

    Args:
        trainer, rollout: log-probabilities of each row's tokens.
    """
    differences = []
    for tag, trainer_T, rollout_T in zip(tags, trainer, rollout, strict=True):
        parts, start = [torch.zeros(0)], 0
        for step, tokens in [] if tag.get("is_padding", False) else tag["versions"]:
            if step == version:
                part = slice(start, start + tokens)
                parts.append((trainer_T[part].exp() - rollout_T[part].exp()).abs())
            start += tokens
        differences.append(torch.cat(parts))
    return differences


def summed_up(differences: Sequence[torch.Tensor]) -> Numbers:
    """Their largest and mean, and the tokens that were compared; of no tokens there is neither."""
    tokens = torch.cat(list(differences))
    numbers: Numbers = {PROBABILITIES + "tokens": len(tokens)}
    if len(tokens):
        numbers |= {PROBABILITIES + "max": tokens.max().item(), PROBABILITIES + "mean": tokens.mean().item()}
    return numbers


def group_differences(keys: Sequence[str], differences: Sequence[torch.Tensor]) -> list[float]:
    """The mean over the tokens of each group that has any.

    Args:
        keys: of the rows, as alignxplore/rl/streaming.py makes them: a group's name, its member, 0.
    """
    totals: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for key, row in zip(keys, differences, strict=True):
        group = key.rsplit("_", 2)[0]
        totals[group] += row.sum().item()
        tokens[group] += len(row)
    return [total / tokens[group] for group, total in totals.items() if tokens[group]]


def check_groups(differences: Sequence[float], limit: float, metrics: Numbers) -> None:
    """Raise `RunStopped` where more than one group, and more than a small share, lie above the limit."""
    count = sum(not value <= limit for value in differences)
    metrics[PROBABILITIES + "groups_above"] = count / len(differences)
    if count > max(1, GROUPS_ABOVE * len(differences)):
        raise RunStopped(
            f"the mean difference of rollout and trainer probabilities is above {limit} in {count} of "
            f"{len(differences)} groups, the largest is {max(differences):.2e}: one of the rollout engines does not "
            "hold the weights that are trained"
        )
