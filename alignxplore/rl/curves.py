"""One picture of one or several RL runs, from their metrics.jsonl. `figures/rl_curves.py` draws it and says what is in
it; the study of credits uses its series.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from alignxplore.command import option
from alignxplore.plotting import COLOURS, GREY, STYLE, save
from alignxplore.records import RecordError, read_steps
from alignxplore.serving.endpoint import parse_spec

Rows = Sequence[dict]
SMOOTHING = 0.85  # weight of the past in the running mean drawn over noisy points
LINES = ("-", "--", ":", "-.")  # one per stage or judge where colours are runs
LAYOUT = (
    ("held_out", "held_out", "change", "change"),
    ("held_out", "held_out", "reward", "format"),
    ("length", "apart", "bonus", "seconds"),
)
OF_JUDGE = re.compile(r"val/(?!stage\d+/)([^/]+)/reward")  # a metric of one judge, over all stages
# What verl calls the parts of a step, in their order; `testing` is validation.
PARTS = {
    "gen": "writing and judging",
    "old_log_prob": "log-probabilities",
    "ref": "reference",
    "update_actor": "update",
    "update_weights": "weights to the engine",
    "testing": "validation",
    "save_checkpoint": "checkpoint",
}
KL = "rollout_corr/k3_kl"
PART_COLOURS = (*COLOURS, GREY, "#cccccc")


@dataclass(kw_only=True)
class CurvesOptions:
    """Which runs to draw."""

    run: list[str] = option("metrics.jsonl of a run, as FILE or NAME=FILE; several are compared")
    out: Path = option("picture to write (.png, .pdf, .svg)")


def series(rows: Rows, key: str, scale: float = 1.0) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was logged."""
    points = [(row["step"], scale * row[key]) for row in rows if row.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


def running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean, corrected for its start."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean, weight = SMOOTHING * mean + (1 - SMOOTHING) * value, SMOOTHING * weight + (1 - SMOOTHING)
        out.append(mean / weight)
    return out


def stages_of(rows: Rows) -> list[str]:
    """ "stage1", "stage2", ... as far as the run has them."""
    return sorted(
        {key.split("/")[0] for row in rows for key in row if key.startswith("stage") and key.endswith("/reward")}
    )


def held_out_lines(rows: Rows) -> dict[str, str]:
    """{metric of held-out users: what to call it}, the reward first, then the judges that it is a mean of, then those
    that only watch. A run of before these had metrics has the reward alone."""
    keys = {key for row in rows for key in row}
    judges = sorted(match[1] for key in keys if (match := OF_JUDGE.fullmatch(key)))
    reward_judges = [judge for judge in judges if f"stage1/confidence/{judge}" in keys]
    other_judges = [judge for judge in judges if judge not in reward_judges]
    if len(reward_judges) == 1:
        lines = {"val/reward": f"{reward_judges[0]}, gives the reward"}
    else:
        lines = {
            "val/reward": "reward",
            **{f"val/{judge}/reward": f"{judge}, in the reward" for judge in reward_judges},
        }
    return lines | {f"val/{judge}/reward": f"{judge}, only validates" for judge in other_judges}


def banded(rows: Rows, key: str) -> list[tuple[float, ...]]:
    """(steps, values, lower ends, upper ends) of a metric with an interval; where none was logged it has no width."""
    points = [
        (row["step"], row[key], row.get(f"{key}_low", row[key]), row.get(f"{key}_high", row[key]))
        for row in rows
        if row.get(key) is not None
    ]
    return list(zip(*points))


def seconds_by_part(row: dict) -> dict[str, float]:
    """Seconds of one step by part. What verl timed under no name of `PARTS` is `other`."""
    parts = {name: row.get(f"timing_s/{name}") or 0.0 for name in PARTS}
    # Validation and checkpoints are not in verl's step.
    sum_of_parts = sum(seconds for name, seconds in parts.items() if name not in ("testing", "save_checkpoint"))
    return parts | {"other": max(0.0, (row.get("timing_s/step") or sum_of_parts) - sum_of_parts)}


class Picture:
    """The panels, filled run by run."""

    def __init__(self, runs: dict[str, Rows]):
        self.runs = runs
        self.figure, self.panels = plt.subplot_mosaic(LAYOUT, figsize=(16, 10.5))

    def held_out(self, panel: plt.Axes, change: bool) -> None:
        """Held-out users under every judge, with 95 % intervals of persons: what their summaries earn, or how much
        more than those of step 0 did."""
        is_single = len(self.runs) == 1
        for place, (name, rows) in enumerate(self.runs.items()):
            for i, (metric, label) in enumerate(held_out_lines(rows).items()):
                columns = banded(rows, f"{metric}_change" if change else metric)
                if not columns:
                    continue
                steps, values, low, high = columns
                if change:  # from nothing
                    steps, values, low, high = ((0, *column) for column in columns)
                style = {"color": COLOURS[(i if is_single else place) % len(COLOURS)]}
                panel.fill_between(steps, low, high, alpha=0.15, linewidth=0, **style)
                line = LINES[0 if is_single else i % len(LINES)]
                panel.plot(steps, values, line, marker="o", label=label if is_single else f"{name}, {label}", **style)
        panel.axhline(0 if change else 0.5, color="#777", linewidth=0.8)
        people = {row["val/persons"] for rows in self.runs.values() for row in rows if "val/persons" in row}
        of = f" of {' or '.join(f'{count:.0f}' for count in sorted(people))} persons" if people else ""
        title = f"held-out users: reward, 95 % interval{of}"
        panel.set_title("the same less that of step 0, user by user" if change else title, fontsize=11)

    def by_stage(self, panel: plt.Axes, metric: str, title: str, scale: float = 1.0, points: bool = True) -> None:
        """A metric that each stage has."""
        for place, (name, rows) in enumerate(self.runs.items()):
            for k, stage in enumerate(stages_of(rows)):
                is_single = len(self.runs) == 1
                x, y = series(rows, f"{stage}/{metric}", scale)
                if not x:
                    continue
                colour = COLOURS[(k if is_single else place) % len(COLOURS)]
                label = (
                    stage.replace("stage", "stage ") if is_single else f"{name}, {stage.replace('stage', 'stage ')}"
                )
                if points and is_single:
                    panel.plot(x, y, ".", color=colour, alpha=0.3, markersize=4)
                panel.plot(x, running_mean(y), LINES[0 if is_single else k % len(LINES)], color=colour, label=label)
        panel.set_title(title, fontsize=11)

    def whole(self, panel: plt.Axes, metric: str, label: str, style: str, scale: float = 1.0) -> None:
        """A metric of the whole step."""
        for place, (name, rows) in enumerate(self.runs.items()):
            x, y = series(rows, metric, scale)
            if x:
                is_single = len(self.runs) == 1
                panel.plot(
                    x,
                    y,
                    style,
                    color="black" if is_single else COLOURS[place % len(COLOURS)],
                    markersize=5,
                    linewidth=1,
                    label=label if is_single else f"{name}, {label}",
                )

    def seconds(self, panel: plt.Axes) -> None:
        """One run: its steps, stacked. Several: the mean step of each."""
        rows_of_run = {name: [row for row in rows if row.get("timing_s/step")] for name, rows in self.runs.items()}
        rows_of_run = {name: rows for name, rows in rows_of_run.items() if rows}
        labels = [*PARTS.values(), "other"]
        if len(rows_of_run) == 1:
            rows = next(iter(rows_of_run.values()))
            columns = list(zip(*(seconds_by_part(row).values() for row in rows)))
            parts = [i for i, column in enumerate(columns) if max(column) > 0]
            panel.stackplot(
                [row["step"] for row in rows],
                [columns[i] for i in parts],
                labels=[labels[i] for i in parts],
                colors=[PART_COLOURS[i] for i in parts],
            )
        for place, rows in enumerate(rows_of_run.values() if len(rows_of_run) > 1 else ()):
            bottom = 0.0
            for i, column in enumerate(zip(*(seconds_by_part(row).values() for row in rows))):
                mean = sum(column) / len(column)
                if mean > 0:
                    panel.bar(place, mean, bottom=bottom, color=PART_COLOURS[i], label=labels[i])
                bottom += mean
        if len(rows_of_run) > 1:
            panel.set_xticks(range(len(rows_of_run)), rows_of_run, rotation=20, ha="right", fontsize=8)
        panel.set_title("seconds of a step by part", fontsize=11)
        panel.set_ylim(0, 1.45 * panel.get_ylim()[1])  # the legend stands above what it names

    def draw(self) -> plt.Figure:
        """All of them."""
        self.held_out(self.panels["held_out"], change=False)
        self.held_out(self.panels["change"], change=True)
        reward, format_, length, difference, bonus, seconds = (
            self.panels[name] for name in ("reward", "format", "length", "apart", "bonus", "seconds")
        )
        self.by_stage(reward, "reward", "training users: reward")
        self.by_stage(format_, "bad_format", "bad format and lost, %", 100)
        self.whole(format_, "lost_share", "lost to failures", ":", 100)
        self.by_stage(length, "tokens", "tokens of a rollout")
        self.whole(difference, "training/rollout_probs_diff_max", "a token's probability, at most", ":")
        self.whole(difference, "training/rollout_probs_diff_mean", "a token's probability, mean", "-")
        # Rounding can make a mean of k3 negative: not for this scale.
        if any(row.get(KL, 0) > 0 for rows in self.runs.values() for row in rows):
            self.whole(difference, KL, "KL by token (k3)", "--")
        difference.set_yscale("log")
        difference.set_title("rollout engine and trainer differ by", fontsize=11)
        self.by_stage(bonus, "drawn_bonus", "return of the drawn rollout above the others'")
        bonus.axhline(0, color="#777", linewidth=0.8)
        self.seconds(seconds)
        for panel in self.panels.values():
            handles = dict(zip(*reversed(panel.get_legend_handles_labels())))
            if handles:
                panel.legend(
                    handles.values(),
                    handles.keys(),
                    fontsize=9 if panel is self.panels["held_out"] else 7,
                    frameon=True,
                    framealpha=0.8,
                    edgecolor="none",
                    ncols=2 if panel is seconds else 1,
                )
            if panel is not seconds or len(self.runs) == 1:
                panel.set_xlabel("RL step")
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        return self.figure


def read_runs(specs: Sequence[str]) -> dict[str, Rows]:
    """{name: metrics of each step}.

    Raises:
        ValueError: two runs of one name; RecordError: a line that is no step, or no step of a streaming run.
    """
    runs: dict[str, Rows] = {}
    for name, path in map(parse_spec, specs):
        if name in runs:
            raise ValueError(f"two runs are named '{name}'; give each a name of its own: name=file")
        runs[name] = read_steps(path, numbers=True)
        if not stages_of(runs[name]):
            raise RecordError("no row in it is a step of a streaming run", path)
    return runs


def draw_curves(options: CurvesOptions) -> str:
    """What `figures/rl_curves.py` does; says where the picture is."""
    runs = read_runs(options.run)
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        save(Picture(runs).draw(), options.out)
    return f"RL curves: {options.out}"
