"""Rows for RL, and for SFT where no synthesis is wanted, of persons' windows.

    python -m alignxplore.films.rows rl --data data/policy.jsonl --out data/rl_train.jsonl
    python -m alignxplore.films.rows sft --data data/policy.jsonl --out data/sft.jsonl --names_of models/blank

An RL row is a window with its target: stage 1 reads the first half and foresees the next choice, stage 2 the second
half and foresees the target. SFT rows are what the teacher (`teacher.py`) says of windows: of a whole one, or of both
stages of a stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from alignxplore.command import option, run_commands
from alignxplore.films.lessons import MOST_STATEMENTS, Words
from alignxplore.films.teacher import answer
from alignxplore.prompts import Messages, PromptSet, parse_answer
from alignxplore.records import UserRecord, hash_seed, read_users, write_jsonl


@dataclass(kw_only=True)
class RlOptions:
    """Which windows become RL rows."""

    data: str = option("benchmark file whose rows are windows")
    out: str = option("file for the RL rows")
    limit: int | None = option("so many of them, drawn by a hash", None)
    seed: int = option("seed of that draw", 1)


@dataclass(kw_only=True)
class SftOptions(RlOptions):
    """Which windows the teacher describes."""

    names_of: str = option("folder of a tiny model, whose tokenizer names the attributes")


def drawn(options: RlOptions) -> list[UserRecord]:
    """The windows, in the order of a hash."""
    records = sorted(read_users(options.data), key=lambda record: hash_seed("rows", options.seed, record.user))
    return records[: options.limit]


def rl_rows(records: Sequence[UserRecord]) -> Iterator[dict]:
    """Rows of the RL contract."""
    for record in records:
        history = [asdict(interaction) for interaction in (*record.history, record.target)]
        yield {"uid": record.user, "history": history, "mid_position": len(record.history) // 2}


def sft_rows(records: Sequence[UserRecord], names: list[str], seed: int) -> Iterator[dict]:
    """By turns a row about a whole window, and two rows about its halves, the second with the first as past."""
    prompts = PromptSet()

    def row(prompt: Messages, key: str) -> tuple[dict, str]:
        text = answer(prompt[-1]["content"], hash_seed(seed, key), names, MOST_STATEMENTS) or ""
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": text}]}, parse_answer(text).summary

    for index, record in enumerate(records):
        half = len(record.history) // 2
        if index % 2:
            yield row(prompts.infer(record.history), record.user)[0]
            continue
        first, past = row(prompts.infer(record.history[:half]), f"{record.user} 1")
        yield first
        yield row(prompts.infer(record.history[half:], past), f"{record.user} 2")[0]


def write_rl(options: RlOptions) -> str:
    """Write RL rows; says how many."""
    return f"{options.out}: {write_jsonl(options.out, rl_rows(drawn(options)))} RL rows"


def write_sft(options: SftOptions) -> str:
    """Write SFT rows; says how many."""
    from transformers import AutoTokenizer

    names = Words(AutoTokenizer.from_pretrained(options.names_of)).names
    return f"{options.out}: {write_jsonl(options.out, sft_rows(drawn(options), names, options.seed))} SFT rows"


if __name__ == "__main__":
    run_commands({"rl": (write_rl, RlOptions), "sft": (write_sft, SftOptions)}, __doc__)
