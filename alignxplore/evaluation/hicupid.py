"""HiCUPID's own score: a downstream model answers knowing only the summary, an evaluator says how well that suits the
user.

    DATA=hicupid=hicupid_upi.jsonl bash eval/hicupid.sh          # or eval/evaluate.py --protocol paper --evaluator ...

A persona or profile question is won, tied or lost against the reference answer, asked with the answer on either side
and averaged (1, 0.5, 0); a schedule question is satisfied or not (1, 0). Score = 100 x mean, so 50 is parity with the
reference; an evaluation that cannot be read counts 0.5, for a schedule 0, as in the official evaluator (HiCUPID, arXiv
2506.01262, whose judge is the model named above). The evaluator's prompts are ours; `--evaluator_prompts` takes the
wording it was trained on, which finds the data set's own metadata in slots (`Case.slots`).
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from alignxplore.evaluation.answers import Answer, NoReply, Rating
from alignxplore.evaluation.arguments import EvaluationArguments, serving_arguments
from alignxplore.evaluation.benchmarks import judgement_id
from alignxplore.evaluation.conditions import JudgeRequest
from alignxplore.evaluation.text_overlap import bleu, rouge_l
from alignxplore.history import fit
from alignxplore.journal import OK, TOO_LONG, TRANSPORT_ERROR, Journal
from alignxplore.judging.downstream import Downstream
from alignxplore.prompts import FORMATS, Messages, PromptSet, parse_answer
from alignxplore.records import Interaction, RecordError, UserRecord, content_hash, hash_seed
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.failures import UNANSWERED, RequestError, failed
from alignxplore.serving.models import as_served
from alignxplore.serving.replies import said
from alignxplore.summarize import count_tokens
from alignxplore.work import run_units

ANSWER_TOKENS = 512  # of an answer, beside the reasoning of models that reason; and of an evaluation (official: 512)
METADATA = ("persona", "profile", "schedule")
PROFILE = ("age", "gender", "personality", "occupation", "income_range")
# The verdict's own line: a letter further on in the sentence is no verdict, nor is one that goes on in words of its
# own ("A good answer").
_BETTER = re.compile(
    r"^\W*(?:\d+[.)]\W*)?Better Response\W*?[:：]\W*(?:(?:Response|Answer)\W*)?"
    r"((?:a\s+)?tie\b|[AB](?=\W*$|\s*[^\w\s/&]|\s+(?:is|wins|because|as|since|for|by|due)\b))",
    re.IGNORECASE | re.MULTILINE,
)
_SATISFIED = re.compile(r"^\W*(?:\d+[.)]\W*)?Satisfaction\W*?[:：]\W*(YES|NO)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """What the evaluator is told of a question: its kind (persona, profile, schedule) and what is true of the user.

    `slots` is the data set's own metadata, `persona`, `profile` and `schedule` (None where it has none), for templates
    of another wording.
    """

    kind: str
    facts: tuple[str, ...]
    slots: dict[str, dict | None]


def case_of(record: UserRecord) -> Case:
    """From the metadata that the builder leaves in `ground_truth_persona`.

    Raises:
        RecordError: no such metadata, by the record's file and line.
    """
    try:
        persona = json.loads(record.persona or "")
        kind, metadata = persona["type"], persona["metadata"]
        slots = {name: metadata.get(name) for name in METADATA}
        if kind == "schedule":
            schedule = metadata["schedule"]
            return Case(kind, (f"{schedule['datetime']}: {schedule['event']}",), slots)
        facts = [f"The user {metadata['persona']['relation']} {metadata['persona']['entity']}."]
        if kind == "profile":
            facts += [f"{name.replace('_', ' ')}: {metadata['profile'][name]}" for name in PROFILE]
        return Case(kind, tuple(facts), slots)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = (
            f"no HiCUPID metadata here ({type(error).__name__}: {error}); build the file with "
            "python -m alignxplore.datasets build hicupid"
        )
        raise RecordError(problem, record.source or None, field="ground_truth_persona") from None


def parse_better(text: str) -> str | None:
    """ "A", "B" or "tie" from the last line that gives the verdict; None if no line does."""
    matches = _BETTER.findall(text)
    return None if not matches else "tie" if "tie" in matches[-1].lower() else matches[-1].upper()


def parse_satisfied(text: str) -> bool | None:
    """The last "Satisfaction: YES" or "NO"; None if there is none."""
    matches = _SATISFIED.findall(text)
    return None if not matches else matches[-1].upper() == "YES"


@dataclass(frozen=True)
class WrittenAnswer:
    """A downstream model's own answer to a question, a row of the journal of answers; `problem`: it is in bad
    format."""

    status: str
    answer: str = ""
    problem: str | None = None
    dropped: int | None = None
    error: str | None = None
    not_sent: tuple[str, ...] = ()

    def row(self) -> dict:
        """JSON form."""
        if self.status != OK:
            return {"status": self.status, "error": self.error}
        values = {"status": OK, "answer": self.answer, "problem": self.problem, "dropped": self.dropped}
        return values | ({"not_sent": self.not_sent} if self.not_sent else {})

    @classmethod
    def of(cls, row: dict) -> Self:
        """The answer of a journal row."""
        values = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        return cls(**values | {"not_sent": tuple(row.get("not_sent", ()))})


async def write_answer(judge: Downstream, request: JudgeRequest, budget: int) -> WrittenAnswer:
    """The downstream model's answer to the record's question; greedy, in the model's own format."""
    record, history, form = request.record, request.history, FORMATS[judge.form]

    def messages(interactions: Sequence[Interaction] | None) -> Messages:
        return judge.prompts.render(
            "answer", query=record.target.query or "", summary=request.summary or None, interactions=interactions
        )

    def size(interactions: Sequence[Interaction] | None) -> int:
        return count_tokens(judge.tokenizer, messages(interactions), form.reasons)

    room = ANSWER_TOKENS + (judge.answer_tokens if form.reasons else 0)
    try:
        dropped = 0
        if history is not None:
            excerpt = fit(history, size, budget - room)
            history, dropped = excerpt.interactions, excerpt.dropped
        reply = await judge.endpoint.chat(
            messages(history),
            max_tokens=room,
            temperature=0,
            seed=hash_seed("answer", record.id),
            chat_template_kwargs={"enable_thinking": form.reasons},
            skip_special_tokens=not form.control_tokens,
        )
        text = said(reply)
    except UNANSWERED as error:
        outcome = failed(error)
        if isinstance(error, RequestError) and size(history) > budget - room:
            outcome["status"] = TOO_LONG  # the question alone, or the summary, which is never cut
        return WrittenAnswer(**outcome)
    answer = parse_answer(text, judge.form)
    return WrittenAnswer(OK, answer.summary, answer.problem, dropped, not_sent=tuple(judge.endpoint.not_sent))


