"""What the builders' tests share: run a builder, check what holds for every benchmark."""

import importlib
from pathlib import Path

from alignxplore.datasets import get
from alignxplore.datasets.building import Example, Job

ROOT = Path(__file__).parents[2]
MOVIELENS = ROOT / "data" / "movielens" / "ml-latest-small"


def run(name: str, raw: Path, **options) -> tuple[list[Example], Job]:
    """All examples of a builder, and its job with the counts."""
    job = Job(get(name), raw, scratch=raw, **options)
    module = importlib.import_module(f"alignxplore.datasets.{job.dataset.module}")
    return list(module.build(job)), job


def check_rows(examples: list[Example]) -> None:
    """What holds for every benchmark: users once each, nothing of the target in the history, chosen is not rejected."""
    users = [example.record.user for example in examples]
    assert len(users) == len(set(users))
    for record, _ in examples:
        assert record.history
        assert not record.leaked
        for pair in (*record.history, record.target):
            assert pair.chosen.strip() and pair.chosen != pair.rejected
        assert record.target.rejected
