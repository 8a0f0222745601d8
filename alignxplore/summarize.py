"""The one way a summary is written: a chain of K stages; K = 1 is full history. Used by eval, and by RL for its
prompts.

Stage k sees its slice of the history and the summary of stage k-1. A stage whose answer is bad format hands on an
empty summary (as published: what it holds), and its problem is recorded; nothing is ever cut inside an interaction,
the oldest ones are dropped whole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.history import Fitted, fit, too_old
from alignxplore.journal import OK
from alignxplore.prompts import FORMATS, Messages, PromptSet, after_reasoning, parse_answer
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.failures import UNANSWERED, failed
from alignxplore.serving.replies import said


@dataclass(frozen=True)
class Sampling:
    """How a policy answers. Defaults: the paper's evaluation (temperature 0.6, top_p 0.95, top_k 20, 4,096 new
    tokens).

    `form` names the format of its answers (`prompts.FORMATS`).
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    max_tokens: int = 4096
    seed: int = 0
    form: str = "think"

    @property
    def thinking(self) -> bool:
        """Whether the chat template is asked for reasoning."""
        return FORMATS[self.form].reasons


@dataclass(frozen=True)
class StageSummary:
    """What one stage wrote. `problem` names the bad format (None: well-formed); `dropped` counts the oldest
    interactions that did not fit the prompt; `tokens` counts the answer's tokens, `summary_tokens` those of its
    summary alone; `cut` says that they were all it was allowed, so that its end is missing. `seconds` passed from
    asking to the reply, while other requests were in flight. Rows of an earlier version lack the last two."""

    text: str
    reasoning: str
    summary: str
    problem: str | None
    dropped: int
    prompt_tokens: int
    tokens: int
    cut: bool = False
    summary_tokens: int | None = None
    seconds: float | None = field(default=None, compare=False)  # no part of what was written

    @property
    def as_it_is(self) -> str:
        """The summary, or what an answer in bad format holds in its place, as published."""
        return self.summary if self.problem is None else after_reasoning(self.text)


@dataclass(frozen=True)
class Plan:
    """What the stages of one user are shown.

    Attributes:
        slices: interactions of each stage, oldest stage first; the oldest of them are dropped where they do not fit.
        budget: tokens that a stage's prompt may take.
        dropped: interactions that were left out of the history before it was cut.
        as_it_is: hand on what an answer in bad format holds; else such a stage hands on an empty summary.
    """

    slices: Sequence[Sequence[Interaction]]
    budget: int
    dropped: int = 0
    as_it_is: bool = False

    def past(self, previous: StageSummary | None) -> str:
        """The past summary that the next stage is shown."""
        return "" if previous is None else previous.as_it_is if self.as_it_is else previous.summary


@dataclass(frozen=True)
class Summaries:
    """All stages of one user. The last one is what the downstream model reads; empty text where it is bad format."""

    stages: tuple[StageSummary, ...] = ()
    status: str = OK
    error: str | None = None

    @property
    def summary(self) -> str:
        return self.stages[-1].summary if self.stages else ""

    @property
    def problem(self) -> str | None:
        return self.stages[-1].problem if self.stages else self.error

    def row(self) -> dict:
        """JSON form."""
        return asdict(self)


def count_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages, thinking: bool = True) -> int:
    """Prompt tokens of chat messages up to where the answer starts."""
    return len(
        tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=thinking
        )
    )


def fit_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptSet,
    interactions: Sequence[Interaction],
    past_summary: str | None,
    budget: int,
    form: str = "think",
) -> Fitted:
    """The newest interactions whose rendered *infer* prompt, past summary included, takes at most `budget` tokens."""
    thinking, older_count = FORMATS[form].reasons, too_old(interactions, budget)
    excerpt = fit(
        interactions[older_count:],
        lambda xs: count_tokens(tokenizer, prompts.infer(xs, past_summary, form), thinking),
        budget,
    )
    return excerpt._replace(dropped=excerpt.dropped + older_count)


