"""Tokenising a user's stream once and finding the letters by offsets, against encoding the growing text for each
behaviour.

    python benchmarks/tokenize_streams.py                        # 100 behaviours a user, then 10, 30, 100, 300
    python benchmarks/tokenize_streams.py --tokenizer Qwen/Qwen3-1.7B

The published code for its signal model ("theirs", sft/preprocess.py) needs one encode a behaviour. It encodes all the
text up to the behaviour to learn where its letter stands. Both must find the same letters at the same places. The last
line is JSON.
"""

import json
import random
import time
from dataclasses import dataclass

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.synthesis import streams
from alignxplore.world.tiny import make_tokenizer
from alignxplore.world.users import draw_choice, draw_user


def make_users(users: int, behaviours: int) -> list[list[Interaction]]:
    """Streams of choices from the simulated world."""
    histories = []
    for number in range(users):
        user, rng = draw_user(1, "benchmark", number), random.Random(hash_seed("benchmark", number))
        histories.append([draw_choice(user.late, "films", rng).interaction for _ in range(behaviours)])
    return histories


def growing(items: list[Interaction], user: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """(ids, index of each letter), one encode of the whole prefix per behaviour."""
    text, letters, ids = "", [], []
    for place, item in enumerate(items):
        text += streams.behaviour_text(item, (user, place))[0]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        letters.append(len(ids) - 2)  # before the line end
    return ids, letters


def measure(tokenizer: PreTrainedTokenizerBase, users: int, behaviours: int) -> tuple[float, float]:
    """Seconds a user: (ours, theirs)."""
    histories = make_users(users, behaviours)
    streams.BEHAVIOURS = behaviours
    streams.tokenise_stream(histories[0], "0", tokenizer, 10**9)  # both warm
    began = time.process_time()  # of the process: other work on the machine does not count
    ours = [streams.tokenise_stream(items, str(n), tokenizer, 10**9) for n, items in enumerate(histories)]
    middle = time.process_time()
    theirs = [growing(items, str(n), tokenizer) for n, items in enumerate(histories)]
    end = time.process_time()
    for stream, (ids, letters) in zip(ours, theirs):
        if (stream.ids, stream.letters) != (ids, letters):
            raise AssertionError("the two ways disagree about tokens or letters")
    return (middle - began) / users, (end - middle) / users


@dataclass(kw_only=True)
class StreamOptions(Checkable):
    """Whose tokenizer, how many users."""

    tokenizer: str | None = option("folder or Hub id; default: one learnt from the simulated world", None)
    users: int = option("users with 100 behaviours; more where they are fewer", 5)

    def __post_init__(self) -> None:
        at_least_one(self, "users")


def compare(arguments: StreamOptions) -> str | None:
    """Both ways at four lengths."""
    if arguments.check:
        return planned(arguments)
    if arguments.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    else:
        tokenizer = make_tokenizer(1, 1024, PromptSet())
    seconds = {n: measure(tokenizer, max(1, arguments.users * 100 // max(n, 100)), n) for n in (10, 30, 100, 300)}
    for behaviours, (ours, theirs) in seconds.items():
        print(
            f"{behaviours:>4} behaviours: ours {1e3 * ours:8.2f} ms a user "
            f"({1e6 * ours / behaviours:6.0f} us a behaviour), growing text {1e3 * theirs:9.1f} ms, "
            f"{theirs / ours:6.1f} x"
        )
    ours, theirs = seconds[100]
    print(
        json.dumps(
            {
                "name": "tokenize_streams",
                "ratio": round(theirs / ours, 1),
                "goal": 30,
                "ours": round(1e3 * ours, 3),
                "theirs": round(1e3 * theirs, 3),
                "unit": "ms a user of 100 behaviours",
                "n": arguments.users,
                "ours_us_per_behaviour": {n: round(1e6 * a / n, 1) for n, (a, _) in seconds.items()},
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, StreamOptions, __doc__)
