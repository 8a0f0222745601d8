"""Draws what `studies/sft_errors.sh` found: accuracy after SFT and after SFT + RL by the share of errors in the SFT rows, and the controls.

    python studies/plot_sft_errors.py --results runs/studies/sft_errors/results.json --out errors.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

LABELS = {"sft.clean": "SFT,\nno errors", "sft.less": "SFT,\n15 % errors", "sft": "SFT,\n25 % errors", "sft.more": "SFT,\n40 % errors",
          "sft.longer": "SFT × 5\nepochs", "sft+rl.shuffled": "RL, reward\nshuffled"}
COLOURS = {"SFT alone": "#718096", "then RL": "#c05621", "control": "#2b6cb0"}


def draw(rows: list[dict], out: Path) -> None:
    """One panel a judge and setting; a point with its 95 % interval for each policy that was evaluated."""
    found = [row for row in rows if row["setting"] in ("full", "streaming") and row["accuracy"] is not None]
    judges, settings = (sorted({row[key] for row in found}) for key in ("judge", "setting"))
    size = (1 + 4.6 * len(judges), 1 + 3 * len(settings))
    figure, panels = plt.subplots(len(settings), len(judges), figsize=size, sharey=True, sharex=True, squeeze=False)
    groups = [label for label in LABELS if any(row["policy"] in (label, label.replace("sft", "sft+rl", 1)) for row in found)]
    for line, setting in zip(panels, settings):
        for panel, judge in zip(line, judges):
            mine = {row["policy"]: row for row in found if row["judge"] == judge and row["setting"] == setting}
            for x, group in enumerate(groups):
                control = group in ("sft.longer", "sft+rl.shuffled")
                for policy, kind, shift in ((group, "control" if control else "SFT alone", 0 if control else -0.12),
                                            (group.replace("sft", "sft+rl", 1), "then RL", 0.12)):
                    if policy in mine and (kind != "then RL" or not control):
                        _point(panel, x + shift, mine[policy], COLOURS[kind], kind if x in (0, len(groups) - 1) else None)
            for row in rows:
                if row["setting"] == "bound":
                    panel.axhline(100 * row["accuracy"], color="#777", linewidth=0.8, linestyle="--")
            panel.set_title(f"{setting}, {judge}", fontsize=10)
            panel.set_xticks(range(len(groups)), [LABELS[group] for group in groups], fontsize=8)
            panel.set_ylabel("accuracy, %")
            panel.grid(alpha=0.25)
    handles = dict(zip(*reversed(panels[0][0].get_legend_handles_labels())))
    panels[0][0].legend(handles.values(), handles.keys(), fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def _point(panel: plt.Axes, x: float, row: dict, colour: str, label: str | None) -> None:
    y = 100 * row["accuracy"]
    panel.errorbar([x], [y], [[y - 100 * row["ci_low"]], [100 * row["ci_high"] - y]], fmt="o", capsize=3, color=colour, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="results.json of the study")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    arguments = parser.parse_args()
    plt.switch_backend("Agg")
    draw(json.loads(arguments.results.read_text()), arguments.out)


if __name__ == "__main__":
    main()
