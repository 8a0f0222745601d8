"""The files of a finished synthesis."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from alignxplore.journal import Journal
from alignxplore.records import write_json, write_jsonl
from alignxplore.synthesis.funnel import Funnel, plot
from alignxplore.synthesis.rounds import DONE

EXAMPLES = 5  # failures of each kind that are kept for reading


def with_texts(row: dict, calls: Journal) -> dict:
    """A user's row with what the teacher wrote, as it was written, beside each of its drafts and merges."""
    for note in row["rounds"]:
        for entry in (*note.get("drafts", ()), *([note["merge"]] if "merge" in note else ())):
            entry["text"] = calls[entry["call"]]["text"] if entry["call"] in calls else None
    return row


def write_outputs(folder: Path, rows: Iterable[dict], calls: Journal) -> dict:
    """sft.jsonl, failures.jsonl, funnel.json and funnel.png from the finished users, in one pass; returns the
    funnel."""
    funnel = Funnel()
    failures: dict[str, list[dict]] = {}

    def sft_rows() -> Iterator[dict]:
        for row in rows:
            funnel.add(row)
            if row["outcome"] != DONE and len(examples := failures.setdefault(row["outcome"], [])) < EXAMPLES:
                examples.append(with_texts(row, calls))
            yield from row["rows"]

    write_jsonl(folder / "sft.jsonl", sft_rows())
    write_jsonl(folder / "failures.jsonl", (row for outcome in sorted(failures) for row in failures[outcome]))
    counts = funnel.counts()
    write_json(folder / "funnel.json", counts)
    plot(counts, folder / "funnel.png")
    return counts
