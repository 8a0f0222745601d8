"""One user's way through data synthesis: generate → verify → merge → verify again, twice. Used by `synthesize.py`.

The history is cut in thirds. Round 1 summarises third 1, once for each of a few targets of third 2 that the signal
model could foresee; the target's pair is shown as a hint of what matters, never the answer. Summaries with which the
judge picks their target are merged into one; the merged one must name none of these pairs (`leakage.py`) and get most
of the targets right. Round 2 does the same with third 2, the merged summary as past, and targets of third 3. Both
rounds passed: two SFT rows, rendered with the plain prompt.
Paper: data synthesis section; thresholds as published.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from alignxplore.history import Fitted, fit, split_stages
from alignxplore.journal import REFUSED
from alignxplore.judging.judgement import Judgement
from alignxplore.judging.letters import Judge
from alignxplore.prompts import Answer, Messages, PromptSet, parse_answer, parse_merge
from alignxplore.records import Interaction, content_hash, hash_seed
from alignxplore.serving.failures import RequestError, TransportError, is_about_length
from alignxplore.serving.models import Model
from alignxplore.serving.replies import said
from alignxplore.summarize import Sampling, count_tokens
from alignxplore.synthesis.eligibility import LEAST_CHOICES, possible_targets
from alignxplore.synthesis.leakage import named

T = TypeVar("T")
DONE = "done"
PROMPT_TOO_LONG, JUDGE_TOO_LONG = "prompt too long", "too long for the judge"  # problems of single drafts


class Unanswered(Exception):
    """A request that failed for good in this run, or was refused for another reason than its length: the next run asks
    again."""


class TooLong(Exception):
    """A server finds a prompt too long, which no repeat can mend."""


class Stopped(Exception):
    """The user leaves the funnel: `outcome` names the step, `round` the round."""

    def __init__(self, outcome: str):
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(frozen=True)
class Thresholds:
    """Published values as defaults."""

    signal: float = 0.9  # P(actual choice) by the signal model above which a choice can be a target
    min_targets: int = 4  # "more than 3"
    max_targets: int = 5
    min_verified: int = 3
    merged_accuracy: float = 0.8


@dataclass
class Trail:
    """What happened to one user, for the funnel and for reading."""

    outcome: str = DONE
    rows: list[dict] = field(default_factory=list)
    rounds: list[dict] = field(default_factory=list)

    def row(self, user: str) -> dict:
        return {"uid": user, "outcome": self.outcome, "rows": self.rows, "rounds": self.rounds}


@dataclass
class Written:
    """One answer of the teacher: `call` is its unit in the journal of calls, where the whole text is; `verified`: the
    judge picks the draft's target with it."""

    call: str
    answer: Answer
    verified: bool = False

    def note(self, target: Interaction) -> dict:
        """What the trail keeps of a draft."""
        return {"target": asdict(target), "call": self.call, "problem": self.answer.problem, "verified": self.verified}


Draft = tuple[Written, Interaction]  # a draft and the target that was its hint
Once = Callable[[str, Callable[[], Awaitable[dict]]], Awaitable[dict]]


@dataclass(frozen=True)
class Workshop:
    """Teacher, judge and settings; `once` runs a request or returns what its journal holds from an earlier run.

    `judged_by` names the judge (`Model.named`). A request's unit in the journal holds what its answer depends on and
    nothing else, so that nobody pays twice: not the address, not the judge of a draft, not the teacher of a verified
    summary.
    """

    teacher: Model
    judge: Judge
    prompts: PromptSet
    sampling: Sampling
    thresholds: Thresholds
    window: int
    once: Once
    judged_by: str

    @property
    def budget(self) -> int:
        """Tokens of a prompt beside which the longest answer fits."""
        return self.window - self.sampling.max_tokens

    def tokens(self, messages: Messages, is_merge: bool = False) -> int:
        """Prompt tokens of the teacher."""
        return count_tokens(self.teacher.tokenizer, messages, not is_merge)

    async def ask_teacher(self, messages: Messages, seed: int, max_tokens: int, is_merge: bool = False) -> dict:
        """The teacher's answer: `text`, and `cut` where the limit of tokens ended it. A merge is asked for without
        thinking: thoughts would be about the annotators, not the user."""
        s = self.sampling
        reply = await self.teacher.endpoint.chat(
            messages,
            max_tokens=max_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
            top_k=s.top_k,
            seed=seed,
            chat_template_kwargs={"enable_thinking": not is_merge},
        )
        mark = {"cut": True} if reply["choices"][0].get("finish_reason") == "length" else {}
        return {"text": said(reply)} | mark

    async def check(self, item: Interaction) -> None:
        """One short request before the first user: RequestError if the teacher refuses what all of them will ask."""
        try:
            await self.ask_teacher(self.prompts.infer([item]), 0, min(16, self.sampling.max_tokens))
        except RequestError as error:
            if not is_about_length(str(error)):
                raise

    async def write(self, messages: Messages, key: Any, is_merge: bool = False) -> "Written":
        """One answer of the teacher, a draft or a merge of drafts; TooLong where the server finds the prompt so. What
        was cut off is bad format, however well-formed what is there looks."""
        seed = hash_seed("synthesis", key, self.sampling.seed)

        async def ask() -> dict:
            try:
                return await self.ask_teacher(messages, seed, self.sampling.max_tokens, is_merge)
            except TransportError as error:
                raise Unanswered(str(error)) from None
            except RequestError as error:
                raise (TooLong if is_about_length(str(error)) else Unanswered)(str(error)) from None

        unit = content_hash(["write", self.teacher.named, messages, seed, asdict(self.sampling)])
        row = await self.once(unit, ask)
        parse = parse_merge if is_merge else parse_answer
        return Written(unit, Answer("", "", "cut off at the token limit") if row.get("cut") else parse(row["text"]))

    async def verify(self, summary: str, target: Interaction, key: Any) -> bool:
        """True if the judge picks the target knowing only the summary, in both orders' average; TooLong where they do
        not fit."""

        async def ask() -> dict:
            judgement = await self.judge.score(summary, target, key)
            if not judgement.ok:
                never_fits = judgement.status == REFUSED and is_about_length(judgement.error or "")
                raise (TooLong if never_fits else Unanswered)(judgement.error)
            return {"judgement": judgement.row()}

        questions = [self.prompts.judge(summary, target.query, *items) for items in (target.items, target.items[::-1])]
        unit = content_hash(["verify", self.judged_by, questions])
        return Judgement(**(await self.once(unit, ask))["judgement"]).correct == 1.0


