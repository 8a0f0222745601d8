"""Draws what `studies/sft_errors.sh` found: accuracy after SFT and after SFT + RL by the share of errors in the SFT
rows, and the controls.

    python studies/plot_sft_errors.py --results runs/studies/sft_errors/results.json --out errors.png
"""

from dataclasses import dataclass
from pathlib import Path

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import matplotlib.pyplot as plt

from alignxplore.command import option, run
from alignxplore.evaluation.report.stages import TITLES, bar, draw_bounds
from alignxplore.evaluation.rows import Result, read_results
from alignxplore.plotting import COLOURS, GREY, STYLE, save

LABELS = {
    "sft.clean": "SFT,\nno errors",
    "sft.less": "SFT,\n15 % errors",
    "sft": "SFT,\n25 % errors",
    "sft.more": "SFT,\n40 % errors",
    "sft.longer": "SFT × 5\nepochs",
    "sft+rl.shuffled": "RL, reward\nshuffled",
}
SERIES = {"SFT alone": GREY, "then RL": COLOURS[1], "control": COLOURS[0]}


@dataclass(kw_only=True)
class ErrorsOptions:
    """What to draw."""

    results: Path = option("results.json of the study")
    out: Path = option("picture to write")


def draw(rows: list[Result], out: Path) -> None:
    """One panel a judge and setting; a point with its 95 % interval for each policy that was evaluated."""
    points = [row for row in rows if row.setting in TITLES and row.accuracy is not None]
    judges, settings = (sorted({getattr(row, key) for row in points}) for key in ("judge", "setting"))
    size = (1.6 + 4.4 * len(judges), 1 + 2.8 * len(settings))
    figure, panels = plt.subplots(len(settings), len(judges), figsize=size, sharey=True, sharex=True, squeeze=False)
    groups = [
        label for label in LABELS if any(row.policy in (label, label.replace("sft", "sft+rl", 1)) for row in points)
    ]
    for line, setting in zip(panels, settings):
        for panel, judge in zip(line, judges):
            row_of = {row.policy: row for row in points if row.judge == judge and row.setting == setting}
            for x, group in enumerate(groups):
                control = group in ("sft.longer", "sft+rl.shuffled")
                for policy, kind, shift in (
                    (group, "control" if control else "SFT alone", 0 if control else -0.12),
                    (group.replace("sft", "sft+rl", 1), "then RL", 0.12),
                ):
                    if policy in row_of and (kind != "then RL" or not control):
                        _point(
                            panel, x + shift, row_of[policy], SERIES[kind], kind if x in (0, len(groups) - 1) else None
                        )
            draw_bounds(panel, rows, with_names=panel is line[-1])
            panel.set_title(f"{TITLES[setting]}, {judge}", fontsize=11)
            panel.set_xticks(range(len(groups)), [LABELS[group] for group in groups], fontsize=8)
        line[0].set_ylabel("accuracy, %")
    handles = dict(zip(*reversed(panels[0][0].get_legend_handles_labels())))
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(handles))
    save(figure, out)


def _point(panel: plt.Axes, x: float, row: Result, colour: str, label: str | None) -> None:
    lower, upper = bar(row)
    panel.errorbar(
        [x], [100 * (row.accuracy or 0.0)], [[lower], [upper]], fmt="o", capsize=3, color=colour, label=label
    )


def draw_errors(options: ErrorsOptions) -> None:
    """Draw the results of the study."""
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        draw(read_results(options.results), options.out)


if __name__ == "__main__":
    run(draw_errors, ErrorsOptions, __doc__)
