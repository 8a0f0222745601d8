"""Scores of all summaries by one or several downstream models, the direct setting and the baselines: the second half
of the evaluation, which `eval/evaluate.py` runs and explains.
"""

import asyncio
import itertools
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from alignxplore.environment import say_problems
from alignxplore.errors import check_folder
from alignxplore.evaluation import conditions, costs, hicupid, segments
from alignxplore.evaluation import rows as rows_of
from alignxplore.evaluation.answers import Answer
from alignxplore.evaluation.arguments import (
    YES_NO,
    EvaluationArguments,
    check_names,
    serving_arguments,
    serving_beside,
)
from alignxplore.evaluation.benchmarks import Benchmark, check_recipes, check_tasks, find_sets, load_benchmarks
from alignxplore.evaluation.conditions import Cell, JudgeRequest, questions, requests_of
from alignxplore.evaluation.history_baselines import SAME_IDS, HistoryBaselines, check_sources, parse_baselines
from alignxplore.evaluation.judgements import ask, check, is_chosen, is_written, make_judge, unit_id, window_of
from alignxplore.evaluation.preview import not_there, sizes
from alignxplore.evaluation.published import check_pairs
from alignxplore.evaluation.report import samples, writing
from alignxplore.evaluation.report.tables import Table, markdown
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import Result
from alignxplore.evaluation.scores import score_rows
from alignxplore.evaluation.worth import Score
from alignxplore.journal import Journal, RunLock
from alignxplore.judging.downstream import Downstream
from alignxplore.prompts import PromptSet
from alignxplore.records import RecordError, write_json, write_jsonl
from alignxplore.serving.models import ModelSpec, choose, open_model, parse_all, served_here, whereabouts
from alignxplore.work import run_units, side_by_side

log = logging.getLogger(__name__)


async def judge_all(
    arguments: EvaluationArguments, judge: Downstream, identity: str, cell_list: list[Cell]
) -> tuple[list[Score], set[str]]:
    """Ask one downstream model everything that is missing; returns (the score rows of all cells, the fields that some
    of it was asked without)."""
    await check(arguments, judge, cell_list)
    scores: list[Score] = []
    unsent_fields: set[str] = set()
    for protocol in arguments.protocol:
        cells = [cell for cell in cell_list if is_chosen(cell.benchmark, protocol)]
        identify = partial(unit_id, judge, identity, protocol, arguments)
        with Journal(Path(arguments.out) / "judgements" / judge.name / f"{protocol}.jsonl") as journal:
            units: dict[str, JudgeRequest] = {}
            for request in questions(cells, protocol):
                units.setdefault(identify(request), request)
            await run_units(
                units.items(),
                partial(ask, judge, protocol, arguments),
                journal,
                label=f"{judge.name} {protocol}",
                total=len(units),
                concurrency=arguments.concurrency,
                max_error_rate=arguments.max_error_rate,
            )
            for cell in cells:
                answers = [
                    [read_answer(journal.get(identify(request))) for request in requests_of(q, protocol)]
                    for q in cell.questions
                ]
                scores += score_rows(cell, judge.name, protocol, answers, places=judge.sees_both)
                present_answers = [answer for row in answers for answer in row if answer]
                unsent_fields |= {name for answer in present_answers for name in answer.not_sent}
    return scores, unsent_fields


def read_answer(row: dict | None) -> Answer | None:
    """The answer of a journal row; None: there is none yet."""
    return None if row is None else Answer.of(row)


async def rate_written(
    arguments: EvaluationArguments,
    spec: ModelSpec,
    answers_by_judge: dict[str, tuple[list[Cell], dict[JudgeRequest, hicupid.WrittenAnswer]]],
) -> list[Score]:
    """Score rows of the answers that each downstream model wrote, (cells, answers) by its name; `spec` is the
    evaluator."""
    scores: list[Score] = []
    async with open_model(
        spec,
        log_folder=Path(arguments.out) / "logs",
        arguments=serving_arguments(arguments),
        tokenizer=False,
        api_key_env=keys_of(arguments)[spec.name],
        concurrency=arguments.concurrency,
    ) as model:
        for judge, (cell_list, answers) in answers_by_judge.items():
            rows = await hicupid.rate_answers(arguments, model.endpoint, model.identity, list(answers.items()))
            ratings = dict(zip(answers, rows))
            for cell in cell_list:
                answer_rows = [[ratings.get(request) for request in requests_of(q, "paper")] for q in cell.questions]
                scores += score_rows(cell, judge, "paper", answer_rows)
    return scores


