"""Users of the simulated world whose histories are long enough for data synthesis. Used by `studies/signal_to_sft.sh`.

    python studies/long_users.py --out long_users.jsonl --users 600

Synthesis cuts a history in thirds and wants several choices to be foreseen in each of the last two; the dozen choices
of the quick start's users are too few for that. These users have names of their own, so none of them is in a
benchmark.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from alignxplore.records import UserRecord, hash_seed, user_row, write_jsonl
from alignxplore.world.text import DOMAINS
from alignxplore.world.users import draw_stream, draw_user


def long_users(seed: int, users: int, choices: int, split: str = "long") -> Iterator[dict]:
    """Rows of the benchmark contract with `choices` choices, the last of them the target; tastes change half way or
    never."""
    for index in range(users):
        user = draw_user(seed, split, index)
        domain = DOMAINS[hash_seed("domain", user.name) % len(DOMAINS)]
        items = [choice.interaction for choice in draw_stream(user, domain, choices, choices // 2, seed)]
        yield user_row(UserRecord(user.name, tuple(items[:-1]), items[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write (JSONL, benchmark contract)")
    parser.add_argument("--users", type=int, default=600, help="number of users (default: %(default)s)")
    parser.add_argument(
        "--choices", type=int, default=24, help="choices a user, the target included (default: %(default)s)"
    )
    parser.add_argument(
        "--split", default="long", help="users of two splits are never the same (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the world (default: %(default)s)")
    arguments = parser.parse_args()
    count = write_jsonl(arguments.out, long_users(arguments.seed, arguments.users, arguments.choices, arguments.split))
    print(f"{arguments.out}: {count} users with {arguments.choices} choices each")
