"""Accuracy by kind of row: one table a protocol, and one plot. Used by writing.py and plots.py; what the kinds are is
said in evaluation/segments.py.
"""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from alignxplore.evaluation.report import lines
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, label
from alignxplore.evaluation.results import by_rule, shared, value_of, values_by_record
from alignxplore.evaluation.segments import parted
from alignxplore.evaluation.worth import Score
from alignxplore.statistics import Estimate, estimate

NOTE = (
    "Each cell: accuracy in % with its 95 % interval, over the rows of that group alone. Interactions shown are those "
    "that a policy may read. How many others took an item is over all time. A kind of which a benchmark has one "
    "group alone is left out."
)
READ = ("direct", "full", "streaming")  # settings that read something of the user
ITSELF = "downstream model"  # as the reader of raw histories

Reader = tuple[str, str]  # policy and setting


def reader_of(row: Score) -> Reader:
    """The column of a row: policies by name, and whichever downstream model reads the history itself as one."""
    itself = row.setting == "direct" and row.policy == row.judge
    return ITSELF if itself else row.policy, row.setting


def readers_of(rows: Iterable[Score]) -> list[Reader]:
    """The columns: every policy in every setting that reads something of this user."""
    readers = dict.fromkeys(reader_of(row) for row in rows if row.setting in READ)
    return [reader for reader in readers if not reader[0].startswith("other user's")]


def measured(rows: Iterable[Score], of: Callable[[Score], float | None] = value_of) -> Estimate:
    """Accuracy of scores, or the mean of what else `of` takes of them; several seeds of a record count once."""
    rows = list(rows)
    values = values_by_record(rows, of)
    return estimate(list(values.values()), *shared(rows, values), by_rule=by_rule(rows))


def chance_of(rows: Iterable[Score]) -> float:
    """What saying nothing is worth in the rows of one benchmark: one half of pairs."""
    chances = [row.chance for row in rows if row.chance is not None]
    return sum(chances) / len(chances) if chances else 0.5


def _read_by(scores: Iterable[Score], protocol: str) -> dict[tuple[str, str], list[Score]]:
    """(benchmark, judge) → its scores, with those of baselines that no judge was asked about."""
    rows = [row for row in scores if row.protocol == protocol]
    pairs = dict.fromkeys((row.benchmark, row.judge) for row in rows if row.judge != "none")
    return {
        (benchmark, judge): [row for row in rows if row.benchmark == benchmark and row.judge in (judge, "none")]
        for benchmark, judge in pairs
    }


def by_segment(scores: Sequence[Score], protocol: str) -> Table | None:
    """One line a benchmark, downstream model, kind and group; None where no benchmark has two groups of a kind."""
    body, columns = [], dict[Reader, None]()
    for (benchmark, judge), rows in _read_by(scores, protocol).items():
        columns |= dict.fromkeys(readers := readers_of(rows))
        for segment, groups in parted(rows).items():
            for group, group_rows in groups.items():
                of: dict[Reader, list[Score]] = defaultdict(list)
                for row in group_rows:
                    of[reader_of(row)].append(row)
                cells = {reader: estimated(measured(of[reader])) for reader in readers}
                n = str(len({row.record for row in group_rows}))
                body.append(([label(benchmark), judge, segment.title, textwrap.shorten(group, 48), n], cells))
    if not body or not columns:
        return None
    head = ["benchmark", "judge", "kind", "group", "n", *(f"{policy}, {setting}" for policy, setting in columns)]
    lines_of_table = [line + [cells.get(reader, MISSING) for reader in columns] for line, cells in body]
    return Table(f"segments_{protocol}", f"By kind of row, protocol {protocol}", head, lines_of_table, NOTE)


def accuracy_by_segment(scores: Sequence[Score], protocol: str) -> plt.Figure | None:
    """One panel a benchmark and kind, groups across, one line a reader (of full histories, where there are any; else
    as a stream); the first downstream model alone."""
    rows_of = _read_by(scores, protocol)
    judge = next((judge for _, judge in rows_of), None)
    panels_of, all_readers = [], dict[Reader, None]()
    for (benchmark, reader_of), rows in rows_of.items():
        if reader_of == judge:
            readers = _drawn(readers_of(rows))
            for segment, groups in parted(rows).items():
                panels_of.append((f"{label(benchmark)}: {segment.title}", groups, readers, bool(segment.order)))
                all_readers |= dict.fromkeys(readers)
    if not panels_of or not all_readers:
        return None
    figure, panels = lines.panels_for(len(panels_of))
    for panel, (title, groups, readers, is_ordered) in zip(panels, panels_of):
        _draw(panel, groups, readers, list(all_readers), is_ordered)
        panel.set_title(title, fontsize=10)
    names = [f"{policy}, {setting}" for policy, setting in all_readers]
    lines.legend(figure, names, f"downstream model {judge}, protocol {protocol}")
    return figure


def _drawn(readers: list[Reader]) -> list[Reader]:
    """Readers that a plot can hold: one setting of each policy."""
    first: dict[str, Reader] = {}
    for policy, setting in sorted(readers, key=lambda reader: READ.index(reader[1])):
        first.setdefault(policy, (policy, setting))
    return list(first.values())


def _draw(
    panel: Axes, groups: dict[str, list[Score]], readers: list[Reader], all_readers: list[Reader], is_ordered: bool
) -> None:
    for place, reader in enumerate(readers):
        shift = 0.5 * ((place + 0.5) / len(readers) - 0.5)
        points = [
            (group + shift, measured(row for row in rows if reader_of(row) == reader))
            for group, rows in enumerate(groups.values())
        ]
        lines.line(panel, points, all_readers.index(reader), joined=is_ordered)
    counts = [len({row.record for row in rows}) for rows in groups.values()]
    names = [f"{textwrap.fill(textwrap.shorten(name, 48), 16)}\nn = {n}" for name, n in zip(groups, counts)]
    panel.set_xticks(range(len(groups)), names, fontsize=8)
    chance = chance_of(row for rows in groups.values() for row in rows)
    panel.axhline(100 * chance, color="#999", linewidth=0.8, linestyle="--")
