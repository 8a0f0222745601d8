"""Wall time of evaluating everything: each model loaded once, against one process per (benchmark, mode) as published.

    python benchmarks/eval_suite.py                                  # tiny models made here; half an hour and more
    python benchmarks/eval_suite.py --users 60 --plain-benchmarks 1  # minutes; the plain way on one benchmark of eight
    python benchmarks/eval_suite.py --policy Qwen/Qwen3-8B --judge Qwen/Qwen3-8B

Eight benchmarks (users of the simulated world under the published names), modes direct, full history and streaming:

    ours     eval/gen_preference.py, then eval/evaluate.py, as anyone runs them
    theirs   a process for each benchmark and mode; it loads the model into itself (no server to start), does the cell
             in one batch and ends; 16 write summaries, 24 judge

Both render the same prompts, write up to the same number of tokens, and read one letter in one order; ours also scores
"no summary". Where the plain way is run on fewer benchmarks, its time is scaled to all of them (cells are of one
size). The last line is JSON.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one
from alignxplore.records import hash_seed, write_json, write_jsonl

if TYPE_CHECKING:
    from vllm import LLM

    from alignxplore.evaluation.benchmarks import Benchmark

ROOT = Path(__file__).parents[1]
GOAL = 5.0
BENCHMARKS = (
    "mind",
    "amazon",
    "movielens",
    "alignx",
    "personamem",
    "concise_detail",
    "friendly_unfriendly",
    "student_phd",
)
MODES = ("direct", "full", "streaming")
WINDOW = 2048


@dataclass(kw_only=True)
class SuiteOptions(Checkable):
    """Models and sizes."""

    policy: str | None = option("folder or hub id of the model that writes; default: a tiny one, made here", None)
    judge: str | None = option("folder or hub id of the model that reads; default: a tiny one, made here", None)
    users: int = option("users of each benchmark", 200)
    max_tokens: int = option("tokens of a summary at most", 48)
    plain_benchmarks: int = option(
        "benchmarks that the plain way is run on; its time is scaled to all", len(BENCHMARKS)
    )
    scratch: str | None = option("folder for data, models and logs; default: a temporary one", None)
    child: str | None = option(argparse.SUPPRESS, None)  # this and what follows: one cell of the plain way
    model: str | None = option(argparse.SUPPRESS, None)
    cell: list[str] | None = option(argparse.SUPPRESS, None)
    folder: str | None = option(argparse.SUPPRESS, None)

    def __post_init__(self) -> None:
        at_least_one(self, "users", "max_tokens")
        if not 1 <= self.plain_benchmarks <= len(BENCHMARKS):
            raise ValueError(f"--plain_benchmarks {self.plain_benchmarks}: 1 to {len(BENCHMARKS)}")


def prepare(folder: Path, options: SuiteOptions) -> tuple[str, str]:
    """Write the benchmark files; make the models that were not given (the judge learns to answer with a letter).
    Returns both."""
    from alignxplore.prompts import PromptSet
    from alignxplore.world import files, lessons, tiny

    for number, name in enumerate(BENCHMARKS):
        rows = [row for row, _ in files.benchmark(number + 1, "test", "films", options.users)]
        write_jsonl(folder / "data" / f"{name}_upi.jsonl", rows)
    policy, judge = options.policy or str(folder / "policy"), options.judge or str(folder / "judge")
    if not options.policy:
        tiny.write_model(tiny.TinyOptions(out=policy, seed=1))
    if not options.judge:
        blank, lesson_file = str(folder / "blank"), folder / "judge.jsonl"
        tiny.write_model(tiny.TinyOptions(out=blank, seed=2))
        write_jsonl(lesson_file, files.judge_rows(1, "judge", 600, 0.3, "plain", PromptSet()))
        lessons.teach(lessons.LessonOptions(data=str(lesson_file), base=blank, out=judge))
    return policy, judge


def clock(command: list[str], log: Path, sign: str) -> tuple[float, float, float]:
    """(wall seconds, of these until a line of output holds `sign`, processor seconds with all children) of a command
    that must succeed."""
    began, start_usage, load_seconds = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), None
    with log.open("a") as out:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT
        )
        for line in process.stdout:
            out.write(line)
            if load_seconds is None and sign in line:
                load_seconds = time.monotonic() - began
    if process.wait() or load_seconds is None:
        raise SystemExit(f"{' '.join(command)} failed; see {log}:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    end_usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.monotonic() - began,
        load_seconds,
        end_usage.ru_utime + end_usage.ru_stime - start_usage.ru_utime - start_usage.ru_stime,
    )


def ours(folder: Path, policy: str, judge: str, options: SuiteOptions) -> list[tuple[float, float, float]]:
    """The project's own commands, one process for each model."""
    common_options = ["--data", str(folder / "data"), "--out", str(folder / "ours"), "--max_model_len", str(WINDOW)]
    return [
        clock(
            [
                sys.executable,
                "eval/gen_preference.py",
                "--model",
                f"policy={policy}",
                "--format",
                "plain",
                "--max_tokens",
                str(options.max_tokens),
                *common_options,
            ],
            folder / "ours.log",
            "serving ",
        ),
        clock(
            [
                sys.executable,
                "eval/evaluate.py",
                "--judge",
                f"judge={judge}",
                "--orders",
                "one",
                "--other_user",
                "none",
                "--cues",
                "random",
                *common_options,
            ],
            folder / "ours.log",
            "serving ",
        ),
    ]


