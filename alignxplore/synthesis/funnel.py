"""How far users come in data synthesis: printed while it runs, written as JSON, drawn. Used by `synthesize.py`.

Every user has one outcome, so the counts add up: users in = users left at the end + those lost at each step.
"""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from alignxplore.synthesis.rounds import DONE

UNANSWERED = "unanswered"  # a request failed or was refused: asked again by the next run
# What is left after a step → the outcomes of those who are not.
IN_ROUND = {
    "enough targets": ("too_few_targets",),
    "drafts fit": ("interaction_too_long", "prompt_too_long", "judge_too_long"),
    "enough verified": ("too_few_verified",),
    "merge fits": ("merge_too_long",),
    "merged": ("merge_bad_format",),
    "hint not named": ("merge_names_hint",),
    "merged verified": ("merged_too_long", "merged_too_poor"),
}
STEPS: dict[str, tuple[str, ...]] = {
    "answered": (UNANSWERED,),
    "long enough": ("history_too_short",),
    **{
        f"round {n}: {step}": tuple(f"{outcome}_{n}" for outcome in lost)
        for n in (1, 2)
        for step, lost in IN_ROUND.items()
    },
}
REPORT_SECONDS = 10


def users_left(outcomes: Counter[str]) -> dict[str, int]:
    """Users that are left after each step; AssertionError for an outcome that belongs to no step."""
    count, users_of_step = sum(outcomes.values()), {}
    for step, outcomes_of_step in STEPS.items():
        count -= sum(outcomes[outcome] for outcome in outcomes_of_step)
        users_of_step[step] = count
    if count != outcomes[DONE]:
        all_outcomes = {outcome for outcomes_of_step in STEPS.values() for outcome in outcomes_of_step} | {DONE}
        raise AssertionError(f"outcomes without a place in the funnel: {set(outcomes) - all_outcomes}")
    return users_of_step


class Funnel:
    """Counts over finished users (`rounds.Trail.row`), taken one by one."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._rounds = {number: Counter(users=0, targets=0, well_formed=0, verified=0, merged=0) for number in (1, 2)}
        self._sft_rows = self._dropped = self._not_fitting = self._shortened_users = 0

    def add(self, row: dict) -> None:
        """One more user."""
        self.outcomes[row["outcome"]] += 1
        self._sft_rows += len(row["rows"])
        self._dropped += row["dropped_behaviours"]
        for note in row["rounds"]:
            parts = {name: note.get(name, 0) for name in ("targets", "well_formed", "verified")}
            self._rounds[note["round"]].update(parts, users=1, merged=int("merged_right" in note))
        dropped = sum(note.get("dropped_interactions", 0) for note in row["rounds"])
        self._not_fitting += dropped
        self._shortened_users += dropped > 0

    def counts(self) -> dict:
        """Users left after each step, outcomes, what each round's targets came to, and the oldest choices that were
        not read: those that the signal model had not scored, and of the others those for which the window had no
        room."""
        return {
            "users": self.outcomes.total(),
            "left": users_left(self.outcomes),
            "outcomes": dict(sorted(self.outcomes.items())),
            **{f"round_{number}": dict(sums) for number, sums in self._rounds.items()},
            "sft_rows": self._sft_rows,
            "dropped_behaviours": self._dropped,
            "dropped_interactions": self._not_fitting,
            "users_with_dropped_interactions": self._shortened_users,
        }


class LiveFunnel:
    """Counts users as they finish and says now and then how many are left after each step."""

    def __init__(self, total: int, rows: Iterable[dict]):
        self.total, self._spoke = total, time.monotonic()
        self.outcomes = Counter(row["outcome"] for row in rows)

    def add(self, row: dict) -> None:
        """One more user."""
        self.outcomes[row["outcome"]] += 1
        if time.monotonic() - self._spoke > REPORT_SECONDS:
            self.say()

    def say(self) -> None:
        """Print the line."""
        self._spoke = time.monotonic()
        user_count = self.outcomes.total()
        counts, parts, lead = users_left(self.outcomes), [], None
        for step, count in counts.items():
            head, colon, tail = step.rpartition(": ")
            parts.append(f"> {tail} {count}" if head == lead else f"| {head}{colon}{tail} {count}")
            lead = head
        tqdm.write(f"[funnel] {user_count} of {self.total} users {' '.join(parts)}")


def plot(counts: dict, path: Path) -> None:
    """Bars: users that are left after each step."""
    from matplotlib import pyplot

    from alignxplore.plotting import COLOURS, GREY, STYLE, save

    pyplot.switch_backend("Agg")  # files only: works without a screen
    bars = {"users": counts["users"], **counts["left"]}
    colours = [GREY] + [COLOURS[step.startswith("round 2")] for step in counts["left"]]
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 0.34 * len(bars) + 1), layout="constrained")
    containers = axes.barh(list(bars)[::-1], list(bars.values())[::-1], color=colours[::-1])
    axes.bar_label(containers, padding=3)
    axes.set(xlabel="users left", title=f"Synthesis funnel: {counts['users']} users, {counts['sft_rows']} SFT rows")
    axes.margins(x=0.1)
    save(figure, path)
