"""The table of paired tests: two policies on the same rows, benchmark by benchmark and on average. writing.py puts it
into a report.
"""

import itertools
from collections import defaultdict

import numpy as np

from alignxplore.evaluation.averages import of_whom, paired_average
from alignxplore.evaluation.comparisons import COMPARED, COMPARED_NOTE, compared, not_compared, pairs_of, runs_meet
from alignxplore.evaluation.report.layouts import family
from alignxplore.evaluation.report.tables import Table, label
from alignxplore.evaluation.results import Sample, by_policy
from alignxplore.evaluation.worth import Key, Score
from alignxplore.statistics import Paired, paired_over_runs

ALL_PAIRS = 4  # with more policies than this in a table only the pairs with the last one are tested


def paired_tests(scores: list[Score], protocol: str) -> Table | None:
    """Every two policies on the same records, setting and judge (of many policies only the pairs with the last one).
    Training runs of a policy are compared together, never with each other."""
    lines, tests, apart = [], [], []
    parts_of: dict[tuple[str, str, str], list[tuple[Sample, Paired]]] = defaultdict(list)
    names = {score.benchmark for score in scores}
    for (benchmark, judge, setting), policies in _policies(scores, protocol).items():
        for a, b in _chosen(list(policies)):
            pairs = pairs_of(policies[a], policies[b])
            if pairs is not None:
                test = paired_over_runs(*pairs)
                lines.append([label(benchmark), judge, setting, f"{b} − {a}"])
                tests.append(test)
                if family(benchmark) == "main" and policies[a][0].of_pair:
                    part = of_whom(pairs.differences, benchmark, names), test
                    parts_of[judge, setting, lines[-1][-1]].append(part)
            elif not runs_meet(policies[a], policies[b]):
                apart.append(f"{b} − {a}")
    for (judge, setting, comparison), parts in parts_of.items():
        if len(parts) > 1 and not any(np.isnan(test.low) for _, test in parts):
            lines.append([f"average of {len(parts)}", judge, setting, comparison])
            tests.append(paired_average([sample for sample, _ in parts], [test for _, test in parts]))
    body = [line + columns for line, columns in zip(lines, compared(tests))]
    head = ["benchmark", "judge", "setting", "comparison", *COMPARED]
    note = f"{COMPARED_NOTE} Any two rows: eval/compare.py.{not_compared(apart)}"
    if not body and not apart:
        return None
    return Table(f"paired_{protocol}", f"Paired comparisons, protocol {protocol}", head, body, note)


def _policies(scores: list[Score], protocol: str) -> dict[tuple[str, str, str], dict[str, list[Score]]]:
    """(benchmark, judge, setting) → the scores of each policy that reads a history."""
    runs_by_key: dict[Key, list[Score]] = defaultdict(list)
    for row in scores:
        if row.protocol == protocol and row.setting in ("full", "streaming"):
            runs_by_key[row.key].append(row)
    groups: dict[tuple[str, str, str], dict[str, list[Score]]] = defaultdict(dict)
    for key, group in by_policy(runs_by_key).items():
        groups[key.benchmark, key.judge, key.setting][key.policy] = group
    return groups


def _chosen(policies: list[str]) -> list[tuple[str, str]]:
    """Which two of them are compared."""
    last = [name for name in policies if not name.startswith("other user's")][-1:]
    pairs = list(itertools.combinations(policies, 2))
    return [pair for pair in pairs if len(policies) <= ALL_PAIRS or last and last[0] in pair]
