"""SFT rows from users' histories: a teacher writes summaries, a judge verifies them, users pass through on their own.

    python synthesize.py --data train_users.jsonl --scores signal_scores/scores.jsonl --output synthesis \\
        --teacher teacher=Qwen/Qwen3-32B --teacher_arguments "--tensor-parallel-size 4"

Comes after signal_model.py and before prepare_dataset.py. Teacher and judge are folders, hub ids or URLs. Users run
side by side with no barrier between steps, and the funnel is printed as they pass; every request is journalled, so a
killed run repeats only what was in flight. Writes:

    sft.jsonl      two rows a user who passed; funnel.json, funnel.png: how many users came how far
    failures.jsonl examples of each way to fail, for reading;  calls.jsonl, users.jsonl: the journals
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from alignxplore.errors import one_sentence
from alignxplore.journal import TRANSPORT_ERROR, Journal, RunLock
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import RecordError, UserRecord, content_hash, write_json, write_jsonl
from alignxplore.serving.models import ModelSpec, open_model
from alignxplore.sft.tokenised_set import source_hash
from alignxplore.summarize import Sampling
from alignxplore.synthesis.funnel import UNANSWERED, Funnel, LiveFunnel, plot
from alignxplore.synthesis.rounds import DONE, Thresholds, Unanswered, Workshop, synthesise_user
from alignxplore.synthesis.streams import all_behaviours, read_behaviours, read_scores
from alignxplore.work import run_units

EXAMPLES = 5  # failures of each kind that are kept for reading


@dataclass
class SynthesisArguments:
    """Options of this script. Thresholds default to the published ones."""

    data: str = field(metadata={"help": "Users, one a line (benchmark contract)."})
    scores: str = field(metadata={"help": "scores.jsonl of signal_model.py for the same users."})
    output: str = field(metadata={"help": "Folder to write."})
    default_query: str | None = field(
        default=None,
        metadata={
            "help": "What stands in for null queries; default: that of the data set which the file is named after."
        },
    )
    teacher: str = field(
        default="teacher=Qwen/Qwen3-32B", metadata={"help": "NAME=folder, Hub id or URL; writes the summaries."}
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "The same for the model that verifies them; default, as published: the teacher itself, without thinking."
        },
    )
    teacher_arguments: str = field(
        default="", metadata={"help": "For a teacher served here: more arguments of `vllm serve`."}
    )
    judge_arguments: str = field(
        default="", metadata={"help": "The same for the judge, e.g. '--gpu-memory-utilization 0.2'."}
    )
    prompt_set: str = field(default="default", metadata={"help": "Prompt set: a name or a folder."})
    signal: float = field(default=0.9, metadata={"help": "P(actual choice) above which a choice can be a target."})
    min_targets: int = field(default=4, metadata={"help": "Fewest targets of a round."})
    max_targets: int = field(default=5, metadata={"help": "Most targets of a round."})
    min_verified: int = field(default=3, metadata={"help": "Fewest summaries with which the judge picks the target."})
    merged_accuracy: float = field(
        default=0.8, metadata={"help": "Share of these targets that the merged summary must get."}
    )
    temperature: float = field(default=0.6, metadata={"help": "The teacher's sampling temperature."})
    max_tokens: int = field(default=4096, metadata={"help": "The teacher's longest answer in tokens."})
    max_model_len: int = field(
        default=16384,
        metadata={
            "help": "Most tokens of prompt and answer together, --max_length of training; less where the server's window is smaller."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the teacher's sampling."})
    concurrency: int = field(default=1024, metadata={"help": "Users in flight at most."})
    requests: int = field(
        default=2048,
        metadata={"help": "Requests in flight at most, per model; what its server cannot work on yet waits there."},
    )
    timeout: float = field(
        default=3600, metadata={"help": "Seconds that one request may take, its wait in the server's queue included."}
    )
    api_key_env: str | None = field(
        default=None, metadata={"help": "NAME of the variable with the teacher's API key."}
    )
    judge_api_key_env: str | None = field(default=None, metadata={"help": "The same for the judge of --judge."})
    max_error_rate: float = field(
        default=0.05, metadata={"help": "Share of users whose requests may fail or be refused before the run stops."}
    )


def journalled(journal: Journal) -> Callable[[str, Callable[[], Awaitable[dict]]], Awaitable[dict]]:
    """`once(unit, ask)`: the journal's row of a unit, or what `ask` returns, recorded."""

    async def once(unit: str, ask: Callable[[], Awaitable[dict]]) -> dict:
        return journal[unit] if unit in journal else journal.append(unit, await ask())

    return once


def read_signals(path: str, least: float) -> dict[str, tuple[int, dict[int, float]]]:
    """Record id → (how many of the oldest choices were not scored, place among the others → P(actual choice) where >
    `least`)."""
    return {
        unit: (dropped, {place - dropped: p for place, p in scores.items() if p > least})
        for unit, dropped, scores in read_scores(path, "p")
    }


