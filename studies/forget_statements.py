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
from alignxplore.errors import UserError
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


def supports(one: Statement) -> tuple[int, ...]:
    """Places of the choices that bear a statement out: chosen with a liking, passed over with a dislike."""
    return one.chosen if one.sign > 0 else one.rejected


@dataclass(frozen=True)
class Plan:
    """What is forgotten of one row, in each arm: places in its shown history."""

    record: UserRecord
    places: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, record: UserRecord, told: list[Statement], shown: int, seed: int) -> "Plan | None":
        """None where no statement can be put to the test: choices bear it out, and as many say nothing of it."""
        for one in sorted(told, key=lambda one: content_hash(["forgotten", record.user, one.text, seed])):
            silent = [place for place in range(shown) if place not in (*one.chosen, *one.rejected)]
            count = len(supports(one)) if one.sign else 0
            if 0 < count <= len(silent):
                silent.sort(key=lambda place: content_hash(["others", record.user, place, seed]))
                return cls(record, {"evidence": supports(one), "others": tuple(sorted(silent[:count]))})
        return None


def plans_of(options: ForgettingStudyOptions, benchmark: Benchmark) -> list[Plan]:
    """So many rows, in an order drawn by hash."""
    rows = SummarySet(options.run / "eval", options.policy, benchmark.name, "full", 0).by_record()
    plans = []
    for record in sorted(benchmark.records, key=lambda record: content_hash([record.id, options.seed])):
        shown = shown_history(benchmark, record)
        stages = rows[record.id]["stages"] if record.id in rows else []
        told = statements(stages[-1]["summary"], shown) if stages and not stages[-1]["problem"] else []
        if plan := Plan.of(record, told, len(shown), options.seed):
            plans.append(plan)
        if len(plans) == options.persons:
            break
    return plans


def forget(options: ForgettingStudyOptions, benchmark: Benchmark, plans: list[Plan], arm: str) -> Path:
    """A copy of the run's summaries from which this arm's choices were forgotten, by the command."""
    folder, listed = options.out / arm, options.out / f"{arm}.jsonl"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another --out")
    written = f"eval/summaries/{options.policy}"
    shutil.copytree(options.run / written, folder / written)
    (folder / "data").mkdir()
    shutil.copy(benchmark.path, folder / "data")
    shown = {plan.record.id: shown_history(benchmark, plan.record) for plan in plans}
    write_jsonl(
        listed,
        (
            {"userid": plan.record.user, "chosen": shown[plan.record.id][place].chosen}
            for plan in plans
            for place in plan.places[arm]
        ),
    )
    command = ["eval/gen_preference.py", "--continue", str(folder / "eval"), "--forget", str(listed.resolve())]
    command += ["--model", f"{options.policy}={options.run.resolve() / options.model}", "--max_model_len", "2048"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT)
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with status {done.returncode}")
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
    before = SummarySet(options.run / "eval", options.policy, benchmark.name, setting, 0).by_record()
    now = {}
    with Updates(SummarySet(folder, options.policy, benchmark.name, setting, 0)) as updates:
        for stream in updates.streams():
            standing = updates.standing(stream) if stream.versions[-1] in updates.journal else None
            if standing and standing[0] == stream.versions[-1] and standing[1].stage:
                now[stream.user] = statements_of(standing[1].stage.summary)
    for plan in plans:
        stage = before[plan.record.id]["stages"][-1]
        for one in statements(stage["summary"], shown_history(benchmark, plan.record)) if not stage["problem"] else []:
            alone = bool(one.sign and supports(one)) and set(supports(one)) <= set(plan.places[arm])
            again = any(same(one.text, new.text) for new in now.get(plan.record.user, ()))
            yield Outcome(plan.record.user, alone, again)


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
    for arm, said in ARMS.items():
        folder = forget(options, benchmark, plans, arm)
        for setting in SETTINGS:
            rows = list(outcomes(options, benchmark, plans, arm, folder, setting))
            alone, rest = [row for row in rows if row.alone], [row for row in rows if not row.alone]
            body.append([said, setting, str(len(plans)), share(alone, again=False), share(rest, again=True)])
    head = ["forgotten", "setting", "rows", "rest on it alone: gone %", "all others: stay %"]
    table = markdown(Table("forgetting", f"Forgotten by --forget ({options.policy})", head, body))
    (options.out / "results.json").write_text(json.dumps([dict(zip(head, line)) for line in body], indent=1) + "\n")
    return table


if __name__ == "__main__":
    run(study, ForgettingStudyOptions, __doc__)
