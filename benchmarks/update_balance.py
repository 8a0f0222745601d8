"""Tokens of the slowest rank in an update of RL, over the mean of all ranks. The others wait for it at the end of an
update. Rows shared out over a whole step, as verl does, stand against rows shared out in each update
(alignxplore/rl/updates.py). Arithmetic on lengths; nothing is trained.

    python benchmarks/update_balance.py                   # some seconds

Lengths are those of the published run's sizes: 8 summaries a user, 2,048 rows an update. Prompts are as long as the
histories of data/movielens (two halves of each person's films, four signs a token, at most 8,192 tokens); summaries
are log-normal with a median of 1,200 tokens, cut at 4,096 (an assumption: nobody has published theirs). The last line
is JSON.
"""

import csv
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from alignxplore.command import Checkable, option, planned, run
from alignxplore.environment import ROOT
from alignxplore.errors import at_least_one
from alignxplore.rl.updates import share_out, slowest_rank

FILMS = ROOT / "data/movielens/ml-latest-small"
ROWS = 2048  # of an update
EACH = 4  # summaries a stage
AROUND_AN_ITEM = 30  # signs of a prompt's wording for each interaction


@dataclass(kw_only=True)
class BalanceOptions(Checkable):
    """How many ranks, updates and tries."""

    ranks: int = option("GPUs that train", 64)
    updates: int = option("of a step", 4)
    steps: int = option("steps that are drawn", 5)

    def __post_init__(self) -> None:
        at_least_one(self, "ranks", "updates", "steps")


def film_lengths(users: int, seed: int = 0) -> list[int]:
    """Tokens of the rows of a step, 8 a user, users in random order."""
    with (FILMS / "movies.csv").open(encoding="utf-8") as file:
        signs = {row["movieId"]: len(row["title"]) + AROUND_AN_ITEM for row in csv.DictReader(file)}
    people: dict[str, list[int]] = defaultdict(list)
    with (FILMS / "ratings.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            people[row["userId"]].append(signs[row["movieId"]])
    rng, histories, rows = random.Random(seed), list(people.values()), []
    for _ in range(users):
        history = rng.choice(histories)
        for half in (history[: len(history) // 2], history[len(history) // 2 :]):
            prompt = min(8192, 300 + sum(half) // 4)
            rows += [prompt + min(4096, round(rng.lognormvariate(7.1, 0.5))) for _ in range(EACH)]
    return rows


def over_the_step(lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """What verl makes of a step: each rank's part of all of it, cut into updates as it stands."""
    (parts,) = zip(*share_out(lengths, len(lengths), ranks), strict=True)
    rows_per_rank = ROWS // ranks
    return [[part[start : start + rows_per_rank] for start in range(0, len(part), rows_per_rank)] for part in parts]


def compare(options: BalanceOptions) -> str | None:
    """Share out both ways, print."""
    if options.check:
        return planned(options)
    step_peaks, update_peaks = [], []
    for seed in range(options.steps):
        lengths = film_lengths(options.updates * ROWS // (2 * EACH), seed)
        step_peaks.append(slowest_rank(lengths, over_the_step(lengths, options.ranks)))
        update_peaks.append(slowest_rank(lengths, share_out(lengths, ROWS, options.ranks)))
    print(f"{options.ranks} ranks, {options.updates} updates of {ROWS} rows; the slowest rank has")
    step, update = (100 * fmean(peaks) - 100 for peaks in (step_peaks, update_peaks))
    print(f"over the step    {step:5.1f} % more tokens than the mean ({max(step_peaks):.3f} at most)")
    print(f"in each update   {update:5.1f} %                            ({max(update_peaks):.3f} at most)")
    result = {"name": "update_balance", "ratio": round(fmean(step_peaks) / fmean(update_peaks), 3), "goal": 1.05}
    result |= {"ours": round(fmean(update_peaks), 4), "theirs": round(fmean(step_peaks), 4)}
    print(json.dumps(result | {"unit": "tokens of the slowest rank / mean", "n": options.steps * options.updates}))
    return None


if __name__ == "__main__":
    run(compare, BalanceOptions, __doc__)
