"""Is what a summary states borne out by the choices that it was written from? `eval/faithfulness.py` runs it and
explains how.

A downstream model is asked about each choice of the history twice: with a statement and without it. What the statement
adds to the log-odds of the item chosen (mean of both orders) is its lift there.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import nsmallest
from pathlib import Path

from alignxplore.command import Checkable, option
from alignxplore.errors import above_zero, at_least_one, check_folder, shares
from alignxplore.evaluation.arguments import check_names, one_of, serving_arguments
from alignxplore.evaluation.benchmarks import (
    BENCHMARK_FILES,
    Benchmark,
    SummarySet,
    check_tasks,
    find_sets,
    judgement_id,
    load_benchmarks,
)
from alignxplore.evaluation.evidence import Evidence, LinkedStatement, Links, write_evidence
from alignxplore.evaluation.fits import fit_of, read_interactions
from alignxplore.evaluation.known_items import KNOWN, claim, recalled, speaks
from alignxplore.evaluation.preview import sizes
from alignxplore.evaluation.report import faithfulness as report
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.report.tables import markdown, write_table
from alignxplore.evaluation.statements import Statement, statements_of, without
from alignxplore.evaluation.strangers import Strangers
from alignxplore.journal import FAILED, OK, Journal, RunLock
from alignxplore.judging.judgement import Judgement
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord
from alignxplore.serving.models import ModelSpec, as_served, choose, open_model, parse_all, whereabouts
from alignxplore.serving.serve_options import SERVE_ARGUMENTS
from alignxplore.summarize import check_window
from alignxplore.work import run_units

JOURNAL = "evidence"  # beside the journals of the protocols
ALONE, IN_PLACE = "alone", "in_place"
LEAST = 1e-6  # probabilities are kept from 0 and 1 by so much
POOL = 200  # users of a file, those of the smallest ids, whose items are set against a choice: whatever --limit says


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
        at_least_one(self, "limit", "concurrency", "max_model_len")
        above_zero(self, "lift")
        shares(self, "max_error_rate")
        check_window(self.max_model_len, 32, None)  # what is left for a letter
        one_of("told", [self.told], (ALONE, IN_PLACE))
        one_of("known", [] if self.known is None else [self.known], KNOWN)


@dataclass(frozen=True)
class Written:
    """A well-formed summary with what it was written from.

    Attributes:
        places: of the interactions in the record's history that the policy was shown, from 0, oldest first.
        interactions: those, each with something to set against what was chosen.
    """

    summaries: SummarySet
    record: UserRecord
    text: str
    places: tuple[int, ...]
    interactions: tuple[Interaction, ...]


@dataclass(frozen=True)
class Unit:
    """What is told (None: nothing), to be held against the interactions that a summary was written from."""

    record: UserRecord
    history: tuple[Interaction, ...]
    text: str | None


def texts_of(summary: str, statement: Statement, telling: str) -> tuple[str, str | None]:
    """(what is told with a statement, what without)."""
    return (statement.text, None) if telling == ALONE else (summary, without(summary, statement))


def written_by(sets: Iterable[SummarySet], benchmark: Benchmark, strangers: Strangers) -> Iterator[Written]:
    """The well-formed summaries of a benchmark's records, as the journals have them.

    Args:
        strangers: whose items stand against a choice where nothing was passed over.
    """
    for summaries in sets:
        if summaries.benchmark != benchmark.name:
            continue
        rows, fit = summaries.by_record(fields=("dropped",)), fit_of(summaries.meta())
        for record in benchmark.records:
            row = rows.get(record.id)
            if row and row["status"] not in FAILED and row["stages"] and not row["stages"][-1]["problem"]:
                places = read_interactions(fit, benchmark.task, range(len(record.history)), row)
                interactions = tuple(against(record, place, strangers) for place in places)
                yield Written(summaries, record, row["stages"][-1]["summary"], places, interactions)


def against(record: UserRecord, place: int, strangers: Strangers) -> Interaction:
    """An interaction with something to set against the choice: where nothing was passed over, what someone else chose,
    drawn by content hash."""
    x = record.history[place]
    stranger = strangers.draw(record, "set against", place) if x.rejected is None else None
    if stranger is None:
        return x
    return Interaction(x.chosen, stranger.history[place % len(stranger.history)].chosen, x.query)


async def held_against(judge: Judge, unit: Unit) -> dict:
    """Journal row of a unit: log-odds of what was chosen in each interaction; 0 where both items are the same or
    there is one alone."""

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
    chances = [min(max(p, LEAST), 1 - LEAST) for p in orders]
    return sum(math.log(p / (1 - p)) for p in chances) / len(chances)


def links_of(with_odds: Sequence[float], without_odds: Sequence[float], places: Iterable[int], lift: float) -> Links:
    """The interactions, at these places of a history, that a statement makes more likely, and less likely, by `lift`
    and more."""
    gains = {place: odds - before for place, odds, before in zip(places, with_odds, without_odds)}
    return Links(
        tuple(place for place, value in gains.items() if value >= lift),
        tuple(place for place, value in gains.items() if value <= -lift),
    )


def true_links(kind: str, text: str, interactions: Sequence[Interaction], places: Sequence[int]) -> Links | None:
    """The same from what the items tell; None where the statement is not about one attribute."""
    attribute = claim(text)
    if attribute is None:
        return None
    signs = {place: speaks(KNOWN[kind], attribute, x) for place, x in zip(places, interactions)}
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

    def evidence(self, summaries: Iterable[Written]) -> Iterator[Evidence]:
        """The statements of summaries with their links."""
        for summary in summaries:
            record, interactions, statements = summary.record, summary.interactions, []
            for statement in statements_of(summary.text):
                texts = texts_of(summary.text, statement, self.options.told)
                with_it, without_it = (self.log_odds(Unit(record, interactions, text)) for text in texts)
                if with_it is not None and without_it is not None:
                    links = links_of(with_it, without_it, summary.places, self.options.lift)
                    statements.append(self._told(statement, links, summary))
            its_set = summary.summaries
            about = (its_set.policy, its_set.setting, its_set.benchmark, its_set.seed, record.id, record.user)
            counts = self._recall([statement.text for statement in statements], interactions)
            yield Evidence(*about, self.judge.name, summary.places, tuple(statements), *counts)

    def _told(self, statement: Statement, links: Links, summary: Written) -> LinkedStatement:
        kind = self.options.known
        known_links = true_links(kind, statement.text, summary.interactions, summary.places) if kind else None
        return LinkedStatement(statement.text, statement.start, statement.end, links, known_links)

    def _recall(self, texts: Sequence[str], interactions: Sequence[Interaction]) -> tuple[int | None, int | None]:
        if self.options.known is None:
            return None, None
        hits, total = recalled(KNOWN[self.options.known], interactions, texts)
        return total, hits


def units_of(summaries: Iterable[Written], telling: str) -> Iterator[Unit]:
    """All that is to be asked about summaries."""
    for summary in summaries:
        for statement in statements_of(summary.text):
            for text in texts_of(summary.text, statement, telling):
                yield Unit(summary.record, summary.interactions, text)


def inputs(options: FaithfulnessOptions) -> tuple[list[Benchmark], list[Written]]:
    """Benchmarks, and the well-formed summaries that are of them.

    Raises:
        RecordError: there are no summaries, or some of them are of another task.
    """
    count = options.limit and max(options.limit, POOL)
    files = {x.name: x for x in load_benchmarks(options.data, options.benchmarks, count)}
    sets = [summaries for summaries in find_sets(Path(options.out), options.policies) if summaries.benchmark in files]
    if not sets:
        raise RecordError(f"no summaries of {', '.join(sorted(files))}; run gen_preference.py first", options.out)
    check_tasks(sets, files)
    benchmarks, summaries = [], list[Written]()
    for benchmark in files.values():
        strangers = Strangers(nsmallest(POOL, benchmark.records, key=lambda record: record.id))
        # A limit leaves those of the smallest ids, in that order.
        benchmarks.append(replace(benchmark, records=benchmark.records[: options.limit]))
        summaries += written_by(sets, benchmarks[-1], strangers)
    return benchmarks, summaries


async def judge_statements(options: FaithfulnessOptions, spec: ModelSpec, key: str) -> list[Evidence]:
    """All statements as one downstream model sees them."""
    _, summaries = inputs(options)
    prompts = PromptSet(options.prompt_set)
    async with open_model(
        spec,
        log_folder=Path(options.out) / "logs",
        arguments=serving_arguments(options),
        sample=prompts.judge(None, None, "a", "b"),
        api_key_env=key,
        concurrency=8 * options.concurrency,
    ) as model:
        judge = Judge(model.endpoint, model.tokenizer, prompts, remedy="")
        with Journal(Path(options.out) / "judgements" / judge.name / f"{JOURNAL}.jsonl") as journal:
            asking = Asking(options, judge, model.identity, journal)
            units = list(units_of(summaries, options.told))
            pairs = [(unit.text, x) for unit in units[:8] for x in unit.history if x.rejected and not x.same]
            if pairs:
                await judge.check(pairs[:8])
            await asking.ask(units)
            return list(asking.evidence(summaries))


def judges_of(options: FaithfulnessOptions) -> tuple[list[ModelSpec], dict[str, str]]:
    """The downstream models, and the variables with their keys."""
    specs = parse_all(options.judge)
    names = [spec.name for spec in specs]
    check_names("judge", names)
    return specs, choose("api_key_env", options.api_key_env, names, "")


def preview(options: FaithfulnessOptions) -> str:
    """Who would be asked how much; starts no server and asks no endpoint."""
    specs, keys = judges_of(options)
    PromptSet(options.prompt_set).judge(None, None, "a", "b")
    benchmarks, summaries = inputs(options)
    serving = serving_arguments(options)
    lines = [f"{spec.name}: {whereabouts(spec, keys[spec.name], serving)}" for spec in specs] + sizes(benchmarks)
    for benchmark in benchmarks:
        units = set(units_of((x for x in summaries if x.summaries.benchmark == benchmark.name), options.told))
        count = sum(2 * len(unit.history) for unit in units)
        lines.append(f"{benchmark.name}: {len(units)} texts, {count} questions of one token to each judge")
    return "\n".join(lines)


def faithfulness(options: FaithfulnessOptions) -> str:
    """What `eval/faithfulness.py` does; returns its tables."""
    check_folder("report", options.report)
    if options.check:
        return preview(options)
    (specs, keys), out = judges_of(options), Path(options.report or options.out)
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
