"""Quick starts of several seeds as one table: accuracy and paired differences, pooled over seeds and for each of them.

    python studies/pool_seeds.py --runs runs/quickstart runs/seed2 runs/seed3 --out runs/studies/films_seeds

Each seed has other test persons, judges, policies and draws. A pooled interval is over runs, persons and films, that
of one run, or of a row without a model, over persons and films alone. With --control (NAME=FOLDER of an evaluation
upon the first run) its policy is compared with that run's. Writes results.json and report.md.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alignxplore.command import option, run
from alignxplore.errors import UserError
from alignxplore.evaluation.report.tables import MISSING, Table, markdown, percent, points
from alignxplore.evaluation.rows import read_scores
from alignxplore.records import person_of, write_json, write_text
from alignxplore.statistics import estimate, estimate_over_runs, paired_over_runs

Row = tuple[int, str, str, str]  # run, user, target, chosen item
Cell = tuple[str, str, str]  # policy, setting, judge
NO_MODEL = "none"  # the judge of what is counted
TALLY: Cell = ("content tally", "direct", NO_MODEL)
SETTINGS = ("full", "streaming")
OVER = "95 % intervals over training runs, persons and chosen films; of rows without a model over persons and films."
# What is compared: policy and the one that it should be better than.
COMPARED = (("sft", "untrained"), ("sft+rl", "sft"))


@dataclass(kw_only=True)
class SeedsOptions:
    """Which runs."""

    runs: list[Path] = option("finished quick starts")
    out: Path = option("folder for results.json and report.md")
    control: str | None = option(
        "NAME=FOLDER of an evaluation: a policy trained upon the first run as a control", None
    )

    def __post_init__(self) -> None:
        folders = [run.resolve() for run in self.runs]
        if doubles := [run for run, folder in zip(self.runs, folders) if folders.count(folder) > 1]:
            raise ValueError(f"--runs names {doubles[0]} twice: its rows would count as those of another seed")


def scores_of(folder: Path, run: int) -> Iterator[tuple[Cell, Row, float]]:
    """Each score of an evaluation by choice; failed judgements are left out."""
    for row in read_scores(folder):
        if row.value is not None and row.protocol == "choice":
            yield (row.policy, row.setting, row.judge), (run, row.user, row.target, row.item), row.value


def read_runs(options: SeedsOptions) -> dict[Cell, dict[Row, float]]:
    """Score of each row in each cell, over all runs."""
    cells: dict[Cell, dict[Row, float]] = defaultdict(dict)
    folders = [(run / "eval", number) for number, run in enumerate(options.runs)]
    if options.control:
        folders.append((Path(options.control.partition("=")[2]), 0))
    for folder, number in folders:
        for cell, row, value in scores_of(folder, number):
            cells[cell][row] = value
    if absent := {policy for pair in COMPARED for policy in pair} - {policy for policy, *_ in cells}:
        raise UserError(f"{options.runs[0]}: no scores of {', '.join(sorted(absent))}; is it a finished quick start?")
    return dict(cells)


def shared(rows: list[Row]) -> tuple[list[int], list[str], list[str]]:
    """Run, person and chosen item of each row: rows that have one of them alike depend on each other."""
    return [run for run, *_ in rows], [person_of(user) for _, user, _, _ in rows], [item for *_, item in rows]


def by_run(values: dict[Row, float]) -> dict[int, dict[Row, float]]:
    """The same, run by run."""
    rows_of_run: dict[int, dict[Row, float]] = defaultdict(dict)
    for row, value in values.items():
        rows_of_run[row[0]][row] = value
    return dict(sorted(rows_of_run.items()))


def accuracy(cell: Cell, values: dict[Row, float]) -> dict:
    """Pooled accuracy of one cell with its interval, and that of each run. Where no model was trained there are no
    training runs: the interval is over persons and films alone."""
    rows = sorted(values)
    runs, persons, films = shared(rows)
    scores = [values[row] for row in rows]
    untrained = cell[2] == NO_MODEL
    result = estimate(scores, persons, films) if untrained else estimate_over_runs(scores, runs, persons, films)
    means = [sum(run_values.values()) / len(run_values) for run_values in by_run(values).values()]
    return dict(zip(("policy", "setting", "judge"), cell)) | asdict_of(result) | {"runs": means}


def difference(better: Cell, than: Cell, cells: dict[Cell, dict[Row, float]]) -> dict:
    """Paired difference of two cells, pooled and for each run, on the rows that both have."""
    a, b = cells[better], cells[than]

    def compared(rows: list[Row]) -> dict:
        return asdict_of(paired_over_runs([a[row] for row in rows], [b[row] for row in rows], *shared(rows)))

    common = {row: a[row] for row in a if row in b}
    differences = [compared(sorted(rows_of_run)) for rows_of_run in by_run(common).values()]
    return {"policy": better, "minus": than} | compared(sorted(common)) | {"runs": differences}


def asdict_of(result: NamedTuple) -> dict:
    """The fields of a named tuple as numbers of Python."""
    return {
        name: int(value) if name in ("n", "clusters", "two_way") else float(value)
        for name, value in result._asdict().items()
    }


def comparisons(cells: dict[Cell, dict[Row, float]], control: str | None) -> list[dict]:
    """Each stage of training against the one before, the stream against the full history, the control against SFT."""
    judges = sorted({judge for _, setting, judge in cells if setting == "streaming"})
    pairs = [*COMPARED, *([(control, "sft")] if control else [])]
    differences = [
        difference((policy, setting, judge), (baseline, setting, judge), cells)
        for policy, baseline in pairs
        for setting in SETTINGS
        for judge in judges
    ]
    final_policy = COMPARED[-1][0]
    return differences + [
        difference((final_policy, "streaming", judge), (final_policy, "full", judge), cells) for judge in judges
    ]


def interval(row: dict, value: str, show=percent) -> str:
    return f"{show(row[value])} [{show(row['low'])}, {show(row['high'])}]"


def tables(accuracies: list[dict], paired_rows: list[dict]) -> list[Table]:
    """Accuracy with the share of the way to the tally; differences."""
    tally = next((row["mean"] for row in accuracies if row["policy"] == TALLY[0]), None)

    def way(row: dict) -> str:
        return MISSING if tally in (None, 0.5) else f"{100 * (row['mean'] - 0.5) / (tally - 0.5):.0f} %"

    cells = [
        [row["policy"], row["setting"], row["judge"], str(row["n"]), interval(row, "mean"), way(row)]
        + [", ".join(map(percent, row["runs"]))]
        for row in accuracies
    ]
    head = ["policy", "setting", "judge", "n", "accuracy %", "of the way to the tally", "each run"]
    differences = [
        [f"{row['policy'][0]} ({row['policy'][1]})", f"{row['minus'][0]} ({row['minus'][1]})", row["policy"][2]]
        + [str(row["n"]), interval(row, "difference", points), f"{row['p_value']:.4f}"]
        + ["; ".join(interval(run_row, "difference", points) for run_row in row["runs"])]
        for row in paired_rows
    ]
    against = ["policy", "minus", "judge", "n", "points", "p", "each run"]
    return [
        Table("accuracy", "Accuracy", head, cells, OVER),
        Table("paired", "Differences on the same rows", against, differences),
    ]


def pool(options: SeedsOptions) -> str:
    """Write results.json and report.md; says where the report is."""
    cells, control = read_runs(options), options.control and options.control.partition("=")[0]
    accuracies = [accuracy(cell, values) for cell, values in cells.items()]
    differences = comparisons(cells, control)
    write_json(options.out / "results.json", {"accuracy": accuracies, "paired": differences})
    text = "\n\n".join(map(markdown, tables(accuracies, differences)))
    write_text(options.out / "report.md", f"# Quick starts of {len(options.runs)} seeds\n\n{text}\n")
    return f"report: {options.out / 'report.md'}"


if __name__ == "__main__":
    run(pool, SeedsOptions, __doc__)