def theirs(folder: Path, policy: str, judge: str, options: SuiteOptions) -> Iterator[tuple[float, float, float]]:
    """One process for each cell of the benchmarks that the plain way is run on."""
    for name, mode in itertools.product(BENCHMARKS[: options.plain_benchmarks], MODES):
        cell = ["--cell", name, mode, "--folder", str(folder), "--max-tokens", str(options.max_tokens)]
        jobs = [("write", policy)] * (mode != "direct") + [("judge", judge)]
        for job, model in jobs:
            yield clock(
                [sys.executable, __file__, "--child", job, "--model", model, *cell], folder / "theirs.log", "loaded"
            )


def child(options: SuiteOptions) -> None:
    """One cell of the plain way: load the model, write the summaries or judge them in one batch."""
    from vllm import LLM

    from alignxplore.evaluation.benchmarks import load_benchmarks
    from alignxplore.serving.server import on_cpu

    cpu_options = {"dtype": "float32", "enforce_eager": True, "block_size": 32, "enable_chunked_prefill": False}
    model = LLM(options.model, max_model_len=WINDOW, **(cpu_options if on_cpu() else {}))
    print("loaded", flush=True)
    name, mode = options.cell
    (benchmark,) = load_benchmarks([str(Path(options.folder) / "data" / f"{name}_upi.jsonl")])
    path = Path(options.folder) / "theirs" / f"{name}.{mode}.json"
    if options.child == "write":
        write_json(path, plain_summaries(model, benchmark, mode, options.max_tokens))
    else:
        summaries = None if mode == "direct" else json.loads(path.read_text())
        write_json(path.with_suffix(".judged.json"), plain_answers(model, benchmark, summaries))


def plain_summaries(model: "LLM", benchmark: "Benchmark", mode: str, max_tokens: int) -> list[str]:
    """The last summary of each user, a batch a stage."""
    from vllm import SamplingParams

    from alignxplore.evaluation.benchmarks import slices_of
    from alignxplore.prompts import PromptSet, parse_answer

    prompts, past_summaries = PromptSet(), [""] * len(benchmark.records)
    slices = [slices_of(benchmark, record, mode, 2) for record in benchmark.records]
    for stage in range(1 if mode == "full" else 2):
        prompts_of_stage = [
            prompts.infer(parts[stage], past_summary, "plain") for parts, past_summary in zip(slices, past_summaries)
        ]
        seeds = [hash_seed(benchmark.name, stage, i) for i in range(len(prompts_of_stage))]
        sampling = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": max_tokens}
        parameters = [SamplingParams(**sampling, seed=seed) for seed in seeds]
        replies = model.chat(
            prompts_of_stage, parameters, chat_template_kwargs={"enable_thinking": False}, use_tqdm=False
        )
        past_summaries = [parse_answer(reply.outputs[0].text, "plain").summary for reply in replies]
    return past_summaries


