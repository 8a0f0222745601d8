"""A test of a policy: when the interactions behind a statement are dropped and the summary is derived anew, is the
statement gone, and do the others stay? `eval/forgetting.py` runs it and explains how.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignxplore.command import option
from alignxplore.errors import at_least_one
from alignxplore.evaluation.benchmarks import BENCHMARK_FILES, Benchmark, SummarySet, load_benchmarks
from alignxplore.evaluation.derived import write_copy, write_names
from alignxplore.evaluation.evidence import SUPPORTED, Evidence, LinkedStatement, Links, read_evidence
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, markdown, points, write_table
from alignxplore.evaluation.statements import same, statements_of
from alignxplore.journal import FAILED
from alignxplore.records import RecordError, UserRecord, content_hash, person_of, read_jsonl, write_jsonl
from alignxplore.statistics import Estimate, estimate, paired

PLAN = "forgotten.jsonl"
WHOLE, FORGOTTEN, OTHERS = "whole", "forgotten", "others_dropped"  # the copies: NAME~BENCHMARK
NOTE = (
    "One statement a user, drawn by content hash among those that are supported and whose evidence is not the whole "
    "history. Gone: the summary derived anew without that evidence has no statement that says the same; in bad format "
    "it has none. Beside it the same after as many other choices were dropped, which say nothing of it, and where "
    "nothing was dropped and the summary was drawn anew. Stays: share of the other statements that the choices left "
    "still support and that are told again. Intervals: 95 %, over persons."
)


@dataclass(kw_only=True)
class ForgettingOptions:
    """Whose statements are to be forgotten, and where."""

    data: str = option(BENCHMARK_FILES + "; one of them")
    evidence: Path = option("folder with the evidence.jsonl of faithfulness.py")
    policy: str = option("whose summaries")
    out: Path = option("folder for the copies, the summaries derived anew and the table")
    judge: str | None = option("downstream model whose evidence counts; default: the first in the file", None)
    limit: int | None = option("users (a fixed sample by content hash); default: all that have evidence", None)
    seed: int = option("seed of all draws", 0)

    def __post_init__(self) -> None:
        at_least_one(self, "limit")


@dataclass(frozen=True)
class DropPlan:
    """One line of forgotten.jsonl: what was dropped of the interactions behind a user's summary, and what becomes of
    each statement.

    `stays` are the other statements that the choices left still support, `stays_other` those that are still supported
    when `other` is dropped in place of `dropped`.
    """

    user: str
    statement: str
    dropped: tuple[int, ...]
    other: tuple[int, ...]
    stays: tuple[str, ...]
    stays_other: tuple[str, ...]


def links_of(statement: LinkedStatement) -> Links:
    """The links that are known from the items, or else those of the downstream model."""
    return statement.links if statement.true is None else statement.true


def planned(evidence: Evidence, seed: int) -> DropPlan | None:
    """What is dropped of one user's history; None where no statement can be put to the test: it must be supported, and
    as many choices that say nothing of it must have been shown."""
    order = sorted(
        evidence.statements, key=lambda statement: content_hash(["forgotten", evidence.user, statement.text, seed])
    )
    for statement in order:
        links = links_of(statement)
        silent = [place for place in evidence.seen if place not in (*links.supports, *links.contradicts)]
        count = len(links.supports)
        if links.verdict == SUPPORTED and len(silent) >= count:
            candidates = sorted(silent, key=lambda place: content_hash(["others dropped", evidence.user, place, seed]))
            other = tuple(sorted(candidates[:count]))
            others = [x for x in evidence.statements if not same(x.text, statement.text)]
            return DropPlan(
                evidence.user,
                statement.text,
                links.supports,
                other,
                tuple(x.text for x in others if links_of(x).without(links.supports).verdict == SUPPORTED),
                tuple(x.text for x in others if links_of(x).without(other).verdict == SUPPORTED),
            )
    return None


def copies(
    benchmark: Benchmark, plan: Mapping[str, DropPlan], places: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, list[UserRecord]]]:
    """(name, records) of each copy: what a user's summary was written from (`places` in the history, by user), whole
    or without what is dropped."""
    records = [record for record in benchmark.records if record.user in plan]

    def without(record: UserRecord, dropped: Sequence[int]) -> UserRecord:
        history = tuple(record.history[place] for place in places[record.user] if place not in dropped)
        return replace(record, history=history)

    yield WHOLE, [without(record, ()) for record in records]
    yield FORGOTTEN, [without(record, plan[record.user].dropped) for record in records]
    yield OTHERS, [without(record, plan[record.user].other) for record in records]


def evidence_of(options: ForgettingOptions, benchmark: Benchmark) -> Iterator[Evidence]:
    """The evidence that counts: of one policy, full history, first seed, one downstream model.

    Raises:
        RecordError: there is none.
    """
    entries = [
        entry
        for entry in read_evidence(options.evidence)
        if (entry.policy, entry.setting, entry.benchmark) == (options.policy, "full", benchmark.name)
        and options.judge in (None, entry.judge)
    ]
    if not entries:
        problem = f"no evidence of {options.policy}, full history, {benchmark.name}; run eval/faithfulness.py first"
        raise RecordError(problem, options.evidence)
    yield from (entry for entry in entries if (entry.judge, entry.seed) == (entries[0].judge, entries[0].seed))


def write_plan(options: ForgettingOptions, benchmark: Benchmark) -> dict[str, DropPlan]:
    """Draw what is forgotten of whom, and write the copies."""
    users = {record.user for record in benchmark.records}
    evidence = [entry for entry in evidence_of(options, benchmark) if entry.user in users]
    plan = {case.user: case for entry in evidence if (case := planned(entry, options.seed))}
    folder = options.out / "data"
    for name, records in copies(benchmark, plan, {entry.user: entry.seen for entry in evidence}):
        write_copy(folder, f"{name}~{benchmark.name}", records, benchmark, task="selection")
    write_names(folder, [f"{name}~{benchmark.name}" for name in (WHOLE, FORGOTTEN, OTHERS)])
    write_jsonl(options.out / PLAN, (asdict(entry) for entry in plan.values()))
    return plan


def statements_anew(
    options: ForgettingOptions, benchmark: Benchmark, copy: str, seed: int = 0
) -> dict[str, list[str]]:
    """User → the statements of the summary derived anew; none of one in bad format."""
    rows = SummarySet(options.out, options.policy, f"{copy}~{benchmark.name}", "full", seed).by_record().values()
    return {
        row["user"]: [statement.text for statement in statements_of(row["stages"][-1]["summary"])]
        for row in rows
        if row["status"] not in FAILED and row["stages"]
    }


def table(options: ForgettingOptions, benchmark: Benchmark, plan: Iterable[DropPlan]) -> Table:
    """One line a copy: the share of statements gone, of the others that stay, and the difference to other choices
    dropped."""
    plan = list(plan)
    statements = {name: statements_anew(options, benchmark, name) for name in (FORGOTTEN, OTHERS, WHOLE)}
    losses = {
        name: {case.user: _gone(case, texts) for case in plan if case.user in texts}
        for name, texts in statements.items()
    }
    body = []
    for name, label in (
        (FORGOTTEN, "its evidence"),
        (OTHERS, "as many other choices"),
        (WHOLE, "nothing, drawn anew"),
    ):
        stays: list[tuple[str, bool]] = []
        for case in plan:
            old_texts, new_texts = case.stays_other if name == OTHERS else case.stays, statements[name].get(case.user)
            if new_texts is not None:
                stays += [(case.user, any(same(old, new) for new in new_texts)) for old in old_texts]
        users = [user for user in losses[name] if user in losses[OTHERS]] if name == FORGOTTEN else []
        body.append(
            [
                label,
                str(len(losses[name])),
                estimated(_mean(list(losses[name].items()))),
                _difference(losses[FORGOTTEN], losses[OTHERS], users),
                str(len(stays)),
                estimated(_mean(stays)),
            ]
        )
    head = ["dropped", "statements", "gone %", "more than with others dropped", "other statements", "stay %"]
    title = f"Forgetting: {options.policy}, {benchmark.name}"
    return Table("forgetting", title, head, body, NOTE)


def _gone(plan: DropPlan, texts: Mapping[str, Sequence[str]]) -> bool:
    return not any(same(plan.statement, text) for text in texts[plan.user])


def _mean(outcomes: Sequence[tuple[str, bool]]) -> Estimate:
    return estimate([float(value) for _, value in outcomes], [person_of(user) for user, _ in outcomes])


def _difference(losses: Mapping[str, bool], control: Mapping[str, bool], users: Sequence[str]) -> str:
    if not users:
        return MISSING
    test = paired([losses[u] for u in users], [control[u] for u in users], [person_of(u) for u in users])
    return f"{points(test.difference)} [{points(test.low)}, {points(test.high)}]"


def forgetting(options: ForgettingOptions) -> str:
    """What `eval/forgetting.py` does: write the copies, or, where their summaries are there, the table."""
    (benchmark,) = load_benchmarks([options.data], limit=options.limit)
    plan_file = options.out / PLAN
    names = [f"{name}~{benchmark.name}" for name in (WHOLE, FORGOTTEN, OTHERS)]
    if any(not SummarySet(options.out, options.policy, name, "full", 0).by_record() for name in names):
        plan = write_plan(options, benchmark)
        return (
            f"{len(plan)} users, one statement each. Now derive their summaries anew, with the options that wrote the "
            "old ones (--prompt_set, --format, sampling), then run this command again:\n"
            f"python eval/gen_preference.py --model {options.policy}=... --data {options.out / 'data'} "
            f"--out {options.out} --settings full"
        )
    plan = {row["user"]: _planned(row) for _, row in read_jsonl(plan_file)}
    summary_table = table(options, benchmark, plan.values())
    write_table(options.out, summary_table)
    return markdown(summary_table)


def _planned(row: dict) -> DropPlan:
    places = {name: tuple(row[name]) for name in ("dropped", "other", "stays", "stays_other")}
    return DropPlan(row["user"], row["statement"], **places)
