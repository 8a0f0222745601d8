"""Score preference summaries with one or several downstream models. Second half of the evaluation.

    python eval/evaluate.py --judge qwen=Qwen/Qwen3-8B --data mind=mind_upi.jsonl --out outputs/eval

Reads every summary that gen_preference.py wrote under --out, adds the direct setting and the baselines that never read
the history, and writes results.json, scores.jsonl and writing.md. Each judge is loaded once; every judgement is
journalled, so the same command finishes only what is missing.
"""

import argparse
import asyncio
import logging
from functools import partial
from pathlib import Path

from alignxplore.environment import say_problems
from alignxplore.evaluation import conditions, hicupid
from alignxplore.evaluation.arguments import PROTOCOLS, YES_NO, EvaluationArguments
from alignxplore.evaluation.benchmarks import Benchmark, check_recipes, check_tasks, find_sets, load_benchmarks
from alignxplore.evaluation.conditions import Asked, questions
from alignxplore.evaluation.judgements import ask, first_questions, make_judge, unit_id, window_of
from alignxplore.evaluation.metrics import result_rows, score_rows
from alignxplore.evaluation.report import samples, writing
from alignxplore.journal import Journal, RunLock
from alignxplore.judging.letters import Judge
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import write_json, write_jsonl
from alignxplore.serving.models import ModelSpec, choose, open_model
from alignxplore.work import run_units

log = logging.getLogger("evaluate")


async def judge_all(
    arguments: EvaluationArguments, judge: Judge, identity: str, cell_list: list[conditions.Cell]
) -> list[dict]:
    """Ask one downstream model everything that is missing; returns the score rows of all cells."""
    mass = await judge.check(first_questions(arguments, judge, cell_list))
    log.info(
        "%s: answers with a letter (%s %.3f)",
        judge.name,
        "share of readable answers" if FORMATS[judge.form].reasons else "mass",
        mass,
    )
    scores = []
    for protocol in arguments.protocol:
        mine = [cell for cell in cell_list if not is_written(cell.benchmark, protocol)]
        identify = partial(unit_id, judge, identity, protocol, arguments)
        with Journal(Path(arguments.out) / "judgements" / judge.name / f"{protocol}.jsonl") as journal:
            units = {identify(asked): asked for asked in questions(mine)}
            await run_units(
                units.items(),
                partial(ask, judge, protocol, arguments),
                journal,
                label=f"{judge.name} {protocol}",
                total=len(units),
                concurrency=arguments.concurrency,
                max_error_rate=arguments.max_error_rate,
            )
            for cell in mine:
                answers = [
                    [journal.get(identify(Asked(q, s))) for s in (q.summaries or (None,) * (q.history is not None))]
                    for q in cell.questions
                ]
                scores += score_rows(cell, judge.name, protocol, answers)
    return scores


def is_written(benchmark: Benchmark, protocol: str) -> bool:
    """True where the published score is of a written answer (HiCUPID): nothing is chosen there."""
    return benchmark.task == "generation" and protocol == "paper"


def serve_arguments(arguments: EvaluationArguments) -> list[str]:
    """What `vllm serve` is told of the models served here."""
    return ["--max-model-len", str(arguments.max_model_len), *arguments.serve_arguments.split()]


async def rate_written(
    arguments: EvaluationArguments, written: dict[str, tuple[list[conditions.Cell], dict[Asked, dict]]]
) -> list[dict]:
    """Score rows of the answers that each downstream model wrote: (cells, answers) by its name."""
    spec, scores = evaluator_of(arguments), []
    async with open_model(
        spec,
        log_folder=Path(arguments.out) / "logs",
        arguments=serve_arguments(arguments),
        tokenizer=False,
        api_key_env=keys_of(arguments)[spec.name],
        concurrency=arguments.concurrency,
    ) as model:
        for judge, (cell_list, answers) in written.items():
            rated = dict(
                zip(
                    answers,
                    await hicupid.rate_answers(arguments, model.endpoint, model.identity, list(answers.items())),
                )
            )
            for cell in cell_list:
                found = [
                    [rated.get(Asked(q, s)) for s in (q.summaries or (None,) * (q.history is not None))]
                    for q in cell.questions
                ]
                scores += score_rows(cell, judge, "paper", found)
    return scores


def build_cells(arguments: EvaluationArguments, benchmarks: dict[str, Benchmark]) -> list[conditions.Cell]:
    """Policies' summaries, the same given to other users, and no summary."""
    sets = [found for found in find_sets(Path(arguments.out), arguments.policies) if found.benchmark in benchmarks]
    check_recipes(sets)
    check_tasks(sets, benchmarks)
    if not sets:
        log.warning("no summaries under %s: only the direct setting and the baselines are scored", arguments.out)
    written = [conditions.of_summaries(found, benchmarks[found.benchmark]) for found in sets]
    last = [sets[-1].policy] if sets else []
    others = arguments.other_user if arguments.other_user is not None else last
    if unknown := set(others) - {cell.policy for cell in written} - {"none"}:
        raise ValueError(
            f"--other_user: no summaries of {', '.join(sorted(unknown))}; there are those of "
            f"{', '.join(dict.fromkeys(cell.policy for cell in written)) or 'nobody'} (none: nobody's are given)"
        )
    seeds = {
        (cell.policy, cell.setting, cell.benchmark.name): cell.seed
        for cell in sorted(written, key=lambda cell: -cell.seed)
    }
    shuffled = [
        conditions.of_other_users(cell)
        for cell in written
        if cell.policy in others and cell.seed == seeds[cell.policy, cell.setting, cell.benchmark.name]
    ]
    return written + shuffled + [conditions.of_no_summary(benchmark) for benchmark in benchmarks.values()]