def with_texts(row: dict, calls: Journal) -> dict:
    """A user's row with what the teacher wrote, as it was written, beside each of its drafts and merges."""
    for note in row["rounds"]:
        for written in (*note.get("drafts", ()), *([note["merge"]] if "merge" in note else ())):
            written["text"] = calls[written["call"]]["text"] if written["call"] in calls else None
    return row


def write_outputs(folder: Path, rows: Iterable[dict], calls: Journal) -> dict:
    """sft.jsonl, failures.jsonl, funnel.json and funnel.png from the finished users, in one pass; returns the
    funnel."""
    funnel, failures = Funnel(), {}

    def sft_rows() -> Iterator[dict]:
        for row in rows:
            funnel.add(row)
            if row["outcome"] != DONE and len(examples := failures.setdefault(row["outcome"], [])) < EXAMPLES:
                examples.append(with_texts(row, calls))
            yield from row["rows"]

    write_jsonl(folder / "sft.jsonl", sft_rows())
    write_jsonl(folder / "failures.jsonl", (row for outcome in sorted(failures) for row in failures[outcome]))
    counts = funnel.counts()
    write_json(folder / "funnel.json", counts)
    plot(counts, folder / "funnel.png")
    return counts


async def synthesise(args: SynthesisArguments) -> dict:
    """The whole run; returns the funnel."""
    folder, prompts, signals = Path(args.output), PromptSet(args.prompt_set), read_signals(args.scores, args.signal)
    for record in read_behaviours(args.data, args.default_query):  # before any model is loaded
        if record.id not in signals:
            raise RecordError(
                f"no scores in {args.scores}; run signal_model.py score on this file, with the same --default_query",
                record.source,
            )
    thresholds = Thresholds(args.signal, args.min_targets, args.max_targets, args.min_verified, args.merged_accuracy)
    sampling = Sampling(temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed)
    specs = [ModelSpec.parse(text) for text in (args.teacher, args.judge or args.teacher)]
    templates = {purpose: prompts.hash(purpose) for purpose in ("infer", "infer_hint", "merge", "judge")}
    options = {"log_folder": folder, "concurrency": args.requests, "timeout": args.timeout}
    async with AsyncExitStack() as stack:
        own = {
            "api_key_env": args.api_key_env,
            "arguments": ["--max-model-len", str(args.max_model_len), *args.teacher_arguments.split()],
        }
        model = teacher = await stack.enter_async_context(open_model(specs[0], **own, **options))
        if args.judge:
            judging = {"api_key_env": args.judge_api_key_env, "arguments": args.judge_arguments.split()}
            model = await stack.enter_async_context(open_model(specs[1], **judging, **options))
        judge = Judge(model.endpoint, model.tokenizer, prompts)
        samples = list(itertools.islice(read_behaviours(args.data, args.default_query), 4))
        await judge.check([(None, record.target) for record in samples])
        identity = content_hash([[teacher.identity, model.identity], templates])
        with Journal(folder / "calls.jsonl") as calls, Journal(folder / "users.jsonl") as users:
            # A row longer than what training takes would be paid for and then dropped, however much the server can
            # read.
            window = teacher.endpoint.window(args.max_model_len)
            if window <= args.max_tokens:
                raise ValueError(
                    f"{args.teacher}: a window of {window} tokens leaves no room for a prompt beside an answer of "
                    f"{args.max_tokens}; lower --max_tokens, or raise --max_model_len and the window that the teacher is served with"
                )
            shop = Workshop(teacher, judge, prompts, sampling, thresholds, window, journalled(calls), identity)
            await shop.check(samples[0].target)
            run = content_hash(
                [identity, window, asdict(thresholds), asdict(sampling), source_hash(args.scores, None)]
            )

            async def work(record: UserRecord) -> dict:
                dropped, signal = signals[
                    record.id
                ]  # thirds are cut from what was scored: nothing older can be a target
                try:
                    row = await synthesise_user(shop, record.user, all_behaviours(record)[dropped:], signal)
                except Unanswered as error:
                    row = {
                        "uid": record.user,
                        "status": TRANSPORT_ERROR,
                        "outcome": UNANSWERED,
                        "error": str(error)[:300],
                        "rows": [],
                        "rounds": [],
                    }
                live.add(row)
                return row | {"dropped_behaviours": dropped}

            def units() -> Iterator[tuple[str, UserRecord]]:
                return (
                    (content_hash([run, record.id]), record)
                    for record in read_behaviours(args.data, args.default_query)
                )

            order = [unit for unit, _ in units()]
            live = LiveFunnel(len(order), (users[unit] for unit in order if unit in users))
            await run_units(
                units(),
                work,
                users,
                label="synthesis",
                total=len(order),
                concurrency=args.concurrency,
                max_error_rate=args.max_error_rate,
            )
            live.say()
            return write_outputs(folder, (users[unit] for unit in order), calls)


def main() -> None:
    args = HfArgumentParser(SynthesisArguments, description=__doc__.split("\n")[0]).parse_args_into_dataclasses()[0]
    with one_sentence(), RunLock(args.output):
        counts = asyncio.run(synthesise(args))
    print(json.dumps(counts, indent=1))
