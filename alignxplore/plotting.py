"""How all plots of the project look, and how they are written."""

from pathlib import Path

import matplotlib.pyplot as plt

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")  # one per judge
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "figure.dpi": 130,
}


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a picture and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return path
