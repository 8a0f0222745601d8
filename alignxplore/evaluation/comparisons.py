"""Paired tests of score rows: same users and targets, difference, interval, p. Used by the tables, and by
`eval/compare.py` for any two rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from alignxplore.command import option
from alignxplore.errors import UserError, once
from alignxplore.evaluation.report.tables import MISSING, Table, csv_text, markdown, points
from alignxplore.evaluation.results import OverRuns, Sample, cells_of, of_several_runs, over_runs, run_of, shared
from alignxplore.evaluation.rows import read_scores
from alignxplore.evaluation.worth import KEY, Key, Score
from alignxplore.statistics import Paired, holm, least_difference, paired_over_runs

COMPARED = ["n", "difference", "95 % CI", "p", "p (Holm)", "would show"]
COMPARED_NOTE = (
    "Differences are in points; p is of a sign-flip test over persons, or of two-way clustering by person and chosen "
    "item where that is larger. p (Holm) allows for the number of comparisons: where none of them were true, one of "
    "them would be below 0.05 in five tables of a hundred. Would show: the least true difference, in points, that so "
    "many rows show in four cases of five; where nothing was found, less may still be there."
)
FIELDS = f"as FIELD=VALUE ... of {', '.join(KEY)}"


@dataclass(kw_only=True)
class CompareOptions:
    """Which two rows."""

    report: Path = option("folder with the scores.jsonl of evaluate.py")
    second_report: Path | None = option("folder of the second row, where it is another one", None, "--report_b")
    first: list[str] = option(f"the first row, {FIELDS}", [], "--a")
    second: list[str] = option("the second row; the difference is second − first", [], "--b")
    where: list[str] = option("what holds of both", [])
    csv: bool = option("print CSV instead of Markdown", False)

    def __post_init__(self) -> None:
        shared_values = selection(self.where)
        for name, texts in (("first", self.first), ("second", self.second)):
            for field, value in selection(texts).items():
                if value != (other := shared_values.get(field, value)):
                    raise ValueError(f"--{name} {field}={value} contradicts --where {field}={other}; leave one out")


class Pairs(NamedTuple):
    """Values of two policies in the same rows, with what makes the rows depend on each other."""

    second: list[float]
    first: list[float]
    runs: list[str]
    persons: list[str]
    items: list[str]

    @property
    def differences(self) -> Sample:
        values = [second - first for second, first in zip(self.second, self.first)]
        return Sample(values, self.runs, self.persons, self.items)


def pairs_of(a: Sequence[Score], b: Sequence[Score]) -> Pairs | None:
    """Scores of two policies → what is compared; None if they share no records, or their training runs no numbers."""
    if not runs_meet(a, b):
        return None
    first, second = over_runs(a), over_runs(b)
    places = _shared_places(first, second)
    if not places:
        return None
    b_values, a_values = [second.values[place] for place, _ in places], [first.values[place] for _, place in places]
    several = len(set(second.runs)) > 1  # else the runs are those of the first
    runs = [second_run if several else first_run for (second_run, _), (first_run, _) in places]
    return Pairs(b_values, a_values, runs, *shared(a, [record for _, (_, record) in places]))


def runs_meet(a: Sequence[Score], b: Sequence[Score]) -> bool:
    """Whether two policies, if both were trained several times, have at least two runs of the same numbers: one pair
    of runs would say nothing of others."""
    first_runs, second_runs = (
        {run_of(score.policy)[1] for score in scores if score.value is not None} for scores in (a, b)
    )
    return min(len(first_runs), len(second_runs)) < 2 or len(first_runs & second_runs) > 1


def not_compared(names: Iterable[str]) -> str:
    """What must be said of pairs whose runs do not meet; empty if there are none."""
    listing = "; ".join(dict.fromkeys(names))
    rule = "Training runs are compared by their numbers, and two policies need two in common."
    return f" Not compared: {listing}. {rule}" if listing else ""


def compare(a: Sequence[Score], b: Sequence[Score]) -> Paired | None:
    """Scores of two policies → the paired test of b − a on the records they share; None as `pairs_of`."""
    pairs = pairs_of(a, b)
    return None if pairs is None else paired_over_runs(*pairs)


def _shared_places(first: OverRuns, second: OverRuns) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """(place in the second, place in the first) of what is compared: training runs of the same number, or each of them
    with the policy that was trained once."""
    first_runs, second_runs = dict.fromkeys(first.runs), dict.fromkeys(second.runs)
    by_number = len(first_runs) > 1 and len(second_runs) > 1
    return [
        ((second_run, record), (first_run, record))
        for first_run, record in first.values
        for second_run in second_runs
        if (second_run == first_run or not by_number) and (second_run, record) in second.values
    ]


def compared(tests: Sequence[Paired]) -> list[list[str]]:
    """The columns `COMPARED` of the tests of one table. Of a single person nothing is known but the difference."""
    rows = []
    for test, among_all in zip(tests, holm([test.p_value for test in tests])):
        cells = [
            f"[{points(test.low)}, {points(test.high)}]",
            f"{test.p_value:.4f}",
            f"{among_all:.4f}",
            f"{100 * least_difference(test):.2f}",
        ]
        cells = cells if test.low == test.low else [MISSING] * len(cells)
        rows.append([str(test.n), points(test.difference), *cells])
    return rows


def by_pair(scores: Iterable[Score]) -> list[Score]:
    """Scores whose `record` is the user and target alone, so that disturbed copies of a record count as the same
    record."""
    return [replace(score, record=f"{score.user} {score.target}") for score in scores]


def chosen_scores(folder: Path, values: dict[str, str]) -> dict[Key, list[Score]]:
    """Scores by (policy, setting, benchmark, judge, protocol), those that fit the chosen values."""
    return {key: scores for key, scores in cells_of(read_scores(folder)).items() if _fits(key, scores, values)}


def _fits(key: Key, scores: Sequence[Score], values: dict[str, str]) -> bool:
    """Whether a row is meant. The name of a policy without the number of a run is that of all its runs together."""
    policy = run_of(scores[0].policy)[0] if of_several_runs(key, scores) else key.policy
    fields = key._asdict() | {"policy": policy}
    return all(value in (fields[field], getattr(key, field)) for field, value in values.items())


def comparisons(
    first_groups: dict[Key, list[Score]],
    second_groups: dict[Key, list[Score]],
    named_fields: set[str],
    one_report: bool = True,
) -> Table:
    """One line for each two rows that agree in every field that is not named. In one report a row is never compared
    with itself."""
    free_places = [place for place, field in enumerate(KEY) if field not in named_fields]
    names, tests, apart = [], [], []
    for a, rows in first_groups.items():
        for b, others in second_groups.items():
            if not (one_report and a == b) and all(a[place] == b[place] for place in free_places):
                test = compare(by_pair(rows), by_pair(others))
                if test is not None:
                    names.append([" / ".join(a), " / ".join(b)])
                    tests.append(test)
                elif not runs_meet(rows, others):
                    apart.append(f"{' / '.join(b)} − {' / '.join(a)}")
    body = [pair + columns for pair, columns in zip(names, compared(tests))]
    return Table(
        "comparison",
        "second − first, on the same users and targets",
        ["first", "second", *COMPARED],
        body,
        COMPARED_NOTE + not_compared(apart),
    )


def selection(texts: list[str]) -> dict[str, str]:
    """FIELD=VALUE texts as a dictionary.

    Raises:
        ValueError: a field that rows are not chosen by, or one with two values.
    """
    once("first, --second, --where", (text.partition("=")[0] for text in texts))
    chosen = dict(text.partition("=")[::2] for text in texts)
    if wrong := set(chosen) - set(KEY):
        raise ValueError(f"unknown field {', '.join(sorted(wrong))}; rows are chosen by {', '.join(KEY)}")
    return chosen


def compare_rows(options: CompareOptions) -> str:
    """What `eval/compare.py` prints.

    Raises:
        UserError: no such row, the same one twice, or no two with the same users; with the rows that there are.
    """
    a, b, shared_values = (selection(texts) for texts in (options.first, options.second, options.where))
    first_groups = chosen_scores(options.report, shared_values | a)
    other = options.second_report or options.report
    second_groups = chosen_scores(other, shared_values | b)
    all_groups = chosen_scores(options.report, {})
    listing = "\n".join(sorted("  " + " / ".join(key) for key in all_groups))
    contents = f"{options.report} holds ({' / '.join(KEY)}):\n{listing}"
    for name, groups, values, folder in (
        ("first", first_groups, shared_values | a, options.report),
        ("second", second_groups, shared_values | b, other),
    ):
        if not groups:
            query = " ".join(f"{field}={value}" for field, value in values.items())
            path = Path(folder) / "scores.jsonl"
            raise UserError(f"{path}: no row in it has {query} (--{name} and --where); {contents}")
    if options.second_report is None and first_groups.keys() == second_groups.keys() and len(first_groups) == 1:
        raise UserError(f"--first and --second are the same row, {' / '.join(next(iter(first_groups)))}; {contents}")
    table = comparisons(first_groups, second_groups, set(a) | set(b), one_report=options.second_report is None)
    if not table.body:
        reason = table.note.removeprefix(COMPARED_NOTE).strip() or "no two rows with the same users and targets"
        raise UserError(f"{reason.removesuffix('.')}; {contents}")
    return csv_text(table) if options.csv else markdown(table)
