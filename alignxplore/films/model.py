"""The blank model of the quick start: a tokenizer made for films and an untrained Qwen3 of about 1 M parameters.

    python -m alignxplore.films.model --out runs/quickstart/models/blank --data runs/quickstart/data/policy.jsonl

The tokenizer is learnt from the training persons alone. Three things in it are a crutch of these tiny models. It reads
of a film its decade and its genres only, one token each; titles are a hundred thousand words that they never learn. It
skips the numbering of the choices. It holds each fixed line of the default prompts as one token. Any other text
becomes bytes, a bar a blank.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignxplore.benchmark_files import read_users
from alignxplore.command import option, run
from alignxplore.films.text import LEAD, LEVELS, MOST, NOTHING, attributes, number
from alignxplore.model_folders import save
from alignxplore.prompts import PromptSet
from alignxplore.records import UserRecord
from alignxplore.world.tiny import chat_tokenizer, fixed_lines, make_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SELDOM = 0.002  # attributes that stand in a smaller share of the items have no name of their own
# What the tokenizer reads in another way than it is written, in this order (regular expression, replacement).
READ_AS = (
    (r"Title: [^\n]*?(?=\((?:18|19|20)\d\d\)\s*, Genres: )", ""),
    (r"\((?:18\d\d|19[0-6]\d)\)\s*, Genres: ", "pre-1970 "),
    (r"(?<=\((?:19|20)\d)\d\)\s*, Genres: ", "0s "),
    (r"\((?=(?:19|20)\d0s )", ""),
    (r"Title: [^\n]*?, Genres: ", ""),
    (r" \(no genres listed\)", ""),
    (r"\|", " "),
    # Last: before, a title without a year would reach into the next line.
    (r"\n+\d+\.(?: Request: [^\n]*)?\n+(?=Chosen:)", ""),
    (r"\n(?=Passed over:)", ""),
)
LABELS = ("Chosen:", "Passed over:", "Item A:", "Item B:")


@dataclass(kw_only=True)
class BlankOptions:
    """Which model, and where it goes."""

    out: str = option("folder that gets the model and its tokenizer")
    data: str = option("benchmark file of the training persons")
    seed: int = option("seed of the weights", 1)
    hidden: int = option("hidden size, a multiple of 32", 128)
    layers: int = option("number of transformer layers", 3)
    prompt_set: str = option("prompt set whose fixed lines become tokens: a name or a folder", "default")


def known_attributes(records: Sequence[UserRecord]) -> list[str]:
    """The attributes that have a name: genres in the order of the alphabet, then decades."""
    counts, items = Counter[str](), 0
    for record in records:
        for interaction in record.history:
            for item in interaction.items:
                counts.update(attributes(item))
                items += 1
    names = [name for name, count in counts.items() if count >= SELDOM * items]
    return sorted(names, key=lambda name: (bool(re.match(r"\d|pre", name)), not name.startswith("pre"), name))


def make_tokenizer(names: Sequence[str], queries: Sequence[str], prompts: PromptSet) -> "PreTrainedTokenizerFast":
    """A byte-level tokenizer in which what these models read and write are tokens of their own."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    numbers = [f" {number(count)}" for count in range(-MOST, MOST + 1)]
    ordinary = ["<think>", "</think>", "Counts:", LEAD, *fixed_lines(prompts), *queries, *LABELS, NOTHING]
    ordinary += [f" {name}" for name in names] + numbers + [f" {word}" for word in LEVELS]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.Replace(Regex(before), after) for before, after in READ_AS])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    frame = ["user", "system", "assistant", "Nothing.", *('{"selection": "Item A"}', ' B"}'), "\n\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=512, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(frame * 2, trainer)
    tokens = [AddedToken(token, special=False, normalized=True) for token in dict.fromkeys(ordinary)]
    return chat_tokenizer(bpe, tokens)


def write_blank(options: BlankOptions) -> str:
    """Write tokenizer and model; says how large they are."""
    from transformers.utils.logging import disable_progress_bar

    records = list(read_users(options.data))
    queries = sorted({record.target.query for record in records if record.target.query})
    names = known_attributes(records)
    tokenizer = make_tokenizer(names, queries, PromptSet(options.prompt_set))
    disable_progress_bar()  # of a file that is written in no time
    # To count and to look up is attention's work. A judge of the same size with four heads looks up one level in ten
    # wrongly; this one, one in a hundred (studies/README.md).
    model = make_model(tokenizer, options.seed, options.hidden, options.layers, attentive=True)
    save(model, tokenizer, options.out)
    size = model.num_parameters() / 1e6
    return f"{options.out}: {size:.2f} M parameters, {len(tokenizer)} tokens, {len(names)} attributes"


if __name__ == "__main__":
    run(write_blank, BlankOptions, __doc__)