async def rate(endpoint: Endpoint, prompts: PromptSet, record: UserRecord, answer: str) -> Rating | NoReply:
    """What the evaluator says of one answer, a row of the journal of ratings."""
    case, target = case_of(record), record.target

    async def ask(purpose: str, **slots: object) -> str:
        case_slots = {"kind": case.kind, "facts": case.facts, "query": target.query or ""} | case.slots
        reply = await endpoint.chat(
            prompts.render(purpose, **case_slots, **slots), max_tokens=ANSWER_TOKENS, temperature=0
        )
        return said(reply)

    try:
        if case.kind == "schedule":
            texts = [await ask("hicupid_schedule", answer=answer)]
            verdicts = tuple({True: "win", False: "lose", None: None}[parse_satisfied(text)] for text in texts)
        else:
            sides = [(answer, target.chosen), (target.chosen, answer)]
            texts = await asyncio.gather(*(ask("hicupid_compare", item_a=a, item_b=b) for a, b in sides))
            verdicts = tuple(
                {letter: "win", other_letter: "lose", "tie": "tie", None: None}[parse_better(text)]
                for text, letter, other_letter in zip(texts, "AB", "BA")
            )
    except UNANSWERED as error:
        return NoReply(**failed(error))
    points = {"win": 1.0, "tie": 0.5, "lose": 0.0, None: 0.0 if case.kind == "schedule" else 0.5}
    score = sum(points[v] for v in verdicts) / len(verdicts)
    return Rating(score, verdicts, verdicts.count(None), case.kind, tuple(texts))


