"""What a table is, and how it is written: Markdown, LaTeX, CSV (report.html has its own form). Used by all reports of
eval/.

A cell is text that is ready to be read. A number that is missing is shown as missing, never as zero.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignxplore.datasets import DATASETS
from alignxplore.evaluation import metrics
from alignxplore.evaluation.rows import Result
from alignxplore.records import write_text
from alignxplore.statistics import Estimate

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
# Headings of what a short table leaves out.
WORST = (metrics.bad_format.heading, metrics.parse_failures.heading, metrics.coverage.heading, "seeds")
_INTERVAL = re.compile(r" \[[^\]]*\]")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
        "±": r"$\pm$",
        "→": r"$\rightarrow$",
        "κ": r"$\kappa$",
    }
)


Cell = tuple[str, str, str, str, str]  # benchmark, policy, setting, judge, protocol


@dataclass(frozen=True)
class Table:
    """A table ready to be written. `name` becomes the file name, `head` names the columns of `body`. `cells` says what
    a number is of, by (line, column)."""

    name: str
    title: str
    head: list[str]
    body: list[list[str]]
    note: str = ""
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def cell_text(row: Result | None) -> str:
    """Accuracy with its interval and, of several generation seeds, the standard deviation between them."""
    if row is None or row.accuracy is None:
        return MISSING
    spread = "" if row.seed_spread is None else f" ± {percent(row.seed_spread)}"
    return percent(row.accuracy) + spread + interval(row.ci_low, row.ci_high)


def interval(low: float | None, high: float | None) -> str:
    """What stands behind a share that has an interval."""
    return "" if low is None or np.isnan(low) else f" [{percent(low)}, {percent(high)}]"


def estimated(estimate: Estimate) -> str:
    """A share in % with its interval, where it has one."""
    if not estimate.n:
        return MISSING
    return percent(estimate.mean) + interval(estimate.low, estimate.high)


def label(benchmark: str) -> str:
    """How a benchmark is called in tables: its column in the published ones, or its own name; of a variant both
    parts."""
    source, arrow, target = benchmark.partition("~to~")
    if arrow:
        return f"{label(source)} → {label(target)}"
    name, _, variant = benchmark.partition("~")
    column = DATASETS[name].column if name in DATASETS and DATASETS[name].column else name
    return f"{column}, {variant}" if variant else column


def markdown(table: Table) -> str:
    lines = [[text.replace("|", "\\|") for text in line] for line in (table.head, *table.body)]
    lines.insert(1, ["---"] + ["---:"] * (len(table.head) - 1))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {table.title}\n\n{text}" + (f"\n\n{table.note}" if table.note else "")


def latex(table: Table) -> str:
    """A tabular for booktabs; title and note stand above it as comments."""
    comments = [f"% {line}\n" for line in (table.title, *table.note.splitlines())]
    head, *body = [[text.translate(_LATEX) for text in line] for line in (table.head, *table.body)]
    rule = "l" + "r" * (len(head) - 1)
    return "".join(comments) + _frame(body, len(head)).to_latex(
        index=False, header=head, column_format=rule, escape=False
    )


def short(table: Table) -> Table:
    """The same without intervals and columns of `WORST`, which fits a page."""
    places = [place for place, text in enumerate(table.head) if text not in WORST]
    lines = ([_INTERVAL.sub("", line[place]) for place in places] for line in (table.head, *table.body))
    return replace(table, head=next(lines), body=list(lines), cells={})


def csv_text(table: Table) -> str:
    return csv_of(table.head, table.body)


def csv_of(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Lines under their head; what is None is empty."""
    return _frame(lines, len(head)).to_csv(index=False, header=head, lineterminator="\n")


def _frame(lines: Iterable[Sequence[object]], width: int) -> "pd.DataFrame":
    import pandas as pd  # takes a second, which only what writes tables shall wait

    # Of objects, or an integer in a column with gaps would become a fraction.
    return pd.DataFrame(list(lines), columns=range(width), dtype=object)


def write_table(folder: Path, table: Table) -> None:
    """`table_NAME.tex`, `table_NAME_short.tex` and `table_NAME.csv`."""
    write_text(folder / f"table_{table.name}.tex", latex(table))
    write_text(folder / f"table_{table.name}_short.tex", latex(short(table)))
    write_text(folder / f"table_{table.name}.csv", csv_text(table))
