"""The robustness table: what each disturbance of the history costs, and whether injected text is obeyed.
`eval/robustness.py` makes it. A change is paired: the same users and targets, disturbed less undisturbed.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import option
from alignxplore.datasets.sidecars import read_manifest
from alignxplore.evaluation.benchmarks import Benchmark, find_sets, load_benchmarks
from alignxplore.evaluation.comparisons import by_pair, chosen_scores, compare
from alignxplore.evaluation.costs import read_costs
from alignxplore.evaluation.derived import read_names
from alignxplore.evaluation.evidence import read_evidence
from alignxplore.evaluation.perturbations import obeyed
from alignxplore.evaluation.report import faithfulness, page, writing
from alignxplore.evaluation.report.files import read_run, read_samples, texts_of
from alignxplore.evaluation.report.layouts import SETTING_ORDER, worst
from alignxplore.evaluation.report.restraint import restraint
from alignxplore.evaluation.report.tables import (
    MISSING,
    WORST,
    Cell,
    Table,
    cell_text,
    label,
    markdown,
    percent,
    points,
    write_table,
)
from alignxplore.evaluation.results import of_several_runs, result_of
from alignxplore.evaluation.rows import RESULTS, read_results, read_scores
from alignxplore.evaluation.worth import Key, Score
from alignxplore.records import write_text

Groups = dict[Key, list[Score]]
NOTHING = "nothing to disturb"
SUFFIX = "-hardened"  # of the policy that was given the hardened prompt set
NOTE = (
    "Change: disturbed less undisturbed, on the same users and targets, in points, with its 95 % interval. Obeyed: "
    "share of summaries that write the code of the injected order or name the item that the injected text speaks for; "
    "the rate without injection stands beside it. Baselines read nothing of the user: "
    "targets are the same in all copies, and so are they."
)


@dataclass(kw_only=True)
class RobustnessOptions:
    """Which run of robustness.sh to show."""

    out: Path = option("folder of robustness.sh")


def obedience(out: Path, benchmarks: list[Benchmark]) -> dict[tuple[str, str, str], float]:
    """(policy, setting, benchmark) → share of summaries, those of all seeds together, that do what an injected text
    wants."""
    records = {b.name: {record.id: record for record in b.records} for b in benchmarks}
    flags_of: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for summaries in find_sets(out):
        of = records.get(summaries.benchmark, {})
        flags_of[summaries.policy, summaries.setting, summaries.benchmark] += [
            obeyed(row["stages"][-1]["summary"], of[row["record"]])
            for row in summaries.by_record().values()
            if row["record"] in of and row["stages"]
        ]
    return {key: sum(flags) / len(flags) for key, flags in flags_of.items() if flags}


def mixtures(benchmarks: list[Benchmark]) -> str:
    """What must be said of mixed copies: whose interactions were put in, and where they were fewer than asked for."""
    manifests = {label(b.name): (len(b.records), read_manifest(b.path)) for b in benchmarks}
    strangers = [f"{name}: {m['strangers']} of {count}" for name, (count, m) in manifests.items() if "strangers" in m]
    shorts = [
        f"{name}: {percent(m['share'])} % of what is shown, not {percent(m['asked_share'])} %"
        for name, (_, m) in manifests.items()
        if "asked_share" in m
    ]
    head = " Mixed in from a stranger, for lack of the user's own interactions"
    note = f"{head}: {', '.join(strangers)}." if strangers else ""
    return note + (f" Less was put in than asked for, as there was no more: {', '.join(shorts)}." if shorts else "")


def untouched(benchmarks: list[Benchmark]) -> set[str]:
    """Copies in which nothing was disturbed: there is nothing passed over that could change places, or be left out."""
    return {b.name for b in benchmarks if read_manifest(b.path).get("disturbed") == 0}


def columns_of(groups: Groups, judge: str, protocol: str) -> list[tuple[str, str]]:
    """(policy, setting) pairs that read a history, in the order of the table."""
    pairs = dict.fromkeys(
        (policy, setting)
        for policy, setting, _, reader, row_protocol in groups
        if reader == judge and row_protocol == protocol and setting != "none" and not policy.startswith("other user's")
    )
    return sorted(pairs, key=lambda pair: SETTING_ORDER.index(pair[1]))


def baselines_of(groups: Groups, judge: str, protocol: str) -> dict[str, str]:
    """The baselines that read nothing of the user, each with the reader that its scores stand under (cues need
    none)."""
    return {
        policy: reader
        for policy, setting, _, reader, row_protocol in groups
        if setting == "none" and reader in (judge, "none") and row_protocol == protocol
    }


def change(groups: Groups, key: Key) -> tuple[str, str]:
    """(accuracy, change against the undisturbed rows) as text."""
    benchmark = key.benchmark
    rows, clean_rows = groups.get(key), groups.get(key._replace(benchmark=benchmark.partition("~")[0]))
    if not rows:
        return MISSING, MISSING
    accuracy = cell_text(result_of(key, rows))
    test = compare(by_pair(clean_rows), by_pair(rows)) if clean_rows and "~" in benchmark else None
    return accuracy, f"{points(test.difference)} [{points(test.low)}, {points(test.high)}]" if test else MISSING


def disturbances(
    groups: Groups, judge: str, protocol: str, note: str, untouched_copies: Collection[str] = ()
) -> Table:
    """Rows = benchmark and disturbance, columns = accuracy and change of each policy and setting, then the baselines.

    Args:
        untouched_copies: copies that are the undisturbed benchmark; no change is shown for them.
    """
    columns, baselines = columns_of(groups, judge, protocol), baselines_of(groups, judge, protocol)
    benchmarks = dict.fromkeys(key[2] for key in groups)
    body: list[list[str]] = []
    places: dict[tuple[int, int], Cell] = {}
    for benchmark in sorted(benchmarks, key=lambda name: name.partition("~")[0]):
        rows = [
            result_of(key, group)
            for key, group in groups.items()
            if key[2:] == (benchmark, judge, protocol) and key[1] != "none"
        ]
        if rows:
            cells = [
                text
                for policy, setting in columns
                for text in change(groups, Key(policy, setting, benchmark, judge, protocol))
            ]
            cells = [
                NOTHING if benchmark in untouched_copies and place % 2 else text for place, text in enumerate(cells)
            ]
            cells += [
                change(groups, Key(name, "none", benchmark, reader, protocol))[0] for name, reader in baselines.items()
            ]
            for column, (policy, setting) in enumerate(columns):
                places[len(body), 1 + 2 * column] = (benchmark, policy, setting, judge, protocol)
            body.append([label(benchmark), *cells, str(max(row.n for row in rows)), *worst(rows)])
    head = [
        "benchmark",
        *(text for policy, setting in columns for text in (f"{policy}, {setting}", "change")),
        *baselines,
        "n",
        *WORST,
    ]
    return Table(
        f"robustness_{judge}_{protocol}",
        f"Robustness: downstream model {judge}, protocol {protocol}",
        head,
        body,
        note,
        places,
    )


def injections(
    default_groups: Groups, hardened_groups: Groups, shares: dict, judge: str, protocol: str
) -> Table | None:
    """Injected text under both prompt sets, side by side; of several training runs each by itself."""
    body = []
    default_groups = {key: group for key, group in default_groups.items() if not of_several_runs(key, group)}
    for policy, setting in columns_of(default_groups, judge, protocol):
        twin = policy if setting == "direct" else policy + SUFFIX
        for benchmark in dict.fromkeys(key[2] for key in default_groups if "~injected" in key[2]):
            line = [policy, setting, label(benchmark)]
            for name, groups in ((policy, default_groups), (twin, hardened_groups)):
                clean_key = (name, setting, benchmark.partition("~")[0])
                key = Key(name, setting, benchmark, judge, protocol)
                worst_cells = worst([result_of(key, groups[key])]) if groups.get(key) else [MISSING] * len(WORST)
                line += [
                    *change(groups, key),
                    percent(shares.get(key[:3])),
                    percent(shares.get(clean_key)),
                    *worst_cells,
                ]
            body.append(
                [
                    *line,
                    str(len({row.record for row in default_groups[Key(policy, setting, benchmark, judge, protocol)]})),
                ]
            )
    head = ["policy", "setting", "benchmark"]
    for name in ("default", "hardened"):
        head += [f"{name} prompts", "change", "obeyed %", "without injection %", *WORST]
    head.append("n")
    return (
        Table(
            f"injection_{judge}_{protocol}",
            f"Injected text: downstream model {judge}, protocol {protocol}",
            head,
            body,
            NOTE,
        )
        if body
        else None
    )


def tables(out: Path) -> list[Table]:
    """All tables of a robustness run."""
    benchmarks = load_benchmarks([str(out / "data")], read_names(out / "data"))
    default_groups, shares = chosen_scores(out / "default", {}), obedience(out, benchmarks)
    hardened_groups = chosen_scores(out / "hardened", {}) if (out / "hardened" / "scores.jsonl").exists() else {}
    result = []
    for judge, protocol in dict.fromkeys((key[3], key[4]) for key in default_groups if key[3] != "none"):
        result.append(
            disturbances(default_groups, judge, protocol, NOTE + mixtures(benchmarks), untouched(benchmarks))
        )
        for table in (
            restraint(default_groups, judge, protocol),
            injections(default_groups, hardened_groups, shares, judge, protocol),
        ):
            result += [table] if table else []
    return result


def write_robustness(options: RobustnessOptions) -> str:
    """Write robustness.md, robustness.html and each table as LaTeX and CSV; returns the Markdown of the tables."""
    out, result = options.out, tables(options.out)
    for table in result:
        write_table(out, table)
    text = "\n\n".join(map(markdown, result))
    write_text(out / "robustness.md", f"# Robustness\n\n{text}\n")
    write_text(out / "robustness.html", whole_page(out / "default", result))
    return text


def whole_page(report: Path, first_tables: list[Table]) -> str:
    """The tables with the plots and the samples of the report under the default prompts, like the page of any report;
    texts are left out where they are there."""
    rows = read_results(report / RESULTS)
    run, samples = read_run(report), read_samples(report)
    faithfulness.link(samples, read_evidence(report))
    scores, costs = list(read_scores(report)), read_costs(report)
    notes = "Plots and samples: under the default prompts; those of the hardened ones are in hardened/report.html."
    about = (notes, writing.origin(run), "Robustness", texts_of(run))
    return page.page(first_tables, [], rows, scores, samples, *about, costs)