def build_cells(arguments: EvaluationArguments, benchmarks: dict[str, Benchmark]) -> list[Cell]:
    """Policies' summaries, the same given to other users, and no summary."""
    sets = [s for s in find_sets(Path(arguments.out), arguments.policies) if s.benchmark in benchmarks]
    check_names("policies", (summaries.policy for summaries in sets))
    check_recipes(sets)
    check_tasks(sets, benchmarks)
    if not sets:
        log.warning("no summaries under %s: only the direct setting and the baselines are scored", arguments.out)
    policy_cells = [conditions.of_summaries(summaries, benchmarks[summaries.benchmark]) for summaries in sets]
    last = [sets[-1].policy] if sets else []
    others = arguments.other_user if arguments.other_user is not None else last
    if unknown_policies := set(others) - {cell.policy for cell in policy_cells} - {"none"}:
        raise ValueError(
            f"--other_user: no summaries of {', '.join(sorted(unknown_policies))}; there are those of "
            f"{', '.join(dict.fromkeys(cell.policy for cell in policy_cells)) or 'nobody'} (none: nobody's are given)"
        )
    seeds = {
        (cell.policy, cell.setting, cell.benchmark.name): cell.seed
        for cell in sorted(policy_cells, key=lambda cell: -cell.seed)
    }
    other_user_cells = [
        conditions.of_other_users(cell)
        for cell in policy_cells
        if cell.policy in others and cell.seed == seeds[cell.policy, cell.setting, cell.benchmark.name]
    ]
    return policy_cells + other_user_cells + [conditions.of_no_summary(benchmark) for benchmark in benchmarks.values()]


def evaluator_of(arguments: EvaluationArguments) -> ModelSpec | None:
    """The model that rates HiCUPID's answers; None where it is not wanted."""
    return None if arguments.evaluator == "none" else ModelSpec.parse(arguments.evaluator)


def keys_of(arguments: EvaluationArguments) -> dict[str, str]:
    """Model → variable with the key of its endpoint, "" where it has none. No endpoint sees the key of another one."""
    models = parse_all(arguments.judge) + [spec for spec in [evaluator_of(arguments)] if spec]
    return choose("api_key_env", arguments.api_key_env, [spec.name for spec in models], "")


def benchmarks_of(arguments: EvaluationArguments) -> dict[str, Benchmark]:
    """The benchmarks by name."""
    return {b.name: b for b in load_benchmarks(arguments.data, arguments.benchmarks, arguments.limit)}


def downstream_models(arguments: EvaluationArguments) -> tuple[list[ModelSpec], dict[str, str]]:
    """The downstream models and their formats. What names something that is not there is an error here, before any
    summary is written."""
    check_folder("report", arguments.report)
    check_sources(parse_baselines(arguments.baselines))
    writing.published_names(arguments.published, {}, {})
    PromptSet(arguments.evaluator_prompts or arguments.prompt_set)
    keys_of(arguments)
    specs = parse_all(arguments.judge)
    check_names("judge", (spec.name for spec in specs))
    return specs, choose("judge_format", arguments.judge_format, [spec.name for spec in specs], "plain")


def cells_of(
    arguments: EvaluationArguments, judge: str, form: str, cell_list: list[Cell], benchmarks: dict[str, Benchmark]
) -> list[Cell]:
    """What one downstream model reads: the given cells and the raw histories; a TALLRec model reads these alone."""
    reads_histories = arguments.direct or form == YES_NO
    direct = [conditions.of_histories(judge, b) for b in benchmarks.values()] if reads_histories else []
    return direct if form == YES_NO else cell_list + direct


def rates_answers(arguments: EvaluationArguments, benchmarks: dict[str, Benchmark]) -> bool:
    """Whether answers are written and rated (HiCUPID in protocol paper).

    Raises:
        RecordError: a file without the facts that the evaluator is told.
    """
    if evaluator_of(arguments) is None or "paper" not in arguments.protocol:
        return False
    rated_benchmarks = [benchmark for benchmark in benchmarks.values() if is_written(benchmark, "paper")]
    for record in (record for benchmark in rated_benchmarks for record in benchmark.records):
        hicupid.case_of(record)
    return bool(rated_benchmarks)


