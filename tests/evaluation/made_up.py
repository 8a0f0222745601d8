"""Scores and runs of known numbers, for tests of the tables."""

import random

from alignxplore.datasets import PUBLISHED

JUDGE = "Qwen3-8B (non-thinking)"


def scores(
    policy: str, benchmark: str, n: int, share: float, *, setting="full", judge="qwen", protocol="paper", seeds=(0,)
) -> list[dict]:
    """`n` records, one person each, of which a share is right."""
    rng = random.Random(f"{policy} {benchmark} {setting}")
    return [
        {
            "policy": policy,
            "setting": setting,
            "benchmark": benchmark,
            "judge": judge,
            "protocol": protocol,
            "seed": seed,
            "record": f"r{i}",
            "user": f"u{i}",
            "target": f"t{i}",
            "item": f"t{i}",
            "value": float(rng.random() < share),
            "outcome": "ok",
        }
        for seed in seeds
        for i in range(n)
    ]


def run_of(names: dict | None = None, **sizes: int) -> dict:
    return {
        "benchmarks": {
            name: {"n": n, "target_in_history": 0, "built": None, "hub": f"{PUBLISHED}@abc"}
            for name, n in sizes.items()
        },
        "judges": {"qwen": {"identity": "x", "format": "plain"}},
        "policies": {},
        "versions": {},
        "commit": None,
        "prompt_hashes": {},
        "published_names": names or {"judges": {"qwen": JUDGE}, "policies": {"ours": "AlignXplore+"}},
    }


def built(edition="", protocol="published", min_interactions=2, split="all", taken_out=0) -> dict:
    return {
        "edition": edition,
        "protocol": protocol,
        "min_interactions": min_interactions,
        "split": split,
        "taken_out": taken_out,
    }