def check_window(window: int, max_tokens: int, option: str | None = "--max_tokens") -> None:
    """Raise a ValueError if an answer of `max_tokens`, as `option` gives it, leaves no room for a prompt."""
    if window <= max_tokens:
        raise ValueError(
            f"a window of {window} tokens leaves no room for a prompt beside an answer of {max_tokens}; raise "
            f"--max_model_len and the window that the model is served with{f', or lower {option}' if option else ''}"
        )


async def write_stage(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptSet,
    interactions: Sequence[Interaction],
    past_summary: str,
    sampling: Sampling,
    seed: int,
    window: int,
    budget: int,
    hear: Callable[[str], None] | None = None,
) -> StageSummary:
    """One stage: a slice of a history and the past summary (empty: none) → what the policy writes of them.

    Args:
        window: tokens of prompt and answer together; a prompt that leaves less than `max_tokens` shortens the answer.
        budget: tokens that the prompt may take.
        hear: is told the whole of the answer so far, as it is written.

    Raises:
        TransportError, RequestError: no answer.
        HistoryError: not even the newest interaction fits.
    """
    excerpt = fit_prompt(tokenizer, prompts, interactions, past_summary, budget, sampling.form)
    stream_options: dict[str, Any] = {"hear": hear} if hear else {}
    limit = min(sampling.max_tokens, window - excerpt.tokens)
    start = time.monotonic()
    reply = await endpoint.chat(
        prompts.infer(excerpt.interactions, past_summary, sampling.form),
        max_tokens=limit,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed,
        chat_template_kwargs={"enable_thinking": sampling.thinking},
        skip_special_tokens=not FORMATS[sampling.form].control_tokens,
        **stream_options,
    )
    seconds = time.monotonic() - start
    text = said(reply)
    answer, tokens = parse_answer(text, sampling.form), _count_written(reply, text, tokenizer)
    return StageSummary(
        text,
        answer.reasoning,
        answer.summary,
        answer.problem,
        excerpt.dropped,
        excerpt.tokens,
        tokens,
        _was_cut(reply, tokens, limit),
        len(tokenizer.encode(answer.summary, add_special_tokens=False)),
        round(seconds, 3),
    )


def _count_written(reply: dict, text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of an answer, `text` in words: as its server counts them, or as the tokenizer does where that says
    nothing."""
    usage = reply.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else len(tokenizer.encode(text, add_special_tokens=False))


def _was_cut(reply: dict, written: int, limit: int) -> bool:
    """Whether an answer of `written` tokens had all of the `limit` that it was allowed, so that its end is missing."""
    finish_reason = reply["choices"][0].get("finish_reason")
    return finish_reason == "length" or (finish_reason is None and written >= limit)


def stage_seed(key: Any, number: int, seed: int) -> int:
    """The sampling seed of stage `number` (from 0) of the stream that `key` names, in the run of `seed`."""
    return hash_seed("summary", key, number, seed)


async def summarize(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    prompts: PromptSet,
    plan: Plan,
    sampling: Sampling,
    key: Any,
    window: int,
    hear: Callable[[int, str], None] | None = None,
) -> Summaries:
    """Write the summaries of one user, stage by stage.

    Args:
        plan: what each stage is shown.
        key: identifies the user and setting; each stage's sampling seed is a hash of it.
        window: tokens of prompt and answer together; a prompt that leaves less than `max_tokens` shortens the answer.
        hear: is told the number of a stage (from 0) and the whole of its answer so far, as it is written.

    Returns:
        One `StageSummary` a slice; or a failed outcome without stages (transport error, refused, too long to fit).
    """
    stages: list[StageSummary] = []
    try:
        for number, interactions in enumerate(plan.slices):
            past_summary = plan.past(stages[-1] if stages else None)
            seed = stage_seed(key, number, sampling.seed)
            listener = partial(hear, number) if hear else None
            stage = await write_stage(
                endpoint, tokenizer, prompts, interactions, past_summary, sampling, seed, window, plan.budget, listener
            )
            stages.append(stage if stages else replace(stage, dropped=stage.dropped + plan.dropped))
    except UNANSWERED as error:
        return Summaries(**failed(error))
    return Summaries(tuple(stages))
