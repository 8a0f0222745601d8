"""Policies and downstream models made ready to be asked one person at a time; they end with the with-block."""

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignxplore.ask.finished import answer_tokens, window_of
from alignxplore.ask.histories import Person
from alignxplore.command import Checkable, option
from alignxplore.errors import at_least_one
from alignxplore.history import too_old
from alignxplore.journal import OK
from alignxplore.judging import ranking
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.letters import Judge
from alignxplore.judging.summary_judge import SummaryJudge
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import Interaction, Offer
from alignxplore.serving.models import Model, ModelSpec, choose, open_model, served_here, whereabouts
from alignxplore.serving.serve_options import SERVE_ARGUMENTS
from alignxplore.serving.server import beside
from alignxplore.summarize import Plan, Sampling, Summaries, check_window, summarize

Told = Callable[[int, str], None]  # number of a stage, all of its answer so far


@dataclass(kw_only=True)
class ModelOptions(Checkable):
    """How models are asked: options of the command line."""

    prompt_set: str = option("default, hardened, or a folder of templates of your own", "default")
    format: str = option(f"how the policy answers: {', '.join(FORMATS)}", "think")
    judge_format: str = option("plain: letters are read; else a format of --format, for judges that reason", "plain")
    max_tokens: int | None = option("new tokens at most; default: 4,096, or a quarter of a smaller window", None)
    max_model_len: int | None = option("window; default: 16,384, or less where the model takes less", None)
    seed: int = option("of the sampling; 0 as in the evaluation", 0)
    api_key_env: list[str] = option(
        "name of the environment variable with an endpoint's key: VARIABLE for all of them, NAME=VARIABLE for one "
        "model",
        [],
    )
    serve_arguments: str = option(SERVE_ARGUMENTS, "")
    logs: Path = option("what the servers say goes there", Path("outputs/ask"))

    def __post_init__(self) -> None:
        at_least_one(self, "max_tokens", "max_model_len")
        for name, form in (("format", self.format), ("judge_format", self.judge_format)):
            if form not in FORMATS:
                raise ValueError(f"--{name} {form}: choose from {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Policy:
    """A model that writes summaries."""

    model: Model
    prompts: PromptSet
    sampling: Sampling
    window: int

    @property
    def name(self) -> str:
        return self.model.name

    async def write(self, person: Person, stages: int, hear: Told | None = None) -> Summaries:
        """A person's summaries in so many stages. With the seed 0 they are those of the evaluation."""
        setting = "full" if stages == 1 else "streaming"
        older = too_old(person.history, self.window)
        visible_person = person.without(range(older)) if older else person
        plan = Plan(visible_person.slices(stages), self.window - self.sampling.max_tokens, older)
        tokenizer = self.model.tokenizer
        assert tokenizer is not None  # `open_model` has one, or raises
        key = [person.key, setting]
        return await summarize(
            self.model.endpoint, tokenizer, self.prompts, plan, self.sampling, key, self.window, hear
        )


@dataclass(frozen=True)
class Verdict:
    """What a downstream model makes of some items.

    `orders`: of each order that was asked, P(item) of each item, as the items were given. A pair is asked in both
    orders; among more items two rotations are.
    """

    judge: str
    orders: tuple[tuple[float, ...], ...] = ()
    error: str | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """P(item), mean of the orders."""
        return tuple(sum(ps) / len(ps) for ps in zip(*self.orders))

    @property
    def pick(self) -> int | None:
        """Place of the most probable item; None where the judge failed, or cannot tell."""
        shares = self.shares
        return None if not shares or max(shares) - sorted(shares)[-2] < 1e-6 else shares.index(max(shares))

    @property
    def wavers(self) -> bool:
        """Whether another order has another item."""
        return len({order.index(max(order)) for order in self.orders}) > 1


@dataclass(frozen=True)
class Chooser:
    """A downstream model that chooses among items by a summary."""

    judge: SummaryJudge

    @property
    def name(self) -> str:
        return self.judge.name

    async def choose(self, summary: str | None, items: Sequence[str], query: str | None) -> Verdict:
        """Which of two or more items it expects; without a summary (None) by the items alone."""
        if len(items) == 2 or not self._reads(len(items)):
            return await self._by_pairs(summary, items, query)
        answer = await ranking.rank(self.judge, summary, None, _offer(items, query), "ask")
        return Verdict(self.name, answer.rotations, None if answer.status == OK else answer.error)

    async def check(self, items: Sequence[str], query: str | None) -> None:
        """Raise JudgeError where the model is no judge of these items."""
        if len(items) == 2 or not self._reads(len(items)):
            await self.judge.check([(None, Interaction(items[0], items[1], query))])
        else:
            await ranking.check(self.judge, [(None, _offer(items, query))])

    def _reads(self, count: int) -> bool:
        """Whether so many items can stand in one question. The tiny judges know two letters."""
        return count <= self.judge.items_at_once

    async def _by_pairs(self, summary: str | None, items: Sequence[str], query: str | None) -> Verdict:
        """Each item against each other one, in both orders. Of more than two the log-odds are averaged, which is right
        as far as the odds of two items do not depend on the others (as in judging/ranking.py)."""
        pairs = list(itertools.combinations(range(len(items)), 2))
        judgements = await asyncio.gather(
            *(self.judge.score(summary, Interaction(items[a], items[b], query), "ask") for a, b in pairs)
        )
        if failure := next((judgement for judgement in judgements if not judgement.ok), None):
            return Verdict(self.name, error=failure.error)
        orders = []
        for order in range(2):
            odds = [0.0] * len(items)
            for (a, b), judgement in zip(pairs, judgements):
                p = min(1 - 1e-9, max(1e-9, judgement.orders[order]))
                odds[a] += math.log(p / (1 - p)) / len(items)
                odds[b] -= math.log(p / (1 - p)) / len(items)
            shares = [math.exp(log_odds) for log_odds in odds]
            orders.append(tuple(share / sum(shares) for share in shares))
        return Verdict(self.name, tuple(orders))


def _offer(items: Sequence[str], query: str | None) -> Offer:
    return Offer(items[0], None, query, (), tuple(items[1:]))


@contextlib.asynccontextmanager
async def opened(
    policies: Sequence[ModelSpec], judges: Sequence[ModelSpec], options: ModelOptions
) -> AsyncIterator[tuple[list[Policy], list[Chooser]]]:
    """All models, started side by side, each server by its own `vllm serve`."""
    prompts = PromptSet(options.prompt_set)
    async with contextlib.AsyncExitStack() as stack:
        models = await _all_open(stack, [*policies, *judges], options, prompts)
        writers, choosers = models[: len(policies)], models[len(policies) :]
        yield (
            [_policy(model, spec, options, prompts) for model, spec in zip(writers, policies)],
            [_chooser(model, options, prompts) for model in choosers],
        )


def places(specs: Sequence[ModelSpec], options: ModelOptions) -> list[str]:
    """Where the models are to come from, for `--check`, which looks at the templates, too."""
    PromptSet(options.prompt_set)
    keys, count = keys_of(specs, options), served_here(specs)
    return [
        f"{spec.name}: {whereabouts(spec, keys[spec.name], serving_arguments(spec, options, count))}" for spec in specs
    ]


def keys_of(specs: Sequence[ModelSpec], options: ModelOptions) -> dict[str, str]:
    """Model → variable with the key of its endpoint, "" where it has none. No endpoint sees the key of another one."""
    return choose("api_key_env", options.api_key_env, [spec.name for spec in specs], "")


def serving_arguments(spec: ModelSpec, options: ModelOptions, count: int) -> list[str]:
    """What `vllm serve` is told of a model that is served here, as one of `count`."""
    window = str(options.max_model_len or window_of(spec))
    return beside(["--max-model-len", window, *options.serve_arguments.split()], count)


async def _all_open(
    stack: contextlib.AsyncExitStack, specs: Sequence[ModelSpec], options: ModelOptions, prompts: PromptSet
) -> list[Model]:
    """A model that fails ends those that are still starting."""
    sample, keys = prompts.infer([Interaction("?")], None, options.format), keys_of(specs, options)
    starting = [
        asyncio.create_task(
            stack.enter_async_context(
                open_model(
                    spec,
                    log_folder=options.logs,
                    arguments=serving_arguments(spec, options, served_here(specs)),
                    sample=sample,
                    api_key_env=keys[spec.name],
                )
            )
        )
        for spec in specs
    ]
    try:
        return list(await asyncio.gather(*starting))
    except BaseException:
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        raise


def _policy(model: Model, spec: ModelSpec, options: ModelOptions, prompts: PromptSet) -> Policy:
    window = model.endpoint.window(options.max_model_len or window_of(spec))
    sampling = Sampling(max_tokens=options.max_tokens or answer_tokens(window), seed=options.seed, form=options.format)
    check_window(window, sampling.max_tokens)
    return Policy(model, prompts, sampling, window)


def _chooser(model: Model, options: ModelOptions, prompts: PromptSet) -> Chooser:
    assert model.tokenizer is not None  # `open_model` has one, or raises
    if FORMATS[options.judge_format].reasons:
        return Chooser(ReasoningJudge(model.endpoint, model.tokenizer, prompts, options.judge_format))
    return Chooser(Judge(model.endpoint, model.tokenizer, prompts))
