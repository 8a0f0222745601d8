"""Teach the tiny models of the quick start what Qwen3 brings along: to count choices (the reader), to use a text (the
judges).

    python -m alignxplore.films.lessons reader --base models/blank --data data/policy.jsonl --out models/base --seed 1
    python -m alignxplore.films.lessons judge --base models/blank --data data/judge.jsonl --out models/judge --seed 11

A crutch of these models: linear probes on inner layers learn along, and are thrown away afterwards (deep supervision,
as in `alignxplore/world/lessons.py`). The reader learns the counts of its reasoning and no answer: it has not learnt
to write a summary. A judge reads texts of no to eight statements. Some are told again and again, so that brevity is no
handicap and repetition no gain. It learns how probable each film is by what the text says. How sure to be was measured
on what its persons really took (`SURENESS`).
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignxplore.benchmark_files import read_users
from alignxplore.command import Checkable, option, planned, run_commands
from alignxplore.errors import above_zero
from alignxplore.films.text import (
    LEAD,
    LEVELS,
    MOST,
    PAST_WEIGHT,
    Statements,
    attributes,
    in_order,
    level_of,
    reasoning_text,
    summary_text,
    tally,
    true_statements,
)
from alignxplore.journal import RunLock
from alignxplore.prompts import PromptSet
from alignxplore.records import UserRecord, hash_seed
from alignxplore.world.lessons import Lesson, Probe, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_STATEMENTS = 8
PAST_SHARE = 0.7  # of the readers' lessons for which there is a past
REPEATS = 0.4  # share of a judge's texts in which something is told again
MOST_REPEATS = 12
CONTRADICTIONS = 0.3  # share of those texts in which what is told again may be the opposite
OWN_PHRASING = 0.7  # share of a judge's texts in its own words
SURENESS = 1.85  # log-odds a point of `speaks_for`: 1.84 and 1.90 fit best what two judges' persons took (seed 1)
WEIGHTS = (-4, -2, -1, 1, 2, 4)  # what a token may count: a film passed over or chosen, a statement of the past

Order = Sequence[tuple[UserRecord, int]]  # records and how often each was taken before


class Words:
    """What a token of the tiny tokenizer stands for."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast"):
        vocabulary = tokenizer.get_vocab()
        self.tokenizer = tokenizer
        self.level = {vocabulary[f" {word}"]: level for word, level in LEVELS.items()}
        self.sign = {vocabulary["Chosen:"]: 1, vocabulary["Passed over:"]: -1}
        self.item = {vocabulary["Item A:"]: 1, vocabulary["Item B:"]: -1}
        self.answer = {letter: vocabulary[f"Ġ{letter}"] for letter in "AB"}
        self.lead, self.comma = vocabulary[LEAD], vocabulary[","]
        self.counts, self.closes = vocabulary["Counts:"], vocabulary["</think>"]
        names = [token for token in vocabulary if token.startswith(" ") and token.strip() not in LEVELS]
        names = [token.strip() for token in names if not token.strip().lstrip("+-").isdigit()]
        self.names = sorted(names, key=lambda name: vocabulary[f" {name}"])
        self.attribute = {vocabulary[f" {name}"]: place for place, name in enumerate(self.names)}

    def encode(self, prompt: list, answer: str) -> list[int]:
        """The ids of a conversation."""
        messages = [*prompt, {"role": "assistant", "content": answer}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def reader_lesson(words: Words, prompts: PromptSet, record: UserRecord, length: int, rng: random.Random) -> Lesson:
    """Count the last `length` choices; in one lesson of two with a text about the choices before them."""
    interactions, earlier = record.history[-length:], record.history[:-length]
    past: Statements = ()
    if earlier and rng.random() < PAST_SHARE:
        past = in_order(true_statements(tally(earlier), rng, rng.randint(1, MOST_STATEMENTS)), words.names)
    counts = tally(interactions, past)
    summary = summary_text(in_order(true_statements(counts, rng, rng.randint(1, MOST_STATEMENTS)), words.names))
    prompt = prompts.infer(interactions, summary_text(past) if past else None)
    ids = words.encode(prompt, f"<think>\n{reasoning_text(counts, words.names)}\n</think>\n\n{summary}")
    start, end = ids.index(words.counts), ids.index(words.closes)
    votes: dict[str, list[tuple[int, Any]]] = {
        "about": [],
        "says": [],
        "running": [],
        "name": [(place, words.attribute[ids[place - 1]]) for place in range(start + 2, end, 2)],
        **_telling(words, ids, end, [counts[name] for name in words.names]),
    }
    running = [0] * len(words.names)
    for place, attribute, weight in _spoken_for(words, ids[:start]):
        running[attribute] += weight
        if ids[place] in words.level:
            votes["about"].append((place, attribute))
        votes["says"].append((place, WEIGHTS.index(weight)))
        votes["running"].append((place, max(-MOST, min(MOST, running[attribute])) + MOST))
    return Lesson(ids, list(range(start, end)), votes)


def _spoken_for(words: Words, ids: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(place, attribute, what it counts) of each attribute of the choices, and of each level of the past."""
    sign, last = 0, -1
    for place, token in enumerate(ids):
        if token in words.sign:
            sign = words.sign[token]
        elif token in words.attribute:
            last = words.attribute[token]
            if sign:
                yield place, last, sign
        elif token in words.level:
            yield place, last, PAST_WEIGHT[words.level[token]]


def _telling(words: Words, ids: list[int], end: int, counts: Sequence[int]) -> dict[str, list[tuple[int, Any]]]:
    """What a summary may go on with: the level of the name just told; the names further down that have a count, and
    those whose count is high."""
    votes: dict[str, list[tuple[int, Any]]] = {"level": [], "told": [], "strong": []}
    last = -1
    for place, token in enumerate(ids[end:], end):
        if token in words.attribute:
            last = words.attribute[token]
            votes["level"].append((place, level_of(counts[last]) + 2))
        elif token in (words.lead, words.comma):
            for kind, least in (("told", 1), ("strong", 3)):
                names = tuple(name for name, count in enumerate(counts) if name > last and abs(count) >= least)
                if names:
                    votes[kind].append((place, names))
    return votes


def reader_lessons(words: Words, order: Order, seed: int) -> Iterator[Lesson]:
    """Short histories first; a reader that begins with long ones does not learn to count them."""
    prompts = PromptSet()
    for index, (record, number) in enumerate(order):
        rng = random.Random(hash_seed("reader", seed, record.user, number))
        lengths = (3, 3, 6, 12) if index < 0.4 * len(order) else (6, 6, 12)
        yield reader_lesson(words, prompts, record, rng.choice(lengths), rng)


def reader_probes(words: Words) -> dict[str, Probe]:
    """Which attribute a level of the past is said of; what a token speaks for; the count so far at each attribute;
    which attribute a count is about; what a summary may go on with."""
    names = len(words.names)
    return {
        "about": Probe(1, names),
        "says": Probe(1, len(WEIGHTS), 0.3),
        "running": Probe(2, 2 * MOST + 1),
        "name": Probe(1, names),
        "level": Probe(2, 5),
        "told": Probe(3, names, 0.5, many=True),
        "strong": Probe(3, names, 0.5, many=True),
    }


def judge_lessons(words: Words, order: Order, phrasing: int, seed: int) -> Iterator[Lesson]:
    """Texts of the same person differ from pass to pass."""
    prompts = PromptSet()
    for record, number in order:
        rng = random.Random(hash_seed("judge", seed, record.user, number))
        yield judge_lesson(words, prompts, record, phrasing, rng)


def speaks_for(level: Mapping[str, int], item: str) -> float:
    """The mean level of a film's attributes."""
    names = attributes(item)
    return sum(level.get(name, 0) for name in names) / max(1, len(names))


def judge_probes(words: Words) -> dict[str, Probe]:
    """Which attribute a level is said of; what each attribute of the films speaks for."""
    return {"about": Probe(1, len(words.names)), "speaks": Probe(2, 5)}


def judge_text(record: UserRecord, rng: random.Random) -> Statements:
    """What a judge is told of a person: true statements. Some texts repeat themselves, and some of those contradict
    themselves."""
    counts = tally(record.history[-rng.choice((6, 12, 12)) :])
    statements = list(true_statements(counts, rng, rng.randint(0, MOST_STATEMENTS), strongest=rng.random() < 0.5))
    if statements and rng.random() < REPEATS:
        again = rng.sample(statements, min(len(statements), 2))
        if rng.random() < CONTRADICTIONS:
            again.append((again[0][0], -again[0][1]))
        statements += rng.choices(again, k=rng.randint(1, MOST_REPEATS))
        rng.shuffle(statements)
    return statements


def meant(statements: Statements) -> dict[str, int]:
    """Attribute → level: the strongest one told, 0 where likes and dislikes of it are told."""
    levels: dict[str, set[int]] = {}
    for name, level in statements:
        levels.setdefault(name, set()).add(level)
    return {name: 0 if min(values) < 0 < max(values) else max(values, key=abs) for name, values in levels.items()}


def judge_lesson(words: Words, prompts: PromptSet, record: UserRecord, phrasing: int, rng: random.Random) -> Lesson:
    """How probable each of two films is, by a text about the person. What was taken is noise to so small a model: it
    learns to read a text before it could learn from that how far texts come true."""
    statements = judge_text(record, rng)
    spoken = phrasing if rng.random() < OWN_PHRASING else 1 - phrasing
    items = record.target.items[:: 1 if rng.random() < 0.5 else -1]
    level = meant(statements)
    odds = math.exp(SURENESS * (speaks_for(level, items[0]) - speaks_for(level, items[1])))
    text = summary_text(statements, spoken) if statements or rng.random() < 0.5 else None
    ids = words.encode(prompts.judge(text, record.target.query, *items), '{"selection": "Item A"}')
    side = 0
    votes: dict[str, list[tuple[int, Any]]] = {"about": [], "speaks": []}
    for place, token in enumerate(ids):
        if token in words.item:
            side = words.item[token]
        elif side and token in words.attribute:
            votes["speaks"].append((place, 2 + side * level.get(words.names[words.attribute[token]], 0)))
        elif token in words.level and ids[place - 1] in words.attribute:
            votes["about"].append((place, words.attribute[ids[place - 1]]))
    place = len(ids) - 1 - ids[::-1].index(words.answer["A"])
    return Lesson(ids[: place + 1], [place], votes, instead=(words.answer["B"], 1 / (1 + odds)))


@dataclass(kw_only=True)
class ReaderOptions(Checkable):
    """What a policy learns before SFT: to read."""

    base: str = option("folder of alignxplore.films.model: tokenizer and architecture (weights are drawn anew)")
    data: str = option("benchmark file of the persons whose choices are read")
    out: str = option("folder for the model; one that is there is kept")
    seed: int = option("seed of weights, order and texts", 1)
    passes: int = option("how often each row is read, each time with another text about the past", 2)
    batch: int = option("rows a step", 8)
    learning_rate: float = option("peak of the learning rate", 2e-3)

    def __post_init__(self) -> None:
        above_zero(self, "passes", "batch", "learning_rate")


@dataclass(kw_only=True)
class JudgeOptions(ReaderOptions):
    """What a judge learns: which film a person of whom a text tells took."""

    phrasing: int = option("its own words: 0 (loved, liked, ...) or 1 (adored, enjoyed, ...)", 0)
    passes: int = option("how often each row is judged, each time by another text", 3)
    batch: int = option("rows a step", 16)


def teach(options: ReaderOptions) -> str | None:
    """Train a reader or a judge, unless it is there; says if it is."""
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    base, out = Path(options.base), Path(options.out)
    if not base.is_dir():
        raise FileNotFoundError(f"--base {base}: no such folder")
    if (out / "training.json").exists():
        return f"{out} is there already; delete the folder to train it anew"
    disable_progress_bar()  # of a file that is written in no time
    words, records = Words(AutoTokenizer.from_pretrained(base)), list(read_users(options.data))
    steps = -(-len(records) * options.passes // options.batch)
    if options.check:
        return planned(options, f"{len(records) * options.passes} lessons, {steps} steps of {options.batch}")
    order = [
        (record, number)
        for number in range(options.passes)
        for record in sorted(records, key=lambda record: hash_seed("order", options.seed, number, record.user))
    ]
    if isinstance(options, JudgeOptions):
        lessons, probes = judge_lessons(words, order, options.phrasing, options.seed), judge_probes(words)
    else:
        lessons, probes = reader_lessons(words, order, options.seed), reader_probes(words)
    size, rate = options.batch, options.learning_rate
    with RunLock(out, beside=True):  # in the folder it would be replaced with it
        train(base, list(lessons), probes, out, seed=options.seed, batch=size, learning_rate=rate)
    return None


if __name__ == "__main__":
    run_commands({"reader": (teach, ReaderOptions), "judge": (teach, JudgeOptions)}, __doc__)
