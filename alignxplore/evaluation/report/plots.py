"""The plots of an evaluation report, as figures or as SVG text for a page that needs no other file. Used by page.py.

python figures/report_plots.py --results outputs/eval --out outputs/eval/figures
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from alignxplore.plotting import COLOURS, STYLE
from alignxplore.records import read_jsonl

MARKERS = {"none": "x", "direct": "s", "full": "o", "streaming": "D"}
POINTS = 600  # of a scatter plot at most


def accuracy_by_benchmark(rows: Sequence[dict], protocol: str) -> plt.Figure | None:
    """Accuracy with its 95 % interval: one panel a benchmark, policies down, one colour a judge, one marker a
    setting."""
    shown = [
        row
        for row in rows
        if row["protocol"] == protocol and row["accuracy"] is not None and row["setting"] in MARKERS
    ]
    if not shown:
        return None
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in shown))
    policies = list(dict.fromkeys(row["policy"] for row in shown))
    judges = list(dict.fromkeys(row["judge"] for row in shown if row["judge"] != "none"))
    columns = min(3, len(benchmarks))
    lines = -(-len(benchmarks) // columns)
    readings = {
        policy: list(dict.fromkeys((row["setting"], row["judge"]) for row in shown if row["policy"] == policy))
        for policy in policies
    }
    figure, panels = plt.subplots(
        lines,
        columns,
        figsize=(2.2 + 3.3 * columns, lines * (1.0 + 0.26 * len(policies))),
        sharey=True,
        sharex=True,
        squeeze=False,
    )
    for panel in panels.flat[len(benchmarks) :]:
        panel.set_visible(False)
    for panel, benchmark in zip(panels.flat, benchmarks):
        for row in (row for row in shown if row["benchmark"] == benchmark):
            mine = readings[row["policy"]]
            y = policies.index(row["policy"]) + 0.7 * (
                (mine.index((row["setting"], row["judge"])) + 0.5) / len(mine) - 0.5
            )
            mean, low, high = (
                row["accuracy"] if row[key] is None else row[key] for key in ("accuracy", "ci_low", "ci_high")
            )
            colour = COLOURS[judges.index(row["judge"]) % len(COLOURS)] if row["judge"] in judges else "#555"
            panel.errorbar(
                100 * mean,
                y,
                xerr=[[100 * max(0, mean - low)], [100 * max(0, high - mean)]],
                fmt=MARKERS[row["setting"]],
                markersize=4,
                capsize=2,
                elinewidth=1,
                color=colour,
            )
        panel.axvline(50, color="#999", linewidth=0.8, linestyle="--")
        panel.set_title(benchmark.replace("~to~", " → ").replace("~", ", "), fontsize=10)
        panel.set_yticks(range(len(policies)), policies, fontsize=8)
    panels[0][0].invert_yaxis()
    figure.supxlabel(f"accuracy, % (protocol {protocol})", fontsize=9)
    keys = [
        plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", linestyle="", label=name)
        for i, name in enumerate(judges)
    ]
    used = dict.fromkeys(row["setting"] for row in shown)
    keys += [
        plt.Line2D([], [], color="#555", marker=MARKERS[s], linestyle="", label=s if s != "none" else "nothing read")
        for s in used
    ]
    figure.legend(
        handles=keys,
        loc="outside upper center",
        ncols=min(6, len(keys)),
        fontsize=8,
        title="downstream model, setting",
        title_fontsize=8,
    )
    return figure


def confidence_by_order(scores: Sequence[dict]) -> plt.Figure | None:
    """P(chosen) with the chosen item first against second, row by row: off the diagonal the position speaks."""
    judges: dict[str, list[tuple[float, float]]] = {}
    for row in scores:
        if row["setting"] in ("full", "streaming"):
            judges.setdefault(row["judge"], []).extend(
                (a, b) for a, b in row.get("orders") or () if a is not None and b is not None
            )
    judges = {judge: pairs[:: 1 + len(pairs) // POINTS] for judge, pairs in judges.items() if pairs}
    if not judges:
        return None
    figure, panels = plt.subplots(1, len(judges), figsize=(0.6 + 3.1 * len(judges), 3.4), sharey=True, squeeze=False)
    for panel, (judge, pairs), colour in zip(panels[0], judges.items(), COLOURS * len(judges)):
        panel.plot(*zip(*pairs), ".", alpha=0.35, markersize=4, color=colour)
        panel.plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle="--")
        panel.set(title=judge, xlabel="P(chosen), shown first", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panels[0][0].set_ylabel("P(chosen), shown second")
    return figure


def draw(rows: Sequence[dict], scores: Sequence[dict]) -> dict[str, plt.Figure]:
    """All plots that there is anything to draw for, by name."""
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": True}):
        figures = {
            f"accuracy_{protocol}": accuracy_by_benchmark(rows, protocol)
            for protocol in dict.fromkeys(row["protocol"] for row in rows)
        }
        figures["confidence_by_order"] = confidence_by_order(scores)
    return {name: figure for name, figure in figures.items() if figure is not None}


def svg(figure: plt.Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results", type=Path, required=True, help="folder with results.json and scores.jsonl of eval/evaluate.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    arguments = parser.parse_args()
    scores = [row for _, row in read_jsonl(arguments.results / "scores.jsonl")]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in draw(json.loads((arguments.results / "results.json").read_text()), scores).items():
        figure.savefig(arguments.out / f"{name}.png")
        plt.close(figure)
        print(arguments.out / f"{name}.png")