async def together(steps: Iterable[Awaitable[T]]) -> list[T]:
    """All results, or the first failure once every step has ended, so that nothing goes on behind a user who left."""
    results = []
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def pick_targets(
    places: Sequence[int], signal: dict[int, float], items: Sequence[Interaction], user: str, t: Thresholds
) -> list[int]:
    """Places of at most `max_targets` foreseeable choices, drawn by content hash; Stopped where there are too few."""
    candidates = possible_targets(places, signal, items, t.signal)
    if len(candidates) < t.min_targets:
        raise Stopped("too_few_targets")
    return sorted(sorted(candidates, key=lambda i: content_hash(["target", user, i]))[: t.max_targets])


def hint_messages(
    shop: Workshop, interactions: Sequence[Interaction], past_summary: str, target: Interaction, key: Any
) -> Messages:
    """The prompt for a summary written with one target pair in view, the two items in hashed order."""
    a, b = (target.chosen, target.rejected) if hash_seed("hint order", key) % 2 else (target.rejected, target.chosen)
    slots = {
        "interactions": interactions,
        "past_summary": past_summary or None,
        "query": target.query,
        "item_a": a,
        "item_b": b,
    }
    return shop.prompts.render("infer_hint", **slots)


def fit_hints(
    shop: Workshop,
    interactions: Sequence[Interaction],
    past_summary: str,
    targets: Sequence[Interaction],
    keys: Sequence[Any],
) -> tuple[Fitted, list[int]]:
    """The newest interactions with which the longest hinted prompt leaves room for the answer, and the places of the
    targets of whom this holds: a pair that does not even fit beside the newest interaction is none of them. Stopped
    where they are too few."""

    def tokens(newer: Sequence[Interaction], place: int) -> int:
        return shop.tokens(hint_messages(shop, newer, past_summary, targets[place], keys[place]))

    least_tokens = [tokens(interactions[-1:], place) for place in range(len(targets))]
    places = [place for place, count in enumerate(least_tokens) if count <= shop.budget]
    if len(places) < shop.thresholds.min_verified:
        raise Stopped("prompt_too_long" if places else "interaction_too_long")
    longest = max(places, key=least_tokens.__getitem__)
    return fit(interactions, lambda newer: tokens(newer, longest), shop.budget), places


def fit_merge(shop: Workshop, drafts: list[Draft]) -> tuple[list[Draft], Messages]:
    """(drafts to merge, the prompt): the longest are left out until it fits; Stopped where too few would be left."""
    while len(drafts) >= shop.thresholds.min_verified:
        summaries = [(draft.answer.reasoning, draft.answer.summary) for draft, _ in drafts]
        messages = shop.prompts.render("merge", summaries=summaries)
        if shop.tokens(messages, is_merge=True) <= shop.budget:
            return drafts, messages
        lengths = [len(reasoning) + len(summary) for reasoning, summary in summaries]
        place = lengths.index(max(lengths))
        drafts = drafts[:place] + drafts[place + 1 :]
    raise Stopped("merge_too_long")


async def write_drafts(shop: Workshop, prompts: Sequence[Messages | None], keys: Sequence[Any]) -> list[Written]:
    """A draft a prompt; where there is none, or the server finds it too long, it stays empty, and the others count."""

    async def write(messages: Messages | None, key: Any) -> Written:
        try:
            if messages is not None:
                return await shop.write(messages, key)
        except TooLong:
            pass
        return Written("", Answer("", "", PROMPT_TOO_LONG))

    return await together(write(messages, key) for messages, key in zip(prompts, keys))


