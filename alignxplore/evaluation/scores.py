"""From judgements to scores: one score a record of a cell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from alignxplore.evaluation import offers
from alignxplore.evaluation.answers import Answer, Rated
from alignxplore.evaluation.conditions import (
    BadFormat,
    Cell,
    Foreseen,
    Missing,
    Question,
    ReadHistory,
    ReadSummaries,
    Weighed,
)
from alignxplore.evaluation.registry import PARTS
from alignxplore.evaluation.rows import Found, Score
from alignxplore.judging.judgement import Judgement, PaperJudgement
from alignxplore.records import Interaction, Offer, content_hash

# What a row scores of which nothing can be judged: bad format tells the downstream model nothing (choice); in protocol
# paper it is judged as it is, and only what was never written is wrong.
BAD_FORMAT_SCORE = {"choice": 0.5, "paper": 0.0}
NOBODY_KNOWS = Found(value=None, outcome="missing")


def score_rows(
    cell: Cell, judge: str, protocol: str, answers: Sequence[Sequence[Answer | None]] = (), places: bool = True
) -> list[Score]:
    """One score a record of a cell.

    Args:
        answers: per question the answers to what was asked of it, in the order of its summaries (None: no reply yet);
            empty for cues, which nobody is asked about.
        places: the judge saw both items in one question; one that is asked about each by itself cannot go by places.
    """
    scores = []
    for question, said in zip(cell.questions, answers or [()] * len(cell.questions), strict=True):
        record, given = question.record, [answer for answer in said if answer is not None]
        found = _found(question, protocol, given, places)
        scores.append(
            Score(
                policy=cell.policy,
                setting=cell.setting,
                benchmark=cell.benchmark.name,
                judge=judge,
                protocol=protocol,
                seed=cell.seed,
                **vars(replace(found, unread=tuple(text for answer in given for text in answer.said.unread))),
                record=record.id,
                user=record.user,
                dropped=_dropped(question, given),
                shown_otherwise=question.otherwise if isinstance(question, ReadSummaries | BadFormat) else None,
                target=target_hash(record.target),
                item=content_hash(record.target.chosen),
            )
        )
    return scores


def target_hash(target: Interaction) -> str:
    """What records that share a target share."""
    if isinstance(target, Offer):
        return content_hash([target.query, target.taken, target.passed_over])
    return content_hash([target.query, target.chosen, target.rejected])


def _found(question: Question, protocol: str, answers: Sequence[Answer], places: bool) -> Found:
    target = question.record.target
    match question:
        case Foreseen(value=value):
            return NOBODY_KNOWS if value is None else Found(value=value, outcome="ok")
        case Weighed(scores=scores):
            assert isinstance(target, Offer)
            return offers.unknown(target) if scores is None else offers.of_scores(target, scores)
        case Missing():
            return offers.unknown(target) if isinstance(target, Offer) else NOBODY_KNOWS
        case BadFormat():
            return _bad_format(question, protocol, answers, places)
        case ReadHistory() if any(answer.too_long for answer in answers):
            # What does not fit the window of who reads it tells nothing, be it a policy or a reader of the history.
            return _told_nothing(target, protocol)
        case ReadHistory() | ReadSummaries():
            # Where a summary was written, it is the items that do not fit: nobody's fault, so the row is missing.
            if isinstance(target, Offer):
                return offers.of_answers(target, answers)
            return _judged(answers, places)
    assert_never(question)


def _told_nothing(target: Interaction, protocol: str) -> Found:
    if isinstance(target, Offer):
        return offers.of_scores(target, None, "bad_format")
    return Found(value=BAD_FORMAT_SCORE[protocol], outcome="bad_format")


def _bad_format(question: BadFormat, protocol: str, answers: Sequence[Answer], places: bool) -> Found:
    if protocol == "paper" and question.skipped:
        return NOBODY_KNOWS
    if protocol != "paper" or question.as_it_is is None or isinstance(question.record.target, Offer):
        return _told_nothing(question.record.target, protocol)
    found = _judged(answers, places)
    return found if found.value is None else replace(found, outcome="bad_format")


def _judged(answers: Sequence[Answer], places: bool) -> Found:
    """The score of one question about a pair, or of one written answer; several answers are averaged."""
    said = [answer.said for answer in answers if answer.said.ok]
    if rated := [one for one in said if isinstance(one, Rated)]:
        return _rated(rated)
    if sampled := [one for one in said if isinstance(one, PaperJudgement)]:
        unparsed = any(one.selection is None for one in sampled)
        return Found(
            value=sum(one.correct for one in sampled) / len(sampled), outcome="parse_failure" if unparsed else "ok"
        )
    judged = [one for one in said if isinstance(one, Judgement)]
    if not judged:
        return NOBODY_KNOWS
    masses = [one.mass for one in judged if one.mass is not None]
    return Found(
        value=sum(one.correct for one in judged) / len(judged),
        outcome="parse_failure" if any(one.unparsed for one in judged) else "ok",
        p=sum(one.p for one in judged) / len(judged),
        orders=tuple((one.p_chosen_first, one.p_chosen_second) for one in judged),
        flips=tuple(one.flipped for one in judged if not one.unparsed) if places else None,
        mass=sum(masses) / len(masses) if masses else None,
    )


def _rated(answers: Sequence[Rated]) -> Found:
    verdicts = [verdict for one in answers for verdict in one.verdicts]
    parts = {name: sum(getattr(one, name) for one in answers) / len(answers) for name in ("bleu", "rouge_l")}
    parts |= {name: verdicts.count(name) / len(verdicts) for name in PARTS if name not in parts}
    return Found(
        value=sum(one.score for one in answers) / len(answers),
        outcome="parse_failure" if any(one.unparsed for one in answers) else "ok",
        measures=parts,
    )


def _dropped(question: Question, answers: Sequence[Answer]) -> int | None:
    """Oldest interactions that a policy could not be shown, or in the direct setting a judge; None: nobody was."""
    if isinstance(question, ReadHistory):
        known = [answer.dropped for answer in answers if answer.dropped is not None]
        return sum(known) if known else None
    return None if isinstance(question, Foreseen | Weighed) else question.dropped
