"""Prompt tokens of a choice among k = 20 items in two rotations, against its 19 pairs in both orders.

    python benchmarks/ranking_tokens.py                                # films of MovieLens latest-small, in data/
    python benchmarks/ranking_tokens.py --items 100                    # more than 26 are asked in groups
    python benchmarks/ranking_tokens.py --tokenizer Qwen/Qwen3-8B

Three ways to rank k items for one summary:

    ours     what alignxplore/judging/ranking.py sends: two prompts with all items
    theirs   what a judge of pairs has to be sent: the chosen item against each other one, in both orders; 38 prompts
    alone    what a judge by P(Yes) has to be sent: each item by itself; 20 prompts

All are rendered from the project's own templates, with the chat template and the begun answer, and counted by the
tokenizer; no model is needed. Prefix caching saves part of the work of pairs and is not counted. The longer the
summary (`--summary_tokens`) and the shorter the items, the more is saved: the table shows several lengths. The default
tokenizer is learnt here from film titles and summaries; it cuts a film into as many tokens as large models' do, about
20 (digits stand alone). The last line is JSON.
"""

import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.benchmark_files import read_users
from alignxplore.command import Checkable, option, planned, run
from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.errors import at_least_one
from alignxplore.judging.letters import find_letters
from alignxplore.judging.ranking import groups, rotated
from alignxplore.prompts import SETS, Messages, PromptSet
from alignxplore.records import Offer, UserRecord, hash_seed
from alignxplore.world.tiny import chat_tokenizer, sample_text
from alignxplore.world.users import draw_user, render_summary

FILMS = Path(__file__).resolve().parent.parent / "data/movielens/ml-latest-small"
GOAL = 8
VOCABULARY = 4096
LENGTHS = (50, 100, 200, 400)


@dataclass(kw_only=True)
class TokensOptions(Checkable):
    """Whose tokenizer, which lists."""

    tokenizer: str | None = option("folder or Hub id; default: one learnt from these films and summaries", None)
    users: int = option("users, one list each", 50)
    items: int = option("k, the items of a list", 20)
    rotations: int = option("orders in which a list is asked", 2)
    summary_tokens: int = option("length of a summary", 200)

    def __post_init__(self) -> None:
        at_least_one(self, "users", "rotations", "summary_tokens")
        if self.items < 3:
            raise ValueError(f"--items {self.items}: a list has 3 or more")


def lists(options: TokensOptions) -> list[UserRecord]:
    """Users of MovieLens, each with a target among k films."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "movielens_upi.jsonl"
        build(Job(get("movielens"), FILMS, users=options.users, items=options.items), out)
        return list(read_users(out))


def learnt_tokenizer(records: Sequence[UserRecord]) -> PreTrainedTokenizerBase:
    """Byte-level pieces of films, summaries and templates, with single digits, in Qwen3's chat format."""
    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    films = [item for record in records for x in record.history for item in (x.chosen, x.rejected or "")]
    answers = [json.dumps({"selection": f"Item {letter}"}) for letter in ascii_uppercase] * 20
    templates = [path.read_text(encoding="utf-8") for path in sorted((SETS / "default").glob("*.jinja"))] * 20
    bpe.train_from_iterator([*films, *sample_text(1), *answers, *templates], trainer)
    return chat_tokenizer(bpe, [])


def summary_of(record: UserRecord, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    """Statements of the simulated world, joined to about so many tokens."""
    rng, summary = random.Random(hash_seed("ranking tokens", record.id)), ""
    while len(tokenizer.encode(summary, add_special_tokens=False)) < tokens:
        user = draw_user(1, "ranking", rng.randrange(10**9))
        summary += render_summary(user.late, rng) + "\n"
    words = tokenizer.encode(summary, add_special_tokens=False)[:tokens]
    return tokenizer.decode(words).strip()


def among_k(prompts: PromptSet, summary: str, record: UserRecord, offer: Offer, rotations: int) -> Iterator[Messages]:
    """The prompts of a list."""
    for rotation, group in itertools.product(range(rotations), groups(offer, record.id, 0)):
        items = [offer.candidates[place] for place in rotated(group, rotation, rotations)]
        yield prompts.choose(summary, None, offer.query, list(zip(ascii_uppercase, items)))


def pairs(prompts: PromptSet, summary: str, offer: Offer) -> Iterator[Messages]:
    """The prompts of its pairs in both orders."""
    for item in offer.passed_over:
        for a, b in ((offer.chosen, item), (item, offer.chosen)):
            yield prompts.judge(summary, offer.query, a, b)


def alone(prompts: PromptSet, summary: str, offer: Offer) -> Iterator[Messages]:
    """A prompt an item."""
    for item in offer.candidates:
        yield prompts.choose(summary, None, offer.query, [("A", item)])


def count(tokenizer: PreTrainedTokenizerBase, prefill: str, prompts: Iterator[Messages]) -> int:
    """Tokens of all the prompts up to the position that is read."""
    return sum(
        len(
            tokenizer.apply_chat_template(
                [*messages, {"role": "assistant", "content": prefill}],
                tokenize=True,
                return_dict=False,
                continue_final_message=True,
                enable_thinking=False,
            )
        )
        for messages in prompts
    )


def measure(
    tokenizer: PreTrainedTokenizerBase, records: Sequence[UserRecord], options: TokensOptions, length: int
) -> tuple[float, float, float]:
    """Prompt tokens a list: (ours, theirs, alone)."""
    prompts, prefill, ours, theirs, single = PromptSet(), find_letters(tokenizer).prefill, 0, 0, 0
    for record in records:
        offer, summary = record.target, summary_of(record, tokenizer, length)
        if not isinstance(offer, Offer):
            raise TypeError("a pair where a list was built")
        ours += count(tokenizer, prefill, among_k(prompts, summary, record, offer, options.rotations))
        theirs += count(tokenizer, prefill, pairs(prompts, summary, offer))
        single += count(tokenizer, prefill, alone(prompts, summary, offer))
    return ours / len(records), theirs / len(records), single / len(records)


def compare(options: TokensOptions) -> str | None:
    """All ways at several lengths of the summary."""
    if options.check:
        return planned(options)
    records = lists(options)
    if options.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    else:
        tokenizer = learnt_tokenizer(records)
    films = [tokenizer.encode(x.chosen, add_special_tokens=False) for record in records for x in record.history]
    print(f"{sum(map(len, films)) / len(films):.1f} tokens a film")
    tokens_of = {
        length: measure(tokenizer, records, options, length) for length in sorted({*LENGTHS, options.summary_tokens})
    }
    for length, (ours, theirs, single) in tokens_of.items():
        print(
            f"summary of {length:>4} tokens: {ours:8,.0f} tokens a list, {theirs:9,.0f} of its pairs, "
            f"{theirs / ours:5.1f} x; {single:8,.0f} item by item, {single / ours:5.1f} x"
        )
    ours, theirs, single = tokens_of[options.summary_tokens]
    print(
        json.dumps(
            {
                "name": "ranking_tokens",
                "ratio": round(theirs / ours, 2),
                "goal": GOAL,
                "ours": round(ours, 1),
                "theirs": round(theirs, 1),
                "alone": round(single, 1),
                "unit": f"prompt tokens a list of {options.items}",
                "n": len(records),
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, TokensOptions, __doc__)
