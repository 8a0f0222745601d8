"""Summaries of all policies x benchmarks x settings x seeds: the first half of the evaluation, which
`eval/gen_preference.py` runs and explains.
"""

import asyncio
import logging
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial

from alignxplore.environment import recorded_versions, say_problems
from alignxplore.evaluation.arguments import GenerationArguments, check_names, serving_arguments, serving_beside
from alignxplore.evaluation.beginnings import with_file
from alignxplore.evaluation.benchmarks import BenchmarkFile, SummarySet, find_benchmarks, run_id, slices_of
from alignxplore.evaluation.costs import SHORTER, Spent, spent_before
from alignxplore.evaluation.fits import Fit
from alignxplore.evaluation.forgotten import Forgotten
from alignxplore.evaluation.preview import sizes
from alignxplore.evaluation.report.tables import Table, markdown
from alignxplore.history import HistoryError
from alignxplore.journal import FAILED, Journal, RunLock
from alignxplore.places import Places
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, content_hash, write_json
from alignxplore.serving.beforehand import other_wording
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.failures import failed
from alignxplore.serving.models import (
    Model,
    ModelSpec,
    as_served,
    choose,
    foreseen,
    look_up,
    open_model,
    parse_all,
    served_here,
    whereabouts,
)
from alignxplore.summarize import Sampling, Summaries, check_window, summarize
from alignxplore.work import run_units, side_by_side

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one set of summaries is made; `run` is its hash and marks every row, `recipe` is the same without seed and
    task.

    `task` is the benchmark's: it decides how much of a history is shown; `fit` says how a long one is shortened.
    """

    sampling: Sampling
    stages: int
    window: int
    task: str
    fit: str
    recipe: str
    run: str

    def unit(self, record: str) -> str:
        """Id of the summary of a record, by the record's id."""
        return content_hash([self.run, record])


def stages_of(arguments: GenerationArguments, target: SummarySet) -> int:
    """Answers that one user's summary takes in the setting of a set."""
    return 1 if target.setting == "full" else arguments.stages


def recipe_of(
    arguments: GenerationArguments,
    identity: str,
    window: int,
    prompts: PromptSet,
    form: str,
    task: str,
    target: SummarySet,
) -> Recipe:
    """The recipe of one set: everything that, if it changed, would call for writing the summaries anew."""
    sampling = Sampling(
        arguments.temperature, arguments.top_p, arguments.top_k, arguments.max_tokens, target.seed, form
    )
    stages = stages_of(arguments, target)
    recipe = run_id(
        model=as_served(identity, serving_arguments(arguments)),
        prompt=prompts.hash("infer"),
        sampling=asdict(sampling) | {"seed": None},
        stages=stages,
        window=window,
        fit=arguments.fit,
    )
    run = run_id(recipe=recipe, seed=target.seed, task=task)
    return Recipe(sampling, stages, window, task, arguments.fit, recipe, run)


def is_complete(recipe: Recipe, benchmark: BenchmarkFile, target: SummarySet) -> bool:
    """True if nothing is left to write, so that the model need not be loaded."""
    with Journal(target.journal_path) as journal:
        return (target.meta() or {}).get("run") == recipe.run and all(
            recipe.unit(record.id) in journal for record in benchmark
        )


class Owners:
    """The record whose summary each record gets: of a person's rows that are shown the same (questions after the same
    dialogues) the first one, or one that has its summary already. Of a person with one row, that row."""

    def __init__(self, recipe: Recipe, benchmark: BenchmarkFile, target: SummarySet, journal: Journal):
        self._recipe, self._benchmark, self._setting = recipe, benchmark, target.setting
        self._of: dict[str, str] = {}  # person and what is shown → id of a record; of persons with several rows alone
        rows = 0
        for record in benchmark:
            if record.user != record.person:
                rows += 1
                key = self._shown(record)
                owner = self._of.setdefault(key, record.id)
                if recipe.unit(record.id) in journal and recipe.unit(owner) not in journal:
                    self._of[key] = record.id
        self.copies = rows - len(self._of)

    def of(self, record: UserRecord) -> str:
        """Id of the record."""
        return self._of[self._shown(record)] if record.user != record.person else record.id

    def _shown(self, record: UserRecord) -> str:
        # The published fit also looks at the last third, which is not shown.
        parts = (
            [record.history]
            if self._recipe.fit != "ours"
            else slices_of(self._benchmark, record, self._setting, self._recipe.stages)
        )
        return content_hash([record.person, [[asdict(x) for x in part] for part in parts]])


