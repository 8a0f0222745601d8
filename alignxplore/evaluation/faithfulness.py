"""Is what a summary states borne out by the choices that it was written from? `eval/faithfulness.py` runs it and
explains how.

A downstream model is asked about each choice of the history twice: with a statement and without it. What the statement
adds to the log-odds of the item chosen (mean of both orders) is its lift there.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignxplore.command import Checkable, option
from alignxplore.errors import at_least_one
from alignxplore.evaluation.arguments import SERVE_ARGUMENTS, one_of, serving_arguments
from alignxplore.evaluation.benchmarks import (
    BENCHMARK_FILES,
    Benchmark,
    SummarySet,
    find_sets,
    judgement_id,
    load_benchmarks,
    shown_history,
    slices_of,
)
from alignxplore.evaluation.evidence import Evidence, LinkedStatement, Links, write_evidence
from alignxplore.evaluation.known_items import KNOWN, claim, recalled, speaks
from alignxplore.evaluation.preview import sizes
from alignxplore.evaluation.report import faithfulness as report
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.report.tables import markdown, write_table
from alignxplore.evaluation.statements import Statement, statements_of, without
from alignxplore.journal import FAILED, OK, Journal, RunLock
from alignxplore.judging.judgement import Judgement
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, hash_seed
from alignxplore.serving.models import ModelSpec, as_served, choose, open_model, parse_all, whereabouts
from alignxplore.work import run_units

JOURNAL = "evidence"  # beside the journals of the protocols
ALONE, IN_PLACE = "alone", "in_place"
LEAST = 1e-6  # probabilities are kept from 0 and 1 by so much


@dataclass(kw_only=True)
class FaithfulnessOptions(Checkable):
    """Whose summaries, and who is asked."""

    judge: list[str] = option("downstream models as NAME=TARGET, whose answers are letters (format plain)")
    data: list[str] = option(BENCHMARK_FILES)
    out: str = option("output folder of gen_preference.py")
    report: str | None = option("folder of the report that gets the table and the evidence; default: --out", None)
    benchmarks: list[str] | None = option("names of those to take; default: all", None)
    policies: list[str] | None = option("policies, in the order of the table; default: all", None)
    limit: int | None = option("users per benchmark (a fixed sample by content hash); all: 0", 200)
    lift: float = option("log-odds that a statement must add to what was chosen, or take from it, to bear on it", 0.1)
    told: str = option(
        f"{ALONE}: one statement and nothing else, against nothing; {IN_PLACE}: the whole summary, against the "
        "summary without it (where the downstream model is at a loss with single statements; --known tells)",
        ALONE,
    )
    known: str | None = option(
        f"items whose attributes are known: {', '.join(KNOWN)}; adds exact precision and recall, and how far the "
        "downstream model agrees with them",
        None,
    )
    prompt_set: str = option("prompt set of the downstream models: default, hardened or a folder", "default")
    max_model_len: int = option("window of downstream models", 16384)
    concurrency: int = option("statements in flight at most", 32)
    max_error_rate: float = option("share of statements that may fail; more of them fail the run", 0.05)
    serve_arguments: str = option(SERVE_ARGUMENTS, "")
    api_key_env: list[str] = option("name of the variable with an endpoint's key: VARIABLE, or NAME=VARIABLE", [])

    def __post_init__(self) -> None:
        self.limit = self.limit or None
        at_least_one(self, "limit", "concurrency")
        one_of("told", [self.told], (ALONE, IN_PLACE))
        one_of("known", [self.known] if self.known else [], KNOWN)


@dataclass(frozen=True)
class Unit:
    """What is told (None: nothing), to be held against all that is shown of a record's history."""

    record: UserRecord
    history: tuple[Interaction, ...]
    text: str | None


def texts_of(summary: str, statement: Statement, telling: str) -> tuple[str, str | None]:
    """(what is told with a statement, what without)."""
    return (statement.text, None) if telling == ALONE else (summary, without(summary, statement))


def written_by(sets: Iterable[SummarySet], benchmark: Benchmark) -> Iterator[tuple[SummarySet, UserRecord, dict]]:
    """The well-formed summaries of a benchmark's records, as rows of their journals."""
    for summaries in sets:
        rows = summaries.by_record() if summaries.benchmark == benchmark.name else {}
        for record in benchmark.records:
            row = rows.get(record.id)
            if row and row["status"] not in FAILED and row["stages"] and not row["stages"][-1]["problem"]:
                yield summaries, record, row


