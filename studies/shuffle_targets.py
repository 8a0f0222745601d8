"""The control of a study: RL rows whose reward says nothing about a user. Used by `studies/sft_errors.sh`.

    python studies/shuffle_targets.py --data rl_train.jsonl --out shuffled.jsonl

In each target the chosen and the rejected item change places by the toss of a coin (hashed from user and place). So
whatever a summary says, its expected reward is one half. Everything else stays: users, prompts, sizes. (The first
target also opens the second stage's slice, where it is then the wrong way round for half of the users.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignxplore.benchmark_files import parse_user_id
from alignxplore.command import option, run
from alignxplore.records import RecordError, hash_seed, read_jsonl, refuse_same_files, write_jsonl


@dataclass(kw_only=True)
class ShuffleOptions:
    """Which rows to shuffle."""

    data: Path = option("RL rows (JSONL)")
    out: Path = option("file for the shuffled rows")


def shuffled(data: Path) -> Iterator[dict]:
    """RL rows with coin-flipped targets."""
    for line, row in read_jsonl(data):
        user = parse_user_id(row, data, line)
        if row.get("mid_position") not in range(len(row.get("history") or ())):
            raise RecordError("expected the place of a target in the history", data, line, "mid_position")
        history = [dict(interaction) for interaction in row["history"]]
        for place in (row["mid_position"], len(history) - 1):
            if hash_seed("shuffled target", user, place) % 2:
                target = history[place]
                target["chosen"], target["rejected"] = target["rejected"], target["chosen"]
        yield row | {"history": history}


def write_shuffled(options: ShuffleOptions) -> None:
    """Write the shuffled rows."""
    refuse_same_files({"--out": options.out}, {"--data": options.data})
    write_jsonl(options.out, shuffled(options.data))


if __name__ == "__main__":
    run(write_shuffled, ShuffleOptions, __doc__)