async def write_set(
    recipe: Recipe,
    arguments: GenerationArguments,
    model: Model,
    prompts: PromptSet,
    benchmark: BenchmarkFile,
    target: SummarySet,
) -> None:
    """Write all summaries of one (policy, benchmark, setting, seed) that are not there yet."""
    old_meta = target.meta()
    cost = Spent.of(old_meta, recipe.run, arguments.gpus)
    data = os.path.relpath(benchmark.path.resolve(), target.meta_path.parent.resolve())
    meta = asdict(recipe) | {
        "policy": model.name,
        "identity": model.identity,
        "served_model": model.endpoint.model,
        "prompt_set": prompts.name,
        "prompt_hash": prompts.hash("infer"),
        "summary_tokens": prompts.summary_tokens,
        "versions": recorded_versions(),
        "data": data,
        "files": with_file(old_meta, data),
        "spent_before": spent_before(old_meta, recipe.run),
    }
    write_json(target.meta_path, meta | {"spent": asdict(cost)})

    fit = Fit(
        model.tokenizer,
        prompts,
        task=recipe.task,
        setting=target.setting,
        stages=recipe.stages,
        window=recipe.window,
        max_tokens=recipe.sampling.max_tokens,
        form=recipe.sampling.form,
    )

    async def work(record: UserRecord) -> dict:
        if (owner := owners.of(record)) != record.id:
            return journal[recipe.unit(owner)] | {"record": record.id, "user": record.user}
        head = {"run": recipe.run, "record": record.id, "user": record.user}
        try:
            plan = fit.plan(recipe.fit, record.history)
        except HistoryError as error:
            return head | Summaries(**failed(error)).row()
        summaries = await summarize(
            model.endpoint, model.tokenizer, prompts, plan, recipe.sampling, [record.id, target.setting], recipe.window
        )
        unsent = {"not_sent": model.endpoint.not_sent} if model.endpoint.not_sent else {}
        if not summaries.stages:
            return head | summaries.row() | unsent
        is_different = fit.shown_otherwise(plan, recipe.fit, record.history, summaries.stages)
        return head | summaries.row() | unsent | {"shown_otherwise": is_different}

    with Journal(target.journal_path) as journal:
        owners = Owners(recipe, benchmark, target, journal)
        before, start = len(journal), time.monotonic()
        for copies in (False, True) if owners.copies else (False,):  # these are copied from the others
            records = (record for record in benchmark if (owners.of(record) != record.id) == copies)
            await run_units(
                ((recipe.unit(record.id), record) for record in records),
                work,
                journal,
                label=f"{model.name} {benchmark.name} {target.setting} seed {target.seed}",
                total=owners.copies if copies else benchmark.sizes[0] - owners.copies,
                concurrency=arguments.concurrency,
                max_error_rate=arguments.max_error_rate,
            )
        cost = cost.more(time.monotonic() - start, len(journal) - before)
    write_json(target.meta_path, meta | {"spent": asdict(cost)})
    say_what_came(recipe, target)


