"""Scores and runs of known numbers, for tests of the tables."""

import random
from dataclasses import replace

from alignxplore.datasets import PUBLISHED
from alignxplore.evaluation.answers import Answer
from alignxplore.evaluation.published import STAGES
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.worth import Score

JUDGE = "Qwen3-8B (non-thinking)"


SCORE = Score(
    policy="ours",
    setting="full",
    benchmark="mind",
    judge="qwen",
    protocol="choice",
    record="r0",
    user="u0",
    target="t0",
    item="t0",
    value=1.0,
    outcome="ok",
)


def score(**fields) -> Score:
    """One score, right unless something else is said."""
    return replace(SCORE, **fields)


def answered(row_lists: list[list[dict | None]]) -> list[list[Answer | None]]:
    """Journal rows as the answers to each question."""
    return [[None if row is None else Answer.of(row) for row in rows] for rows in row_lists]


def scores(
    policy: str, benchmark: str, n: int, share: float, *, setting="full", judge="qwen", protocol="paper", seeds=(0,)
) -> list[Score]:
    """`n` records, one person each, of which a share is right."""
    rng = random.Random(f"{policy} {benchmark} {setting}")
    return [
        score(
            policy=policy,
            setting=setting,
            benchmark=benchmark,
            judge=judge,
            protocol=protocol,
            seed=seed,
            record=f"r{i}",
            user=f"u{i}",
            target=f"t{i}",
            item=f"t{i}",
            value=float(rng.random() < share),
            shown_otherwise=False,
        )
        for seed in seeds
        for i in range(n)
    ]


def written(stages=1, window=16384, prompt_set="published", fit="ours", not_sent=(), **sampling) -> dict:
    """The recipe of a set of summaries, as published but for what is said."""
    published = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096, "seed": 0, "form": "think"}
    recipe = {"stages": stages, "window": window, "prompt_set": prompt_set, "fit": fit, "not_sent": not_sent}
    return recipe | {"sampling": published | sampling, "identity": "x", "prompt_hash": "0"}


def run_of(names: dict | None = None, **sizes: int) -> dict:
    """A run of these sizes in which nothing differs from the published one."""
    sets = {f"{name}.{setting}.s0": written(stages) for name in sizes for setting, stages in STAGES.items()}
    return {
        "benchmarks": {
            name: {"n": n, "target_in_history": 0, "built": None, "hub": f"{PUBLISHED}@abc"}
            for name, n in sizes.items()
        },
        "judges": {"qwen": {"identity": "Qwen/Qwen3-8B@abc", "format": "plain", "answer_tokens": 16}},
        "policies": {"ours": {"identity": "x", "sets": sets}},
        "prompt_set": "published",
        "versions": {},
        "commit": None,
        "prompt_hashes": {},
        "published_names": names or {"judges": {"qwen": JUDGE}, "policies": {"ours": "AlignXplore+"}},
    }


def built(edition="", protocol="published", min_interactions=2, split="all", removals=0) -> dict:
    return {
        "edition": edition,
        "protocol": protocol,
        "min_interactions": min_interactions,
        "split": split,
        "taken_out": removals,
    }


def numbers(score_list: list[Score]) -> list[dict]:
    """The results of some scores, as rows of results.json."""
    return [result.row() for result in result_rows(score_list)]