def against(benchmark: Benchmark, record: UserRecord) -> tuple[Interaction, ...]:
    """What is shown of a history, with something to set against each choice: where nothing was passed over, what
    someone else chose, drawn by content hash."""
    others = [other for other in benchmark.records if other.person != record.person]

    def whole(place: int, x: Interaction) -> Interaction:
        if x.rejected is not None or not others:
            return x
        stranger = others[hash_seed("set against", record.id, place) % len(others)]
        return Interaction(x.chosen, stranger.history[place % len(stranger.history)].chosen, x.query)

    return tuple(whole(place, x) for place, x in enumerate(shown_history(benchmark, record)))


def seen_of(benchmark: Benchmark, record: UserRecord, summaries: SummarySet, row: dict) -> tuple[int, ...]:
    """Places in the history of the interactions that the policy was shown: all but those that did not fit."""
    places: list[int] = []
    start = 0
    for part, stage in zip(slices_of(benchmark, record, summaries.setting, len(row["stages"])), row["stages"]):
        places += range(start + stage["dropped"], start + len(part))
        start += len(part)
    return tuple(places)


async def held_against(judge: Judge, unit: Unit) -> dict:
    """Journal row of a unit: log-odds of what was chosen in each interaction; 0 where both items are the same."""

    async def ask(place: int, x: Interaction) -> Judgement | None:
        if x.rejected is None or x.same:
            return None
        return await judge.score(unit.text, x, [unit.record.id, place])

    answers = await asyncio.gather(*(ask(place, x) for place, x in enumerate(unit.history)))
    row = {"record": unit.record.id, "user": unit.record.user, "told": unit.text}
    if bad := next((answer for answer in answers if answer and not answer.ok), None):
        return row | {"status": bad.status, "error": bad.error}
    return row | {
        "status": OK,
        "log_odds": [round(_log_odds(answer.orders), 3) if answer else 0.0 for answer in answers],
    }


def _log_odds(orders: Sequence[float]) -> float:
    shares = [min(max(p, LEAST), 1 - LEAST) for p in orders]
    return sum(math.log(p / (1 - p)) for p in shares) / len(shares)


def links_of(with_odds: Sequence[float], without_odds: Sequence[float], places: Iterable[int], lift: float) -> Links:
    """The interactions, among those seen, that a statement makes more likely, and less likely, by `lift` and more."""
    gains = {place: with_odds[place] - without_odds[place] for place in places}
    return Links(
        tuple(place for place, value in gains.items() if value >= lift),
        tuple(place for place, value in gains.items() if value <= -lift),
    )


def true_links(kind: str, text: str, history: Sequence[Interaction], places: Sequence[int]) -> Links | None:
    """The same from what the items tell; None where the statement is not about one attribute."""
    attribute = claim(text)
    if attribute is None:
        return None
    signs = {place: speaks(KNOWN[kind], attribute, history[place]) for place in places}
    return Links(tuple(x for x in places if signs[x] > 0), tuple(x for x in places if signs[x] < 0))


class Asking:
    """One downstream model with its journal, asked about the summaries of some benchmarks."""

    def __init__(self, options: FaithfulnessOptions, judge: Judge, identity: str, journal: Journal):
        self.options, self.judge, self.journal = options, judge, journal
        self.model_key = as_served(identity, serving_arguments(options))

    def unit_id(self, unit: Unit) -> str:
        setup = {"name": JOURNAL, "history": [asdict(x) for x in unit.history]}
        return judgement_id(self.model_key, self.judge.prompts.hash("judge"), setup, unit.record, unit.text)

    async def ask(self, units: Iterable[Unit]) -> None:
        """Ask what the journal lacks."""
        units_by_id = {self.unit_id(unit): unit for unit in units}
        await run_units(
            units_by_id.items(),
            lambda unit: held_against(self.judge, unit),
            self.journal,
            label=f"{self.judge.name} {JOURNAL}",
            total=len(units_by_id),
            concurrency=self.options.concurrency,
            max_error_rate=self.options.max_error_rate,
        )

    def log_odds(self, unit: Unit) -> list[float] | None:
        """What was answered; None if that failed."""
        row = self.journal.get(self.unit_id(unit))
        return row["log_odds"] if row and row["status"] == OK else None

    def evidence(self, benchmark: Benchmark, sets: Iterable[SummarySet]) -> Iterator[Evidence]:
        """The statements of all summaries of a benchmark with their links."""
        for summaries, record, row in written_by(sets, benchmark):
            history, places = against(benchmark, record), seen_of(benchmark, record, summaries, row)
            summary, statements = row["stages"][-1]["summary"], []
            for statement in statements_of(summary):
                texts = texts_of(summary, statement, self.options.told)
                with_it, without_it = (self.log_odds(Unit(record, history, text)) for text in texts)
                if with_it is not None and without_it is not None:
                    links = links_of(with_it, without_it, places, self.options.lift)
                    statements.append(self._told(statement, links, history, places))
            about = (
                summaries.policy,
                summaries.setting,
                benchmark.name,
                summaries.seed,
                record.id,
                record.user,
                self.judge.name,
            )
            counts = self._recall([statement.text for statement in statements], [history[place] for place in places])
            yield Evidence(*about, places, tuple(statements), *counts)

    def _told(
        self, statement: Statement, links: Links, history: Sequence[Interaction], places: Sequence[int]
    ) -> LinkedStatement:
        kind = self.options.known
        known_links = true_links(kind, statement.text, history, places) if kind else None
        return LinkedStatement(statement.text, statement.start, statement.end, links, known_links)

    def _recall(self, texts: Sequence[str], interactions: Sequence[Interaction]) -> tuple[int | None, int | None]:
        if self.options.known is None:
            return None, None
        hits, total = recalled(KNOWN[self.options.known], interactions, texts)
        return total, hits


