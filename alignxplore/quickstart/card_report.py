"""What a smoke run on one GPU (`card.py`) came to, as one JSON object; each part is missing where its step failed."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alignxplore.environment import git_commit, recorded_versions
from alignxplore.evaluation.rows import RESULTS, read_results
from alignxplore.quickstart.folder import RunFolder
from alignxplore.quickstart.steps import Step
from alignxplore.records import read_jsonl

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Card:
    """A GPU: its number or id, its name, and its memory in GB, by its driver."""

    number: str
    name: str
    memory_gb: float


class Watch:
    """Memory of the card while a with-block lasts, looked at each second: all that anybody holds of it, in GB."""

    def __init__(self, card: Card | None):
        self.peak_gb: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(card.number,), daemon=True) if card else None

    def __enter__(self) -> Self:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _look(self, number: str) -> None:
        query = ["nvidia-smi", "-i", number, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self._ended.wait(LOOK_SECONDS):
            words = subprocess.run(query, capture_output=True, text=True).stdout.split()
            if words and words[0].isdigit():
                self.peak_gb = max(self.peak_gb or 0.0, round(int(words[0]) * 2**20 / 1e9, 2))


def report(
    out: Path, card: Card | None, flash: bool, steps: Sequence[Step], failed: Mapping[str, str], peak_gb: float | None
) -> dict[str, Any]:
    """The object. Tokens and MFU are those of the model of 0.6B, in a rehearsal of a tiny one.

    Args:
        failed: the steps that failed in this run → why.
        peak_gb: the most memory of the card that was held meanwhile.
    """
    folder = RunFolder(out)
    seconds = {step.name: folder.seconds(step) for step in steps}
    undone = [step.name for step in folder.undone(steps)]
    return {
        "name": "gpu_smoke",
        "card": card.name if card else None,
        "rehearsal": card is None,
        "attention": "flash_attention_2" if flash else "sdpa",
        "commit": git_commit(),
        "versions": recorded_versions(),
        "not_done": undone,
        "failed": dict(failed),
        "seconds": {name: took for name, took in seconds.items() if took is not None and name not in undone},
        "peak_memory_gb": peak_gb,
        "sft": {kind: sft_speed(out / f"models/{name}") for kind, name in SPEEDS.items() if name not in undone},
        "rl": {kind: rl_speed(out / name) for kind, name in RUNS.items() if name not in undone},
        "accuracy": accuracies(out) if "scores" not in undone else None,
    }


SPEEDS = {"zero2": "large_sft", "zero3_packed": "large_packed"}
RUNS = {"taught": "rl", "large": "large_rl"}


def sft_speed(run: Path) -> dict[str, float | None]:
    """Tokens a second and MFU (None on an unknown card) of the middle step, the first ones left out: they warm up."""
    rows = [row for _, row in read_jsonl(run / "log.jsonl") if "tokens_per_second" in row]
    rows = sorted(rows[len(rows) // 3 :], key=lambda row: row["tokens_per_second"])
    middle = rows[len(rows) // 2] if rows else {}
    return {name: middle.get(name) for name in ("tokens_per_second", "mfu")}


def rl_speed(run: Path) -> dict[str, float | None]:
    """Of the last step: what it wrote and trained a second, memory, and rollout against trainer probabilities."""
    row = [row for _, row in read_jsonl(run / "metrics.jsonl")][-1]
    differences = "training/rollout_probs_diff_"
    return {
        "tokens_per_second": row.get("perf/throughput"),
        "written_per_second": round(row["generated_tokens"] / row["timing_s/gen"], 1),
        "trained_per_second": round(row["perf/total_num_tokens"] / row["timing_s/update_actor"], 1),
        "mfu": row.get("perf/mfu/actor"),
        "trainer_memory_gb": row.get("actor/perf/max_memory_allocated_gb"),
        "step_seconds": row.get("timing_s/step"),
        "probability_difference_max": row.get(f"{differences}max"),
        "probability_difference_mean": row.get(f"{differences}mean"),
        "groups_above_limit": row.get(f"{differences}groups_above"),
    }


def accuracies(out: Path) -> dict[str, float | None]:
    """Policy and setting → accuracy under the judge; nothing is to be read from so few users."""
    rows = read_results(out / "eval" / RESULTS)
    return {f"{row.policy}, {row.setting}": row.accuracy for row in rows}
