"""A teacher for films behind an OpenAI-compatible server: a rule that counts, in the place of a 32B model.

    python -m alignxplore.films.teacher --port 8778 --names_of models/blank     # until Ctrl-C or a TERM signal
    python sft/synthesize.py --teacher teacher=http://127.0.0.1:8778/v1#models/blank ...

It says of a person what the choices in the prompt show, and nothing else. The counts are its reasoning. Then it writes
one to eight true statements, any of them, and always what bears on a hint. Of what several annotators conclude it
keeps what most of them say, again eight statements at most and any of them. So its summaries are true, and leave out
things that matter. They are drawn from the prompt and the request's seed.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass

from alignxplore.command import option, run
from alignxplore.errors import check_port
from alignxplore.films.lessons import MOST_STATEMENTS, Words
from alignxplore.films.text import (
    Statements,
    attributes,
    in_order,
    level_of,
    read_summary,
    reasoning_text,
    summary_text,
    tally,
    true_statements,
)
from alignxplore.records import Interaction, hash_seed
from alignxplore.world.oracle import PAST, chat_app, serve_app

CHOICE = re.compile(r"^Chosen: (.*)(?:\nPassed over: (.*))?$", re.MULTILINE)
HINTED = re.compile(r"^Item [AB]: (.*)$", re.MULTILINE)
CONCLUDED = re.compile(r"^Annotator \d+ concluded:\n(.*)$", re.MULTILINE)
REASONED = re.compile(r"^Annotator 1 reasoned:\n(.*)$", re.MULTILINE)


@dataclass(kw_only=True)
class TeacherOptions:
    """Where it listens, and the words that it has."""

    names_of: str = option("folder of a tiny model, whose tokenizer names the attributes")
    port: int = option("port at 127.0.0.1", 8778)
    most: int = option("most statements of one summary", MOST_STATEMENTS)

    def __post_init__(self) -> None:
        check_port(self.port)


def merge(prompt: str, most: int, rng: random.Random) -> tuple[str, Statements]:
    """(reasoning, statements) of what most annotators say, as strongly as any of these says it; nothing of that about
    which as many say the opposite; `most` in all, any of them."""
    levels: defaultdict[str, list[int]] = defaultdict(list)
    for summary in CONCLUDED.findall(prompt):
        for name, level in dict(read_summary(summary)).items():
            levels[name].append(level)
    votes = {name: sum(1 if level > 0 else -1 for level in values) for name, values in levels.items()}
    agreed = [(name, (max if votes[name] > 0 else min)(levels[name])) for name in levels if votes[name]]
    statements = rng.sample(agreed, min(most, len(agreed)))
    reasoned = REASONED.search(prompt)
    return reasoned[1] if reasoned else "", statements


def answer(prompt: str, seed: int, names: list[str], most: int) -> str | None:
    """The teacher's answer to one prompt of the default set; None for a prompt that is none of its kinds."""
    rng = random.Random(hash_seed("teacher", prompt, seed))
    if "Annotator 1 concluded:" in prompt:
        reasoning, statements = merge(prompt, most, rng)
        return (
            f"<joined_reasoning>\n{reasoning}\n</joined_reasoning>\n"
            f"<joined_description>\n{summary_text(in_order(statements, names))}\n</joined_description>"
        )
    choices = [Interaction(chosen, rejected or None) for chosen, rejected in CHOICE.findall(prompt)]
    if not choices:
        return None
    past = PAST.search(prompt)
    counts = tally(choices, read_summary(past[1]) if past else ())
    bearing = {name for item in HINTED.findall(prompt) for name in attributes(item) if counts[name]}
    statements = true_statements(counts, rng, rng.randint(1, most))
    statements = [*statements, *((name, level_of(counts[name])) for name in bearing - dict(statements).keys())]
    return f"<think>\n{reasoning_text(counts, names)}\n</think>\n\n{summary_text(in_order(statements, names))}"


def serve(options: TeacherOptions) -> None:
    """Answer until Ctrl-C or a TERM signal."""
    from transformers import AutoTokenizer

    names = Words(AutoTokenizer.from_pretrained(options.names_of)).names
    refusal = "this teacher reads prompts of the default set about films"
    app = chat_app("teacher", lambda prompt, seed: answer(prompt, seed, names, options.most), refusal)
    serve_app(app, "teacher", options.port)


if __name__ == "__main__":
    run(serve, TeacherOptions, __doc__)
