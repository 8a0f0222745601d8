"""The log of a training run: a JSONL file with one row or several for each step, which goes on after a crash.

    log = StepLog(out / "log.jsonl")
    log.keep_until(10)                       # this run goes on after step 10, and does later ones again
    log.append({"step": 11, "loss": 0.5})

Units that are finished in any order have ids, and a journal (alignxplore/journal.py). Steps follow each other, and
those after a run's last checkpoint never happened. SFT's log and samples, RL's metrics, samples and validations.
"""

import json
import os
from pathlib import Path

from alignxplore.errors import naming
from alignxplore.records import HALF_CHARACTERS, read_steps, write_jsonl


class StepLog:
    """One such file. It need not be there, nor its folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def keep_until(self, step: int | None) -> list[dict]:
        """Take out what comes after `step` (None: everything), and a last line torn by a kill; returns the rest."""
        if not self.path.exists():
            return []
        rows = [row for row in read_steps(self.path) if step is not None and row["step"] <= step]
        write_jsonl(self.path, rows)
        return rows

    def append(self, *rows: dict) -> None:
        """Write a line each; they are on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("a", encoding="utf-8", errors=HALF_CHARACTERS) as out:
            out.write("".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in rows))
            out.flush()
            os.fsync(out.fileno())
