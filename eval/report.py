"""Tables and plots from results.json and scores.jsonl: Markdown, CSV and LaTeX, and the figures.

    python eval/report.py --out outputs/eval          # evaluate.py does this at its end

Averages and differences are computed here from the scores, never copied. A number that is missing is shown as missing.
"""

import argparse
import csv
import io
import itertools
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results import clusters_of, values_by_record
from suite import Benchmark, installed_versions

from alignxplore.prompts import PromptSet
from alignxplore.records import read_jsonl
from alignxplore.statistics import paired

COLUMNS = ("policy", "setting", "benchmark", "judge", "protocol", "n", "accuracy", "ci_low", "ci_high", "accuracy_well_formed",
           "bad_format", "parse_failures", "coverage", "mean_p", "auc", "flip_rate", "mass", "seed_spread")
MISSING = "–"


def bound_rows(path: Path, benchmarks: Iterable[Benchmark]) -> list[dict]:
    """Chance and best possible accuracy of the benchmarks of a simulated world, as rows of results."""
    known = json.loads(path.read_text())["benchmarks"]
    rows = []
    for benchmark in benchmarks:
        bound = known.get(benchmark.path.stem)
        if bound is None:
            continue
        shared = {"setting": "bound", "benchmark": benchmark.name, "judge": "none", "protocol": "choice", "n": bound["n"], "bad_format": 0.0,
                  "parse_failures": 0.0, "coverage": 1.0}
        rows.append({"policy": "chance", "accuracy": bound["chance"], "ci_low": None, "ci_high": None} | shared)
        rows.append({"policy": "best from the history", "accuracy": bound["history_accuracy"], "ci_low": bound["history_ci_low"],
                     "ci_high": bound["history_ci_high"]} | shared)
        rows.append({"policy": "best possible", "accuracy": bound["best_accuracy"], "ci_low": bound["ci_low"],
                     "ci_high": bound["ci_high"]} | shared)
    return rows


def provenance(arguments: Any, benchmarks: dict[str, Benchmark], prompts: PromptSet, judges: dict[str, str]) -> dict:
    """What one must know to repeat the numbers: arguments, model identities, template hashes, versions, commit, leakage."""
    return {
        "arguments": vars(arguments), "judges": judges, "prompt_hashes": prompts.hashes, "versions": installed_versions(),
        "commit": git_commit(), "benchmarks": {b.name: {"n": len(b.records), "target_in_history": b.leaked} for b in benchmarks.values()},
    }


def git_commit() -> str | None:
    """Commit of this checkout, with "+" when the tree has changes; None outside a checkout."""
    run = subprocess.run(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--match", "none"],
                         capture_output=True, text=True)
    return run.stdout.strip() or None


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}"


def cell_text(row: dict | None) -> str:
    """Accuracy with its interval, as shown in a table."""
    if row is None or row["accuracy"] is None:
        return MISSING
    if row["ci_low"] is None:
        return percent(row["accuracy"])
    return f"{percent(row['accuracy'])} [{percent(row['ci_low'])}, {percent(row['ci_high'])}]"


def main_table(rows: list[dict], benchmark: str, protocol: str) -> list[list[str]]:
    """Rows = policies in order; columns = setting under each judge, then n, bad format and coverage (their worst cell)."""
    mine = [row for row in rows if row["benchmark"] == benchmark and row["protocol"] == protocol]
    judges = list(dict.fromkeys(row["judge"] for row in mine if row["judge"] != "none"))
    settings = [s for s in ("full", "streaming") if any(row["setting"] == s for row in mine)]
    policies = list(dict.fromkeys(row["policy"] for row in mine))
    cells = {(row["policy"], row["setting"], row["judge"]): row for row in mine}
    table = [["policy", *(f"{setting}, {judge}" for judge in judges for setting in settings), "n", "bad format %", "coverage %"]]
    for policy in policies:
        found = [row for row in mine if row["policy"] == policy]
        line = [_policy_label(policy, found)]
        for judge, setting in itertools.product(judges, settings):
            row = cells.get((policy, setting, judge))
            if row is None and setting == settings[0]:  # a setting of its own stands in the first column of its judge
                row = next((r for r in found if r["setting"] not in settings and r["judge"] in (judge, "none")), None)
            line.append(cell_text(row))
        spread = sorted({row["n"] for row in found})
        line += ["–".join(map(str, dict.fromkeys((spread[0], spread[-1])))), percent(max(row["bad_format"] for row in found)),
                 percent(min(row["coverage"] for row in found))]
        table.append(line)
    return table