def plain_answers(model: "LLM", benchmark: "Benchmark", summaries: list[str] | None) -> list[str]:
    """The judge's letter for each user with a summary (None: for all, from their histories)."""
    from vllm import SamplingParams

    from alignxplore.evaluation.benchmarks import shown_history
    from alignxplore.judging.judgement import chosen_first
    from alignxplore.judging.letters import find_letters
    from alignxplore.prompts import PromptSet

    letters, items_asked, prompts = find_letters(model.get_tokenizer()), [], PromptSet()
    for place, record in enumerate(benchmark.records):
        if summaries is not None and not summaries[place]:
            continue  # bad format is not judged here either
        target = record.target
        pair = (target.chosen, target.rejected)[:: 1 if chosen_first("judge order", record.id, 0) else -1]
        messages = (
            prompts.direct(shown_history(benchmark, record), target.query, *pair)
            if summaries is None
            else prompts.judge(summaries[place], target.query, *pair)
        )
        items_asked.append([*messages, {"role": "assistant", "content": letters.prefill}])
    replies = model.chat(
        items_asked,
        SamplingParams(temperature=0, max_tokens=1, logprobs=20),
        chat_template_kwargs={"enable_thinking": False},
        use_tqdm=False,
        add_generation_prompt=False,
        continue_final_message=True,
    )
    return [reply.outputs[0].text for reply in replies]


def compare(options: SuiteOptions) -> str | None:
    """Both ways, or the one cell that this process is for."""
    if options.check:
        return planned(options)
    if options.child:
        child(options)
        return None
    from alignxplore.serving.server import CPU_ENVIRONMENT, on_cpu

    os.environ |= {
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if on_cpu():
        os.environ |= CPU_ENVIRONMENT
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        policy, judge = prepare(Path(scratch), options)
        figures = {
            "ours": ours(Path(scratch), policy, judge, options),
            "theirs": list(theirs(Path(scratch), policy, judge, options)),
        }
    scale = {"ours": 1.0, "theirs": len(BENCHMARKS) / options.plain_benchmarks}
    total = {way: [scale[way] * sum(column) for column in zip(*rows)] for way, rows in figures.items()}
    for way, (wall, loading, processor) in total.items():
        scale_note = f" ({len(figures[way])} processes run, scaled by {scale[way]:.1f})" if scale[way] > 1 else ""
        print(
            f"{way}: {scale[way] * len(figures[way]):.0f} processes, {wall:.0f} s, of these "
            f"{100 * loading / wall:.0f} % until the model was loaded; {processor:.0f} s of processor{scale_note}"
        )
    (our_wall, our_loading, our_cpu), (their_wall, their_loading, their_cpu) = total["ours"], total["theirs"]
    print(
        json.dumps(
            {
                "name": "eval_suite",
                "ratio": round(their_wall / our_wall, 2),
                "goal": GOAL,
                "ours": round(our_wall, 1),
                "theirs": round(their_wall, 1),
                "unit": "s",
                "n": options.users,
                "ratio_of_processor_time": round(their_cpu / our_cpu, 2),
                "loading_share_ours": round(our_loading / our_wall, 3),
                "loading_share_theirs": round(their_loading / their_wall, 3),
                "plain_benchmarks_run": options.plain_benchmarks,
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, SuiteOptions, __doc__)
