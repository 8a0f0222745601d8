"""Write preference summaries for benchmarks, from the full history and as a stream. First half of the evaluation.

    python eval/gen_preference.py --model ours=outputs/rl/model --data mind=mind_upi.jsonl --settings full streaming --out outputs/eval

Each policy is loaded once for everything asked. Every user's answer is journalled as it comes: kill the run and repeat
the command, and only what is missing is written. Then run evaluate.py on the same --out.
"""

import argparse
import asyncio
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alignxplore.environment import recorded_versions, say_problems
from alignxplore.errors import at_least_one
from alignxplore.evaluation.benchmarks import (
    SETTINGS,
    Benchmark,
    SummarySet,
    load_benchmarks,
    run_id,
    slices_of,
)
from alignxplore.journal import Journal, RunLock
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import UserRecord, content_hash, write_json
from alignxplore.serving.models import Model, ModelSpec, choose, look_up, open_model
from alignxplore.summarize import Sampling, check_window, summarize
from alignxplore.work import run_units

log = logging.getLogger("gen_preference")


@dataclass
class GenerationArguments:
    """What to write summaries for, with which policies."""

    model: list[str] = field(
        metadata={
            "help": "policies as NAME=TARGET; TARGET is a folder, a hub id[@revision] or the URL of an "
            "OpenAI-compatible endpoint (URL#TOKENIZER where the server does not name its tokenizer)"
        }
    )
    data: list[str] = field(
        metadata={"help": "benchmarks: NAME=FILE, a folder of NAME_upi.jsonl files, or a hub data set (ID[@REVISION])"}
    )
    out: str = field(metadata={"help": "output folder, shared with evaluate.py"})
    benchmarks: list[str] | None = field(default=None, metadata={"help": "names of those to take; default: all"})
    settings: list[str] = field(default_factory=lambda: list(SETTINGS), metadata={"help": "full, streaming"})
    stages: int = field(default=2, metadata={"help": "K, the number of slices that streaming cuts the history into"})
    prompt_set: list[str] = field(
        default_factory=lambda: ["default"],
        metadata={
            "help": "default, hardened, or a folder of templates of your own; NAME=SET gives one policy another set"
        },
    )
    format: list[str] = field(
        default_factory=lambda: ["think"],
        metadata={
            "help": "how the answers are written: think (ours, Qwen3 thinking), plain (no reasoning), r1 (DeepSeek-R1 and its distilled models), "
            "answer (AlignXplore), harmony (gpt-oss); NAME=FORMAT for one policy"
        },
    )
    limit: int | None = field(
        default=None, metadata={"help": "users per benchmark (a fixed sample by content hash); all by default"}
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "generation seeds; several give a spread"})
    temperature: float = field(default=0.6, metadata={"help": "sampling temperature (paper: 0.6)"})
    top_p: float = field(default=0.95, metadata={"help": "nucleus sampling (paper: 0.95)"})
    top_k: int = field(default=20, metadata={"help": "top-k sampling (paper: 20)"})
    max_tokens: int = field(default=4096, metadata={"help": "new tokens at most, reasoning included (paper: 4,096)"})
    max_model_len: int = field(
        default=16384,
        metadata={"help": "window of prompt and answer, also of an endpoint that takes more (paper: 16,384)"},
    )
    concurrency: int = field(default=256, metadata={"help": "users in flight at most"})
    max_error_rate: float = field(
        default=0.05, metadata={"help": "share of users whose requests may fail; more of them fail the run"}
    )
    serve_arguments: str = field(
        default="",
        metadata={
            "help": "more arguments for `vllm serve`, after an =: --serve_arguments=--enforce-eager or '--serve_arguments=--tensor-parallel-size 2'"
        },
    )
    api_key_env: list[str] = field(
        default_factory=list,
        metadata={
            "help": "name of the environment variable with an endpoint's key: VARIABLE for all of them, NAME=VARIABLE for one model"
        },
    )

    def __post_init__(self) -> None:
        at_least_one(self, "stages", "limit", "concurrency", "max_tokens")


@dataclass(frozen=True)
class Recipe:
    """How one set of summaries is made; `run` is its hash and marks every row, `recipe` is the same without seed and
    task.

    `task` is the benchmark's: it decides how much of a history is shown.
    """

    sampling: Sampling
    stages: int
    window: int
    task: str
    recipe: str
    run: str

    def unit(self, record: UserRecord) -> str:
        return content_hash([self.run, record.id])


