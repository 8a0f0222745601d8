"""Teach a tiny model to read streams of choices, as Qwen3-1.7B can before it becomes a signal model. Used by `studies/signal_to_sft.sh`.

    python -m alignxplore.tiny --layers 5 --out models/blank_signal
    python studies/stream_lessons.py --base models/blank_signal --out models/streams --users 6000

To foresee a choice takes a chain: what a phrase shows; which item was taken; what has been taken most so far; which of the two
items at hand suits that. Letters alone do not teach a small model such a chain for a long time, so a probe learns along
(`alignxplore/tiny_training.py` says how), from users whom nothing else knows. At the end of each phrase it says which value is
shown and whether the choices before speak for it or against it; at each letter, which values were taken and which passed over.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "sft"))

from streams import behaviour_text, tokenise_stream
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignxplore.records import hash_seed
from alignxplore.tiny_training import Lesson, train
from alignxplore.world_text import ATTRIBUTES, DOMAINS
from alignxplore.world_users import Choice, draw_stream, draw_user

VALUES = [value for pair in ATTRIBUTES.values() for value in pair]
OPPOSITE = {value: other for pair in ATTRIBUTES.values() for value, other in (pair, pair[::-1])}
# What the probe tells apart: the value of a phrase, or none; what the past says of it; the values that a letter took.
CLASSES = {name: place for place, name in enumerate([
    *(("shows", value) for value in [*VALUES, ""]),
    *(("past", says) for says in ("for", "against", "nothing")),
    *(("taken", value) for value in VALUES),
])}


def what_past_says(taken: Counter[str], value: str) -> str:
    """Whether `value` was taken more often than its opposite in the choices so far."""
    lead = taken[value] - taken[OPPOSITE[value]] if value else 0
    return "for" if lead > 0 else "against" if lead < 0 else "nothing"


def lesson(choices: list[Choice], user: str, tokenizer: PreTrainedTokenizerFast) -> Lesson:
    """One stream: its letters are learnt, and what stands before them is voted on."""
    stream = tokenise_stream([choice.interaction for choice in choices], user, tokenizer, 1 << 20)
    texts = [behaviour_text(choice.interaction, (user, place)) for place, choice in enumerate(choices)]
    offsets = tokenizer("".join(text for text, _ in texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = {end: place for place, (_, end) in enumerate(offsets)}
    start, votes, taken = 0, [], Counter()
    for choice, (text, letter), place in zip(choices, texts, stream.letters):
        at = 0
        for phrases in choice.phrases[:: 1 if letter == "A" else -1]:
            for value, words in phrases:
                at = text.index(words, at) + len(words)
                votes += [(ends[start + at], CLASSES["shows", value]), (ends[start + at], CLASSES["past", what_past_says(taken, value)])]
        start += len(text)
        spoken_for = [*choice.chosen.values(), *(OPPOSITE[value] for value in choice.rejected.values())]
        votes += [(place, CLASSES["taken", value]) for value in spoken_for]
        taken.update(spoken_for)
    return Lesson(stream.ids, stream.letters, votes)


def lessons(seed: int, users: int, choices: int, tokenizer: PreTrainedTokenizerFast) -> Iterator[Lesson]:
    """Streams of `users` users whom nothing else knows."""
    for index in range(users):
        user = draw_user(seed, "stream", index)
        domain = DOMAINS[hash_seed("domain", user.name) % len(DOMAINS)]
        yield lesson(draw_stream(user, domain, choices, choices // 2, seed), user.name, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of alignxplore.tiny: tokenizer and architecture (weights are drawn anew)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--users", type=int, default=6000, help="streams, each seen once (default: %(default)s)")
    parser.add_argument("--choices", type=int, default=24, help="choices a stream (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="streams a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the world (default: %(default)s)")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    found = list(lessons(arguments.seed, arguments.users, arguments.choices, tokenizer))
    loss = train(arguments.base, found, len(CLASSES), arguments.out, seed=arguments.seed, batch=arguments.batch,
                 learning_rate=arguments.learning_rate)
    print(f"{arguments.out}: {arguments.users} streams, loss on the letters {loss:.3f} (chance: 0.693)")


if __name__ == "__main__":
    main()
