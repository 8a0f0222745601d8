"""The files of the simulated world, in the contracts of the real data; `python -m alignxplore.world` writes them.

`users.py` says how users choose, `text.py` how it is put into words.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignxplore.benchmark_files import user_row
from alignxplore.command import Checkable, option, planned
from alignxplore.errors import at_least_one
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, UserRecord, hash_seed, write_json, write_jsonl
from alignxplore.world.reader import foresee
from alignxplore.world.text import ATTRIBUTES, DOMAINS, Phrase, Statement, reasoning_text, summary_text
from alignxplore.world.users import (
    SHARPNESS,
    Choice,
    Preferences,
    User,
    draw_choice,
    draw_stream,
    draw_user,
    faulty_statements,
    render_summary,
    tally,
)

HISTORY = 12  # interactions a user has before the target
ONE_SIDED = 0.25  # share of SFT users of whom only the chosen items are known
ERROR_RATE, GAP_RATE = 0.25, 0.10  # fixed beforehand: about a third of the SFT statements is wrong or missing


@dataclass(kw_only=True)
class WorldOptions(Checkable):
    """How many of what."""

    out: str = option("folder that gets the files")
    seed: int = option("another seed gives another world: other users, choices and texts", 1)
    train_users: int = option("users for RL", 2000)
    val_users: int = option("users for validation during training", 200)
    test_users: int = option("users of the two benchmarks", 600)
    sft_users: int = option("users whose summaries SFT imitates; three rows each", 1500)
    error_rate: float = option("share of SFT statements that are the wrong way round", ERROR_RATE)
    gap_rate: float = option("share of SFT statements that are left out", GAP_RATE)
    reader_rows: int = option("rows from which the untrained policy learns to read", 4000)
    judge_rows: int = option("rows for each of the two judges; one user each", 12000)
    direct_share: float = option("share of judge rows with a raw history instead of a summary", 0.15)
    prompt_set: str = option("prompt set of the SFT and judge rows: a name or a folder", "default")

    def __post_init__(self) -> None:
        at_least_one(self, "train_users", "val_users", "test_users")
        if self.error_rate < 0 or self.gap_rate < 0 or self.error_rate + self.gap_rate > 1:
            raise ValueError("--error_rate and --gap_rate are shares; together they can be at most 1")


def benchmark(seed: int, split: str, domain: str | None, users: int) -> Iterator[tuple[dict, list[Choice]]]:
    """Rows of the benchmark contract, each with what stands behind its choices. `domain` None: drawn for each user."""
    for index in range(users):
        user = draw_user(seed, split, index)
        choices = draw_stream(user, domain or _domain(user), HISTORY + 1, HISTORY // 2, seed)
        interactions = [choice.interaction for choice in choices]
        persona = render_summary(user.late, random.Random(hash_seed("persona", user.name)))
        yield user_row(UserRecord(user.name, tuple(interactions[:-1]), interactions[-1], persona)), choices


def rl_rows(seed: int, split: str, users: int) -> Iterator[dict]:
    """Rows of the RL contract: the first target closes the early part, the second one the late part."""
    middle = HISTORY // 2
    for index in range(users):
        user = draw_user(seed, split, index)
        choices = draw_stream(user, _domain(user), HISTORY + 1, middle + 1, seed)
        history = [
            {"query": c.interaction.query, "chosen": c.interaction.chosen, "rejected": c.interaction.rejected}
            for c in choices
        ]
        yield {"uid": user.name, "history": history, "mid_position": middle}


def sft_rows(seed: int, users: int, error_rate: float, gap_rate: float, prompts: PromptSet) -> Iterator[dict]:
    """Per user three rows: a short history, and then by turns both stages of a stream or all of the history at once.

    The reasoning reports honestly what the choices show; the errors and gaps are in the conclusions and, as they would
    be in use, in the past summary of stage 2. Of one user in four only what was chosen is known. (Short and one-sided
    histories are where a small model learns to count.)
    """
    half = HISTORY // 2
    for index in range(users):
        user = draw_user(seed, "sft", index)
        rng = random.Random(hash_seed("sft text", seed, index))
        choices = draw_stream(user, _domain(user), HISTORY, half, seed)
        one_sided = rng.random() < ONE_SIDED
        early = render_summary(user.early, rng, error_rate, gap_rate)
        short = choices[: rng.randint(1, half - 1)]
        rows: list[tuple[list[Choice], str | None, str]] = [
            (short, None, render_summary(user.early, rng, error_rate, gap_rate))
        ]
        if index % 3:
            rows.append((choices[:half], None, early))
            rows.append((choices[half:], early, render_summary(user.late, rng, error_rate, gap_rate)))
        else:
            rows.append((choices, None, render_summary(user.late, rng, error_rate, gap_rate)))
        for stretch, past, summary in rows:
            interactions = [
                Interaction(c.interaction.chosen, None if one_sided else c.interaction.rejected) for c in stretch
            ]
            answer = f"<think>\n{reasoning_text(tally(stretch, one_sided))}\n</think>\n\n{summary}"
            yield _sft_row(prompts.infer(interactions, past), answer)


def reader_rows(seed: int, rows: int, prompts: PromptSet) -> Iterator[dict]:
    """Rows that teach the untrained policy to read: what a stretch of choices shows, attribute by attribute.

    `votes` says of each phrase which value it speaks for: its own where it was chosen, the opposite where passed over.
    Only the findings are learnt, neither the form of an answer nor how to write a summary.
    """
    opposite = {value: other for pair in ATTRIBUTES.values() for value, other in (pair, pair[::-1])}
    for index in range(rows):
        user = draw_user(seed, "reader", index)
        rng = random.Random(hash_seed("reader text", seed, index))
        length = rng.choice((HISTORY // 3, HISTORY // 2, HISTORY // 2, HISTORY))
        choices = draw_stream(user, _domain(user), length, length // 2, seed)
        past = render_summary(user.early, rng) if rng.random() < 0.3 else None
        findings = reasoning_text(tally(choices))
        votes = [
            (words, value if taken else opposite[value])
            for choice in choices
            for taken, phrases in ((True, choice.phrases[0]), (False, choice.phrases[1]))
            for value, words in phrases
            if value
        ]
        row = _sft_row(
            prompts.infer([choice.interaction for choice in choices], past), f"<think>\n{findings}\n</think>\n\n-"
        )
        yield row | {"votes": votes, "after": "oldest first:", "learn": findings.partition("Chosen by")[2]}


def judge_rows(
    seed: int, split: str, rows: int, direct_share: float, phrasing: str, prompts: PromptSet
) -> Iterator[dict]:
    """Rows that teach a judge to foresee a choice: from a preference text, or for a share of rows from the history.

    One text in five is faulty, with a share of errors and gaps of its own, and one in twenty says nothing, so that the
    judge's confidence is that of someone who has met such texts. Either item may be the chosen one. `votes` says of
    each phrase of the two items which letter it speaks for, as far as the text tells (`lessons.py` learns from
    it).
    """
    for index in range(rows):
        user = draw_user(seed, split, index)
        rng = random.Random(hash_seed("judge text", seed, split, index))
        domain = rng.choice(DOMAINS)
        target = draw_choice(user.late, domain, rng)
        chosen_first = rng.random() < 0.5
        phrases = target.phrases[:: 1 if chosen_first else -1]
        item_a, item_b = target.interaction.items if chosen_first else target.interaction.items[::-1]
        if rng.random() < direct_share:
            length = rng.randint(4, HISTORY)
            interactions = [choice.interaction for choice in draw_stream(user, domain, length, length // 2, seed)]
            statements: Sequence[Statement] = list(user.late.values())
            messages = prompts.direct(interactions, None, item_a, item_b)
        else:
            statements, text = _judge_text(user.late, rng, phrasing)
            messages = prompts.judge(text, None, item_a, item_b)
        answer = f'{{"selection": "Item {"A" if chosen_first else "B"}"}}'
        votes = _votes(phrases[0], statements, "AB") + _votes(phrases[1], statements, "BA")
        yield _sft_row(messages, answer) | {
            "votes": votes,
            "after": "\nItem A: ",
            "learn": f" {'A' if chosen_first else 'B'}",
        }


def _votes(phrases: Sequence[Phrase], statements: Sequence[Statement], letters: str) -> list[tuple[str, str]]:
    """(words, letter they speak for) of an item's phrases: its own letter if liked, the other one if disliked, else
    none."""
    verdict = {
        value: letter
        for liked, disliked, _ in statements
        for value, letter in ((liked, letters[0]), (disliked, letters[1]))
    }
    return [(words, verdict.get(value, "none")) for value, words in phrases]


def _judge_text(preferences: Preferences, rng: random.Random, phrasing: str) -> tuple[list[Statement], str | None]:
    """What a judge is told of a user, as statements and as a text (None: nothing)."""
    kind = rng.random()
    if kind < 0.05:
        return [], None
    error_rate, gap_rate = (rng.uniform(0, 0.2), rng.uniform(0, 0.5)) if kind < 0.25 else (0.0, 0.0)
    statements = faulty_statements(preferences, rng, error_rate, gap_rate)
    return statements, summary_text(statements, rng, phrasing)


def _domain(user: User) -> str:
    """The one domain of a user that stands in one file only."""
    return DOMAINS[hash_seed("domain", user.name) % len(DOMAINS)]


def _sft_row(prompt: Messages, answer: str) -> dict:
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}


def write_world(args: WorldOptions) -> dict:
    """Write all files; returns the content of world.json."""
    prompts, out = PromptSet(args.prompt_set), Path(args.out)
    report: dict = {
        "settings": {name: value for name, value in asdict(args).items() if name not in ("out", "check")},
        "sharpness": SHARPNESS,
        "history": HISTORY,
        "benchmarks": {},
    }
    for name, split, domain, users in (
        ("train_users", "train", None, args.train_users),
        ("val_users", "val", None, args.val_users),
        ("test_films_upi", "test", "films", args.test_users),
        ("test_news_upi", "test", "news", args.test_users),
    ):
        rows, streams = zip(*benchmark(args.seed, split, domain, users))
        write_jsonl(out / f"{name}.jsonl", rows)
        report["benchmarks"][name] = ceilings(streams)
    write_jsonl(out / "rl_train.jsonl", rl_rows(args.seed, "train", args.train_users))
    write_jsonl(out / "rl_val.jsonl", rl_rows(args.seed, "val", args.val_users))
    write_jsonl(out / "sft.jsonl", sft_rows(args.seed, args.sft_users, args.error_rate, args.gap_rate, prompts))
    write_jsonl(out / "reader.jsonl", reader_rows(args.seed, args.reader_rows, prompts))
    for name, phrasing in (("judge", "plain"), ("judge2", "vivid")):
        rows = judge_rows(args.seed, name, args.judge_rows, args.direct_share, phrasing, prompts)
        write_jsonl(out / f"{name}.jsonl", rows)
    write_json(out / "world.json", report)
    return report


def ceilings(streams: Sequence[Sequence[Choice]]) -> dict:
    """What can be reached in a benchmark of these users, whose last choices are the targets; shares with 95 %
    intervals (normal).

    `best_accuracy`: a reader of the true preferences at the time of the target. `history_accuracy`: the ideal reader
    of the history (`reader.py`). `expected_best_accuracy`: the first of them, averaged over the users' own
    noise.
    """
    best = [float(stream[-1].followed) for stream in streams]
    read = [foresee(stream[:-1], HISTORY // 2, stream[-1]) for stream in streams]
    return {
        "n": len(streams),
        "chance": 0.5,
        **_share("best_accuracy", "ci", best),
        **_share("history_accuracy", "history_ci", [0.5 if abs(p - 0.5) < 1e-9 else float(p > 0.5) for p in read]),
        "expected_best_accuracy": sum(stream[-1].certainty for stream in streams) / len(streams),
    }


def _share(name: str, interval: str, scores: Sequence[float]) -> dict:
    mean = sum(scores) / len(scores)
    half = 1.96 * (mean * (1 - mean) / len(scores)) ** 0.5
    return {name: mean, f"{interval}_low": max(0.0, mean - half), f"{interval}_high": min(1.0, mean + half)}


def make_world(options: WorldOptions) -> str:
    """Write all files; says how far a reader can come in each benchmark."""
    if options.check:
        PromptSet(options.prompt_set)
        return planned(options)
    return "\n".join(
        f"{name:15} {row['n']:5} users, best possible accuracy {100 * row['best_accuracy']:.1f} % "
        f"(from the history alone {100 * row['history_accuracy']:.1f} %), chance 50 %"
        for name, row in write_world(options)["benchmarks"].items()
    )
