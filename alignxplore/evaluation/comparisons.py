"""Paired tests of score rows: same users and targets, difference, interval, p. Used by the tables, and by
`eval/compare.py` for any two rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignxplore.command import option
from alignxplore.errors import UserError
from alignxplore.evaluation.report.tables import MISSING, Table, csv_text, markdown, points
from alignxplore.evaluation.results import OverRuns, over_runs, pooled, run_of, shared
from alignxplore.evaluation.rows import KEY, Key, Score, read_scores
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
    report_b: Path | None = option("folder of the second row, where it is another one", None)
    a: list[str] = option(f"the first row, {FIELDS}", [])
    b: list[str] = option("the second row", [])
    where: list[str] = option("what holds of both", [])
    csv: bool = option("print CSV instead of Markdown", False)

    def __post_init__(self) -> None:
        for texts in (self.a, self.b, self.where):
            selection(texts)


def compare(a: Sequence[Score], b: Sequence[Score]) -> Paired | None:
    """Scores of two policies → the paired test of b − a on the records they share; None if they share none."""
    left, right = over_runs(a), over_runs(b)
    places = _shared_places(left, right)
    if not places:
        return None
    ours, theirs = [right.values[place] for place, _ in places], [left.values[place] for _, place in places]
    runs = [mine[0] or other[0] for mine, other in places]
    return paired_over_runs(ours, theirs, runs, *shared(a, [record for _, (_, record) in places]))


def _shared_places(left: OverRuns, right: OverRuns) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """(place in the second, place in the first) of what is compared: training runs of the same number, or each of them
    with the policy that was trained once."""
    theirs, ours = dict.fromkeys(left.runs), dict.fromkeys(right.runs)
    alike = len(ours) > 1 and len(theirs) > 1
    return [
        ((mine, record), (run, record))
        for run, record in left.values
        for mine in ours
        if (mine == run or not alike) and (mine, record) in right.values
    ]


def compared(tests: Sequence[Paired]) -> list[list[str]]:
    """The columns `COMPARED` of the tests of one table. Of a single person nothing is known but the difference."""
    rows = []
    for test, among_all in zip(tests, holm([test.p_value for test in tests])):
        known = [
            f"[{points(test.low)}, {points(test.high)}]",
            f"{test.p_value:.4f}",
            f"{among_all:.4f}",
        ]
        shown = [*known, f"{100 * least_difference(test):.2f}"] if test.low == test.low else [MISSING] * 4
        rows.append([str(test.n), points(test.difference), *shown])
    return rows


def by_pair(scores: Iterable[Score]) -> list[Score]:
    """Scores whose `record` is the user and target alone, so that disturbed copies of a record count as the same
    record."""
    return [replace(score, record=f"{score.user} {score.target}") for score in scores]


def chosen_scores(folder: Path, wanted: dict[str, str]) -> dict[Key, list[Score]]:
    """Scores by (policy, setting, benchmark, judge, protocol), those that fit the chosen values."""
    groups: dict[Key, list[Score]] = defaultdict(list)
    for score in read_scores(folder):
        groups[score.key].append(score)
    groups |= pooled(groups)
    return {key: mine for key, mine in groups.items() if _fits(key, mine, wanted)}


def _fits(key: Key, mine: Sequence[Score], wanted: dict[str, str]) -> bool:
    """Whether a row is meant. The name of a policy without the number of a run is that of all its runs together."""
    together = run_of(mine[0].policy)[0] if mine[0].policy != key.policy else key.policy
    known = key._asdict() | {"policy": together}
    return all(value in (known[field], getattr(key, field)) for field, value in wanted.items())


def comparisons(
    left: dict[Key, list[Score]], right: dict[Key, list[Score]], named: set[str], one_report: bool = True
) -> Table:
    """One line for each two rows that agree in every field that is not named. In one report a row is never compared
    with itself."""
    free = [place for place, field in enumerate(KEY) if field not in named]
    named_rows, tests = [], []
    for a, rows in left.items():
        for b, others in right.items():
            if not (one_report and a == b) and all(a[place] == b[place] for place in free):
                test = compare(by_pair(rows), by_pair(others))
                if test is not None:
                    named_rows.append([" / ".join(a), " / ".join(b)])
                    tests.append(test)
    body = [names + found for names, found in zip(named_rows, compared(tests))]
    return Table("comparison", "b − a on the same users and targets", ["a", "b", *COMPARED], body, COMPARED_NOTE)


def selection(texts: list[str]) -> dict[str, str]:
    """FIELD=VALUE texts as a dictionary.

    Raises:
        ValueError: a field that rows are not chosen by.
    """
    chosen = dict(text.partition("=")[::2] for text in texts)
    if wrong := set(chosen) - set(KEY):
        raise ValueError(f"unknown field {', '.join(sorted(wrong))}; rows are chosen by {', '.join(KEY)}")
    return chosen


def compare_rows(options: CompareOptions) -> str:
    """What `eval/compare.py` prints.

    Raises:
        UserError: no such row, the same one twice, or no two with the same users; with the rows that there are.
    """
    a, b, both = (selection(texts) for texts in (options.a, options.b, options.where))
    left = chosen_scores(options.report, both | a)
    other = options.report_b or options.report
    right = chosen_scores(other, both | b)
    everything = chosen_scores(options.report, {})
    listed = "\n".join(sorted("  " + " / ".join(key) for key in everything))
    holds = f"{options.report} holds ({' / '.join(KEY)}):\n{listed}"
    for which, found, wanted, folder in (("a", left, both | a, options.report), ("b", right, both | b, other)):
        if not found:
            said = " ".join(f"{field}={value}" for field, value in wanted.items())
            path = Path(folder) / "scores.jsonl"
            raise UserError(f"{path}: no row in it has {said} (--{which} and --where); {holds}")
    if options.report_b is None and left.keys() == right.keys() and len(left) == 1:
        raise UserError(f"--a and --b are the same row, {' / '.join(next(iter(left)))}; {holds}")
    table = comparisons(left, right, set(a) | set(b), one_report=options.report_b is None)
    if not table.body:
        raise UserError(f"no two rows with the same users and targets; {holds}")
    return csv_text(table) if options.csv else markdown(table)
