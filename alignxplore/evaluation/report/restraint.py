"""Restraint: what choices that cancel each other out (perturb.py, kind `nothing`) change. They say nothing of anybody,
so they must not move the downstream model's choice; but a summary drawn anew from the same history moves it, too, and
that is the measure. A table of robustness.py.
"""

from collections.abc import Sequence

from alignxplore.evaluation.comparisons import by_pair
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label, points
from alignxplore.evaluation.results import of_several_runs, shared, values_by_record
from alignxplore.evaluation.worth import Key, Score
from alignxplore.statistics import estimate, paired

KIND = "~nothing"
NOTE = (
    "Moved: share of users for whom the downstream model takes another item than after the undisturbed history. Drawn "
    "anew: the same, between two generation seeds of the undisturbed history (--seeds 0 1); a policy that samples "
    "moves so many by itself. More than drawn anew: the difference on the same users, in points. Intervals: 95 %."
)

Groups = dict[Key, list[Score]]


def restraint(groups: Groups, judge: str, protocol: str) -> Table | None:
    """One line a policy, setting and copy, of several training runs each by itself; None where nothing was put in."""
    body = []
    for (policy, setting, benchmark, reader, row_protocol), group in groups.items():
        if of_several_runs(Key(policy, setting, benchmark, reader, row_protocol), group):
            continue  # another run moves a choice, too
        if KIND in benchmark and (reader, row_protocol) == (judge, protocol) and setting != "none":
            clean_rows = groups.get(Key(policy, setting, benchmark.partition("~")[0], judge, protocol), [])
            line = _line(by_pair(clean_rows), by_pair(group))
            if line and not policy.startswith("other user's"):
                body.append([policy, setting, label(benchmark), *line])
    head = ["policy", "setting", "benchmark", "n", "moved %", "moved, drawn anew %", "more than drawn anew"]
    title = f"Restraint: downstream model {judge}, protocol {protocol}"
    return Table(f"restraint_{judge}_{protocol}", title, head, body, NOTE) if body else None


def _line(clean_rows: Sequence[Score], disturbed_rows: Sequence[Score]) -> list[str] | None:
    """n, what moved, what moves by itself, and the difference."""
    seeds = sorted({row.seed for row in clean_rows})
    moves = _moved(clean_rows, disturbed_rows, seeds[0], seeds[0]) if seeds else {}
    if not moves:
        return None
    redrawn = _moved(clean_rows, clean_rows, seeds[0], seeds[1]) if len(seeds) > 1 else {}
    records = [record for record in moves if record in redrawn]
    line = [str(len(moves)), *(_share(part, clean_rows) for part in (moves, redrawn))]
    if not records:
        return [*line, MISSING]
    test = paired([moves[r] for r in records], [redrawn[r] for r in records], *shared(clean_rows, records))
    return [*line, f"{points(test.difference)} [{points(test.low)}, {points(test.high)}]"]


def _moved(before: Sequence[Score], after: Sequence[Score], seed: int, other: int) -> dict[str, float]:
    """Record → whether another item is taken."""
    first = values_by_record([row for row in before if row.seed == seed])
    second = values_by_record([row for row in after if row.seed == other])
    return {record: float(first[record] != second[record]) for record in first if record in second}


def _share(moves: dict[str, float], rows: Sequence[Score]) -> str:
    return estimated(estimate(list(moves.values()), *shared(rows, moves))) if moves else MISSING
