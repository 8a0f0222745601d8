"""How all plots of the project look, and how they are written: as PNG and, beside it, as SVG."""

from pathlib import Path

import matplotlib.pyplot as plt

from alignxplore.records import replacing

# One a judge, policy or line, told apart by every eye (Okabe and Ito 2008). What is no such thing is grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#999999"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "figure.dpi": 130,
}


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a picture, as PNG and as SVG, and forget it. One that cannot be written leaves the earlier one."""
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    with replacing(path) as aside:
        figure.savefig(aside, format=path.suffix.removeprefix("."), bbox_inches="tight")
    # The same figure gives the same file.
    with plt.rc_context({"svg.hashsalt": "plot"}), replacing(path.with_suffix(".svg")) as aside:
        figure.savefig(aside, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return path
