"""Teach the tiny models of the quick start what Qwen3 brings along: to count choices (the reader), to use a text (the
judges).

    python -m alignxplore.films.lessons reader --base models/blank --data data/policy.jsonl --out models/base --seed 1
    python -m alignxplore.films.lessons judge --base models/blank --data data/judge.jsonl --out models/judge --seed 11

A crutch of these models: linear probes on inner layers learn along, and are thrown away afterwards (deep supervision,
as in `alignxplore/world/lessons.py`). The reader learns the counts of its reasoning and no answer: it has not learnt
to write a summary. A judge learns which film was really taken, from texts of no to eight statements, some of which are
told twice, so that brevity is no handicap and repetition no gain.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignxplore.command import Checkable, option, planned, run_commands
from alignxplore.films.text import (
    LEVELS,
    MOST,
    PAST_WEIGHT,
    Statements,
    attributes,
    level_of,
    reasoning_text,
    summary_text,
    tally,
    true_statements,
)
from alignxplore.prompts import PromptSet
from alignxplore.records import UserRecord, hash_seed, read_users
from alignxplore.world.lessons import Lesson, Probe, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_STATEMENTS = 8


class Words:
    """What a token of the tiny tokenizer stands for."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast"):
        vocabulary = tokenizer.get_vocab()
        self.tokenizer = tokenizer
        self.verb = {vocabulary[form]: level for word, level in LEVELS.items() for form in (word, f" {word}")}
        self.sign = {vocabulary["Chosen:"]: 1, vocabulary["Passed over:"]: -1}
        self.item = {vocabulary["Item A:"]: 1, vocabulary["Item B:"]: -1}
        self.answer = {letter: vocabulary[f"Ġ{letter}"] for letter in "AB"}
        self.comma = vocabulary[","]
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
    """Count the last `length` choices; in one lesson of three with a text about the choices before them."""
    shown, earlier = record.history[-length:], record.history[:-length]
    past: Statements = ()
    if earlier and rng.random() < PAST_SHARE:
        past = true_statements(tally(earlier), rng, rng.randint(1, MOST_STATEMENTS))
    counts = tally(shown, past)
    prompt = prompts.infer(shown, summary_text(past) if past else None)
    told = summary_text(true_statements(counts, rng, rng.randint(1, MOST_STATEMENTS)))
    ids = words.encode(prompt, f"<think>\n{reasoning_text(counts, words.names)}\n</think>\n\n{told}")
    start, end = ids.index(words.counts), ids.index(words.closes)
    votes: dict[str, list[tuple[int, Any]]] = {"says": [], "running": [], "name": [], "untold": []}
    running, weight, kind = [0] * len(words.names), 0, 0
    kinds = {level: 2 + place for place, level in enumerate(sorted(PAST_WEIGHT))}
    for place, token in enumerate(ids[:start]):
        if token in words.sign:
            weight, kind = words.sign[token], int(words.sign[token] > 0)
        elif token in words.verb:
            weight, kind = PAST_WEIGHT[words.verb[token]], kinds[words.verb[token]]
        elif token in words.attribute:
            running[words.attribute[token]] += weight
            count = max(-MOST, min(MOST, running[words.attribute[token]]))
            votes["says"].append((place, kind))
            votes["running"].append((place, count + MOST))
    for place in range(start + 2, end, 2):
        votes["name"].append((place, words.attribute[ids[place - 1]]))
    level, left = 0, {place: level_of(counts[name]) for place, name in enumerate(words.names)}
    for place, token in enumerate(ids[end:], end):
        if token in words.verb:
            level = words.verb[token]
        elif token in words.attribute:
            left[words.attribute[token]] = 0
        elif token != words.comma:
            continue
        if token not in words.attribute:
            votes["untold"].append((place, tuple(name for name, found in left.items() if found == level)))
    return Lesson(ids, list(range(start, end)), votes)


def reader_lessons(words: Words, prompts: PromptSet, records: Sequence[UserRecord], seed: int) -> Iterator[Lesson]:
    """Short histories first; a reader that begins with long ones does not learn to count them."""
    for index, record in enumerate(records):
        rng = random.Random(hash_seed("reader", seed, record.user))
        lengths = (3, 3, 6, 12) if index < 0.4 * len(records) else (6, 6, 12)
        yield reader_lesson(words, prompts, record, rng.choice(lengths), rng)


def reader_probes(words: Words) -> dict[str, Probe]:
    """What a token speaks for; the count so far at each attribute; which attribute a count is about."""
    kinds = len(words.sign) + len(PAST_WEIGHT)
    return {
        "says": Probe(1, kinds, 0.3),
        "running": Probe(2, 2 * MOST + 1),
        "name": Probe(1, len(words.names)),
        "untold": Probe(2, len(words.names), 2.0, many=True),
    }


def judge_text(record: UserRecord, phrasing: int, rng: random.Random) -> Statements:
    """What a judge is told of a person: true statements, of which some are told twice."""
    counts = tally(record.history[-rng.choice((6, 12, 12)) :])
    told = list(true_statements(counts, rng, rng.randint(0, MOST_STATEMENTS), strongest=rng.random() < 0.5))
    if told and rng.random() < REPEATS:
        told += rng.choices(told, k=rng.randint(1, 3))
    return told


def judge_lesson(words: Words, prompts: PromptSet, record: UserRecord, phrasing: int, rng: random.Random) -> Lesson:
    """Which of two films was taken, by a text about the person."""
    told = judge_text(record, phrasing, rng)
    spoken = phrasing if rng.random() < OWN_PHRASING else 1 - phrasing
    first = rng.random() < 0.5
    items = record.target.items[:: 1 if first else -1]
    letter = "A" if first else "B"
    text = summary_text(told, spoken) if told or rng.random() < 0.5 else None
    ids = words.encode(prompts.judge(text, record.target.query, *items), f'{{"selection": "Item {letter}"}}')
    level, side, votes = dict(told), 0, []
    for place, token in enumerate(ids):
        if token in words.item:
            side = words.item[token]
        elif side and token in words.attribute:
            votes.append((place, 2 + side * level.get(words.names[words.attribute[token]], 0)))
    place = len(ids) - 1 - ids[::-1].index(words.answer[letter])
    return Lesson(ids[: place + 1], [place], {"speaks": votes})


PAST_SHARE = 0.5  # of the readers' lessons for which there is a past
REPEATS = 0.3  # share of a judge's texts in which something is told twice
OWN_PHRASING = 0.7  # share of a judge's texts in its own words
