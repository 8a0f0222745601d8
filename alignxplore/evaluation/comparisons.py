"""A paired test between any two rows of our tables: same users and targets, difference in points, interval, p.

    python eval/compare.py --report outputs/eval --a policy=base --b policy=ours
    python eval/compare.py --report outputs/eval --a setting=streaming --b setting=full --where policy=ours judge=qwen3
    python eval/compare.py --report outputs/robustness/default --a benchmark=mind --b benchmark=mind~swapped20
    python eval/compare.py --report outputs/eval/tables/main --report-b outputs/older/tables/main --where policy=ours

Rows are chosen by policy, setting, benchmark, judge and protocol; what is not named must be the same in both and gives
one line each. The difference is b − a, over generation seeds where there are several; p is of a cluster sign-flip
test.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from alignxplore.evaluation.metrics import KEY, clusters_of, values_by_record
from alignxplore.evaluation.report.tables import Table, csv_text, markdown, points
from alignxplore.records import read_jsonl
from alignxplore.statistics import Paired, paired


def compare(a: list[dict], b: list[dict]) -> Paired | None:
    """Score rows of two policies → the paired test of b − a on the records they share; None if they share none."""
    left, right = values_by_record(a), values_by_record(b)
    records = [record for record in left if record in right]
    return (
        paired([right[r] for r in records], [left[r] for r in records], clusters_of(a, records)) if records else None
    )


def compared(test: Paired) -> list[str]:
    """n, difference, interval and p as shown in tables."""
    return [str(test.n), points(test.difference), f"[{points(test.low)}, {points(test.high)}]", f"{test.p_value:.4f}"]


def by_pair(rows: list[dict]) -> list[dict]:
    """Score rows whose `record` is the user and target alone, so that disturbed copies of a record count as the same
    record."""
    return [row | {"record": f"{row['user']} {row['target']}"} for row in rows]


def read_scores(folder: Path, wanted: dict[str, str]) -> dict[tuple, list[dict]]:
    """Score rows by (policy, setting, benchmark, judge, protocol), those that fit the chosen values."""
    groups = defaultdict(list)
    for _, row in read_jsonl(folder / "scores.jsonl"):
        if all(row[field] == value for field, value in wanted.items()):
            groups[tuple(row[field] for field in KEY)].append(row)
    return groups


def comparisons(
    left: dict[tuple, list[dict]], right: dict[tuple, list[dict]], named: set[str], one_report: bool = True
) -> Table:
    """One line for each two rows that agree in every field that is not named. In one report a row is never compared
    with itself."""
    free = [place for place, field in enumerate(KEY) if field not in named]
    body = []
    for a, rows in left.items():
        for b, others in right.items():
            if not (one_report and a == b) and all(a[place] == b[place] for place in free):
                test = compare(by_pair(rows), by_pair(others))
                if test is not None:
                    body.append([" / ".join(a), " / ".join(b), *compared(test)])
    return Table(
        "comparison", "b − a on the same users and targets", ["a", "b", "n", "difference", "95 % CI", "p"], body
    )


def selection(texts: list[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    chosen = dict(text.partition("=")[::2] for text in texts)
    if wrong := set(chosen) - set(KEY):
        parser.error(f"unknown field {', '.join(sorted(wrong))}; rows are chosen by {', '.join(KEY)}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="folder with the scores.jsonl of evaluate.py")
    parser.add_argument("--report-b", type=Path, help="folder of the second row, where it is another one")
    parser.add_argument("--a", nargs="+", default=[], metavar="FIELD=VALUE", help="the first row")
    parser.add_argument("--b", nargs="+", default=[], metavar="FIELD=VALUE", help="the second row")
    parser.add_argument("--where", nargs="+", default=[], metavar="FIELD=VALUE", help="what holds of both")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of Markdown")
    arguments = parser.parse_args()
    a, b, both = (selection(texts, parser) for texts in (arguments.a, arguments.b, arguments.where))
    left = read_scores(arguments.report, both | a)
    right = read_scores(arguments.report_b or arguments.report, both | b)
    table = comparisons(left, right, set(a) | set(b), one_report=arguments.report_b is None)
    if not table.body:
        rows = "\n".join(sorted("  " + " / ".join(key) for key in read_scores(arguments.report, {})))
        parser.exit(
            1, f"no two rows with the same users and targets; {arguments.report} holds ({' / '.join(KEY)}):\n{rows}\n"
        )
    print(csv_text(table) if arguments.csv else markdown(table))
