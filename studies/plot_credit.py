"""What `studies/credit.sh` found: rewards over steps and final accuracy by credit, over seeds, with the tokens that
each generated.

    python studies/plot_credit.py --study runs/studies/credit --runs paper.1 paper.2 centered.1 centered.2

Reads STUDY/RUN/metrics.jsonl and STUDY/eval, writes STUDY/results.json, STUDY/report.md and STUDY/credit.png. The
accuracy of a credit is that of its seeds' mean, user by user; its interval resamples users, as everywhere, and cannot
show what another seed would have changed, so the seeds stand beside it. Credits are compared on the same users.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from alignxplore.command import option, run
from alignxplore.evaluation.rows import read_scores
from alignxplore.evaluation.worth import Score
from alignxplore.plotting import COLOURS, GREY, STYLE, save
from alignxplore.records import person_of, read_jsonl, write_json, write_text
from alignxplore.rl.curves import running_mean, stages_of
from alignxplore.statistics import estimate, paired

SETTING = "streaming"


@dataclass(kw_only=True)
class CreditOptions:
    """Which study."""

    study: Path = option("folder of the study: the runs and eval/")
    runs: list[str] = option("names of the runs, CREDIT.SEED")


def read_runs(study: Path, names: list[str]) -> dict[str, dict[int, list[dict]]]:
    """{credit: {seed: metrics of each step}}."""
    runs: dict[str, dict[int, list[dict]]] = defaultdict(dict)
    for name in names:
        credit, _, seed = name.rpartition(".")
        runs[credit][int(seed)] = [row for _, row in read_jsonl(study / name / "metrics.jsonl")]
    return runs


def budget(rows: list[dict]) -> dict:
    """Tokens and rows of one run, from the metrics of its steps."""
    steps = [row for row in rows if row["step"]]
    return {
        "steps": len(steps),
        "tokens": int(sum(row["generated_tokens"] for row in steps)),
        "rows": int(sum(row["training/rows"] for row in steps)),
    }


def by_user(scores: list[Score], policy: str, judge: str) -> dict[tuple[str, str, str], float]:
    """{(user, target, chosen item): score} of one policy's streamed summaries, failed judgements left out."""
    return {
        (row.user, row.target, row.item): row.value
        for row in scores
        if (row.policy, row.judge, row.setting) == (policy, judge, SETTING) and row.value is not None
    }


def final(scores: list[Score], credits: dict[str, list[int]]) -> list[dict]:
    """One row for each credit (and for the policy that all began from) and judge."""
    rows = []
    for judge in sorted({row.judge for row in scores if row.setting == SETTING}):
        runs_of = {"sft": [by_user(scores, "sft", judge)]}
        runs_of |= {
            credit: [by_user(scores, f"{credit}.{seed}", judge) for seed in seeds] for credit, seeds in credits.items()
        }
        users = sorted(set.intersection(*(set(values) for runs in runs_of.values() for values in runs)))  # of all
        clusters = [person_of(user) for user, _, _ in users], [item for *_, item in users]
        means = {
            name: np.mean([[values[user] for user in users] for values in runs], axis=0)
            for name, runs in runs_of.items()
        }
        for name, runs in runs_of.items():
            accuracy = estimate(means[name], *clusters)
            row = {
                "credit": name,
                "judge": judge,
                "n": len(users),
                "accuracy": accuracy.mean,
                "ci_low": accuracy.low,
                "ci_high": accuracy.high,
                "seeds": [float(np.mean([values[user] for user in users])) for values in runs],
            }
            if name not in ("sft", "paper") and "paper" in means:
                against = paired(means[name], means["paper"], *clusters)
                row |= {
                    "minus_paper": against.difference,
                    "minus_paper_low": against.low,
                    "minus_paper_high": against.high,
                    "p_value": against.p_value,
                }
            rows.append(row)
    return rows


def report(rows: list[dict], runs: dict[str, dict[int, list[dict]]]) -> str:
    """Markdown: what each credit was given, and what came of it."""
    lines = ["# Credit at equal generated tokens", "", *budget_lines(runs), "", *accuracy_lines(rows)]
    comparisons = [row for row in rows if "p_value" in row]
    differences = [f"{row['credit']} ({row['judge']})" for row in comparisons if row["p_value"] < 0.05]
    if comparisons:
        names = ", ".join(differences) or "none"
        lines += [
            "",
            f"At the 5 % level different from `paper`: {names}, of {len(comparisons)} comparisons. "
            "The interval and the test know nothing of other seeds.",
        ]
    return "\n".join(lines) + "\n"