def say_what_came(recipe: Recipe, target: SummarySet) -> None:
    """Of a whole set: the share of users who were shown otherwise than by the other fit, and of those whose last
    summary is in bad format. Above a half, the model or the format that it is read by is a wrong one."""
    fits: Counter[bool] = Counter()
    problems: Counter[str | None] = Counter()
    beginnings: dict[str | None, str] = {}  # problem → the first text that has it
    for row in target.rows(recipe.run):
        if "shown_otherwise" in row:
            fits[row["shown_otherwise"]] += 1
        if row["stages"]:
            last = row["stages"][-1]
            problems[last["problem"]] += 1
            beginnings.setdefault(last["problem"], last["text"][:80])
    other = "the published" if recipe.fit == "ours" else "our"
    rows = f"{fits[True]} of {fits.total()} rows"
    log.info("%s: %s were shown otherwise than by %s fit", target.title, rows, other)
    users = problems.total()
    bad = users - problems.pop(None, 0)
    if not users:
        return
    message = f"{target.title}: {bad} of {users} summaries are in bad format ({100 * bad / users:.0f} %)"
    if 2 * bad <= users:
        log.info("%s", message)
        return
    problem, times = problems.most_common(1)[0]
    log.warning(
        "%s: mostly '%s' (%d); look at --format, --max_tokens and the model's weights. One of them begins: %r",
        message,
        problem,
        times,
        beginnings[problem],
    )


@dataclass(frozen=True)
class Policy:
    """One `--model` with what the other options say of it; `prompt_set` is empty where they say nothing of it."""

    spec: ModelSpec
    prompts: PromptSet
    form: str
    api_key_env: str
    prompt_set: str


def policies_of(arguments: GenerationArguments) -> list[Policy]:
    """The policies. An option that names none of them, or a prompt set that cannot be used, is an error here."""
    specs = parse_all(arguments.model)
    names = [spec.name for spec in specs]
    check_names("model", names)
    sets = choose("prompt_set", arguments.prompt_set, names, "")
    forms = choose("format", arguments.format, names, "think")
    keys = choose("api_key_env", arguments.api_key_env, names, "")
    limit = arguments.summary_tokens

    def policy(spec: ModelSpec) -> Policy:
        shorter = spec if limit is None else replace(spec, name=f"{spec.name}{SHORTER}{limit}")
        prompts = PromptSet(sets[spec.name] or "default", limit)
        prompts.try_out(forms[spec.name])
        return Policy(shorter, prompts, forms[spec.name], keys[spec.name], sets[spec.name])

    return [policy(spec) for spec in specs]


def note_other_wording(policies: list[Policy]) -> None:
    """Say on stderr which of them were trained on other prompts than they will be asked."""
    for policy in policies:
        if sentence := other_wording(policy.spec.target, policy.prompts):
            print(f"note: {sentence}", file=sys.stderr)


def benchmarks_of(arguments: GenerationArguments) -> list[BenchmarkFile]:
    """The benchmarks, with the persons of this shard of whom they show nothing that was forgotten here."""
    files = find_benchmarks(arguments.data, arguments.benchmarks, arguments.limit, arguments.part)
    forgotten = Forgotten(arguments.folder)
    return [replace(file, is_left_out=forgotten.holds) for file in files]


def left_out(benchmarks: list[BenchmarkFile]) -> list[str]:
    """A line for each benchmark that still shows what was forgotten."""
    reason = "the file still holds what was forgotten of them (--forget). Take it out there, or choose another --out"
    return [f"{file.name}: {file.left_out} persons are left out: {reason}" for file in benchmarks if file.left_out]


def targets_of(arguments: GenerationArguments, policy: Policy, benchmarks: list[BenchmarkFile]) -> list[SummarySet]:
    """All sets that one policy is to have, benchmark by benchmark."""
    return [
        SummarySet(arguments.folder, policy.spec.name, benchmark.name, setting, seed)
        for benchmark in benchmarks
        for setting in arguments.settings
        for seed in arguments.seeds
    ]


async def generate(arguments: GenerationArguments) -> None:
    """All policies x benchmarks x settings x seeds, `at_once` policies at a time."""
    policies = policies_of(arguments)
    note_other_wording(policies)
    benchmarks = benchmarks_of(arguments)
    for line in sizes(benchmarks):
        log.info("%s", line)
    for line in left_out(benchmarks):
        log.warning("%s", line)
    await side_by_side([partial(write_sets, arguments, policy, benchmarks) for policy in policies], arguments.at_once)


