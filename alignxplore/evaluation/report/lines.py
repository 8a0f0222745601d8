"""Plots with one line a policy, told apart by colour and by mark. Used by segments.py and costs.py."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from alignxplore.plotting import COLOURS
from alignxplore.statistics import Estimate

MARKS = "osD^vP"


def panels_for(count: int) -> tuple[plt.Figure, list[Axes]]:
    """A figure with so many panels, two a line, that share the axis of accuracy."""
    columns = min(2, count)
    lines = -(-count // columns)
    size = (1.0 + 4.6 * columns, 1.2 + 2.9 * lines)
    figure, panels = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    for panel in panels.flat[count:]:
        panel.set_visible(False)
    figure.supylabel("accuracy, %", fontsize=9)
    return figure, list(panels.flat[:count])


def line(panel: Axes, points: Sequence[tuple[float, Estimate]], number: int, joined: bool = True) -> None:
    """Shares in % with their intervals, as the line of policy `number`; points without rows are left out."""
    points = [(x, estimate) for x, estimate in points if estimate.n]
    means = np.array([estimate.mean for _, estimate in points])
    reach = [np.abs(np.array([getattr(estimate, end) for _, estimate in points]) - means) for end in ("low", "high")]
    panel.errorbar(
        [x for x, _ in points],
        100 * means,
        yerr=100 * np.nan_to_num(np.array(reach)),
        color=COLOURS[number % len(COLOURS)],
        marker=MARKS[number % len(MARKS)],
        markersize=4,
        linewidth=0.8 if joined else 0,
        elinewidth=1,
        capsize=2,
    )


def legend(figure: plt.Figure, names: Sequence[str], title: str) -> None:
    """The names of the lines, above the panels."""
    handles = [
        plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKS[i % len(MARKS)], linewidth=0.8, label=name)
        for i, name in enumerate(names)
    ]
    place = {"loc": "outside upper center", "ncols": min(3, len(handles))}
    figure.legend(handles=handles, fontsize=8, title=title, title_fontsize=8, **place)