def cue_scores(arguments: EvaluationArguments, benchmarks: dict[str, Benchmark]) -> list[Score]:
    """Score rows of the cues and of the baselines that read a history; no judge is asked."""
    left_out = benchmarks.values() if arguments.training_ids == SAME_IDS else ()
    baselines = HistoryBaselines(parse_baselines(arguments.baselines), left_out)
    scores = list[Score]()
    orders = arguments.orders, arguments.seed, arguments.rotations
    for benchmark in benchmarks.values():
        protocols = [protocol for protocol in arguments.protocol if is_chosen(benchmark, protocol)]
        history_cells = list(baselines.cells(benchmark)) if protocols else []
        for protocol in protocols:
            cues = conditions.of_cues(benchmark, arguments.cues, protocol, *orders)
            scores += [row for cell in cues + history_cells for row in score_rows(cell, "none", protocol)]
    return scores


def policies_of(cell_list: list[Cell]) -> dict[str, dict]:
    """What made the summaries of each policy: its model, and the recipe of every set."""
    policies: dict[str, dict] = {}
    for cell in cell_list:
        if (meta := cell.meta) and meta["policy"] == cell.policy:
            about = {"identity": meta["identity"], "format": meta["sampling"]["form"], "prompt": meta["prompt_hash"]}
            policy = policies.setdefault(cell.policy, about | {"sets": {}})
            policy["sets"][f"{cell.benchmark.name}.{cell.setting}.s{cell.seed}"] = meta
    return policies


async def evaluate(arguments: EvaluationArguments) -> list[Result]:
    """Everything; returns the rows of results.json."""
    specs, forms = downstream_models(arguments)
    keys, benchmarks, evaluator = keys_of(arguments), benchmarks_of(arguments), evaluator_of(arguments)
    cell_list, rates = build_cells(arguments, benchmarks), rates_answers(arguments, benchmarks)
    check_pairs(arguments.published, [*policies_of(cell_list), *forms])
    scores = cue_scores(arguments, benchmarks)  # first: a file or model that is not there is said at once
    readings = await side_by_side(
        [
            partial(
                read_all,
                arguments,
                spec,
                forms[spec.name],
                keys[spec.name],
                cells_of(arguments, spec.name, forms[spec.name], cell_list, benchmarks),
                rates,
            )
            for spec in specs
        ],
        arguments.at_once,
    )
    scores += [row for reading in readings for row in reading.scores]
    answers_by_judge = {spec.name: reading.answers for spec, reading in zip(specs, readings) if reading.answers}
    if answers_by_judge and evaluator:
        scores += await rate_written(arguments, evaluator, answers_by_judge)
    judges = {spec.name: reading.judge for spec, reading in zip(specs, readings)}
    return write_results(arguments, benchmarks, scores, judges, policies_of(cell_list))


@dataclass(frozen=True)
class JudgeResult:
    """What one downstream model gave: score rows, what is to be known of it, and (cells, answers) that it wrote."""

    scores: list[Score]
    judge: dict
    answers: tuple[list[Cell], dict[JudgeRequest, hicupid.WrittenAnswer]] | None


async def read_all(
    arguments: EvaluationArguments, spec: ModelSpec, form: str, key: str, cell_list: list[Cell], rates: bool
) -> JudgeResult:
    """Let one downstream model read its cells.

    Args:
        key: name of the variable with the key of its endpoint.
        rates: whether answers are to be written, for the evaluator.
    """
    async with open_model(
        spec,
        log_folder=Path(arguments.out) / "logs",
        arguments=serving_beside(arguments, served_here(parse_all(arguments.judge))),
        sample=PromptSet(arguments.prompt_set).judge(None, None, "a", "b"),
        api_key_env=key,
        concurrency=arguments.concurrency,
    ) as model:
        judge = make_judge(arguments, model, form)
        scores, unsent_fields = await judge_all(arguments, judge, model.identity, cell_list)
        cells, cell_answers = [cell for cell in cell_list if is_written(cell.benchmark, "paper")], None
        if rates and form != YES_NO and cells:
            answers = await hicupid.write_answers(arguments, judge, model.identity, list(questions(cells, "paper")))
            unsent_fields |= {name for answer in answers.values() for name in answer.not_sent}
            cell_answers = cells, answers
        about = {
            "identity": model.identity,
            "format": form,
            "window": window_of(judge, arguments),
            "answer_tokens": judge.answer_tokens,
            "not_sent": sorted(unsent_fields),
        }
        return JudgeResult(scores, about, cell_answers)


