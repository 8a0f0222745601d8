"""A test of a policy: when the interactions behind a statement are dropped and the summary is derived anew, is the
statement gone, and do the others stay? `eval/forgetting.py` runs it and explains how.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignxplore.command import option
from alignxplore.errors import UserError, at_least_one
from alignxplore.evaluation.benchmarks import (
    BENCHMARK_FILES,
    Benchmark,
    SummarySet,
    find_sets,
    load_benchmark,
    load_benchmarks,
)
from alignxplore.evaluation.derived import write_copy, write_names
from alignxplore.evaluation.evidence import SUPPORTED, Evidence, LinkedStatement, Links, read_evidence
from alignxplore.evaluation.report.tables import MISSING, Table, estimated, markdown, points, write_table
from alignxplore.evaluation.statements import same, statements_of
from alignxplore.journal import FAILED
from alignxplore.records import RecordError, UserRecord, content_hash, person_of, read_jsonl, write_jsonl
from alignxplore.statistics import paired, share_of_outcomes

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


@dataclass(frozen=True)
class Source:
    """What a plan is drawn from; it stands in each of its lines."""

    policy: str
    judge: str
    seed: int
    limit: int | None
    evidence: str  # hash of what counts of it


def draw(options: ForgettingOptions, benchmark: Benchmark) -> tuple[Source, list[Evidence], dict[str, DropPlan]]:
    """(what the plan is drawn from, the evidence of the benchmark's users, what is forgotten of whom).

    Raises:
        UserError: there is nobody to test.
    """
    users = {record.user for record in benchmark.records}
    evidence = [entry for entry in evidence_of(options, benchmark) if entry.user in users]
    plan = {case.user: case for entry in evidence if (case := planned(entry, options.seed))}
    if not plan:
        raise UserError(
            f"nobody to test among {len(evidence)} users with evidence in {benchmark.path}: no statement is supported "
            "with as many other choices shown that say nothing of it; ask about more users with faithfulness.py, or "
            "name another --judge"
        )
    digest = content_hash([asdict(entry) for entry in evidence])
    return Source(options.policy, evidence[0].judge, options.seed, options.limit, digest), evidence, plan


def write_plan(
    options: ForgettingOptions,
    benchmark: Benchmark,
    source: Source,
    evidence: Iterable[Evidence],
    plan: Mapping[str, DropPlan],
) -> None:
    """Write what is forgotten of whom, and the copies."""
    folder = options.out / "data"
    for name, records in copies(benchmark, plan, {entry.user: entry.seen for entry in evidence}):
        write_copy(folder, f"{name}~{benchmark.name}", records, benchmark, task="selection")
    write_names(folder, [f"{name}~{benchmark.name}" for name in (WHOLE, FORGOTTEN, OTHERS)])
    write_jsonl(options.out / PLAN, (asdict(case) | {"made_of": asdict(source)} for case in plan.values()))


def check_plan(path: Path, source: Source, plan: Mapping[str, DropPlan]) -> None:
    """A table is of the options that it is asked for with.

    Raises:
        UserError: the plan on disk is of others; with what differs.
    """
    rows = [row for _, row in read_jsonl(path)]
    new_source, old_source = asdict(source), rows[0].get("made_of", {}) if rows else {}  # none: an older version's
    changes = [name for name, value in old_source.items() if name != "evidence" and value != new_source.get(name)]
    differences = [f"--{name} was {old_source[name]}, is {new_source.get(name)} now" for name in changes]
    if not differences and old_source.get("evidence", source.evidence) != source.evidence:
        differences = ["the evidence is another by now"]
    if not differences and {row["user"]: _planned(row) for row in rows} != plan:
        differences = ["these options draw another one"]
    if differences:
        raise UserError(f"{path}: {'; '.join(differences)}; choose another --out, or remove {path.name} to draw anew")


def statements_anew(options: ForgettingOptions, benchmark: Benchmark, copy: str) -> dict[str, list[str]]:
    """User → the statements of the summary derived anew of a copy, as it is now; none of one in bad format."""
    name, folder = f"{copy}~{benchmark.name}", options.out / "data"
    rows = SummarySet(options.out, options.policy, name, "full", 0).by_record()
    records = load_benchmarks([str(folder)], [name])[0].records if rows and folder.is_dir() else ()
    return {
        row["user"]: [statement.text for statement in statements_of(row["stages"][-1]["summary"])]
        for record in records
        if (row := rows.get(record.id)) and row["status"] not in FAILED and row["stages"]
    }


def table(title: str, plan: Collection[DropPlan], statements: Mapping[str, Mapping[str, Sequence[str]]]) -> Table:
    """One line a copy: the share of statements gone, of the others that stay, and the difference to other choices
    dropped. `statements` are those derived anew, by the copy and the user."""
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
                estimated(share_of_outcomes(list(losses[name].items()))),
                _difference(losses[FORGOTTEN], losses[OTHERS], users),
                str(len(stays)),
                estimated(share_of_outcomes(stays)),
            ]
        )
    head = ["dropped", "statements", "gone %", "more than with others dropped", "other statements", "stay %"]
    return Table("forgetting", title, head, body, NOTE)


def _gone(plan: DropPlan, texts: Mapping[str, Sequence[str]]) -> bool:
    return not any(same(plan.statement, text) for text in texts[plan.user])


def _difference(losses: Mapping[str, bool], control: Mapping[str, bool], users: Sequence[str]) -> str:
    if not users:
        return MISSING
    test = paired([losses[u] for u in users], [control[u] for u in users], [person_of(u) for u in users])
    return f"{points(test.difference)} [{points(test.low)}, {points(test.high)}]"


def forgetting(options: ForgettingOptions) -> str:
    """What `eval/forgetting.py` does: write the copies, or, where their summaries are there, the table."""
    benchmark = load_benchmark(options.data, options.limit)
    source, evidence, plan = draw(options, benchmark)
    path = options.out / PLAN
    if path.exists() and find_sets(options.out):
        check_plan(path, source, plan)
    statements = {name: statements_anew(options, benchmark, name) for name in (FORGOTTEN, OTHERS, WHOLE)}
    if not path.exists() or not all(statements.values()):
        write_plan(options, benchmark, source, evidence, plan)
        return (
            f"{len(plan)} users, one statement each. Now derive their summaries anew, with the options that wrote the "
            "old ones (--prompt_set, --format, sampling), then run this command again:\n"
            f"python eval/gen_preference.py --model {options.policy}=... --data {options.out / 'data'} "
            f"--out {options.out} --settings full"
        )
    summary_table = table(f"Forgetting: {options.policy}, {benchmark.name}", plan.values(), statements)
    write_table(options.out, summary_table)
    return markdown(summary_table)


def _planned(row: dict) -> DropPlan:
    places = {name: tuple(row[name]) for name in ("dropped", "other", "stays", "stays_other")}
    return DropPlan(row["user"], row["statement"], **places)
