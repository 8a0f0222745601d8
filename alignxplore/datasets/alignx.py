"""AlignX → records: a row's pair-wise feedback is the history, its own pair the target. P-Soups has the same rows.

    python -m alignxplore.datasets build alignx --raw DIR --out alignx_upi.jsonl

Reads the JSON, JSONL or parquet files of AlignX or AlignX-test. Rows carry no user: each is a user of its own, named
by its content.
"""

from collections.abc import Iterator
from pathlib import Path

from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.rows import read_rows, text_field
from alignxplore.datasets.selection import Row, build_records
from alignxplore.records import Interaction, RecordError, content_hash

HISTORY = "Pair-wise Comparative Feedback"


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads; FileNotFoundError for another layout."""
    files = job.find("*.json", "*.jsonl", "*.json.gz", "*.jsonl.gz", "*.parquet")
    if not files:
        raise job.unknown_layout()
    return files


def build(job: Job) -> Iterator[Example]:
    """Records of all files in the raw folder."""
    return build_records((row for path in sources(job) for row in feedback_rows(path, job)), job)


def feedback_rows(path: Path, job: Job) -> Iterator[Row]:
    """Rows with prompt, chosen, rejected and the feedback; the persona under any of the names that editions use."""
    for number, row in read_rows(path, job):
        if not isinstance(row.get(HISTORY), list):
            raise RecordError("expected a list of {prompt, chosen, rejected}", path, number, HISTORY)
        history = [_pair(x, path, number) for x in row[HISTORY]]
        target = _pair(row, path, number)
        names = ("ground_truth_persona", "profile_full", "Demographic Information")
        persona = next((row[name] for name in names if isinstance(row.get(name), str) and row[name]), None)
        # The persona groups rows only where it is one of a few: P-Soups names it, AlignX describes each user anew.
        user = content_hash([[[x.query, x.chosen, x.rejected] for x in (*history, target)], persona])
        yield Row(user, history, target, persona, row.get("ground_truth_persona") or "")


def _pair(row: object, path: Path, number: int) -> Interaction:
    if not isinstance(row, dict):
        raise RecordError(f"expected an object, found {type(row).__name__}", path, number, HISTORY)
    prompt, chosen, rejected = (text_field(row, key, path, number) for key in ("prompt", "chosen", "rejected"))
    return Interaction(chosen, rejected, prompt)
