"""What `--forget` takes out of real summaries: of statements that rest on forgotten choices alone, the share that is
gone; of all others, the share that stays. After the quick start.

    python studies/forget_statements.py --run runs/quickstart --out outputs/forgetting
    python studies/forget_statements.py --run runs/quickstart --out outputs/forgetting --check

It copies the summaries of the run to `--out`, twice. Of each person one statement that choices bear out is drawn by
hash. In the first copy `eval/gen_preference.py --continue ... --forget` forgets all choices that bear it out, in the
second as many that say nothing of it. Films tell their genres and decades, so what bears a statement out is known, and
no judge is asked. A statement is gone where the summary derived anew says no such thing. In bad format it says none.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignxplore.ask.evidence import Statement, statements
from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import UserError, at_least_one
from alignxplore.evaluation.benchmarks import SETTINGS, Benchmark, SummarySet, load_benchmarks, shown_history
from alignxplore.evaluation.report.tables import Table, estimated, markdown
from alignxplore.evaluation.statements import same, statements_of
from alignxplore.evaluation.updates import Updates
from alignxplore.records import UserRecord, content_hash, person_of, write_jsonl
from alignxplore.statistics import estimate

ROOT = Path(__file__).parents[1]
ARMS = {"evidence": "what bears it out", "others": "as many other choices"}


@dataclass(kw_only=True)
class ForgettingStudyOptions(Checkable):
    """Which run, whose summaries, how many persons."""

    run: Path = option("folder of a quick start", Path("runs/quickstart"))
    out: Path = option("folder for the copies, what is forgotten, and results.json")
    policy: str = option("whose summaries: its name in the run", "sft+rl")
    model: str = option("folder of its model, in the run", "rl/model")
    persons: int = option("rows of the benchmark, one summary each", 200)
    seed: int = option("of the draws", 0)

    def __post_init__(self) -> None:
        at_least_one(self, "persons")


def supports(statement: Statement) -> tuple[int, ...]:
    """Places of the choices that bear a statement out: chosen with a liking, passed over with a dislike."""
    return statement.chosen if statement.sign > 0 else statement.rejected


@dataclass(frozen=True)
class Plan:
    """What is forgotten of one row, in each arm: places in its shown history."""

    record: UserRecord
    places: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, record: UserRecord, claims: list[Statement], count_shown: int, seed: int) -> "Plan | None":
        """None where no statement can be put to the test: choices bear it out, and as many say nothing of it."""
        for claim in sorted(claims, key=lambda claim: content_hash(["forgotten", record.user, claim.text, seed])):
            silent = [place for place in range(count_shown) if place not in (*claim.chosen, *claim.rejected)]
            count = len(supports(claim)) if claim.sign else 0
            if 0 < count <= len(silent):
                silent.sort(key=lambda place: content_hash(["others", record.user, place, seed]))
                return cls(record, {"evidence": supports(claim), "others": tuple(sorted(silent[:count]))})
        return None


def plans_of(options: ForgettingStudyOptions, benchmark: Benchmark) -> list[Plan]:
    """So many rows, in an order drawn by hash."""
    rows = SummarySet(options.run / "eval", options.policy, benchmark.name, "full", 0).by_record()
    plans = []
    for record in sorted(benchmark.records, key=lambda record: content_hash([record.id, options.seed])):
        interactions = shown_history(benchmark, record)
        stages = rows[record.id]["stages"] if record.id in rows else []
        claims = statements(stages[-1]["summary"], interactions) if stages and not stages[-1]["problem"] else []
        if plan := Plan.of(record, claims, len(interactions), options.seed):
            plans.append(plan)
        if len(plans) == options.persons:
            break
    return plans


def forget(options: ForgettingStudyOptions, benchmark: Benchmark, plans: list[Plan], arm: str) -> Path:
    """A copy of the run's summaries from which this arm's choices were forgotten, by the command."""
    folder, request_file = options.out / arm, options.out / f"{arm}.jsonl"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another --out")
    summary_folder = f"eval/summaries/{options.policy}"
    shutil.copytree(options.run / summary_folder, folder / summary_folder)
    (folder / "data").mkdir()
    shutil.copy(benchmark.path, folder / "data")
    history_of = {plan.record.id: shown_history(benchmark, plan.record) for plan in plans}
    write_jsonl(
        request_file,
        (
            {"userid": plan.record.user, "chosen": history_of[plan.record.id][place].chosen}
            for plan in plans
            for place in plan.places[arm]
        ),
    )
    command = ["eval/gen_preference.py", "--continue", str(folder / "eval"), "--forget", str(request_file.resolve())]
    command += ["--model", f"{options.policy}={options.run.resolve() / options.model}", "--max_model_len", "2048"]
    process = subprocess.run([sys.executable, *command], cwd=ROOT)
    if process.returncode:
        raise UserError(f"{' '.join(command)} ended with status {process.returncode}")
    return folder / "eval"


@dataclass(frozen=True)
class Outcome:
    """One statement of a summary that stood: whether it rested on forgotten choices alone, and whether it is told
    again."""

    user: str
    alone: bool
    again: bool


def outcomes(
    options: ForgettingStudyOptions, benchmark: Benchmark, plans: list[Plan], arm: str, folder: Path, setting: str
) -> Iterator[Outcome]:
    """Every statement of every row of the plan."""
    old_rows = SummarySet(options.run / "eval", options.policy, benchmark.name, setting, 0).by_record()
    new_statements = {}
    with Updates(SummarySet(folder, options.policy, benchmark.name, setting, 0)) as updates:
        for stream in updates.streams():
            newest = updates.standing(stream) if stream.versions[-1] in updates.journal else None
            if newest and newest[0] == stream.versions[-1] and newest[1].stage:
                new_statements[stream.user] = statements_of(newest[1].stage.summary)
    for plan in plans:
        stage = old_rows[plan.record.id]["stages"][-1]
        if stage["problem"]:
            continue
        later_claims = new_statements.get(plan.record.user, ())
        for claim in statements(stage["summary"], shown_history(benchmark, plan.record)):
            evidence = set(supports(claim)) if claim.sign else set()
            rests_alone = bool(evidence) and evidence <= set(plan.places[arm])
            yield Outcome(plan.record.user, rests_alone, any(same(claim.text, x.text) for x in later_claims))


def share(rows: list[Outcome], again: bool) -> str:
    """Share in % that is told again, or that is gone, with its interval over persons."""
    if not rows:
        return "none"
    persons = {name: place for place, name in enumerate(dict.fromkeys(person_of(row.user) for row in rows))}
    values = [float(row.again == again) for row in rows]
    return f"{estimated(estimate(values, [persons[person_of(row.user)] for row in rows]))} of {len(rows)}"


def study(options: ForgettingStudyOptions) -> str:
    """Forget in both arms, and return the table."""
    (benchmark,) = load_benchmarks([str(options.run / "data/movielens_upi.jsonl")])
    plans = plans_of(options, benchmark)
    if options.check or not plans:
        return planned(options, f"rows with a statement that can be put to the test: {len(plans)}")
    body = []
    for arm, name in ARMS.items():
        folder = forget(options, benchmark, plans, arm)
        for setting in SETTINGS:
            rows = list(outcomes(options, benchmark, plans, arm, folder, setting))
            rest_rows, other_rows = [row for row in rows if row.alone], [row for row in rows if not row.alone]
            body.append([name, setting, str(len(plans)), share(rest_rows, again=False), share(other_rows, again=True)])
    head = ["forgotten", "setting", "rows", "rest on it alone: gone %", "all others: stay %"]
    table = markdown(Table("forgetting", f"Forgotten by --forget ({options.policy})", head, body))
    (options.out / "results.json").write_text(json.dumps([dict(zip(head, line)) for line in body], indent=1) + "\n")
    return table


if __name__ == "__main__":
    run(study, ForgettingStudyOptions, __doc__)
