"""SFT rows from users' histories: a teacher writes summaries, a judge verifies them. `sft/synthesize.py` runs it.

Users run side by side with no barrier between steps; every request is journalled.
"""

import json
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alignxplore import datasets
from alignxplore.command import Checkable, option
from alignxplore.errors import above_zero, at_least_one, shares, temperatures
from alignxplore.journal import FAILED, TRANSPORT_ERROR, Journal, RunLock
from alignxplore.judging.letters import Judge
from alignxplore.places import Places
from alignxplore.prompts import PromptSet
from alignxplore.records import (
    Interaction,
    RecordError,
    UserRecord,
    content_hash,
    hash_seed,
    read_jsonl,
)
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.models import Model, ModelSpec, choose, open_model, served_here, whereabouts
from alignxplore.serving.server import beside
from alignxplore.sft.tokenised_set import source_hash
from alignxplore.summarize import Sampling, check_window
from alignxplore.synthesis.eligibility import Eligibility
from alignxplore.synthesis.funnel import UNANSWERED, LiveFunnel
from alignxplore.synthesis.outputs import write_outputs
from alignxplore.synthesis.rounds import Thresholds, Unanswered, Workshop, synthesise_user
from alignxplore.synthesis.streams import BEHAVIOURS, all_behaviours, read_behaviours, read_scores
from alignxplore.work import run_units

ANOTHER_URL = re.compile(r"\s+(?=(?:[\w.-]+=)?https?://)")  # a folder behind "#" may have blanks
SAMPLES = 4  # users with whose newest pairs the models are tried out


@dataclass(kw_only=True)
class SynthesisOptions(Checkable):
    """Users, models and thresholds; these default to the published ones."""

    data: str = option("users, one a line (benchmark contract)")
    scores: str | None = option(
        "scores.jsonl of signal_model.py for the same users; without it every choice can be a target", None
    )
    out: str = option("folder to write", MISSING, "--output")
    default_query: str | None = option(datasets.DEFAULT_QUERY, None)
    teacher: str = option(
        "NAME=folder, Hub id or URL; writes the summaries. Several URLs that serve the same model, separated by "
        "blanks, share the users, each of whom stays with one of them",
        "teacher=Qwen/Qwen3-32B",
    )
    judge: str | None = option(
        "the same for the model that verifies them; default, as published: the teacher itself, without thinking", None
    )
    teacher_arguments: str = option("for a teacher served here: more arguments of `vllm serve`", "")
    judge_arguments: str = option(
        "the same for the judge; on a GPU both take equal shares of its memory, unless said here", ""
    )
    prompt_set: str = option("prompt set: a name or a folder", "default")
    signal: float = option("P(actual choice) above which a choice can be a target", 0.9)
    min_targets: int = option("fewest targets of a round", 4)
    max_targets: int = option("most targets of a round", 5)
    min_verified: int = option("fewest summaries with which the judge picks the target", 3)
    merged_accuracy: float = option("share of these targets that the merged summary must get", 0.8)
    temperature: float = option("the teacher's sampling temperature", 0.6)
    max_tokens: int = option("the teacher's longest answer in tokens", 4096)
    max_model_len: int = option(
        "most tokens of prompt and answer together, --max_length of training; less where the server's window is "
        "smaller",
        16384,
    )
    seed: int = option("seed of the teacher's sampling", 0)
    concurrency: int = option("users in flight at most", 1024)
    requests: int = option(
        "requests in flight at most, per model; what its server cannot work on yet waits there", 2048
    )
    timeout: float = option("seconds that one request may take, its wait in the server's queue included", 3600)
    api_key_env: list[str] = option(
        "name of the variable with the teacher's API key: VARIABLE for all of --teacher, NAME=VARIABLE for one", []
    )
    judge_api_key_env: list[str] = option("the same for --judge", [])
    max_error_rate: float = option("share of users whose requests may fail or be refused before the run stops", 0.05)

    def __post_init__(self) -> None:
        at_least_one(self, "min_targets", "max_targets", "min_verified", "max_tokens", "max_model_len")
        at_least_one(self, "concurrency", "requests")
        shares(self, "signal", "merged_accuracy", "max_error_rate")
        temperatures(self, "temperature")
        above_zero(self, "timeout")
        for name in ("min_targets", "min_verified"):
            if getattr(self, name) > self.max_targets:
                problem = f"--{name} {getattr(self, name)} is more than --max_targets {self.max_targets}"
                raise ValueError(f"{problem}: no user could pass; lower the one or raise the other")

    @property
    def teacher_serving(self) -> list[str]:
        """What `vllm serve` is told of a teacher that is served here."""
        return ["--max-model-len", str(self.max_model_len), *self.teacher_arguments.split()]

    @property
    def judge_serving(self) -> list[str]:
        """The same of a judge."""
        return self.judge_arguments.split()


