"""What summaries of films state, against the true tally of the choices that they were made of.

    python -m alignxplore.films.statements --data data/movielens_upi.jsonl --summaries eval --policies sft sft+rl \\
        --tokenizer models/sft --out statements.json

After `eval/gen_preference.py`. No model is asked: films tell their genres and decade, so each statement is true or
not. Of a stream it is the last summary that counts, against the choices of all slices. Choices that did not fit, and
those that the published fit left out, are none of them. Intervals: 95 %, clustered by person.

    precision    share of the statements whose sign is that of the tally (an attribute that evens out is never right)
    recall 2, 4  share of the attributes with a tally of 2, or 4, and more either way that are told with their sign
    statements   how many a summary has
    repeats      of these, those about an attribute told before
    unknown      of these, those about nothing known
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer

from alignxplore.command import option, run
from alignxplore.evaluation.benchmarks import Benchmark, SummarySet, find_sets, load_benchmark, shown_history
from alignxplore.evaluation.fits import fit_of, read_interactions
from alignxplore.evaluation.report.tables import MISSING, Table, markdown, percent
from alignxplore.films.lessons import Words
from alignxplore.films.text import read_summary, tally
from alignxplore.journal import FAILED
from alignxplore.records import Interaction, RecordError, refuse_same_files, write_json
from alignxplore.statistics import Estimate, estimate

LEAST = (2, 4)  # tallies from which on an attribute should be told
MEASURES = ("precision", *(f"recall {least}" for least in LEAST), "statements", "repeats", "unknown", "bad format")
SHARES = ("precision", *(f"recall {least}" for least in LEAST), "bad format")


@dataclass(kw_only=True)
class StatementsOptions:
    """Whose summaries of which persons."""

    data: str = option("benchmark file of films that the summaries are of")
    summaries: Path = option("output folder of eval/gen_preference.py")
    policies: list[str] | None = option("policies, in the order of the table; default: all", None)
    tokenizer: str = option("folder of a tiny model, whose tokenizer names the attributes")
    out: Path = option("file of the results, JSON")


@dataclass
class Counted:
    """What one policy stated in one setting: measure → (value, person) of each statement, attribute or summary."""

    observations: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: {name: [] for name in MEASURES})

    def add(
        self, summary: str | None, interactions: Iterable[Interaction], person: str, vocabulary: frozenset[str]
    ) -> None:
        """Count one summary; None stands for one in bad format, which states nothing."""
        statements = read_summary(summary or "")
        counts = {name: count for name, count in tally(interactions).items() if name in vocabulary}
        right = [counts.get(name, 0) * level > 0 for name, level in statements]
        named = [name for name, _ in statements]
        values: dict[str, Iterable[float]] = {
            "precision": (float(agrees) for agrees, name in zip(right, named) if name in vocabulary),
            "statements": [len(statements)],
            "repeats": [len(statements) - len(set(named))],
            "unknown": [sum(name not in vocabulary for name in named)],
            "bad format": [float(summary is None)],
        }
        hits = {name for agrees, name in zip(right, named) if agrees}
        for least in LEAST:
            strong = [name for name, count in counts.items() if abs(count) >= least]
            values[f"recall {least}"] = [float(name in hits) for name in strong]
        for measure, new in values.items():
            self.observations[measure] += [(value, person) for value in new]

    def estimates(self) -> dict[str, Estimate]:
        """Means with their intervals."""
        return {name: _estimate(values) for name, values in self.observations.items()}


def _estimate(observations: Sequence[tuple[float, str]]) -> Estimate:
    """`estimate` of values that may exceed 1, clustered by person."""
    most = max([1.0, *(value for value, _ in observations)])
    persons = {person: place for place, person in enumerate(dict.fromkeys(person for _, person in observations))}
    scaled = estimate([value / most for value, _ in observations], [persons[person] for _, person in observations])
    return scaled._replace(mean=scaled.mean * most, low=scaled.low * most, high=scaled.high * most)


def count(
    sets: Iterable[SummarySet], benchmark: Benchmark, vocabulary: frozenset[str]
) -> dict[tuple[str, str], Counted]:
    """(policy, setting) → what its summaries state, those of all generation seeds together."""
    counted: dict[tuple[str, str], Counted] = {}
    for summaries in sets:
        counter = counted.setdefault((summaries.policy, summaries.setting), Counted())
        rows, fit = summaries.by_record(fields=("dropped",)), fit_of(summaries.meta())
        for record in benchmark.records:
            row = rows.get(record.id)
            if row is None or row["status"] in FAILED:
                continue  # nobody knows what it would have said
            last = row["stages"][-1] if row["stages"] else None
            summary = last["summary"] if last and not last["problem"] else None
            interactions = (
                read_interactions(fit, benchmark.task, record.history, row)
                if last
                else shown_history(benchmark, record)  # nothing of it fitted
            )
            counter.add(summary, interactions, record.person, vocabulary)
    return counted


def table(rows: Sequence[dict]) -> Table:
    """One line a policy and setting; shares in %."""
    body = [
        [row["policy"], row["setting"], str(row["summaries"]), *(_cell(row[name], name) for name in MEASURES)]
        for row in rows
    ]
    head = [f"{name} %" if name in SHARES else name for name in MEASURES]
    return Table("statements", "What summaries state", ["policy", "setting", "summaries", *head], body)


def _cell(interval: dict, measure: str) -> str:
    def shown(value: float | None) -> str:
        return percent(value) if measure in SHARES else MISSING if value is None else f"{value:.2f}"

    return f"{shown(interval['mean'])} [{shown(interval['low'])}, {shown(interval['high'])}]"


def report(options: StatementsOptions) -> str:
    """Count, write, and return the table.

    Raises:
        RecordError: no summaries of this benchmark.
    """
    benchmark = load_benchmark(options.data)
    refuse_same_files({"--out": options.out}, {"--data": benchmark.path})
    vocabulary = frozenset(Words(AutoTokenizer.from_pretrained(options.tokenizer)).names)
    all_sets = find_sets(options.summaries, options.policies)
    sets = [summaries for summaries in all_sets if summaries.benchmark == benchmark.name]
    if not sets:
        raise RecordError(f"no summaries of {benchmark.name}; run eval/gen_preference.py first", options.summaries)
    rows = []
    for (policy, setting), counted in count(sets, benchmark, vocabulary).items():
        estimates = counted.estimates()
        about = {"policy": policy, "setting": setting, "summaries": estimates["bad format"].n}
        rows.append(about | {name: _known(interval) for name, interval in estimates.items()})
    write_json(options.out, rows)
    return markdown(table(rows))


def _known(interval: Estimate) -> dict:
    """An estimate as JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in interval._asdict().items()}


if __name__ == "__main__":
    run(report, StatementsOptions, __doc__)
