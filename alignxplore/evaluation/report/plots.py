"""The plots of an evaluation report, as figures or as SVG text for a page that needs no other file. Used by page.py;
`figures/report_plots.py` writes them as PNG.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from alignxplore.command import option
from alignxplore.evaluation import measures
from alignxplore.evaluation.costs import Cost, read_costs
from alignxplore.evaluation.report.costs import accuracy_by_length
from alignxplore.evaluation.report.downstream import reliability
from alignxplore.evaluation.report.segments import accuracy_by_segment
from alignxplore.evaluation.report.tables import label
from alignxplore.evaluation.rows import RESULTS, Result, read_results, read_scores
from alignxplore.evaluation.worth import Score
from alignxplore.plotting import COLOURS, STYLE, save

MARKERS = {"none": "x", "direct": "s", "full": "o", "streaming": "D"}
POINTS = 600  # of a scatter plot at most


@dataclass(kw_only=True)
class PlotsOptions:
    """Which results to draw."""

    results: Path = option("folder with results.json and scores.jsonl of eval/evaluate.py")
    out: Path = option("folder for the figures")


def accuracy_by_benchmark(rows: Sequence[Result], protocol: str) -> plt.Figure | None:
    """Accuracy with its 95 % interval: one panel a benchmark, policies down, one colour a judge, one marker a
    setting."""
    results = [row for row in rows if row.protocol == protocol and row.accuracy is not None and row.setting in MARKERS]
    if not results:
        return None
    benchmarks, policies = (
        list(dict.fromkeys(getattr(row, key) for row in results)) for key in ("benchmark", "policy")
    )
    judges = list(dict.fromkeys(row.judge for row in results if row.judge != "none"))
    columns = min(3, len(benchmarks))
    lines = -(-len(benchmarks) // columns)
    size = (2.2 + 3.3 * columns, lines * (1.0 + 0.26 * len(policies)))
    figure, panels = plt.subplots(lines, columns, figsize=size, sharey=True, sharex=True, squeeze=False)
    for panel in panels.flat[len(benchmarks) :]:
        panel.set_visible(False)
    readings: dict[str, list[tuple[str, str]]] = {  # what shares the line of a policy
        policy: list(dict.fromkeys((row.setting, row.judge) for row in results if row.policy == policy))
        for policy in policies
    }
    for panel, benchmark in zip(panels.flat, benchmarks):
        for row in (row for row in results if row.benchmark == benchmark):
            policy_readings = readings[row.policy]
            shift = (policy_readings.index((row.setting, row.judge)) + 0.5) / len(policy_readings) - 0.5
            colour = COLOURS[judges.index(row.judge) % len(COLOURS)] if row.judge in judges else "#555"
            _interval(panel, row, policies.index(row.policy) + 0.7 * shift, colour)
        chances = (row[measures.chance] for row in results if row.benchmark == benchmark)
        chance = next((value for value in chances if value is not None), 0.5)
        panel.axvline(100 * chance, color="#999", linewidth=0.8, linestyle="--")
        panel.set_title(label(benchmark), fontsize=10)
        panel.set_yticks(range(len(policies)), policies, fontsize=8)
    for panel in panels.flat[max(0, len(benchmarks) - columns) : len(benchmarks)]:  # the lowest one of each column
        panel.tick_params(labelbottom=True)
    panels[0][0].set_ylim(len(policies) - 0.5, -0.5)  # the first one on top, and room for what shares the last line
    figure.supxlabel(f"accuracy, % (protocol {protocol})", fontsize=9)
    _legend(figure, judges, list(dict.fromkeys(row.setting for row in results)))
    return figure


def _interval(panel: plt.Axes, row: Result, y: float, colour: str) -> None:
    """A point with its interval; without one where there is none (a single cluster)."""
    mean = row.accuracy or 0.0
    low, high = (mean if end is None else end for end in (row.ci_low, row.ci_high))
    reach = [[100 * max(0, mean - low)], [100 * max(0, high - mean)]]
    style = {"markersize": 4, "capsize": 2, "elinewidth": 1}
    panel.errorbar(100 * mean, y, xerr=reach, fmt=MARKERS[row.setting], color=colour, **style)


def _legend(figure: plt.Figure, judges: Sequence[str], settings: Sequence[str]) -> None:
    """Colours are judges, markers are settings."""
    keys = [
        plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", linestyle="", label=name)
        for i, name in enumerate(judges)
    ]
    keys += [
        plt.Line2D([], [], color="#555", marker=MARKERS[s], linestyle="", label=s if s != "none" else "nothing read")
        for s in settings
    ]
    figure.legend(
        handles=keys,
        loc="outside upper center",
        ncols=min(6, len(keys)),
        fontsize=8,
        title="downstream model, setting",
        title_fontsize=8,
    )


def confidence_by_order(scores: Sequence[Score]) -> plt.Figure | None:
    """P(chosen) with the chosen item first against second, row by row: off the diagonal the position speaks."""
    judges: dict[str, list[tuple[float, float]]] = {}
    for row in scores:
        if row.setting in ("full", "streaming"):
            judges.setdefault(row.judge, []).extend((a, b) for a, b in row.orders if a is not None and b is not None)
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


def draw(rows: Sequence[Result], scores: Sequence[Score], costs: Sequence[Cost] = ()) -> dict[str, plt.Figure]:
    """All plots that there is anything to draw for, by name."""
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": True}):
        figures = {
            f"accuracy_{protocol}": accuracy_by_benchmark(rows, protocol)
            for protocol in dict.fromkeys(row.protocol for row in rows)
        }
        figures["confidence_by_order"] = confidence_by_order(scores)
        for protocol in dict.fromkeys(row.protocol for row in rows):
            figures[f"reliability_{protocol}"] = reliability(scores, protocol)
            figures[f"segments_{protocol}"] = accuracy_by_segment(scores, protocol)
            figures[f"length_{protocol}"] = accuracy_by_length(costs, scores, protocol)
    return {name: figure for name, figure in figures.items() if figure is not None}


def svg(figure: plt.Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def write_plots(options: PlotsOptions) -> None:
    """Write each plot as NAME.png and NAME.svg, and print where it is."""
    scores = list(read_scores(options.results))
    rows = read_results(options.results / RESULTS)
    for name, figure in draw(rows, scores, read_costs(options.results)).items():
        print(save(figure, options.out / f"{name}.png"))