def units_of(benchmark: Benchmark, sets: Iterable[SummarySet], telling: str) -> Iterator[Unit]:
    """All that is to be asked about the summaries of a benchmark."""
    for _, record, row in written_by(sets, benchmark):
        history, summary = against(benchmark, record), row["stages"][-1]["summary"]
        for statement in statements_of(summary):
            for text in texts_of(summary, statement, telling):
                yield Unit(record, history, text)


def inputs(options: FaithfulnessOptions) -> tuple[list[Benchmark], list[SummarySet]]:
    """Benchmarks, and the sets of summaries that are of them.

    Raises:
        RecordError: there are none.
    """
    benchmarks = load_benchmarks(options.data, options.benchmarks, options.limit)
    names = {benchmark.name for benchmark in benchmarks}
    sets = [summaries for summaries in find_sets(Path(options.out), options.policies) if summaries.benchmark in names]
    if not sets:
        raise RecordError(f"no summaries of {', '.join(sorted(names))}; run gen_preference.py first", options.out)
    return benchmarks, sets


async def judge_statements(options: FaithfulnessOptions, spec: ModelSpec, key: str) -> list[Evidence]:
    """All statements as one downstream model sees them."""
    benchmarks, sets = inputs(options)
    prompts = PromptSet(options.prompt_set)
    async with open_model(
        spec,
        log_folder=Path(options.out) / "logs",
        arguments=serving_arguments(options),
        sample=prompts.judge(None, None, "a", "b"),
        api_key_env=key,
        concurrency=8 * options.concurrency,
    ) as model:
        judge = Judge(model.endpoint, model.tokenizer, prompts)
        with Journal(Path(options.out) / "judgements" / judge.name / f"{JOURNAL}.jsonl") as journal:
            asking = Asking(options, judge, model.identity, journal)
            units = [unit for benchmark in benchmarks for unit in units_of(benchmark, sets, options.told)]
            pairs = [(unit.text, x) for unit in units[:8] for x in unit.history if x.rejected and not x.same]
            if pairs:
                await judge.check(pairs[:8])
            await asking.ask(units)
            return [entry for benchmark in benchmarks for entry in asking.evidence(benchmark, sets)]


def preview(options: FaithfulnessOptions) -> str:
    """Who would be asked how much; starts no server and asks no endpoint."""
    specs = parse_all(options.judge)
    keys = choose("api_key_env", options.api_key_env, [spec.name for spec in specs], "")
    benchmarks, sets = inputs(options)
    serving = serving_arguments(options)
    lines = [f"{spec.name}: {whereabouts(spec, keys[spec.name], serving)}" for spec in specs] + sizes(benchmarks)
    for benchmark in benchmarks:
        units = set(units_of(benchmark, sets, options.told))
        count = sum(2 * len(unit.history) for unit in units)
        lines.append(f"{benchmark.name}: {len(units)} texts, {count} questions of one token to each judge")
    return "\n".join(lines)


def faithfulness(options: FaithfulnessOptions) -> str:
    """What `eval/faithfulness.py` does; returns its tables."""
    if options.check:
        return preview(options)
    specs, out = parse_all(options.judge), Path(options.report or options.out)
    keys = choose("api_key_env", options.api_key_env, [spec.name for spec in specs], "")
    evidence: list[Evidence] = []
    with RunLock(options.out):
        for spec in specs:
            evidence += asyncio.run(judge_statements(options, spec, keys[spec.name]))
        write_evidence(out, evidence)
        tables = report.tables(evidence)
        for table in tables:
            write_table(out, table)
        if (out / "results.json").is_file():
            writing.write(out)
    return "\n\n".join(map(markdown, tables))
