"""Plots of a run: accuracy by stage of training, and reward over RL steps.

    python figures/plots.py --results outputs/eval/results.json --rl outputs/rl/metrics.jsonl --out outputs/figures

Draws what it is given and names what it could not draw. `quickstart.sh` calls it at its end.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from alignxplore.records import read_jsonl

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1")  # one per judge
STYLE = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 10,
         "legend.frameon": False, "figure.dpi": 130}
SMOOTHING = 0.85  # weight of the past in the running mean drawn over noisy points


def accuracy_by_stage(rows: Sequence[dict], out: Path) -> Path | None:
    """Accuracy with its 95 % interval, policy by policy; one panel a setting, one colour a judge, bounds as dashed lines."""
    shown = [row for row in rows if row["protocol"] == "choice" and row["setting"] in ("full", "streaming") and row["accuracy"] is not None]
    if not shown:
        return None
    settings = list(dict.fromkeys(row["setting"] for row in shown))
    policies = list(dict.fromkeys(row["policy"] for row in shown))
    judges = list(dict.fromkeys(row["judge"] for row in shown))
    figure, panels = plt.subplots(1, len(settings), figsize=(1.2 + 4.2 * len(settings), 3.9), sharey=True, squeeze=False)
    for panel, setting in zip(panels[0], settings):
        for place, judge in enumerate(judges):
            mine = {row["policy"]: row for row in shown if row["setting"] == setting and row["judge"] == judge}
            x = [i + 0.16 * (place - (len(judges) - 1) / 2) for i, policy in enumerate(policies) if policy in mine]
            y = [100 * mine[policy]["accuracy"] for policy in policies if policy in mine]
            error = [[max(0.0, 100 * (mine[p]["accuracy"] - (mine[p]["ci_low"] or mine[p]["accuracy"]))) for p in policies if p in mine],
                     [max(0.0, 100 * ((mine[p]["ci_high"] or mine[p]["accuracy"]) - mine[p]["accuracy"])) for p in policies if p in mine]]
            panel.errorbar(x, y, error, fmt="o", capsize=3, color=COLOURS[place % len(COLOURS)], label=judge)
        for bound in (row for row in rows if row["setting"] == "bound" and row["benchmark"] == shown[0]["benchmark"]):
            panel.axhline(100 * bound["accuracy"], color="#555", linewidth=0.9, linestyle="--")
            panel.annotate(bound["policy"], (0.01, 100 * bound["accuracy"]), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
        panel.set_title({"full": "full history", "streaming": "streaming"}[setting], fontsize=11)
        panel.set_xticks(range(len(policies)), policies, rotation=20, ha="right")
    panels[0][0].set_ylabel("accuracy, %")
    panels[0][-1].legend(title="judge", loc="lower right")
    return _save(figure, out / "accuracy_by_stage.png")


def reward_over_steps(metrics: Sequence[dict], out: Path) -> Path | None:
    """Reward of each stage of the stream over RL steps (points, running mean), validation, and the share of bad format below."""
    stages = sorted({key.split("/")[0] for row in metrics for key in row if key.startswith("stage") and key.endswith("/reward")})
    if not stages:
        return None
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.6, 5.2), sharex=True, height_ratios=(3, 1))
    for stage, colour in zip(stages, COLOURS):
        x, y = _series(metrics, f"{stage}/reward")
        above.plot(x, y, ".", color=colour, alpha=0.35, markersize=5)
        above.plot(x, _running_mean(y), color=colour, label=stage.replace("stage", "stage "))
        below.plot(*_scaled(_series(metrics, f"{stage}/bad_format")), color=colour)
    x, y = _series(metrics, "val/reward")
    if x:
        above.plot(x, y, "D", color="black", markersize=5, label="held-out users")
    above.set_ylabel("reward: P(chosen | summary)")
    below.set_ylabel("bad format, %")
    below.set_xlabel("RL step")
    above.legend(loc="lower right")
    return _save(figure, out / "reward_over_steps.png")


def _series(metrics: Sequence[dict], key: str) -> tuple[list[float], list[float]]:
    points = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


def _scaled(series: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
    return series[0], [100 * y for y in series[1]]


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean, corrected for its start."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean, weight = SMOOTHING * mean + (1 - SMOOTHING) * value, SMOOTHING * weight + (1 - SMOOTHING)
        out.append(mean / weight)
    return out


def _save(figure: plt.Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="results.json of eval/evaluate.py")
    parser.add_argument("--rl", type=Path, help="metrics.jsonl of the RL run")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    arguments = parser.parse_args()
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        drawn = []
        if arguments.results:
            drawn.append(("accuracy by stage", accuracy_by_stage(json.loads(arguments.results.read_text()), arguments.out)))
        if arguments.rl:
            drawn.append(("reward over RL steps", reward_over_steps([row for _, row in read_jsonl(arguments.rl)], arguments.out)))
    for what, path in drawn:
        print(f"{what}: {path or 'nothing to draw'}")


if __name__ == "__main__":
    main()
