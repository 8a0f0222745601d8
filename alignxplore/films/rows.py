"""RL rows of persons' windows.

    python -m alignxplore.films.rows --data data/rl_train_windows.jsonl --out data/rl_train.jsonl

A row is a window with its target in two stages: stage 1 reads a third of the window or two thirds, drawn by a hash,
and foresees the next choice; stage 2 reads the rest and foresees the target. So both a short history and a long one
are practised, with a text about earlier choices and without.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from alignxplore.command import option, run
from alignxplore.records import UserRecord, hash_seed, read_users, write_jsonl


@dataclass(kw_only=True)
class RowOptions:
    """Which windows become RL rows."""

    data: str = option("benchmark file whose rows are windows")
    out: str = option("file for the RL rows")


def rl_rows(records: Iterable[UserRecord]) -> Iterator[dict]:
    """Rows of the RL contract."""
    for record in records:
        history = [asdict(interaction) for interaction in (*record.history, record.target)]
        thirds = 1 + hash_seed("first stage", record.user) % 2
        yield {"uid": record.user, "history": history, "mid_position": len(record.history) * thirds // 3}


def write_rows(options: RowOptions) -> str:
    """Write the rows; says how many."""
    return f"{options.out}: {write_jsonl(options.out, rl_rows(read_users(options.data)))} RL rows"


if __name__ == "__main__":
    run(write_rows, RowOptions, __doc__)
