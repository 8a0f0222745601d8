"""How far users come in data synthesis: printed while it runs, written as JSON, drawn. Used by `synthesize.py`.

Every user has one outcome, so the counts add up: users in = users left at the end + those lost at each step.
"""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rounds import DONE
from tqdm import tqdm

UNANSWERED = "unanswered"  # a request failed or was refused: asked again by the next run
# What is left after a step → the outcomes of those who are not.
IN_ROUND = {"enough targets": "too_few_targets", "enough verified": "too_few_verified", "merge fits": "merge_too_long",
            "merged": "merge_bad_format", "merged verified": "merged_too_poor"}
STEPS: dict[str, tuple[str, ...]] = {
    "answered": (UNANSWERED, "interaction_too_long", "prompt_too_long", "judge_too_long"),
    "long enough": ("history_too_short",),
    **{f"round {number}: {step}": (f"{outcome}_{number}",) for number in (1, 2) for step, outcome in IN_ROUND.items()},
}
REPORT_SECONDS = 10


def users_left(outcomes: Counter[str]) -> dict[str, int]:
    """Users that are left after each step; AssertionError for an outcome that belongs to no step."""
    left, found = sum(outcomes.values()), {}
    for step, lost in STEPS.items():
        left -= sum(outcomes[outcome] for outcome in lost)
        found[step] = left
    if left != outcomes[DONE]:
        known = {outcome for lost in STEPS.values() for outcome in lost} | {DONE}
        raise AssertionError(f"outcomes without a place in the funnel: {set(outcomes) - known}")
    return found


def funnel(rows: list[dict]) -> dict:
    """Counts over finished users (`rounds.Trail.row`): users left after each step, outcomes, what each round's targets came
    to, and the oldest choices that were not read because the signal model had not scored them."""
    outcomes = Counter(row["outcome"] for row in rows)
    left = users_left(outcomes)
    reached = {}
    for number in (1, 2):
        notes = [note for row in rows for note in row["rounds"] if note["round"] == number]
        sums = {name: sum(note.get(name, 0) for note in notes) for name in ("targets", "well_formed", "verified")}
        reached[f"round_{number}"] = {"users": len(notes), **sums, "merged": sum("merged_right" in note for note in notes)}
    return {"users": len(rows), "left": left, "outcomes": dict(sorted(outcomes.items())), **reached,
            "sft_rows": sum(len(row["rows"]) for row in rows),
            "dropped_behaviours": sum(row["dropped_behaviours"] for row in rows)}


class LiveFunnel:
    """Counts users as they finish and says now and then how many are left after each step."""

    def __init__(self, total: int, finished: Iterable[dict]):
        self.total, self._spoke = total, time.monotonic()
        self.outcomes = Counter(row["outcome"] for row in finished)

    def add(self, row: dict) -> None:
        """One more user."""
        self.outcomes[row["outcome"]] += 1
        if time.monotonic() - self._spoke > REPORT_SECONDS:
            self.say()

    def say(self) -> None:
        """Print the line."""
        self._spoke = time.monotonic()
        done = self.outcomes.total()
        left, parts, lead = users_left(self.outcomes), [], None
        for step, count in left.items():
            head, colon, tail = step.rpartition(": ")
            parts.append(f"> {tail} {count}" if head == lead else f"| {head}{colon}{tail} {count}")
            lead = head
        tqdm.write(f"[funnel] {done} of {self.total} users {' '.join(parts)}")


def plot(counts: dict, path: Path) -> None:
    """Bars: users that are left after each step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = {"users": counts["users"], **counts["left"]}
    colours = ["#bbbbbb"] + ["#ee6677" if step.startswith("round 2") else "#4477aa" for step in counts["left"]]
    figure, axes = pyplot.subplots(figsize=(7, 0.34 * len(bars) + 1), layout="constrained")
    drawn = axes.barh(list(bars)[::-1], list(bars.values())[::-1], color=colours[::-1])
    axes.bar_label(drawn, padding=3)
    axes.set(xlabel="users left", title=f"Synthesis funnel: {counts['users']} users, {counts['sft_rows']} SFT rows")
    axes.margins(x=0.1)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
