"""How a downstream model is asked one question: what it can read of it, under which id, and what the journal keeps.
Used by scoring.py.

A judge reads a summary, or in the direct setting the newest part of a raw history that fits its window.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from alignxplore.evaluation.answers import Answer
from alignxplore.evaluation.arguments import YES_NO, EvaluationArguments, serving_arguments
from alignxplore.evaluation.benchmarks import Benchmark, judgement_id
from alignxplore.evaluation.conditions import Cell, JudgeRequest, questions
from alignxplore.history import Fitted, HistoryError, fit
from alignxplore.journal import REFUSED, TOO_LONG
from alignxplore.judging import ranking
from alignxplore.judging.downstream import Downstream
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.judgement import Judgement
from alignxplore.judging.letters import Judge
from alignxplore.judging.yes_no import YesNoJudge
from alignxplore.prompts import FORMATS, Messages, PromptSet
from alignxplore.records import Interaction, Offer, UserRecord
from alignxplore.serving.failures import failed
from alignxplore.serving.models import Model, as_served
from alignxplore.summarize import count_tokens

log = logging.getLogger(__name__)

CHECK_ROWS = 8


def make_judge(arguments: EvaluationArguments, model: Model, form: str) -> Downstream:
    """The judge of a downstream model that answers in the given format."""
    prompts, orders, seed = PromptSet(arguments.prompt_set), arguments.orders, arguments.seed
    judge: Downstream
    if form == YES_NO:
        judge = YesNoJudge(model.endpoint, model.tokenizer, prompts, seed=seed)
    elif FORMATS[form].reasons:
        judge = ReasoningJudge(model.endpoint, model.tokenizer, prompts, form, orders=orders, seed=seed)
    else:
        judge = Judge(model.endpoint, model.tokenizer, prompts, orders=orders, seed=seed)
    judge.answer_tokens = arguments.answer_tokens or judge.answer_tokens
    return judge


def unit_id(
    judge: Downstream, identity: str, protocol: str, arguments: EvaluationArguments, request: JudgeRequest
) -> str:
    """Id of a judgement; changes with the judge, its prompt, the protocol, and the summary or how much of the history
    is shown."""
    purpose = judge.direct_purpose if request.history is not None else "judge"
    setup = {"name": protocol, "seed": arguments.seed} | ({"orders": arguments.orders} if protocol == "choice" else {})
    if isinstance(request.record.target, Offer):
        purpose = ranking.purpose_of(judge, purpose)
        setup = {"name": protocol, "seed": arguments.seed, "rotations": arguments.rotations}
    if request.history is not None:  # how much of a history is shown is the task's
        setup |= {"budget": direct_budget(judge, arguments), "shown": len(request.history)}
        setup |= {"choices": judge.most_choices} if judge.most_choices else {}
    if protocol == "paper" or judge.form != "plain":
        setup |= {"format": judge.form, "tokens": judge.answer_tokens}
    model_key = as_served(identity, serving_arguments(arguments))
    return judgement_id(
        model_key, judge.prompts.hash(purpose), setup | {"purpose": purpose}, request.record, request.summary
    )


def window_of(judge: Downstream, arguments: EvaluationArguments) -> int:
    """Tokens of a prompt and its answer; a TALLRec model reads no more than it was trained on."""
    limit = arguments.max_model_len
    return judge.endpoint.window(min(limit, judge.most_tokens or limit))


def direct_budget(judge: Downstream, arguments: EvaluationArguments) -> int:
    """Tokens that a prompt of the direct setting may take: the window less the answer."""
    return window_of(judge, arguments) - max(32, judge.answer_tokens)


def fit_history(
    judge: Downstream, arguments: EvaluationArguments, record: UserRecord, history: Sequence[Interaction]
) -> Fitted:
    """What a judge of the direct setting can read of the history that a question shows.

    Raises:
        HistoryError: not even the newest interaction fits.
    """
    newest = history[-judge.most_choices :] if judge.most_choices else history
    excerpt = fit(newest, partial(_direct_tokens, judge, record), direct_budget(judge, arguments))
    return excerpt._replace(dropped=len(history) - len(excerpt.interactions))


async def ask(judge: Downstream, protocol: str, arguments: EvaluationArguments, request: JudgeRequest) -> dict:
    """One judgement as a journal row, which says whose it is and what the server was not sent. What it refuses because
    that never fits its window is final."""
    record = request.record
    answer = await _ask(judge, protocol, arguments, request)
    if answer.reply.status == REFUSED and request.history is None:
        messages = _messages(judge, record, request.summary)
        tokens = count_tokens(judge.tokenizer, messages, FORMATS[judge.form].reasons)
        if tokens > (budget := direct_budget(judge, arguments)):
            error = f"{tokens} tokens of prompt, and {budget} fit: {answer.reply.error}"
            answer = replace(answer, reply=replace(answer.reply, status=TOO_LONG, error=error))
    answer = replace(answer, not_sent=tuple(judge.endpoint.not_sent))
    return {"record": record.id, "user": record.user, "whose": request.owner} | answer.row()


async def _ask(judge: Downstream, protocol: str, arguments: EvaluationArguments, request: JudgeRequest) -> Answer:
    record, history, dropped = request.record, request.history, None
    if history is not None:
        try:
            excerpt = fit_history(judge, arguments, record, history)
        except HistoryError as error:
            return Answer(Judgement(**failed(error)))
        history, dropped = excerpt.interactions, excerpt.dropped
    target = record.target
    if isinstance(target, Offer):
        ranking_task = ranking.rank(judge, request.summary, history, target, record.id, arguments.rotations)
        return Answer(await ranking_task, dropped)
    if protocol == "paper":
        return Answer(await judge.select(request.summary, history, target, record.id), dropped)
    return Answer(await judge.answer(request.summary, history, target, record.id), dropped)


def _messages(judge: Downstream, record: UserRecord, summary: str | None) -> Messages:
    """A prompt that is as long as any that is asked about this target after a summary."""
    target = record.target
    if isinstance(target, Offer):
        return ranking.question(judge, summary, None, target)
    return judge.prompts.judge(summary, target.query, *target.items)


def _direct_tokens(judge: Downstream, record: UserRecord, history: Sequence[Interaction]) -> int:
    return count_tokens(judge.tokenizer, _direct_messages(judge, record, history), FORMATS[judge.form].reasons)


def _direct_messages(judge: Downstream, record: UserRecord, history: Sequence[Interaction]) -> Messages:
    target = record.target
    if isinstance(target, Offer):
        return ranking.question(judge, None, history, target)
    return judge.direct_messages(history, target)


def first_questions(
    arguments: EvaluationArguments, judge: Downstream, cell_list: list[Cell], among_k: bool = False
) -> list[tuple[Any, Interaction]]:
    """What a judge is checked on before the run: (what it reads, target) of the first questions, of pairs or `among_k`
    items. Histories are those that fit. Empty where there is no such benchmark."""
    reads_histories = not judge.reads_summaries
    checks: list[tuple[Any, Interaction]] = []
    cell_list = [cell for cell in cell_list if cell.benchmark.among_k == among_k]
    for request in questions(cell_list, "choice"):
        record, history = request.record, request.history
        if len(checks) == CHECK_ROWS:
            break
        if (history is not None) == reads_histories:
            with suppress(HistoryError):  # it will be missing, which is no fault of the judge
                context = (
                    request.summary if history is None else fit_history(judge, arguments, record, history).interactions
                )
                checks.append((context, record.target))
    fallback = cell_list[0].questions[:CHECK_ROWS] if cell_list else ()
    return checks or [(() if reads_histories else None, question.record.target) for question in fallback]


async def check(arguments: EvaluationArguments, judge: Downstream, cell_list: list[Cell]) -> None:
    """Refuse a model that is no judge, of pairs or among k items, whichever it is to be asked about. Protocol paper
    alone reads written answers, and these are all that is looked at."""
    reads_letters = "choice" in arguments.protocol
    checks: list[tuple[bool, Any]] = [(False, judge.check_written)]
    if reads_letters:
        checks = [(False, judge.check), (True, partial(ranking.check, judge))]
    else:
        cell_list = [cell for cell in cell_list if is_chosen(cell.benchmark, "paper")]
    is_share = FORMATS[judge.form].reasons or (judge.reads_summaries and not reads_letters)
    for among_k, check_on in checks:
        if probes := first_questions(arguments, judge, cell_list, among_k):
            log.info(
                "%s: answers with a letter%s (%s %.3f)",
                judge.name,
                " of k" if among_k else "",
                "share of readable answers" if is_share else "mass",
                await check_on(probes),
            )


def is_chosen(benchmark: Benchmark, protocol: str) -> bool:
    """True where an item is chosen. Protocol paper, which is there for comparison with published numbers, is of pairs
    alone."""
    return not is_written(benchmark, protocol) and not (benchmark.among_k and protocol == "paper")


def is_written(benchmark: Benchmark, protocol: str) -> bool:
    """True where the published score is of a written answer (HiCUPID): nothing is chosen there."""
    return benchmark.task == "generation" and protocol == "paper"