def journalled(journal: Journal) -> Callable[[str, Callable[[], Awaitable[dict]]], Awaitable[dict]]:
    """`once(unit, ask)`: the journal's row of a unit, or what `ask` returns, recorded."""

    async def once(unit: str, ask: Callable[[], Awaitable[dict]]) -> dict:
        return journal[unit] if unit in journal else journal.append(unit, await ask())

    return once


def read_signals(path: str, threshold: float) -> dict[str, tuple[int, dict[int, float]]]:
    """Record id → (how many of the oldest choices were not scored, place among the others → P(actual choice) where >
    `threshold`)."""
    return {
        unit: (offset, {place - offset: p for place, p in scores.items() if p > threshold})
        for unit, offset, scores in read_scores(path, "p")
    }


def every_choice(record: UserRecord) -> tuple[int, dict[int, float]]:
    """The same of one user where no signal model was asked: all choices that had an alternative."""
    items = all_behaviours(record)
    offset = max(0, len(items) - BEHAVIOURS)
    return offset, {place: 1.0 for place, item in enumerate(items[offset:]) if item.rejected is not None}


@dataclass
class Plan:
    """What the options of a run come to, before any model is loaded."""

    prompts: PromptSet
    signals: dict[str, tuple[int, dict[int, float]]] | None  # none: every choice can be a target
    teachers: list[ModelSpec]
    judges: list[ModelSpec]  # none: the teachers themselves
    thresholds: Thresholds
    sampling: Sampling
    ids: list[str]  # of the users' records, in their order
    eligibility: Eligibility
    samples: list[Interaction]  # on which teacher and judge are tried out

    @classmethod
    def make(cls, args: SynthesisOptions) -> "Plan":
        """Resolve and look at all of it; RecordError for a user without scores, or where nobody can give rows."""
        prompts, eligibility = (
            PromptSet(args.prompt_set),
            Eligibility(args.signal, args.min_targets, bool(args.scores)),
        )
        ids, samples = list[str](), list[Interaction]()
        signals = read_signals(args.scores, args.signal) if args.scores else None
        for record in read_behaviours(args.data, args.default_query):
            ids.append(record.id)
            if len(samples) < SAMPLES and (pair := newest_pair(record)):
                samples.append(pair)
            if signals is not None and record.id not in signals:
                raise RecordError(
                    f"no scores in {args.scores}; run signal_model.py score on this file, with the same "
                    "--default_query",
                    record.source,
                )
            offset, signal = every_choice(record) if signals is None else signals[record.id]
            eligibility.add(all_behaviours(record)[offset:], signal)
        if ids and not samples:
            raise RecordError("no user in it has a choice with an alternative, by which a judge could tell", args.data)
        if eligibility.refusal:
            raise RecordError(eligibility.refusal, args.data)
        return cls(
            prompts,
            signals,
            parse_models("teacher", args.teacher),
            parse_models("judge", args.judge) if args.judge else [],
            Thresholds(args.signal, args.min_targets, args.max_targets, args.min_verified, args.merged_accuracy),
            Sampling(temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed),
            ids,
            eligibility,
            samples,
        )


def newest_pair(record: UserRecord) -> Interaction | None:
    """A user's newest choice that had one alternative. A target among many items is none, nor is one of the history
    of which only the choice is known."""
    return next((item for item in all_behaviours(record)[::-1] if item.rejected is not None), None)