async def verify_draft(shop: Workshop, draft: Written, target: Interaction, key: Any) -> None:
    """Note whether the judge picks the target with a draft; one that does not fit it has failed."""
    try:
        draft.verified = await shop.verify(draft.answer.summary, target, key)
    except TooLong:
        draft.answer = replace(draft.answer, problem=JUDGE_TOO_LONG)


def keep(drafts: Sequence[Draft], minimum: int) -> list[Draft]:
    """The verified drafts; Stopped where they are too few, with what alone made them so."""
    verified_drafts = [(draft, target) for draft, target in drafts if draft.verified]
    if len(verified_drafts) < minimum:
        problems = [draft.answer.problem for draft, _ in drafts]
        well_formed_count = sum(problem in (None, JUDGE_TOO_LONG) for problem in problems)
        if len(drafts) - problems.count(PROMPT_TOO_LONG) < minimum:
            raise Stopped("prompt_too_long")
        raise Stopped("judge_too_long" if well_formed_count >= minimum > problems.count(None) else "too_few_verified")
    return verified_drafts


async def merge_drafts(
    shop: Workshop,
    user: str,
    number: int,
    drafts: list[Draft],
    prompt: Messages,
    hints: Sequence[Interaction],
    note: dict,
) -> Answer:
    """The merge of the drafts, tried on their targets; Stopped where it is none, names a hint or gets too few right.

    Args:
        prompt: what the policy will be shown in training.
        hints: the pairs that the drafts were written with.
    """
    try:
        drafts, messages = fit_merge(shop, drafts)
        merge = await shop.write(messages, (user, number, "merge"), is_merge=True)
    except TooLong:
        raise Stopped("merge_too_long") from None
    answer = merge.answer
    note["merge"] = {"of": len(drafts), "call": merge.call, "problem": answer.problem}
    if not answer.well_formed:
        raise Stopped("merge_bad_format")
    prompt_text = "\n".join(message["content"] for message in prompt)
    if mentions := named(f"{answer.reasoning}\n{answer.summary}", hints, prompt_text):
        note["merge"]["named"] = mentions
        raise Stopped("merge_names_hint")
    try:
        hits = sum(await together(shop.verify(answer.summary, target, number) for _, target in drafts))
    except TooLong:
        raise Stopped("merged_too_long") from None
    note["merged_right"] = hits
    if hits < shop.thresholds.merged_accuracy * len(drafts):
        raise Stopped("merged_too_poor")
    return answer


async def run_round(
    shop: Workshop,
    user: str,
    number: int,
    interactions: Sequence[Interaction],
    past_summary: str,
    targets: Sequence[Interaction],
    trail: Trail,
) -> str:
    """One round; appends its SFT row to the trail and returns the merged summary, or raises Stopped."""
    note: dict[str, Any] = {"round": number, "targets": len(targets)}
    trail.rounds.append(note)
    keys = [(user, number, i) for i in range(len(targets))]
    excerpt, places = fit_hints(shop, interactions, past_summary, targets, keys)
    note["dropped_interactions"] = excerpt.dropped
    prompts = [
        hint_messages(shop, excerpt.interactions, past_summary, target, keys[i]) if i in places else None
        for i, target in enumerate(targets)
    ]
    drafts = list(zip(await write_drafts(shop, prompts, keys), targets))
    well_formed = [(draft, target) for draft, target in drafts if draft.answer.well_formed]
    await together(verify_draft(shop, draft, target, number) for draft, target in well_formed)
    note |= {
        "well_formed": len(well_formed),
        "verified": sum(draft.verified for draft, _ in well_formed),
        "drafts": [draft.note(target) for draft, target in drafts],
    }
    verified_drafts = keep(drafts, shop.thresholds.min_verified)
    prompt = shop.prompts.infer(excerpt.interactions, past_summary or None)
    answer = await merge_drafts(shop, user, number, verified_drafts, prompt, targets, note)
    completion = f"<think>\n{answer.reasoning}\n</think>\n\n{answer.summary}"
    trail.rows.append(
        {
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": completion}],
            "uid": user,
            "round": number,
            "template": shop.prompts.hash("infer"),
        }
    )
    return answer.summary


async def synthesise_user(shop: Workshop, user: str, items: Sequence[Interaction], signal: dict[int, float]) -> dict:
    """Both rounds of one user → row for the journal (`Trail.row`). Only users who pass both rounds give SFT rows.

    Raises:
        Unanswered: a request failed, which says nothing about the user.
    """
    trail, past_summary = Trail(), ""
    try:
        if len(items) < LEAST_CHOICES:
            raise Stopped("history_too_short")
        first_third, second_third, last_third = split_stages(range(len(items)), 3)
        for number, (third, next_third) in enumerate(((first_third, second_third), (second_third, last_third)), 1):
            places = pick_targets(next_third, signal, items, user, shop.thresholds)
            past_summary = await run_round(
                shop, user, number, [items[i] for i in third], past_summary, [items[i] for i in places], trail
            )
    except Stopped as stop:
        trail.outcome = (
            stop.outcome if stop.outcome == "history_too_short" else f"{stop.outcome}_{len(trail.rows) + 1}"
        )
        trail.rows = []
    return trail.row(user)
