"""Tables and plots from results.json and scores.jsonl: Markdown, CSV, LaTeX and one self-contained HTML page.
`eval/evaluate.py` calls it at its end, `eval/report.py` by itself.

Averages and differences are computed here from the scores, never copied. A number that is missing is shown as missing.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignxplore.command import option
from alignxplore.datasets import hub_of
from alignxplore.datasets.sidecars import manifest_path, read_manifest, sha256
from alignxplore.environment import git_commit, portable, recorded_versions
from alignxplore.errors import once
from alignxplore.evaluation import metrics
from alignxplore.evaluation.arguments import BEST, BEST_READER, TEXTS, TEXTS_HELP, one_of
from alignxplore.evaluation.benchmarks import Benchmark
from alignxplore.evaluation.conditions import CHANCE
from alignxplore.evaluation.costs import Cost, read_costs
from alignxplore.evaluation.evidence import read_evidence
from alignxplore.evaluation.published import Paper
from alignxplore.evaluation.registry import ACCURACY, AMONG_K, KINDS, READING, of_kind
from alignxplore.evaluation.report import downstream, faithfulness, layouts, page, segments
from alignxplore.evaluation.report.costs import brevity, costs_table
from alignxplore.evaluation.report.files import read_run, read_samples, texts_of
from alignxplore.evaluation.report.paired import paired_tests
from alignxplore.evaluation.report.tables import Table, csv_of, label, markdown, percent, write_table
from alignxplore.evaluation.results import cells_of
from alignxplore.evaluation.rows import RESULTS, Result, read_results, read_scores
from alignxplore.evaluation.worth import KEY, Key, Score
from alignxplore.judging.ranking import PURPOSE
from alignxplore.prompts import PromptSet
from alignxplore.records import read_object, write_text

log = logging.getLogger(__name__)

_NUMBER = ("n", "clusters", "items", "two_way", "accuracy", "ci_low", "ci_high")
NOTES = (
    "Accuracy in %, with its 95 % interval: bootstrap over persons, or two-way clustering by person and chosen item "
    "where that is wider (exact, by Clopper and Pearson, where all agree; never narrower than t times the clustered "
    "standard error); ± is the standard deviation between "
    "generation seeds, where there are several. Models named NAME#1, NAME#2 ... are training runs of one policy: they "
    "also have one row together, whose interval is over runs and users. A summary in bad format scores 0.5 in "
    "protocol choice (among k items what chance gives); in protocol paper what stands after its reasoning is judged "
    "as it is, as published, and 'bad format wrong' counts it 0. Protocol choice: both orders of the items, "
    "probabilities of the letters; paper: one order, one sampled answer, "
    "as published. The rows from popularity to random, and no summary, know nothing of the user. Coverage: share of "
    "rows that have a score. Where a row of a table has several cells, its bad format, parse failures and coverage "
    "are those of its worst cell."
)


@dataclass(kw_only=True)
class ReportOptions:
    """Which results to show."""

    out: Path = option("folder with the results of evaluate.py (its --report, or its --out)")
    texts: str | None = option(f"{TEXTS_HELP}; default: what evaluate.py was told", None)

    def __post_init__(self) -> None:
        one_of("texts", [] if self.texts is None else [self.texts], TEXTS)


def bound_rows(path: Path, benchmarks: Iterable[Benchmark]) -> list[Result]:
    """Chance and best possible accuracy of the benchmarks of a simulated world, as rows of results."""
    bounds = read_object(path, "benchmarks")["benchmarks"]
    rows = []
    for benchmark in benchmarks:
        bound = bounds.get(benchmark.path.stem)
        if bound is None:
            continue
        values = {metrics.bad_format.name: 0.0, metrics.parse_failures.name: 0.0, metrics.coverage.name: 1.0}
        key = Key("", "bound", benchmark.name, "none", "choice")
        for policy, accuracy, low, high in (
            (CHANCE, bound["chance"], None, None),
            (
                BEST_READER,
                bound["history_accuracy"],
                bound["history_ci_low"],
                bound["history_ci_high"],
            ),
            (BEST, bound["best_accuracy"], bound["ci_low"], bound["ci_high"]),
        ):
            fields = key._replace(policy=policy)._asdict()
            rows.append(Result(**fields, n=bound["n"], accuracy=accuracy, ci_low=low, ci_high=high, values=values))
    return rows


def provenance(
    arguments: Any,
    benchmarks: dict[str, Benchmark],
    prompts: PromptSet,
    judges: dict[str, dict],
    policies: dict[str, dict],
) -> dict:
    """What one must know to repeat the numbers: arguments, models, template hashes, versions, commit, leakage.

    `judges` and `policies`: name → {"identity", "format"}. No folder of this machine is in it.
    """
    return {
        "arguments": portable(vars(arguments)),
        "judges": portable(judges),
        "policies": portable(policies),
        "prompt_set": prompts.name,
        "prompt_hashes": prompts.hashes,
        "versions": recorded_versions(),
        "published_names": published_names(arguments.published, judges, policies),
        "commit": git_commit(),
        "benchmarks": {
            b.name: {"n": len(b.records), "target_in_history": b.leaked} | from_where(b.path)
            for b in benchmarks.values()
        },
    }


def published_names(
    pairs: list[str], judges: dict[str, dict], policies: dict[str, dict]
) -> dict[str, dict[str, str | None]]:
    """Which row of the published tables stands beside each of our policies and downstream models."""
    paper = Paper()
    once("published", (text.partition("=")[0] for text in pairs))
    names = {name: paper.named(published) for name, _, published in (text.partition("=") for text in pairs)}
    return {
        role: {
            name: paper.match(name, model["identity"], names, plain=model["format"] == "plain")
            for name, model in models.items()
        }
        for role, models in (("judges", judges), ("policies", policies))
    }


BUILT = (
    "edition",
    "protocol",
    "min_interactions",
    "split",
    "windows",
    "persons",
    "markup",
    "items",
    "negatives",
)  # what makes a benchmark another


def from_where(path: Path) -> dict[str, Any]:
    """Hash of a benchmark file, and where it is from; a warning where what lies beside it tells of another file."""
    digest = sha256(path)
    if read_manifest(path).get("sha256", digest) != digest:
        problem = "%s: not the file that %s tells of; it was changed, or built twice at a time: build it again"
        log.warning(problem, path, manifest_path(path).name)
    return {"sha256": digest} | built_how(path)


def built_how(path: Path) -> dict[str, Any]:
    """Where a benchmark file is from: `built`, the choices that our builder made it with, or `hub`, its
    owner/name@commit there."""
    manifest = read_manifest(path)
    if "protocol" not in manifest:
        return {"built": None, "hub": manifest.get("hub") or hub_of(path)}
    removals = sum(
        count for reason, count in manifest.get("counts", {}).items() if reason.startswith("dropped from a history")
    )
    return {
        "built": {key: manifest.get(key) for key in BUILT} | {"taken_out": removals},
        "hub": None,
    }


def all_tables(
    rows: list[Result], scores: list[Score], run: dict, costs: Sequence[Cost] = ()
) -> tuple[list[Table], list[Table]]:
    """(the tables that say most, the others)."""
    paper, groups, first, others = Paper(), cells_of(scores), [], []
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    of_pairs = [row for row in rows if row.of_pair]
    lists = {row.benchmark for row in rows if not row.of_pair}
    of_pairs_run = run | {
        "benchmarks": {name: about for name, about in run["benchmarks"].items() if name not in lists}
    }
    for protocol in protocols:
        for kind in ("main", "cross-task", "other"):
            judges = dict.fromkeys(
                row.judge for row in of_pairs if row.judge not in ("none", *layouts.readers_of_histories(rows))
            )
            first += [
                table
                for judge in judges
                if (table := layouts.wide(of_pairs, of_pairs_run, kind, judge, protocol, paper, groups))
            ]
    if any(layouts.family(row.benchmark) == "cross-task" for row in rows):
        first.append(layouts.published_cross_task(paper))
    if table := layouts.among_k(rows):
        first.append(table)
    single = [
        layouts.compact(rows, *pair) for pair in dict.fromkeys((row.benchmark, row.protocol) for row in of_pairs)
    ]
    others += single if first else []
    if table := layouts.written(rows):
        others.append(table)
    if table := costs_table(costs):
        others.append(table)
    for protocol in protocols:
        others.append(layouts.details(rows, protocol))
        for lay_out in (segments.by_segment, downstream.agreements, downstream.reading_habits):
            if table := lay_out(scores, protocol):
                others.append(table)
        if table := brevity(costs, scores, protocol):
            others.append(table)
        if table := paired_tests(scores, protocol):
            others.append(table)
    return first or single, others


def metrics_help() -> str:
    """What `eval/report.py --help` says of each metric."""
    lines = [f"  {metric.name}: {metric.description}" for metric in of_kind(*KINDS)]
    return "\n".join(["In results.csv and in the tables:", *lines])


def csv_text(rows: list[Result]) -> str:
    """results.csv: one line a number, one column a metric."""
    columns = [metric.name for metric in of_kind(ACCURACY, AMONG_K, READING)]
    names = (*KEY, *_NUMBER, *columns, "seeds", "seed_spread")
    lines = ({**vars(row), **row.values, "seeds": None if row.clusters is None else list(row.seeds)} for row in rows)
    return csv_of(names, ([line.get(name) for name in names] for line in lines))


def _weights_and_prompt(name: str, model: dict) -> str:
    """A model's weights, and a policy's prompt; several where its sets of summaries were not made alike."""
    pairs = [(recipe["identity"], recipe["prompt_hash"]) for recipe in model.get("sets", {}).values()] or [
        (model["identity"], model.get("prompt"))
    ]
    return f"{name} = " + " and ".join(
        identity + (f" (prompt {prompt})" if prompt else "") for identity, prompt in dict.fromkeys(pairs)
    )


def origin(run: dict) -> str:
    """One line about what made the numbers."""
    models = [_weights_and_prompt(name, model) for name, model in [*run["policies"].items(), *run["judges"].items()]]
    hashes = [
        f"{purpose} {digest}"
        for purpose, digest in run["prompt_hashes"].items()
        if purpose in ("judge", "direct", PURPOSE)
    ]
    return (
        "; ".join(
            [
                f"Commit {run['commit'] or 'unknown'}",
                ", ".join(f"{k} {v}" for k, v in run["versions"].items()),
                "models " + ", ".join(models),
                "downstream prompts " + ", ".join(hashes),
            ]
        )
        + "."
    )


def leakage(run: dict) -> str:
    """What must be said of targets that could be copied from the history; empty if there are none."""
    parts = [
        f"{name} {about['target_in_history']} of {about['n']}"
        for name, about in run["benchmarks"].items()
        if about["target_in_history"]
    ]
    return f" Targets that also stand in the history, and could be copied: {', '.join(parts)}." if parts else ""


def truncation(rows: list[Result]) -> str:
    """What must be said of histories that nobody read whole; empty if there are none."""
    worst: dict[str, float] = {}
    for row in rows:
        worst[row.benchmark] = max(worst.get(row.benchmark, 0.0), row[metrics.truncated] or 0.0)
    parts = [f"{label(name)} {percent(share)}" for name, share in worst.items() if share]
    heading = "Histories whose oldest part did not fit a window and was left out, in % of the rows of the worst cell"
    return f" {heading}: {', '.join(parts)}." if parts else ""


def incomplete(scores: Iterable[Score]) -> str:
    """What must be said of a folder that an earlier version wrote; empty if nothing is lacking."""
    if all(score.shown is not None for score in scores):
        return ""
    return (
        " There are no tables by kind of row and of costs: these scores are older; evaluate.py, run again, asks "
        "nothing anew."
    )


def write(out: Path, texts: str | None = None) -> str:
    """Write report.md, report.html, results.csv and each table as LaTeX and CSV into `out`; returns the Markdown of
    the first tables.

    Args:
        texts: all or none; None: what evaluate.py was told.
    """
    scores = list(read_scores(out))
    rows = read_results(out / RESULTS)
    run = read_run(out)
    costs = read_costs(out)
    evidence = read_evidence(out)
    first, others = all_tables(rows, scores, run, costs)
    others += faithfulness.tables(evidence)
    for table in (*first, *others):
        write_table(out, table)
    first_text, notes = "\n\n".join(map(markdown, first)), NOTES + leakage(run) + truncation(rows) + incomplete(scores)
    text = "\n\n".join(["# Results", first_text, notes, *map(markdown, others), origin(run), ""])
    write_text(out / "report.md", text)
    write_text(out / "results.csv", csv_text(rows))
    samples = read_samples(out)
    faithfulness.link(samples, evidence)
    write_text(
        out / "report.html",
        page.page(first, others, rows, scores, samples, notes, origin(run), texts=texts or texts_of(run), costs=costs),
    )
    return first_text


def write_report(options: ReportOptions) -> str:
    """What `eval/report.py` does; returns the Markdown of the first tables."""
    return write(options.out, options.texts)
