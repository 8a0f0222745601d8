"""The picture of the method: docs/figures/method.svg and .png, which can be read on light and on dark ground.

python -m alignxplore.guide.method --out docs/figures/method.png
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from alignxplore.command import option, run
from alignxplore.plotting import COLOURS, save

BLUE, ORANGE, GREEN = COLOURS[:3]
LINE, PAPER, INK = "#808080", "#ffffff", "#1a1a1a"  # of arrows, inside the boxes, of their texts


@dataclass(kw_only=True)
class MethodOptions:
    """Where to."""

    out: Path = option("PNG file; the SVG stands beside it", Path("docs/figures/method.png"))


@dataclass(frozen=True)
class Box:
    """A box with its texts; `x`, `y` are its middle, in units of the picture."""

    x: float
    y: float
    title: str
    text: str
    colour: str
    width: float = 2.2
    height: float = 1.0

    def side(self, name: str) -> tuple[float, float]:
        """The middle of one of its sides."""
        right, up = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[name]
        return self.x + right * self.width / 2, self.y + up * self.height / 2


HISTORY = (
    Box(1.2, 3.4, "slice 1", "choices, oldest first", LINE),
    Box(1.2, 0.6, "slice 2", "newer choices", LINE),
)
POLICY = (
    Box(4.4, 3.4, "policy, stage 1", "reasoning and summary,\nn times", BLUE),
    Box(4.4, 0.6, "policy, stage 2", "reasoning and summary,\nn times", BLUE),
)
JUDGE = (
    Box(7.9, 3.4, "judge (frozen)", "knows only the summary:\nitem A or item B?", ORANGE, 2.5),
    Box(7.9, 0.6, "judge (frozen)", "knows only the summary:\nitem A or item B?", ORANGE, 2.5),
)
REWARD = (
    Box(11.3, 3.4, "reward 1", "P(what was chosen next)", GREEN),
    Box(11.3, 0.6, "reward 2", "P(what was chosen last)", GREEN),
)
UPDATE = Box(11.3, 2.0, "GRPO update", "advantage within each group", GREEN, 2.4, 0.8)


def draw(axes: plt.Axes) -> None:
    """All boxes and arrows."""
    for row in zip(HISTORY, POLICY, JUDGE, REWARD):
        for box in row:
            _box(axes, box)
        for start, end in zip(row, row[1:]):
            _arrow(axes, start.side("right"), end.side("left"))
    _box(axes, UPDATE)
    _arrow(axes, POLICY[0].side("bottom"), POLICY[1].side("top"))
    _label(axes, 4.55, 2.0, "one summary, drawn:\nthe past summary of stage 2", "left")
    _arrow(axes, REWARD[0].side("bottom"), UPDATE.side("top"))
    _arrow(axes, REWARD[1].side("top"), UPDATE.side("bottom"))


def _box(axes: plt.Axes, box: Box) -> None:
    corner = box.x - box.width / 2, box.y - box.height / 2
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "linewidth": 2}
    axes.add_patch(
        FancyBboxPatch(corner, box.width, box.height, facecolor=PAPER, edgecolor=box.colour, **style)  # type: ignore[arg-type]
    )
    lift = 0.24 if box.height >= 1 else 0.16
    axes.text(box.x, box.y + lift, box.title, ha="center", va="center", fontsize=11, weight="bold", color=INK)
    axes.text(box.x, box.y - 0.14, box.text, ha="center", va="center", fontsize=8.5, color=INK)


def _arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=LINE, linewidth=1.8))


def _label(axes: plt.Axes, x: float, y: float, text: str, side: str) -> None:
    axes.text(x, y, text, ha=side, va="center", fontsize=9.5, color=LINE)


def draw_method(options: MethodOptions) -> str:
    """Write the picture on no ground of its own."""
    with plt.rc_context({"svg.fonttype": "path", "savefig.transparent": True, "figure.dpi": 130}):
        figure, axes = plt.subplots(figsize=(12.6, 4.2))
        axes.set(xlim=(0, 12.6), ylim=(-0.05, 4.05), aspect="equal")
        axes.axis("off")
        draw(axes)
        return f"{save(figure, options.out)} and its SVG are written"


if __name__ == "__main__":
    run(draw_method, MethodOptions, __doc__)