def parse_models(option: str, text: str) -> list[ModelSpec]:
    """One model, or several addresses of one; ValueError for several that would be served here."""
    specs = [ModelSpec.parse(address) for address in ANOTHER_URL.split(text.strip())]
    if len(specs) > 1 and not all(is_url(spec.target) for spec in specs):
        raise ValueError(f"--{option} '{text}': give one model, or several URLs that serve the same one")
    return specs


def same_model(option: str, models: Sequence[Model]) -> None:
    """ValueError where the servers of one model say that they serve different ones: what they write is known by the
    model alone, wherever it was written."""
    url_of_root = {model.endpoint.root: model.endpoint.url for model in models}
    if len(url_of_root) > 1:
        addresses = ", ".join(f"{root} at {url}" for root, url in url_of_root.items())
        raise ValueError(f"--{option}: the servers must serve the same model; found {addresses}")


def keys_of(plan: Plan, args: SynthesisOptions) -> tuple[dict[str, str], dict[str, str]]:
    """(of teachers, of judges): model → variable with the key of its endpoint, "" where it has none. No endpoint sees
    the key of another one."""
    return (
        choose("api_key_env", args.api_key_env, [spec.name for spec in plan.teachers], ""),
        choose("judge_api_key_env", args.judge_api_key_env, [spec.name for spec in plan.judges], ""),
    )


async def open_models(stack: AsyncExitStack, plan: Plan, args: SynthesisOptions) -> tuple[list[Model], list[Model]]:
    """(teachers, judges), started here or found at their URLs; they end with the stack."""
    options: dict[str, Any] = {"log_folder": Path(args.out), "concurrency": args.requests, "timeout": args.timeout}
    options["sample"] = plan.prompts.judge(None, None, "a", "b")
    count = served_here([*plan.teachers, *plan.judges])
    teacher_serving, judge_serving = beside(args.teacher_serving, count), beside(args.judge_serving, count)
    teacher_keys, judge_keys = keys_of(plan, args)

    async def opened(specs: Sequence[ModelSpec], keys: dict[str, str], serving: Sequence[str]) -> list[Model]:
        return [
            await stack.enter_async_context(
                open_model(spec, api_key_env=keys[spec.name], arguments=serving, **options)
            )
            for spec in specs
        ]

    teachers = await opened(plan.teachers, teacher_keys, teacher_serving)
    judges = await opened(plan.judges, judge_keys, judge_serving)
    same_model("teacher", teachers)
    same_model("judge", judges)
    return teachers, judges or teachers


def pairs_of(teachers: Sequence[Model], judges: Sequence[Model]) -> list[tuple[Model, Model]]:
    """(teacher, judge) of each workshop, so that both are shared evenly among the users, and a teacher that judges
    itself does so at one address."""
    count = math.lcm(len(teachers), len(judges))
    return [(teachers[i % len(teachers)], judges[i % len(judges)]) for i in range(count)]


async def make_workshops(
    plan: Plan, teachers: Sequence[Model], models: Sequence[Model], calls: Journal, args: SynthesisOptions
) -> tuple[list[Workshop], str]:
    """The workshops, tried out on the first users; and what makes the run this one and no other.

    Raises:
        ValueError: the teacher's window leaves no room for a prompt.
    """
    remedy = ", or give another judge: --judge"
    judges = {
        model.endpoint.url: Judge(model.endpoint, model.tokenizer, plan.prompts, remedy=remedy) for model in models
    }
    for judge in judges.values():
        await judge.check([(None, pair) for pair in plan.samples])
    templates = {purpose: plan.prompts.hash(purpose) for purpose in ("infer", "infer_hint", "merge", "judge")}
    made_by = [teachers[0].named, models[0].named, templates]
    # A row longer than what training takes would be paid for and then dropped, however much the server can read.
    window = min(teacher.endpoint.window(args.max_model_len) for teacher in teachers)
    check_window(window, args.max_tokens)
    once = journalled(calls)
    shops = [
        Workshop(
            teacher,
            judges[model.endpoint.url],
            plan.prompts,
            plan.sampling,
            plan.thresholds,
            window,
            once,
            model.named,
        )
        for teacher, model in pairs_of(teachers, models)
    ]
    for shop in shops[: len(teachers)]:
        await shop.check(plan.samples[0])
    scores = args.scores and source_hash(args.scores, None)
    settings = [made_by, window, asdict(plan.thresholds), asdict(plan.sampling), scores]
    return shops, content_hash(settings)


