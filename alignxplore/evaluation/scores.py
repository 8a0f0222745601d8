"""From judgements to scores: one score a record of a cell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from alignxplore.evaluation import offers
from alignxplore.evaluation.answers import Answer, Rating
from alignxplore.evaluation.conditions import (
    BadFormat,
    Cell,
    Foreseen,
    MissingSummary,
    Question,
    ReadHistory,
    ReadSummaries,
    Weighed,
)
from alignxplore.evaluation.registry import PARTS
from alignxplore.evaluation.worth import Score, Worth
from alignxplore.judging.judgement import Judgement, PaperJudgement, mean_mass
from alignxplore.records import Interaction, Offer, content_hash

# What a row scores of which nothing can be judged: bad format tells the downstream model nothing (choice); in protocol
# paper it is judged as it is, and only what was never written is wrong.
BAD_FORMAT_SCORE = {"choice": 0.5, "paper": 0.0}
NOBODY_KNOWS = Worth(value=None, outcome="missing")


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
    for question, replies in zip(cell.questions, answers or [()] * len(cell.questions), strict=True):
        record, present_answers = question.record, [answer for answer in replies if answer is not None]
        worth = _worth(question, protocol, present_answers, places)
        unread = tuple(text for answer in present_answers for text in answer.reply.unread)
        scores.append(
            Score(
                policy=cell.policy,
                setting=cell.setting,
                benchmark=cell.benchmark.name,
                judge=judge,
                protocol=protocol,
                seed=cell.seed,
                **vars(replace(worth, unread=unread)),
                record=record.id,
                user=record.user,
                dropped=_dropped(question, present_answers),
                shown_otherwise=question.shown_otherwise if isinstance(question, ReadSummaries | BadFormat) else None,
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


def _worth(question: Question, protocol: str, answers: Sequence[Answer], places: bool) -> Worth:
    target = question.record.target
    match question:
        case Foreseen(value=value):
            return NOBODY_KNOWS if value is None else Worth(value=value, outcome="ok")
        case Weighed(scores=scores):
            assert isinstance(target, Offer)
            return offers.unknown(target) if scores is None else offers.of_scores(target, scores)
        case MissingSummary():
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


def _told_nothing(target: Interaction, protocol: str) -> Worth:
    if isinstance(target, Offer):
        return offers.of_scores(target, None, "bad_format")
    return Worth(value=BAD_FORMAT_SCORE[protocol], outcome="bad_format")


def _bad_format(question: BadFormat, protocol: str, answers: Sequence[Answer], places: bool) -> Worth:
    if protocol == "paper" and question.skipped:
        return NOBODY_KNOWS
    if protocol != "paper" or question.as_it_is is None or isinstance(question.record.target, Offer):
        return _told_nothing(question.record.target, protocol)
    worth = _judged(answers, places)
    return worth if worth.value is None else replace(worth, outcome="bad_format")


def _judged(answers: Sequence[Answer], places: bool) -> Worth:
    """The score of one question about a pair, or of one written answer; several answers are averaged."""
    replies = [answer.reply for answer in answers if answer.reply.ok]
    if ratings := [reply for reply in replies if isinstance(reply, Rating)]:
        return _rated(ratings)
    if samples := [reply for reply in replies if isinstance(reply, PaperJudgement)]:
        has_unparsed = any(reply.selection is None for reply in samples)
        return Worth(
            value=sum(reply.correct for reply in samples) / len(samples),
            outcome="parse_failure" if has_unparsed else "ok",
        )
    judgements = [reply for reply in replies if isinstance(reply, Judgement)]
    if not judgements:
        return NOBODY_KNOWS
    return Worth(
        value=sum(reply.correct for reply in judgements) / len(judgements),
        outcome="parse_failure" if any(reply.unparsed for reply in judgements) else "ok",
        p=sum(reply.p for reply in judgements) / len(judgements),
        orders=tuple((reply.p_chosen_first, reply.p_chosen_second) for reply in judgements),
        flips=tuple(reply.flipped for reply in judgements if not reply.unparsed) if places else None,
        mass=mean_mass(reply.mass for reply in judgements),
    )


def _rated(answers: Sequence[Rating]) -> Worth:
    verdicts = [verdict for rating in answers for verdict in rating.verdicts]
    parts = {name: sum(getattr(rating, name) for rating in answers) / len(answers) for name in ("bleu", "rouge_l")}
    parts |= {name: verdicts.count(name) / len(verdicts) for name in PARTS if name not in parts}
    return Worth(
        value=sum(rating.score for rating in answers) / len(answers),
        outcome="parse_failure" if any(rating.unparsed for rating in answers) else "ok",
        measures=parts,
    )


def _dropped(question: Question, answers: Sequence[Answer]) -> int | None:
    """Oldest interactions that a policy could not be shown, or in the direct setting a judge; None: nobody was."""
    if isinstance(question, ReadHistory):
        counts = [answer.dropped for answer in answers if answer.dropped is not None]
        return sum(counts) if counts else None
    return None if isinstance(question, Foreseen | Weighed) else question.dropped