def recipe(
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
    stages = 1 if target.setting == "full" else arguments.stages
    shared = run_id(
        model=identity,
        prompt=prompts.hash("infer"),
        sampling=asdict(sampling) | {"seed": None},
        stages=stages,
        window=window,
    )
    return Recipe(sampling, stages, window, task, shared, run_id(recipe=shared, seed=target.seed, task=task))


def is_complete(made: Recipe, benchmark: Benchmark, target: SummarySet) -> bool:
    """True if nothing is left to write, so that the model need not be loaded."""
    with Journal(target.journal_path) as journal:
        return (target.meta() or {}).get("run") == made.run and all(
            made.unit(record) in journal for record in benchmark.records
        )


async def write_set(
    made: Recipe,
    arguments: GenerationArguments,
    model: Model,
    prompts: PromptSet,
    benchmark: Benchmark,
    target: SummarySet,
) -> None:
    """Write all summaries of one (policy, benchmark, setting, seed) that are not there yet."""
    write_json(
        target.meta_path,
        asdict(made)
        | {
            "policy": model.name,
            "identity": model.identity,
            "served_model": model.endpoint.model,
            "prompt_set": prompts.name,
            "prompt_hash": prompts.hash("infer"),
            "versions": recorded_versions(),
        },
    )

    async def work(record: UserRecord) -> dict:
        slices = slices_of(benchmark, record, target.setting, made.stages)
        written = await summarize(
            model.endpoint, model.tokenizer, prompts, slices, made.sampling, [record.id, target.setting], made.window
        )
        asked = {"not_sent": model.endpoint.not_sent} if model.endpoint.not_sent else {}
        return {"run": made.run, "record": record.id, "user": record.user} | written.row() | asked

    with Journal(target.journal_path) as journal:
        await run_units(
            ((made.unit(record), record) for record in benchmark.records),
            work,
            journal,
            label=f"{model.name} {benchmark.name} {target.setting} seed {target.seed}",
            total=len(benchmark.records),
            concurrency=arguments.concurrency,
            max_error_rate=arguments.max_error_rate,
        )


async def generate(arguments: GenerationArguments) -> None:
    """All policies x benchmarks x settings x seeds; each policy is loaded once, and not at all if nothing is
    missing."""
    specs = [ModelSpec.parse(text) for text in arguments.model]
    names = [spec.name for spec in specs]
    prompt_sets = {
        name: PromptSet(source)
        for name, source in choose("prompt_set", arguments.prompt_set, names, "default").items()
    }
    forms, keys = (
        choose("format", arguments.format, names, "think"),
        choose("api_key_env", arguments.api_key_env, names, ""),
    )
    benchmarks = load_benchmarks(arguments.data, arguments.benchmarks, arguments.limit)
    for benchmark in benchmarks:
        log.info(
            "%s: %d users, %d with the target in the history", benchmark.name, len(benchmark.records), benchmark.leaked
        )
    out = Path(arguments.out)
    for spec in specs:
        prompts, jobs = prompt_sets[spec.name], []
        identity, window = await look_up(spec, arguments.max_model_len, keys[spec.name])
        check_window(window, arguments.max_tokens)
        for benchmark in benchmarks:
            for target in (
                SummarySet(out, spec.name, benchmark.name, x, seed)
                for x in arguments.settings
                for seed in arguments.seeds
            ):
                made = recipe(arguments, identity, window, prompts, forms[spec.name], benchmark.task, target)
                if not is_complete(made, benchmark, target):
                    jobs.append((made, benchmark, target))
        if not jobs:
            log.info("%s: all summaries are there", spec.name)
            continue
        serve_arguments = ["--max-model-len", str(arguments.max_model_len), *arguments.serve_arguments.split()]
        async with open_model(
            spec,
            log_folder=out / "logs",
            arguments=serve_arguments,
            api_key_env=keys[spec.name],
            concurrency=arguments.concurrency,
        ) as model:
            for made, benchmark, target in jobs:
                await write_set(made, arguments, model, prompts, benchmark, target)


def main() -> None:
    from trl import TrlParser

    parser = TrlParser(GenerationArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (arguments,) = parser.parse_args_and_config()
    unknown = set(arguments.settings) - set(SETTINGS)
    if unknown:
        parser.error(f"--settings: unknown {', '.join(sorted(unknown))}; choose from {', '.join(SETTINGS)}")
    unknown = {value.rpartition("=")[2] for value in arguments.format} - set(FORMATS)
    if unknown:
        parser.error(f"--format: unknown {', '.join(sorted(unknown))}; choose from {', '.join(FORMATS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    say_problems()
    with RunLock(arguments.out):
        asyncio.run(generate(arguments))