async def take_through(shops: Sequence[Workshop], plan: Plan, record: UserRecord) -> dict:
    """The row of one user, who stays at one address: servers keep the beginnings of prompts. Thirds are cut from what
    was scored: nothing older can be a target."""
    offset, signal = every_choice(record) if plan.signals is None else plan.signals[record.id]
    shop = shops[hash_seed("server", record.user) % len(shops)]
    try:
        row = await synthesise_user(shop, record.user, all_behaviours(record)[offset:], signal)
    except Unanswered as error:
        row = {
            "uid": record.user,
            "status": TRANSPORT_ERROR,
            "outcome": UNANSWERED,
            "error": str(error)[:300],
            "rows": [],
            "rounds": [],
        }
    return row | {"dropped_behaviours": offset}


async def synthesise(args: SynthesisOptions) -> dict:
    """The whole run; returns the funnel."""
    folder, plan = Path(args.out), Plan.make(args)
    tqdm.write(str(plan.eligibility))
    async with AsyncExitStack() as stack:
        teachers, models = await open_models(stack, plan, args)
        with Journal(folder / "calls.jsonl") as calls, Journal(folder / "users.jsonl") as users:
            shops, run = await make_workshops(plan, teachers, models, calls, args)

            def units() -> Iterator[tuple[str, UserRecord]]:
                return (
                    (content_hash([run, record.id]), record)
                    for record in read_behaviours(args.data, args.default_query)
                )

            order = [content_hash([run, record_id]) for record_id in plan.ids]
            funnel = LiveFunnel(len(order), (users[unit] for unit in order if unit in users))

            async def work(record: UserRecord) -> dict:
                row = await take_through(shops, plan, record)
                funnel.add(row)
                return row

            await run_units(
                units(),
                work,
                users,
                label="synthesis",
                total=len(order),
                concurrency=args.concurrency,
                max_error_rate=args.max_error_rate,
            )
            funnel.say()
            return write_outputs(folder, (users[unit] for unit in order), calls)


async def synthesize(options: SynthesisOptions) -> str:
    """The work of synthesize.py: the funnel as JSON; with --check what would be asked of whom."""
    if options.check:
        return check(options)
    with RunLock(options.out):
        return json.dumps(await synthesise(options), indent=1)


def check(options: SynthesisOptions) -> str:
    """Users, possible targets and models of a run; starts no server and writes nothing."""
    plan = Plan.make(options)
    teacher = "teacher" if plan.judges else "teacher and judge"
    teacher_keys, judge_keys = keys_of(plan, options)
    serving = {
        teacher: (plan.teachers, teacher_keys, options.teacher_serving),
        "judge": (plan.judges, judge_keys, options.judge_serving),
    }
    models = "\n".join(
        f"{role} {spec.name}: {whereabouts(spec, keys[spec.name], arguments)}"
        for role, (specs, keys, arguments) in serving.items()
        for spec in specs
    )
    return (
        f"{plan.eligibility}\n"
        f"{models}\n{options.out}: {finished_users(options):,} of these users are finished\n"
        "check: nothing was started, nothing written"
    )


def finished_users(options: SynthesisOptions) -> int:
    """How many users of the file an earlier run has finished, with whatever options: which of them the next one takes
    over is known once its models are open."""
    journal, finished_ids = Path(options.out) / "users.jsonl", Places()
    if journal.is_file():
        for _, row in read_jsonl(journal):
            if row.get("status") not in FAILED:
                finished_ids.put(str(row.get("uid")), 0)
    count = 0
    for record in read_behaviours(options.data, options.default_query):
        if finished_ids.get(record.user) == 0:  # a user may have several lines
            finished_ids.put(record.user, 1)
            count += 1
    return count
