"""What `studies/credit.sh` found: rewards over steps and final accuracy by credit, over seeds, with the tokens that
each generated.

    python studies/plot_credit.py --study runs/studies/credit --runs paper.1 paper.2 centered.1 centered.2

Reads STUDY/RUN/metrics.jsonl and STUDY/eval, writes STUDY/results.json, STUDY/report.md and STUDY/credit.png. The
accuracy of a credit is that of its seeds' mean, user by user; its interval resamples users, as everywhere, and cannot
show what another seed would have changed, so the seeds stand beside it. Credits are compared on the same users.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from alignxplore.plotting import COLOURS, STYLE, save
from alignxplore.records import read_jsonl, write_json
from alignxplore.rl.curves import running_mean, stages_of
from alignxplore.statistics import cluster_rows, estimate, paired

SETTING = "streaming"


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


def by_user(scores: list[dict], policy: str, judge: str) -> dict[tuple[str, str], float]:
    """{(user, target): score} of one policy's streamed summaries, failed judgements left out."""
    return {
        (row["user"], row["target"]): row["value"]
        for row in scores
        if (row["policy"], row["judge"], row["setting"]) == (policy, judge, SETTING) and row["value"] is not None
    }


def final(scores: list[dict], credits: dict[str, list[int]]) -> list[dict]:
    """One row for each credit (and for the policy that all began from) and judge."""
    rows = []
    for judge in sorted({row["judge"] for row in scores if row["setting"] == SETTING}):
        found = {"sft": [by_user(scores, "sft", judge)]}
        found |= {
            credit: [by_user(scores, f"{credit}.{seed}", judge) for seed in seeds] for credit, seeds in credits.items()
        }
        users = sorted(
            set.intersection(*(set(one) for each in found.values() for one in each))
        )  # the same rows for all
        clusters = cluster_rows([user for user, _ in users], [target for _, target in users])
        means = {
            name: np.mean([[one[user] for user in users] for one in each], axis=0) for name, each in found.items()
        }
        for name, each in found.items():
            accuracy = estimate(means[name], clusters)
            row = {
                "credit": name,
                "judge": judge,
                "n": len(users),
                "accuracy": accuracy.mean,
                "ci_low": accuracy.low,
                "ci_high": accuracy.high,
                "seeds": [float(np.mean([one[user] for user in users])) for one in each],
            }
            if name not in ("sft", "paper") and "paper" in means:
                against = paired(means[name], means["paper"], clusters)
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
    lines = [
        "# Credit at equal generated tokens",
        "",
        "## Budget",
        "",
        "| credit | seeds | steps | rows trained on | tokens generated, by seed | mean | against paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    tokens = {credit: [budget(metrics)["tokens"] for metrics in seeds.values()] for credit, seeds in runs.items()}
    for credit, seeds in runs.items():
        spent = [budget(metrics) for metrics in seeds.values()]
        against = (
            f"{100 * (np.mean(tokens[credit]) / np.mean(tokens['paper']) - 1):+.1f} %" if "paper" in tokens else "–"
        )
        lines.append(
            f"| {credit} | {len(spent)} | {spent[0]['steps']} | {np.mean([s['rows'] for s in spent]):,.0f} | "
            f"{', '.join(f'{t:,}' for t in tokens[credit])} | {np.mean(tokens[credit]):,.0f} | {against} |"
        )
    lines += [
        "",
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
            difference = f"{100 * row['minus_paper']:+.2f} [{100 * row['minus_paper_low']:+.2f}, {100 * row['minus_paper_high']:+.2f}]"
            p = f"{row['p_value']:.4f}"
        lines.append(
            f"| {row['judge']} | {row['credit']} | {row['n']} | {100 * row['accuracy']:.2f} [{100 * row['ci_low']:.2f}, "
            f"{100 * row['ci_high']:.2f}] | {', '.join(f'{100 * s:.2f}' for s in row['seeds'])} | {difference} | {p} |"
        )
    compared = [row for row in rows if "p_value" in row]
    apart = [f"{row['credit']} ({row['judge']})" for row in compared if row["p_value"] < 0.05]
    if compared:
        lines += [
            "",
            f"At the 5 % level different from `paper`: {', '.join(apart) or 'none'}, of {len(compared)} comparisons. The interval and "
            "the test know nothing of other seeds.",
        ]
    return "\n".join(lines) + "\n"


def draw(rows: list[dict], runs: dict[str, dict[int, list[dict]]]) -> plt.Figure:
    """Left: reward over steps, mean over stages and seeds with the seeds' range. Right: final accuracy by judge."""
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    figure, (curves, *finals) = plt.subplots(
        1, 1 + len(judges), figsize=(6 + 3.2 * len(judges), 4.2), width_ratios=(2, *[1] * len(judges))
    )
    colours = dict(zip(("sft", *runs), ("#718096", *COLOURS)))
    for credit, seeds in runs.items():
        steps = sorted(
            set.intersection(*({row["step"] for row in metrics if stages_of([row])} for metrics in seeds.values()))
            - {0}
        )
        rewards = np.array(
            [
                running_mean(
                    [
                        float(np.mean([row[f"{stage}/reward"] for stage in stages_of([row])]))
                        for row in metrics
                        if row["step"] in steps
                    ]
                )
                for metrics in seeds.values()
            ]
        )
        curves.plot(steps, rewards.mean(0), color=colours[credit], label=credit)
        curves.fill_between(steps, rewards.min(0), rewards.max(0), color=colours[credit], alpha=0.15, linewidth=0)
    curves.set_xlabel("RL step (128 summaries)")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.set_ylabel("reward, running mean")
    curves.set_title("training users, range over seeds", fontsize=11)
    curves.legend(loc="upper left")
    for panel in finals[1:]:
        panel.sharey(finals[0])  # before anything is drawn, so that the common scale holds all of it
    for panel, judge in zip(finals, judges):
        mine = [row for row in rows if row["judge"] == judge]
        for x, row in enumerate(mine):
            y = 100 * row["accuracy"]
            panel.errorbar(
                [x],
                [y],
                [[max(0.0, y - 100 * row["ci_low"])], [max(0.0, 100 * row["ci_high"] - y)]],
                fmt="o",
                capsize=3,
                color=colours[row["credit"]],
            )
            panel.plot(
                [x + 0.2] * len(row["seeds"]),
                [100 * s for s in row["seeds"]],
                "_",
                color=colours[row["credit"]],
                alpha=0.7,
            )
        panel.set_xticks(range(len(mine)), [row["credit"] for row in mine], rotation=20, ha="right")
        panel.set_xlim(-0.5, len(mine) - 0.2)
        panel.set_title(f"streaming, {judge}, n = {mine[0]['n']}", fontsize=10)
    finals[0].set_ylabel("accuracy, %")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True, help="folder of the study: the runs and eval/")
    parser.add_argument("--runs", nargs="+", required=True, help="names of the runs, CREDIT.SEED")
    arguments = parser.parse_args()
    runs = read_runs(arguments.study, arguments.runs)
    scores = [row for _, row in read_jsonl(arguments.study / "eval" / "scores.jsonl")]
    rows = final(scores, {credit: list(seeds) for credit, seeds in runs.items()})
    budgets = [
        {"credit": credit, "seed": seed} | budget(metrics)
        for credit, seeds in runs.items()
        for seed, metrics in seeds.items()
    ]
    evaluated = json.loads((arguments.study / "eval" / "results.json").read_text())
    write_json(arguments.study / "results.json", {"credits": rows, "budgets": budgets, "policies": evaluated})
    evaluation = (
        (arguments.study / "eval" / "report.md").read_text(encoding="utf-8").replace("# Results", "# Each run", 1)
    )
    (arguments.study / "report.md").write_text(report(rows, runs) + "\n" + evaluation, encoding="utf-8")
    plt.switch_backend("Agg")  # files only: works without a screen
    with plt.rc_context(STYLE):
        save(draw(rows, runs), arguments.study / "credit.png")
    print(f"report: {arguments.study / 'report.md'}")


if __name__ == "__main__":
    main()