def evaluator_of(arguments: EvaluationArguments) -> ModelSpec | None:
    """The model that rates HiCUPID's answers; None where it is not wanted."""
    return None if arguments.evaluator == "none" else ModelSpec.parse(arguments.evaluator)


def keys_of(arguments: EvaluationArguments) -> dict[str, str]:
    """Model → variable with the key of its endpoint, "" where it has none. No endpoint sees the key of another one."""
    models = [ModelSpec.parse(text) for text in arguments.judge] + [spec for spec in [evaluator_of(arguments)] if spec]
    return choose("api_key_env", arguments.api_key_env, [spec.name for spec in models], "")


def downstream_models(arguments: EvaluationArguments) -> tuple[list[ModelSpec], dict[str, str]]:
    """The downstream models and their formats. What names something that is not there is an error here, before any
    summary is written."""
    writing.published_names(arguments.published, {}, {})
    PromptSet(arguments.evaluator_prompts or arguments.prompt_set)
    keys_of(arguments)
    specs = [ModelSpec.parse(text) for text in arguments.judge]
    return specs, choose("judge_format", arguments.judge_format, [spec.name for spec in specs], "plain")


async def evaluate(arguments: EvaluationArguments) -> list[dict]:
    """Everything; returns the rows of results.json."""
    specs, forms = downstream_models(arguments)
    prompts = PromptSet(arguments.prompt_set)
    benchmarks = {b.name: b for b in load_benchmarks(arguments.data, arguments.benchmarks, arguments.limit)}
    cell_list = build_cells(arguments, benchmarks)
    scores = [
        row
        for protocol in arguments.protocol
        for benchmark in benchmarks.values()
        if not is_written(benchmark, protocol)
        for cell in conditions.of_cues(benchmark, arguments.cues, protocol, arguments.orders, arguments.seed)
        for row in score_rows(cell, "none", protocol, [])
    ]
    policies: dict[str, dict] = {}
    for cell in cell_list:
        if (made := cell.made_by) and made["policy"] == cell.policy:
            known = policies.setdefault(
                cell.policy,
                {
                    "identity": made["identity"],
                    "format": made["sampling"]["form"],
                    "prompt": made["prompt_hash"],
                    "sets": {},
                },
            )
            known["sets"][f"{cell.benchmark.name}.{cell.setting}.s{cell.seed}"] = made
    judges, written, keys = {}, {}, keys_of(arguments)
    rates = evaluator_of(arguments) is not None and "paper" in arguments.protocol
    for record in (record for b in benchmarks.values() if rates and b.task == "generation" for record in b.records):
        hicupid.case_of(record)  # a file without the evaluator's facts is better known now
    for spec in specs:
        async with open_model(
            spec,
            log_folder=Path(arguments.out) / "logs",
            arguments=serve_arguments(arguments),
            api_key_env=keys[spec.name],
            concurrency=arguments.concurrency,
        ) as model:
            direct = (
                [conditions.of_histories(spec.name, b) for b in benchmarks.values()]
                if arguments.direct or forms[spec.name] == YES_NO
                else []
            )
            read = direct if forms[spec.name] == YES_NO else cell_list + direct
            judge = make_judge(arguments, model, forms[spec.name])
            scores += await judge_all(arguments, judge, model.identity, read)
            if (
                rates
                and forms[spec.name] != YES_NO
                and (mine := [cell for cell in read if is_written(cell.benchmark, "paper")])
            ):
                written[spec.name] = (
                    mine,
                    await hicupid.write_answers(arguments, judge, model.identity, list(questions(mine))),
                )
            judges[spec.name] = {
                "identity": model.identity,
                "format": forms[spec.name],
                "window": window_of(judge, arguments),
            }
    if written:
        scores += await rate_written(arguments, written)
    rows = result_rows(scores)
    if arguments.bounds:
        rows += writing.bound_rows(Path(arguments.bounds), benchmarks.values())
    out = Path(arguments.report or arguments.out)
    write_jsonl(out / "scores.jsonl", scores)
    write_jsonl(
        out / "samples.jsonl",
        samples.sample_rows(benchmarks.values(), find_sets(Path(arguments.out), arguments.policies), scores),
    )
    write_json(out / "run.json", writing.provenance(arguments, benchmarks, prompts, judges, policies))
    write_json(out / "results.json", rows)
    return rows


def main() -> None:
    from trl import TrlParser

    parser = TrlParser(EvaluationArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (arguments,) = parser.parse_args_and_config()
    if unknown := set(arguments.protocol) - set(PROTOCOLS):
        parser.error(f"--protocol: unknown {', '.join(sorted(unknown))}; choose from {', '.join(PROTOCOLS)}")
    if unknown := set(arguments.cues) - set(conditions.CUES):
        parser.error(f"--cues: unknown {', '.join(sorted(unknown))}; choose from {', '.join(conditions.CUES)}")
    if unknown := {value.rpartition("=")[2] for value in arguments.judge_format} - {*FORMATS, YES_NO}:
        parser.error(
            f"--judge_format: unknown {', '.join(sorted(unknown))}; choose from {', '.join((*FORMATS, YES_NO))}"
        )
    downstream_models(arguments)
    if arguments.check:
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    say_problems()
    with RunLock(arguments.out):
        asyncio.run(evaluate(arguments))
        print(writing.write(Path(arguments.report or arguments.out)))
