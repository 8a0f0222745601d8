"""Users of the simulated world whose histories are long enough for data synthesis. Used by `studies/signal_to_sft.sh`.

    python -m alignxplore.world.long_users --out long_users.jsonl --users 600

Synthesis cuts a history in thirds and wants several choices to be foreseen in each of the last two; the dozen choices
of the quick start's users are too few for that. These users have names of their own, so none of them is in a
benchmark.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from alignxplore.benchmark_files import user_row
from alignxplore.command import option, run
from alignxplore.errors import at_least_one
from alignxplore.records import UserRecord, hash_seed, write_jsonl
from alignxplore.world.text import DOMAINS
from alignxplore.world.users import draw_stream, draw_user


@dataclass(kw_only=True)
class LongOptions:
    """How many users with how many choices."""

    out: str = option("file to write (JSONL, benchmark contract)")
    users: int = option("number of users", 600)
    choices: int = option("choices a user, the target included", 24)
    split: str = option("users of two splits are never the same", "long")
    seed: int = option("seed of the world", 1)

    def __post_init__(self) -> None:
        at_least_one(self, "users")
        if self.choices < 2:
            raise ValueError(f"--choices {self.choices}: at least 2, a history and the target")


def long_users(seed: int, users: int, choices: int, split: str = "long") -> Iterator[dict]:
    """Rows of the benchmark contract with `choices` choices, the last of them the target; tastes change half way or
    never."""
    for index in range(users):
        user = draw_user(seed, split, index)
        domain = DOMAINS[hash_seed("domain", user.name) % len(DOMAINS)]
        items = [choice.interaction for choice in draw_stream(user, domain, choices, choices // 2, seed)]
        yield user_row(UserRecord(user.name, tuple(items[:-1]), items[-1]))


def write_users(options: LongOptions) -> str:
    """Write the file; says how many users it holds."""
    count = write_jsonl(options.out, long_users(options.seed, options.users, options.choices, options.split))
    return f"{options.out}: {count} users with {options.choices} choices each"


if __name__ == "__main__":
    run(write_users, LongOptions, __doc__)