async def write_sets(arguments: GenerationArguments, policy: Policy, benchmarks: list[BenchmarkFile]) -> None:
    """All that one policy is to write; it is loaded once, and not at all if nothing is missing."""
    spec, jobs, by_name = policy.spec, [], {benchmark.name: benchmark for benchmark in benchmarks}
    identity, window = await look_up(spec, arguments.max_model_len, policy.api_key_env)
    check_window(window, arguments.max_tokens)
    for target in targets_of(arguments, policy, benchmarks):
        benchmark = by_name[target.benchmark]
        recipe = recipe_of(arguments, identity, window, policy.prompts, policy.form, benchmark.task, target)
        if not is_complete(recipe, benchmark, target):
            jobs.append((recipe, benchmark, target))
    if not jobs:
        log.info("%s: all summaries are there", spec.name)
        return
    async with open_model(
        spec,
        log_folder=arguments.folder / "logs",
        arguments=serving_beside(arguments, served_here(parse_all(arguments.model))),
        sample=policy.prompts.infer([Interaction("?")], None, policy.form),
        api_key_env=policy.api_key_env,
        concurrency=arguments.concurrency,
    ) as model:
        for recipe, benchmark, target in jobs:
            await write_set(recipe, arguments, model, policy.prompts, benchmark, target)


def already_there(
    arguments: GenerationArguments, policy: Policy, identity: str | None, benchmark: BenchmarkFile, target: SummarySet
) -> int:
    """Users whose summaries need not be written.

    Args:
        identity: of the policy's weights; None of an endpoint, which is then taken to serve what it served.
    """
    window, meta = arguments.max_model_len, target.meta()
    if identity is None:
        if meta is None:
            return 0
        window = min(meta["window"], window)
    identity = foreseen(policy.spec, identity, (meta or {}).get("identity", ""))
    recipe = recipe_of(arguments, identity, window, policy.prompts, policy.form, benchmark.task, target)
    outcomes = Places()  # record → whether it has one
    for row in target.rows(recipe.run):
        outcomes.put(row["record"], row["status"] not in FAILED)
    return sum(outcomes.get(record.id) or 0 for record in benchmark)


def preview(arguments: GenerationArguments) -> str:
    """What the run would write, and what of it is there already; starts no server and asks no endpoint."""
    policies, serving = policies_of(arguments), serving_arguments(arguments)
    note_other_wording(policies)
    lines = [
        f"{policy.spec.name}: {whereabouts(policy.spec, policy.api_key_env, serving)}, format {policy.form}, "
        f"prompt set {policy.prompts.name} ({policy.prompts.hash('infer')}), fit {arguments.fit}"
        for policy in policies
    ]
    check_window(arguments.max_model_len, arguments.max_tokens)
    benchmarks = benchmarks_of(arguments)
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    body, missing_count, answers = [], 0, 0
    for policy in policies:
        identity = None if is_url(policy.spec.target) else policy.spec.identity
        for target in targets_of(arguments, policy, benchmarks):
            benchmark, stages = by_name[target.benchmark], stages_of(arguments, target)
            users, done_count = benchmark.sizes[0], already_there(arguments, policy, identity, benchmark, target)
            missing_count, answers = missing_count + users - done_count, answers + (users - done_count) * stages
            numbers = (target.seed, users, stages, done_count, users - done_count)
            body.append([policy.spec.name, benchmark.name, target.setting, *map(str, numbers)])
    head = ["policy", "benchmark", "setting", "seed", "users", "stages", "there", "to write"]
    table = Table("preview", f"To write: {missing_count} summaries in {answers} answers", head, body)
    return "\n".join([*lines, *sizes(benchmarks), *left_out(benchmarks), "", markdown(table)])


def write_summaries(arguments: GenerationArguments) -> str | None:
    """What `eval/gen_preference.py` does."""
    if arguments.check:
        return preview(arguments)
    say_problems()
    with RunLock(arguments.folder):
        asyncio.run(generate(arguments))
    return None
