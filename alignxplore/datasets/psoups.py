"""Personalized Soups → records, in the form that AlignX-Family gave it: Info., Style and Expertise.

    python -m alignxplore.datasets build friendly_unfriendly --raw DIR --out friendly_unfriendly_upi.jsonl

Each file holds two opposite personas and prompts that repeat a lot: 600 rows of Style have 128 distinct targets, so
intervals must be clustered by target (eval does).
"""

from collections.abc import Iterator
from pathlib import Path

from alignxplore.datasets.alignx import feedback_rows
from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.selection import build_records


def sources(job: Job) -> list[Path]:
    """The raw file that `build` reads, named like the data set; FileNotFoundError if it is not there, ValueError
    if there are several."""
    return [job.only(job.find(f"{job.dataset.name}.json", f"{job.dataset.name}.jsonl"), "files")]


def build(job: Job) -> Iterator[Example]:
    """Records of this file."""
    (path,) = sources(job)
    return build_records(feedback_rows(path, job), job)