def budget_lines(runs: dict[str, dict[int, list[dict]]]) -> list[str]:
    """The table of what each credit was given."""
    lines = [
        "## Budget",
        "",
        "| credit | seeds | steps | rows trained on | tokens generated, by seed | mean | against paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    budgets_of = {credit: [budget(metrics) for metrics in seeds.values()] for credit, seeds in runs.items()}
    tokens_of = {credit: [row["tokens"] for row in budgets] for credit, budgets in budgets_of.items()}
    means = {credit: np.mean(tokens) for credit, tokens in tokens_of.items()}
    for credit, budgets in budgets_of.items():
        against = f"{100 * (means[credit] / means['paper'] - 1):+.1f} %" if "paper" in means else "–"
        by_seed = ", ".join(f"{tokens:,}" for tokens in tokens_of[credit])
        rows = np.mean([row["rows"] for row in budgets])
        lines.append(
            f"| {credit} | {len(budgets)} | {budgets[0]['steps']} | {rows:,.0f} | "
            f"{by_seed} | {means[credit]:,.0f} | {against} |"
        )
    return lines


def accuracy_lines(rows: list[dict]) -> list[str]:
    """The table of what came of each credit."""
    lines = [
        "## Streaming accuracy at the end",
        "",
        "Mean over seeds, user by user, with its 95 % interval over users; then each seed; then "
        "the difference from `paper` on the same users with its interval and the p of a cluster sign-flip test.",
        "",
        "| judge | credit | n | accuracy % | seeds | minus paper | p |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        difference, p = "–", "–"
        if "p_value" in row:
            low, high = (100 * row[key] for key in ("minus_paper_low", "minus_paper_high"))
            difference = f"{100 * row['minus_paper']:+.2f} [{low:+.2f}, {high:+.2f}]"
            p = f"{row['p_value']:.4f}"
        accuracy = f"{100 * row['accuracy']:.2f} [{100 * row['ci_low']:.2f}, {100 * row['ci_high']:.2f}]"
        seeds = ", ".join(f"{100 * seed:.2f}" for seed in row["seeds"])
        lines.append(f"| {row['judge']} | {row['credit']} | {row['n']} | {accuracy} | {seeds} | {difference} | {p} |")
    return lines


def draw(rows: list[dict], runs: dict[str, dict[int, list[dict]]]) -> plt.Figure:
    """Left: reward over steps, mean over stages and seeds with the seeds' range. Right: final accuracy by judge."""
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    figure, (curves, *finals) = plt.subplots(
        1, 1 + len(judges), figsize=(6 + 3.2 * len(judges), 4.2), width_ratios=(2, *[1] * len(judges))
    )
    colours = dict(zip(("sft", *runs), (GREY, *COLOURS)))
    draw_rewards(curves, runs, colours)
    for panel in finals[1:]:
        panel.sharey(finals[0])  # before anything is drawn, so that the common scale holds all of it
    for panel, judge in zip(finals, judges):
        draw_accuracy(panel, judge, [row for row in rows if row["judge"] == judge], colours)
    finals[0].set_ylabel("accuracy, %")
    return figure


def draw_rewards(panel: plt.Axes, runs: dict[str, dict[int, list[dict]]], colours: dict[str, str]) -> None:
    """Reward over the steps that all seeds of a credit have."""
    for credit, seeds in runs.items():
        by_seed = [{row["step"]: row for row in metrics if stages_of([row])} for metrics in seeds.values()]
        steps = sorted(set.intersection(*map(set, by_seed)) - {0})
        rewards = np.array([running_mean([mean_reward(rows[step]) for step in steps]) for rows in by_seed])
        panel.plot(steps, rewards.mean(0), color=colours[credit], label=credit)
        panel.fill_between(steps, rewards.min(0), rewards.max(0), color=colours[credit], alpha=0.15, linewidth=0)
    panel.set_xlabel("RL step (128 summaries)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel("reward, running mean")
    panel.set_title("training users, range over seeds", fontsize=11)
    panel.legend(loc="upper left")


def mean_reward(row: dict) -> float:
    """Mean over the stages of one step."""
    return float(np.mean([row[f"{stage}/reward"] for stage in stages_of([row])]))


def draw_accuracy(panel: plt.Axes, judge: str, rows: list[dict], colours: dict[str, str]) -> None:
    """Accuracy of each credit with its interval, and that of each seed beside it."""
    for x, row in enumerate(rows):
        y, colour = 100 * row["accuracy"], colours[row["credit"]]
        reach = [[max(0.0, y - 100 * row["ci_low"])], [max(0.0, 100 * row["ci_high"] - y)]]
        panel.errorbar([x], [y], reach, fmt="o", capsize=3, color=colour)
        seeds = [100 * seed for seed in row["seeds"]]
        panel.plot([x + 0.2] * len(seeds), seeds, "_", color=colour, alpha=0.7)
    panel.set_xticks(range(len(rows)), [row["credit"] for row in rows], rotation=20, ha="right")
    panel.set_xlim(-0.5, len(rows) - 0.2)
    panel.set_title(f"streaming, {judge}, n = {rows[0]['n']}", fontsize=10)


def show_study(options: CreditOptions) -> str:
    """Write results.json, report.md and credit.png into the study's folder; says where the report is."""
    study, runs = options.study, read_runs(options.study, options.runs)
    scores = list(read_scores(study / "eval"))
    rows = final(scores, {credit: list(seeds) for credit, seeds in runs.items()})
    budgets = [
        {"credit": credit, "seed": seed} | budget(metrics)
        for credit, seeds in runs.items()
        for seed, metrics in seeds.items()
    ]
    policy_results = json.loads((study / "eval" / "results.json").read_text())
    write_json(study / "results.json", {"credits": rows, "budgets": budgets, "policies": policy_results})
    evaluation = (study / "eval" / "report.md").read_text(encoding="utf-8").replace("# Results", "# Each run", 1)
    write_text(study / "report.md", report(rows, runs) + "\n" + evaluation)
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        save(draw(rows, runs), study / "credit.png")
    return f"report: {study / 'report.md'}"


if __name__ == "__main__":
    run(show_study, CreditOptions, __doc__)
