"""RL rows of persons' windows.

    python -m alignxplore.films.rows --data data/rl_train_windows.jsonl --out data/rl_train.jsonl

A row is a window with its target, read in two stages. Stage 1 reads a third of its first choices or two thirds, drawn
by a hash. Stage 2 reads the rest of them. So both a short history and a long one are practised, with a text about
earlier choices and without. What follows is for targets alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from alignxplore.benchmark_files import read_users
from alignxplore.command import option, run
from alignxplore.records import UserRecord, hash_seed, refuse_same_files, write_jsonl


@dataclass(kw_only=True)
class RowOptions:
    """Which windows become RL rows."""

    data: str = option("benchmark file whose rows are windows")
    out: str = option("file for the RL rows")
    length: int = option("choices that the two stages read")


def rl_rows(records: Iterable[UserRecord], length: int) -> Iterator[dict]:
    """Rows of the RL contract, whose two stages read `length` choices."""
    for record in records:
        history = [asdict(interaction) for interaction in (*record.history, record.target)]
        thirds = 1 + hash_seed("first stage", record.user) % 2
        yield {"uid": record.user, "history": history, "positions": [length * thirds // 3, length]}


def write_rows(options: RowOptions) -> str:
    """Write the rows; says how many."""
    refuse_same_files({"--out": options.out}, {"--data": options.data})
    return f"{options.out}: {write_jsonl(options.out, rl_rows(read_users(options.data), options.length))} RL rows"


if __name__ == "__main__":
    run(write_rows, RowOptions, __doc__)