def _policy_label(policy: str, found: list[dict]) -> str:
    setting = found[0]["setting"]
    return f"{policy} reads the history (direct)" if setting == "direct" else policy


def paired_table(scores: list[dict], protocol: str) -> list[list[str]]:
    """Every two policies on the same records, setting and judge: difference, interval, p."""
    groups: dict[tuple, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in scores:
        if row["protocol"] == protocol and row["setting"] in ("full", "streaming"):
            groups[row["benchmark"], row["judge"], row["setting"]][row["policy"]].append(row)
    table = [["benchmark", "judge", "setting", "comparison", "n", "difference", "95 % CI", "p"]]
    for (benchmark, judge, setting), policies in groups.items():
        for a, b in itertools.combinations(policies, 2):
            left, right = values_by_record(policies[a]), values_by_record(policies[b])
            records = [record for record in left if record in right]
            if records:
                test = paired([right[r] for r in records], [left[r] for r in records], clusters_of(policies[a], records))
                table.append([benchmark, judge, setting, f"{b} − {a}", str(test.n), f"{100 * test.difference:+.2f}",
                              f"[{100 * test.low:+.2f}, {100 * test.high:+.2f}]", f"{test.p_value:.4f}"])
    return table


def markdown(table: list[list[str]]) -> str:
    head, *body = [[text.replace("|", "\\|") for text in line] for line in table]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(table: list[list[str]]) -> str:
    escape = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "–": "--", "−": "$-$"})
    head, *body = [" & ".join(text.translate(escape) for text in line) + r" \\" for line in table]
    rule = "l" + "r" * (len(table[0]) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{rule}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


def csv_text(rows: list[dict]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: row.get(key) for key in COLUMNS} for row in rows)
    return out.getvalue()


def write(out: Path) -> str:
    """Write report.md, results.csv and the LaTeX tables into `out`; returns the Markdown of the main tables."""
    rows = json.loads((out / "results.json").read_text())
    scores = [row for _, row in read_jsonl(out / "scores.jsonl")]
    run = json.loads((out / "run.json").read_text())
    parts, shown = [], []
    for benchmark, protocol in dict.fromkeys((row["benchmark"], row["protocol"]) for row in rows):
        table = main_table(rows, benchmark, protocol)
        shown.append(f"### {benchmark}, protocol {protocol}\n\n{markdown(table)}")
        (out / f"table_{benchmark}_{protocol}.tex").write_text(latex(table))
    for protocol in dict.fromkeys(row["protocol"] for row in scores):
        table = paired_table(scores, protocol)
        if len(table) > 1:
            parts.append(f"### Paired comparisons, protocol {protocol}\n\n{markdown(table)}")
    notes = ("Accuracy in %, with its 95 % interval (bootstrap over clusters of rows that share a user or a target). A summary that is bad "
             "format scores 0.5 in protocol choice and 0 in protocol paper. Differences are in points; p is of a cluster sign-flip test.")
    made = f"Commit {run['commit'] or 'unknown'}; " + ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    text = "\n\n".join(["# Results", *shown, notes, *parts, f"{made}.", ""])
    (out / "report.md").write_text(text)
    (out / "results.csv").write_text(csv_text(rows))
    return "\n\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="output folder of evaluate.py")
    print(write(parser.parse_args().out))


if __name__ == "__main__":
    main()