def write_results(
    arguments: EvaluationArguments,
    benchmarks: dict[str, Benchmark],
    scores: list[Score],
    judges: dict[str, dict],
    policies: dict[str, dict],
) -> list[Result]:
    """Write scores.jsonl, samples.jsonl, run.json and results.json; returns the rows of the last."""
    rows, out = result_rows(scores), Path(arguments.report or arguments.out)
    scores = segments.with_facts(scores, benchmarks)
    if arguments.bounds:
        rows += writing.bound_rows(Path(arguments.bounds), benchmarks.values())
    sets, prompts = find_sets(Path(arguments.out), arguments.policies), PromptSet(arguments.prompt_set)
    rows_of.write_scores(out, scores)
    write_jsonl(out / costs.FILE, (asdict(cost) for cost in costs.costs_of(sets, benchmarks)))
    write_jsonl(out / "samples.jsonl", samples.sample_rows(benchmarks.values(), sets, scores, prompts))
    run = writing.provenance(arguments, benchmarks, prompts, judges, policies)
    write_json(out / "run.json", run)
    rows_of.write_results(out, rows)
    return rows


def preview(arguments: EvaluationArguments) -> str:
    """Which downstream models would be asked how much; starts no server and asks no endpoint.

    Summaries, and even the benchmarks, may be missing yet: then it says so, and counts without them.
    """
    (specs, forms), keys, evaluator = downstream_models(arguments), keys_of(arguments), evaluator_of(arguments)
    serving = serving_arguments(arguments)
    lines = [
        f"{spec.name}: {whereabouts(spec, keys[spec.name], serving)}, format {forms[spec.name]}" for spec in specs
    ]
    if missing_files := not_there(arguments.data):
        return "\n".join([*lines, f"{', '.join(missing_files)}: not there yet; what would be asked cannot be counted"])
    benchmarks = benchmarks_of(arguments)
    if rates_answers(arguments, benchmarks) and evaluator:
        lines.append(f"evaluator {evaluator.name}: {whereabouts(evaluator, keys[evaluator.name], serving)}")
    if arguments.bounds:
        writing.bound_rows(Path(arguments.bounds), benchmarks.values())
    cell_list, messages = cells_so_far(arguments, benchmarks)
    if not messages:
        check_pairs(arguments.published, [*policies_of(cell_list), *forms])
    body = []
    for spec, protocol in itertools.product(specs, arguments.protocol):
        judge_cells = cells_of(arguments, spec.name, forms[spec.name], cell_list, benchmarks)
        for benchmark in benchmarks.values():
            if is_chosen(benchmark, protocol) or is_written(benchmark, protocol):
                body.append([spec.name, protocol, *counts(judge_cells, benchmark, protocol)])
    head = ["judge", "protocol", "benchmark", "users", "cells", "judgements"]
    table = Table("preview", "To ask, unless an earlier run has asked it", head, body)
    return "\n".join([*lines, *sizes(benchmarks.values()), *messages, "", markdown(table)])


def cells_so_far(arguments: EvaluationArguments, benchmarks: dict[str, Benchmark]) -> tuple[list[Cell], list[str]]:
    """(the cells that could be judged now, what must be said of summaries that are missing or cannot be scored)."""
    sets = find_sets(Path(arguments.out))
    policies = {*(arguments.policies or ()), *(arguments.other_user or ())} - {"none"}
    missing_policies = policies - {summaries.policy for summaries in sets}
    if missing_policies or not sets:
        of = f" of {', '.join(sorted(missing_policies))}" if missing_policies else ""
        message = f"no summaries{of} under {arguments.out} yet; counted is what can be asked without any"
    else:
        try:
            return build_cells(arguments, benchmarks), []
        except RecordError as error:  # gen_preference.py may be about to write them anew
            message = f"as they are now the summaries cannot be scored: {error}"
    return [conditions.of_no_summary(benchmark) for benchmark in benchmarks.values()], [message]


def counts(cell_list: list[Cell], benchmark: Benchmark, protocol: str) -> list[str]:
    """The benchmark's name, its users, the cells that are read of it, and how many different judgements that takes."""
    cells = [cell for cell in cell_list if cell.benchmark is benchmark]
    judgements = {(x.record.id, x.summary, x.history is not None) for x in questions(cells, protocol)}
    amount = f"{len(judgements)} answers" if is_written(benchmark, protocol) else str(len(judgements))
    return [benchmark.name, str(len(benchmark.records)), str(len(cells)), amount]


def score(arguments: EvaluationArguments) -> str:
    """What `eval/evaluate.py` does; returns the tables that say most."""
    if arguments.check:
        return preview(arguments)
    downstream_models(arguments)
    say_problems()
    with RunLock(arguments.out):
        asyncio.run(evaluate(arguments))
        return writing.write(Path(arguments.report or arguments.out))
