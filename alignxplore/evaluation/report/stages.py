"""Plot of an evaluation: accuracy by stage of training. `figures/plots.py` draws it, and the studies use its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from alignxplore.command import option
from alignxplore.evaluation.conditions import TALLY
from alignxplore.evaluation.rows import Result, read_results
from alignxplore.plotting import COLOURS, STYLE, save

TITLES = {"full": "full history", "streaming": "streaming"}


@dataclass(kw_only=True)
class StagesOptions:
    """Which results to draw."""

    results: Path = option("results.json of eval/evaluate.py")
    out: Path = option("folder for the figure")


def accuracy_by_stage(rows: Sequence[Result], out: Path) -> Path | None:
    """Accuracy with its 95 % interval in the first benchmark, policy by policy; one panel a setting, one colour a
    judge, bounds as dashed lines."""
    stage_rows = [
        row
        for row in rows
        if row.protocol == "choice" and row.setting in ("full", "streaming") and row.accuracy is not None
    ]
    if not stage_rows:
        return None
    stage_rows = [row for row in stage_rows if row.benchmark == stage_rows[0].benchmark]
    settings = list(dict.fromkeys(row.setting for row in stage_rows))
    policies = list(dict.fromkeys(row.policy for row in stage_rows))
    judges = list(dict.fromkeys(row.judge for row in stage_rows))
    figure, panels = plt.subplots(
        1, len(settings), figsize=(1.2 + 4.2 * len(settings), 3.9), sharey=True, squeeze=False
    )
    for panel, setting in zip(panels[0], settings):
        for place, judge in enumerate(judges):
            results = {row.policy: row for row in stage_rows if row.setting == setting and row.judge == judge}
            x = [i + 0.16 * (place - (len(judges) - 1) / 2) for i, policy in enumerate(policies) if policy in results]
            y = [100 * (results[policy].accuracy or 0.0) for policy in policies if policy in results]
            bars = list(zip(*(bar(results[policy]) for policy in policies if policy in results))) or None
            panel.errorbar(x, y, bars, fmt="o", capsize=3, color=COLOURS[place % len(COLOURS)], label=judge)
        draw_bounds(
            panel, [row for row in rows if row.benchmark == stage_rows[0].benchmark], with_names=panel is panels[0][-1]
        )
        panel.set_title(TITLES[setting], fontsize=11)
        panel.set_xticks(range(len(policies)), policies, rotation=20, ha="right")
    panels[0][0].set_ylabel("accuracy, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        [f"judge: {label}" for label in labels],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=len(labels),
    )
    return save(figure, out / "accuracy_by_stage.png")


def bar(row: Result) -> tuple[float, float]:
    """What the 95 % interval reaches below and above the accuracy, in points; nothing where there is none (a single
    cluster)."""
    mean = row.accuracy or 0.0
    low, high = (mean if end is None else end for end in (row.ci_low, row.ci_high))
    return max(0.0, 100 * (mean - low)), max(0.0, 100 * (high - mean))


def draw_bounds(panel: plt.Axes, rows: Sequence[Result], with_names: bool) -> None:
    """Dashed lines at chance and the best possible, and at what counting without a model foresees; their names stand
    right of the axes, where no point can lie under them."""
    for bound in (row for row in rows if row.setting == "bound" or row.policy == TALLY):
        height = 100 * (bound.accuracy or 0.0)
        panel.axhline(height, color="#555", linewidth=0.9, linestyle="--")
        if with_names:
            panel.annotate(
                bound.policy,
                (1.01, height),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
            )


def draw_stages(options: StagesOptions) -> str:
    """What `figures/plots.py` does; says where the picture is."""
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        path = accuracy_by_stage(read_results(options.results), options.out)
    return f"accuracy by stage: {path or 'nothing to draw'}"
