"""The tables of a report, laid out from the rows of results.json and scores.jsonl. Used by writing.py and
robustness.py.

compact    one benchmark: policies down, settings and downstream models across
wide       as in the paper: policies down, benchmarks across, the published row and the difference below ours
written    the answers written for HiCUPID: score, wins, ties, losses, overlap with the reference
details    everything known of each number: n, format, coverage, seeds, orders
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from alignxplore.datasets import DATASETS
from alignxplore.evaluation import measures, metrics
from alignxplore.evaluation.averages import average_interval, of_whom
from alignxplore.evaluation.metrics import BAD_WRONG
from alignxplore.evaluation.published import COMPARABLE, Paper
from alignxplore.evaluation.registry import ACCURACY, AMONG_K, READING, WRITTEN, Metric, glossary, of_kind
from alignxplore.evaluation.report.tables import MISSING, WORST, Cell, Table, cell_text, interval, label, percent
from alignxplore.evaluation.results import over_runs
from alignxplore.evaluation.rows import Result
from alignxplore.evaluation.worth import Key, Score

Groups = Mapping[Key, Sequence[Score]]

CLUSTERED = (
    "The interval of a difference takes the published rows for as dependent on each other (shared persons and "
    "targets) as ours are."
)
AMONG_K_NOTE = (
    "Equal items are worth what lots between them give on average, so a row that says nothing (bad format) has the "
    "value of chance. Where the items passed over are a sample, these measures say which policy knows more of a user. "
    "They do not say how high it ranks an item in a whole catalogue, and how the sample was drawn moves all of them."
)
USERS_ONLY = "Intervals are over users only: each policy is one training run, and another one may differ by more."
OVER_RUNS = (
    "Intervals of policies with several training runs are over runs and users, ± is between the runs; all others are "
    "over users only, and another training run may differ by more."
)
SETTING_ORDER = ("none", "direct", "full", "streaming")  # of rows; "none" reads nothing of the user's


def family(benchmark: str) -> str | None:
    """Which wide table a benchmark belongs to; None: in none (a disturbed copy, see robustness.py)."""
    if "~" in benchmark:
        return "cross-task" if "~to~" in benchmark else None
    return "main" if benchmark in DATASETS and DATASETS[benchmark].column else "other"


def over(rows: Collection[Result]) -> str:
    """What the intervals of a table are over."""
    return OVER_RUNS if any(row.runs > 1 for row in rows) else USERS_ONLY


def worst(rows: Collection[Result]) -> list[str]:
    """Bad format, parse failures and coverage of the worst of several rows of results, and the most generation seeds
    (see `WORST`)."""
    return [
        percent(max(row[metrics.bad_format] or 0.0 for row in rows)),
        percent(max(row[metrics.parse_failures] or 0.0 for row in rows)),
        percent(min(row[metrics.coverage] or 0.0 for row in rows)),
        str(max(len(row.seeds) for row in rows)),
    ]


def cell_of(row: Result) -> Cell:
    """What a row of results is of, for `Table.cells`."""
    return row.benchmark, row.policy, row.setting, row.judge, row.protocol


def compact(rows: list[Result], benchmark: str, protocol: str) -> Table:
    """Rows = policies in order; columns = setting under each judge, then n, format and coverage (their worst cell)."""
    cell_rows = [row for row in rows if row.benchmark == benchmark and row.protocol == protocol]
    judges = list(dict.fromkeys(row.judge for row in cell_rows if row.judge != "none"))
    settings = [s for s in ("full", "streaming") if any(row.setting == s for row in cell_rows)]
    cells = {(row.policy, row.setting, row.judge): row for row in cell_rows}
    columns = list(itertools.product(judges, settings or [""]))
    second = [f", {BAD_WRONG}"] if protocol == "paper" and any(row[metrics.bad_format] for row in cell_rows) else []
    head = ["policy", *(f"{setting}, {judge}{of}" for judge, setting in columns for of in ("", *second)), "n", *WORST]
    body: list[list[str]] = []
    places: dict[tuple[int, int], Cell] = {}
    # A policy may also be a judge, by name.
    for policy, direct in dict.fromkeys((row.policy, row.setting == "direct") for row in cell_rows):
        policy_rows = [row for row in cell_rows if (row.policy, row.setting == "direct") == (policy, direct)]
        line = [f"{policy} reads the history (direct)" if direct else policy]
        for judge, setting in columns:
            row = None if direct else cells.get((policy, setting, judge))
            # A setting of its own stands in the first column of its judge.
            if row is None and setting == (settings or [""])[0]:
                row = next((r for r in policy_rows if r.setting not in settings and r.judge in (judge, "none")), None)
            if row:
                places[len(body), len(line)] = cell_of(row)
            line += [cell_text(row), *(percent(row[metrics.accuracy_bad_wrong] if row else None) for _ in second)]
        spread = sorted({row.n for row in policy_rows})
        body.append([*line, "–".join(map(str, dict.fromkeys((spread[0], spread[-1])))), *worst(policy_rows)])
    title = f"{label(benchmark)}, protocol {protocol}"
    return Table(f"{benchmark}_{protocol}", title, head, body, over(cell_rows), places)


WHAT = ("policy", "setting", "benchmark", "judge", "n")


def what(row: Result) -> list[str]:
    """What a line of one number is of (`WHAT`)."""
    return [row.policy, row.setting, label(row.benchmark), row.judge, str(row.n)]


def details(rows: list[Result], protocol: str) -> Table:
    """One line a number."""
    columns = [metric for metric in of_kind(ACCURACY, READING) if metric.in_table]
    head = [*WHAT, "persons", "items", "accuracy %", *(metric.heading for metric in columns), "seeds"]
    cell_rows = [row for row in rows if row.protocol == protocol]
    body = [
        [
            *what(row),
            *(MISSING if count is None else str(count) for count in (row.clusters, row.items)),
            cell_text(row),
            *(percent(row[metric]) for metric in columns),
            " ".join(map(str, row.seeds)) or MISSING,
        ]
        for row in cell_rows
    ]
    places = {(line, head.index("accuracy %")): cell_of(row) for line, row in enumerate(cell_rows)}
    return Table(f"details_{protocol}", f"Every number, protocol {protocol}", head, body, glossary(columns), places)


def among_k(rows: list[Result]) -> Table | None:
    """Everything known of the choices among k items, one line a number; None where there are none."""
    cell_rows = [row for row in rows if not row.of_pair]
    columns = [metric for metric in of_kind(AMONG_K) if metric.in_table]
    head = [*WHAT, measures.k.heading, measures.chance.heading, "accuracy@1 %"]
    places = {(line, head.index("accuracy@1 %")): cell_of(row) for line, row in enumerate(cell_rows)}
    head += [*(metric.heading for metric in columns), *WORST]
    body = [
        [
            *what(row),
            f"{row[measures.k]:.4g}",
            percent(row[measures.chance]),
            percent(row.accuracy) + interval(row.ci_low, row.ci_high),
            *(_measured(row, metric) for metric in columns),
            *worst([row]),
        ]
        for row in cell_rows
    ]
    note = f"{glossary(of_kind(AMONG_K))} {AMONG_K_NOTE}"
    return Table("among_k", "Choices among k items", head, body, note, places) if body else None


def _measured(row: Result, metric: Metric) -> str:
    return percent(row[metric]) + interval(*row.ends[metric.name])


def readers_of_histories(rows: list[Result]) -> list[str]:
    """The judges that were asked in the direct setting alone, though others were given summaries."""
    settings = defaultdict(set)
    for row in rows:
        settings[row.judge].add(row.setting)
    readers = [judge for judge, judge_settings in settings.items() if judge_settings == {"direct"} and judge != "none"]
    return readers if len(readers) < len([judge for judge in settings if judge != "none"]) else []


def wide(
    rows: list[Result], run: dict, kind: str, judge: str, protocol: str, paper: Paper, groups: Groups
) -> Table | None:
    """The paper's layout for one downstream model; None where there is nothing of this family.

    Models that read nothing but raw histories (TALLRec) stand in the table of every downstream model.

    Args:
        groups: the scores of each number. An average without those of all its cells has no interval.
    """
    readers = (judge, "none", *readers_of_histories(rows))
    cell_rows = [
        row
        for row in rows
        if family(row.benchmark) == kind
        and row.protocol == protocol
        and row.judge in readers
        and row.setting in SETTING_ORDER
    ]
    names = [name for name in run["benchmarks"] if family(name) == kind]  # one without a number here keeps its column
    columns = [name for name in DATASETS if name in names] + [name for name in names if name not in DATASETS]
    if not cell_rows or kind == "other" and len(columns) < 2:
        return None
    downstream = run.get("published_names", {}).get("judges", {}).get(judge)
    paper_rows = [
        (setting, model, paper.row(setting, model, model if setting == "direct" else downstream))
        for setting, model in (paper.downstream_rows(downstream) if kind == "main" else ())
    ]
    published_columns = {name for *_, published in paper_rows for name in published}
    # What the published table lacks would make another average of ours.
    average_names = [name for name in columns if name in published_columns] or columns
    body, marks, published_lines = _ours_and_published(
        cell_rows, run, columns, average_names, downstream, paper, groups
    )
    for setting, model, published in paper_rows:
        if (setting, model) not in published_lines and published.keys() & set(columns):
            body.append(_published(f"{model} (not run here)", setting, published, columns, average_names))
    sizes = {name: run["benchmarks"].get(name, {}).get("n", MISSING) for name in columns}
    head = ["policy", "setting", *(f"{label(name)} (n = {n})" for name, n in sizes.items()), "average", *WORST]
    titles = {"main": "Benchmarks", "cross-task": "Across tasks", "other": "Benchmarks"}
    title = f"{titles[kind]}: downstream model {judge}, protocol {protocol}"
    return Table(
        f"{kind}_{judge}_{protocol}",
        title,
        head,
        body,
        _wide_note(cell_rows, body, columns, average_names, marks),
        _places(cell_rows, body, columns),
    )


def _places(rows: list[Result], body: list[list[str]], columns: list[str]) -> dict[tuple[int, int], Cell]:
    """What the numbers of a wide table are of (`Table.cells`)."""
    results = {(row.policy, row.setting, row.benchmark): row for row in rows}
    return {
        (line, place): cell_of(row)
        for line, (policy, setting, *_) in enumerate(body)
        for place, name in enumerate(columns, 2)
        if (row := results.get((policy, setting, name)))
    }


def _ours_and_published(
    rows: list[Result],
    run: dict,
    columns: list[str],
    average_names: list[str],
    downstream: str | None,
    paper: Paper,
    groups: Groups,
) -> tuple[list[list[str]], dict[str, int], set[tuple[str, str | None]]]:
    """(lines of our rows, each with its published one and the difference below it, what differs with the number that
    stands for it beside the differences, the published rows that stand there)."""
    names = run.get("published_names", {})
    marks: dict[str, int] = {}
    published_lines: set[tuple[str, str | None]] = set()
    lines: dict[tuple[str, str], dict[str, Result]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: SETTING_ORDER.index(row.setting)):
        lines[row.setting, row.policy][row.benchmark] = row
    body = []
    for (setting, policy), cells in lines.items():
        mean = _average_of_ours([cells.get(name) for name in average_names], groups)
        texts = [cell_text(cells.get(name)) for name in columns]
        body.append([policy, setting, *texts, mean, *worst(cells.values())])
        if any(row.protocol == "paper" and row[metrics.bad_format] for row in cells.values()):
            body.append(_bad_is_wrong(policy, setting, cells, columns, average_names))
        model = names.get("judges" if setting == "direct" else "policies", {}).get(policy)
        published = paper.row(setting, model, model if setting == "direct" else downstream)
        if any(name in published for name in columns):
            published_lines.add((setting, model))
            body.append(_published(model, setting, published, columns, average_names))
            differences = _differences(cells, published, columns, run, paper, marks)
            body.append([f"{policy} − published", setting, *differences])
    return body, marks, published_lines


def _wide_note(
    rows: list[Result], body: list[list[str]], columns: list[str], average_names: list[str], marks: dict[str, int]
) -> str:
    """What stands below a wide table."""
    sentences = [over(rows)]
    if marks:
        listing = "; ".join(f"({number}) {difference}" for difference, number in marks.items())
        sentences.append(f"What differs from the published numbers besides the model: {listing}.")
    if any("[" in text for line in body if line[0].endswith(" − published") for text in line):
        sentences.append(CLUSTERED)
    if omissions := [label(name) for name in columns if name not in average_names]:
        sentences.append(f"The averages are without {', '.join(omissions)}, which the published table does not have.")
    return " ".join(sentences)


def _average(values: list[float | None]) -> str:
    """Computed from the cells; missing as soon as one of them is."""
    numbers = [value for value in values if value is not None]
    return percent(float(np.mean(numbers))) if len(numbers) == len(values) else MISSING


def _average_of_ours(cells: list[Result | None], groups: Groups) -> str:
    """The same with its interval, where every cell has one."""
    results = [cell for cell in cells if cell is not None]
    mean = _average([cell.accuracy for cell in results] if len(results) == len(cells) else [None])
    intervals = [(c.ci_low, c.ci_high) for c in results if c.ci_low is not None and c.ci_high is not None]
    names = {key.benchmark for key in groups}
    samples = [of_whom(over_runs(groups.get(cell.key, [])).sample, cell.benchmark, names) for cell in results]
    samples = [sample for sample in samples if sample.values]
    if mean == MISSING or len(cells) < 2 or not len(cells) == len(intervals) == len(samples):
        return mean
    middle = float(np.mean([cell.accuracy or 0.0 for cell in results]))
    half = average_interval(samples, intervals)
    return f"{mean} [{percent(max(0.0, middle - half))}, {percent(min(1.0, middle + half))}]"


def _published(
    model: str, setting: str, published: dict[str, float], columns: list[str], average_names: list[str]
) -> list[str]:
    values, mean = [published.get(name) for name in columns], _average([published.get(name) for name in average_names])
    return [f"published: {model}", setting, *map(percent, values), mean] + [MISSING] * 4


def _bad_is_wrong(
    policy: str, setting: str, cells: dict[str, Result], columns: list[str], average_names: list[str]
) -> list[str]:
    """The line below one of ours in which a summary in bad format is wrong, whatever it holds."""
    values = {name: row[metrics.accuracy_bad_wrong] for name, row in cells.items()}
    mean = _average([values.get(name) for name in average_names])
    return [f"{policy}, {BAD_WRONG}", setting, *(percent(values.get(name)) for name in columns), mean] + [MISSING] * 4


def _differences(
    cells: dict[str, Result],
    published: dict[str, float],
    columns: list[str],
    run: dict,
    paper: Paper,
    marks: dict[str, int],
) -> list[str]:
    """Each with the numbers of what differs besides the model, or "comparable"; new ones are added to `marks`."""
    line = []
    for name in columns:
        row = cells.get(name)
        if row is None or row.accuracy is None or name not in published:
            line.append(MISSING)
        else:
            numbers = sorted(marks.setdefault(difference, len(marks) + 1) for difference in paper.differs(row, run))
            suffix = f"({' '.join(map(str, numbers))})" if numbers else COMPARABLE
            line.append(f"{paper.difference(row, published[name])} {suffix}")
    return line + [MISSING] * 5


def written(rows: list[Result]) -> Table | None:
    """Everything known of the answers that were written and rated (HiCUPID, protocol paper); None where there are
    none."""
    parts = of_kind(WRITTEN)
    body = [
        [
            row.policy,
            row.setting,
            row.judge,
            str(row.n),
            cell_text(row),
            *(percent(row[metric]) for metric in parts),
            *worst([row]),
        ]
        for row in rows
        if metrics.win.name in row.values
    ]
    head = ["policy", "setting", "judge", "n", "score", *(metric.heading for metric in parts), *WORST]
    note = (
        f"Score: 100 x the mean over all answers. {glossary(parts)} These are of the answers that were rated: where "
        "nothing could be shown to a policy nobody answers, and the score is 0."
    )
    return (
        Table("hicupid", "HiCUPID: the answers written, against the reference answers", head, body, note)
        if body
        else None
    )


def published_cross_task(paper: Paper) -> Table:
    """The published rows across tasks, beside which nothing of ours can be put."""
    columns = ["selection to recommendation", "recommendation to selection"]
    body = [
        [model, *(percent(scores.get(name)) for name in columns), _average([scores.get(name) for name in columns])]
        for (_, model, _), scores in paper.rows.items()
        if columns[0] in scores
    ]
    note = "Its 1,000 users, whom both tasks share, are not public: no row of ours can be compared with these."
    return Table(
        "published_cross_task", "Across tasks as published (full history)", ["model", *columns, "average"], body, note
    )