async def write_answers(
    arguments: EvaluationArguments, judge: Downstream, identity: str, requests: Sequence[JudgeRequest]
) -> dict[JudgeRequest, WrittenAnswer]:
    """Answers to everything asked, journalled in OUT/answers/JUDGE.jsonl."""
    setup = {"format": judge.form, "tokens": judge.answer_tokens}
    budget = judge.endpoint.window(arguments.max_model_len)
    model_key = as_served(identity, serving_arguments(arguments))
    ids = {
        request: judgement_id(
            model_key,
            judge.prompts.hash("answer"),
            setup | {"direct": request.history is not None and budget},
            request.record,
            request.summary,
        )
        for request in requests
    }

    async def write(request: JudgeRequest) -> dict:
        return (await write_answer(judge, request, budget)).row()

    with Journal(Path(arguments.out) / "answers" / f"{judge.name}.jsonl") as journal:
        units = {unit: request for request, unit in ids.items()}
        await run_units(
            units.items(),
            write,
            journal,
            label=f"{judge.name} answers",
            total=len(units),
            concurrency=arguments.concurrency,
            max_error_rate=arguments.max_error_rate,
        )
        return {
            request: WrittenAnswer.of(row) for request, unit in ids.items() if (row := journal.get(unit)) is not None
        }


async def rate_answers(
    arguments: EvaluationArguments,
    endpoint: Endpoint,
    identity: str,
    answers: Sequence[tuple[JudgeRequest, WrittenAnswer]],
) -> list[Answer]:
    """What the evaluator said of each answer, in the same order, or what kept the answer from being rated."""
    prompts = PromptSet(arguments.evaluator_prompts or arguments.prompt_set)
    model_key = as_served(identity, serving_arguments(arguments))
    hashes = [prompts.hash(purpose) for purpose in ("hicupid_compare", "hicupid_schedule")]
    ids = {
        place: content_hash([model_key, hashes, request.record.id, answer.answer])
        for place, (request, answer) in enumerate(answers)
        if answer.status == OK and not answer.problem
    }

    async def ask(pair: tuple[JudgeRequest, WrittenAnswer]) -> dict:
        return (await rate(endpoint, prompts, pair[0].record, pair[1].answer)).row()

    with Journal(Path(arguments.out) / "answers" / f"rated_by_{endpoint.name}.jsonl") as journal:
        units = {unit: answers[place] for place, unit in ids.items()}
        await run_units(
            units.items(),
            ask,
            journal,
            label=f"{endpoint.name} rates",
            total=len(units),
            concurrency=arguments.concurrency,
            max_error_rate=arguments.max_error_rate,
        )
        return [
            _rated(request, answer, journal.get(ids[place]) if place in ids else None)
            for place, (request, answer) in enumerate(answers)
        ]


def _rated(request: JudgeRequest, answer: WrittenAnswer, row: dict | None) -> Answer:
    """The rating of one answer.

    Args:
        row: its journal row; None: it was not to be rated, or not yet.
    """
    if answer.status != OK:
        return Answer(NoReply(answer.status, answer.error))
    if answer.problem:  # a downstream model that gave no answer has lost
        return Answer(Rating(0.0, ("lose",), 1), answer.dropped)
    reply = NoReply(TRANSPORT_ERROR) if row is None else Answer.of(row).reply
    if isinstance(reply, Rating):
        reference = request.record.target.chosen
        reply = replace(reply, bleu=bleu(answer.answer, reference), rouge_l=rouge_l(answer.answer, reference))
    return Answer(reply, answer.dropped)
