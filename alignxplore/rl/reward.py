"""The reward of a summary: how sure frozen downstream models are of the item that the user really chose.

Several judges may be named; the reward is their mean. Every rollout is judged the moment it is written, many at once,
over connections that stay open. The prompt, the letters and the orders are those of alignxplore/judging/letters.py, as
in eval. Others may watch: they are asked about held-out users only, and whatever they say is in no reward.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from alignxplore.command import items
from alignxplore.journal import OK
from alignxplore.judging.judgement import JudgeError, Judgement
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.serving.beforehand import ModelError, check_template, read_tokenizer
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.models import ModelSpec, choose

FEW = 8  # answers of a judge at the start below which nothing is said about the place it leans to
WATCHING_PATIENCE = 60.0  # seconds: a judge that only validates and has gone must not hold up the training for long


@dataclass
class Reward:
    """`value` is the mean confidence over the judges; None where one of them failed, and then `status` says how.
    `by_judge`: the confidences of each that answered, one a target; `letter_a`: the probability that it gave to the
    letter A, in each order that it was asked in; `missing`: what was wrong with those that did not answer."""

    value: float | None
    status: str = OK
    error: str | None = None
    by_judge: dict[str, list[float]] = field(default_factory=dict)
    letter_a: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Judges:
    """The judges of the reward, or those that watch."""

    def __init__(self, judges: Sequence[Judge], per_rollout: bool = False):
        self.judges, self.per_rollout = list(judges), per_rollout

    @classmethod
    async def connect(cls, settings: Streaming) -> "Judges":
        """Connect to every judge of `settings.judges`; names, models and windows come from the servers."""
        return await cls._connect(settings, settings.judges)

    @classmethod
    async def connect_watching(cls, settings: Streaming) -> "Judges":
        """The same of `settings.val_judges` (maybe none), asked in both orders whatever those of the reward are."""
        patience = min(settings.judge_patience, WATCHING_PATIENCE)
        own_settings = replace(settings, judge_orders="both", judge_patience=patience)
        return await cls._connect(own_settings, settings.val_judges)

    @classmethod
    async def _connect(cls, settings: Streaming, specs: str) -> "Judges":
        prompts = PromptSet(settings.prompts)
        orders = "both" if settings.judge_orders == "both" else "one"
        keys = judge_keys(settings)
        judges = []
        async with contextlib.AsyncExitStack() as stack:
            for spec in map(ModelSpec.parse, specs.split()):
                name = spec.name
                endpoint = Endpoint(
                    spec.target,
                    spec.served_name,
                    name=name,
                    api_key_env=keys[name],
                    concurrency=settings.judge_concurrency,
                    timeout=settings.judge_timeout,
                    patience=settings.judge_patience,
                )
                stack.push_async_callback(endpoint.close)
                await endpoint.connect()
                source = tokenizer_of(settings, spec, endpoint)
                try:
                    tokenizer = read_tokenizer(source)
                except ModelError as error:
                    raise SettingsError(
                        f"judge {name}: {error}; or name another one with JUDGE_TOKENIZER={name}=PATH"
                    ) from error
                check_template(name, tokenizer, prompts.judge(None, None, "a", "b"))
                judges.append(Judge(endpoint, tokenizer, prompts, orders=orders, seed=settings.seed, remedy=""))
            names = [judge.name for judge in judges]
            if len(set(names)) != len(names):
                raise SettingsError(f"two judges are named {names}; give each a name of its own: name=url")
            stack.pop_all()  # nothing went wrong: they stay open
        return cls(judges, settings.judge_orders == "per_rollout")

    async def close(self) -> None:
        for judge in self.judges:
            await judge.endpoint.close()

    async def check(self, questions: Sequence[tuple[str | None, Interaction]]) -> dict[str, float]:
        """Refuse a model that does not answer with a letter, or answers by place. Returns the mass on the two letters
        of each judge.

        Args:
            questions: summaries and items that they tell something of.
        """
        masses = {judge.name: await judge.check(questions) for judge in self.judges}
        mirror = [(text, Interaction(x.rejected, x.chosen, x.query)) for text, x in questions if x.rejected]
        for judge in self.judges:
            # A judge that is asked in one order draws it from the key: the mirrored question has the items the other
            # way round.
            calls = [(i, *question) for side in (questions, mirror) for i, question in enumerate(side)]
            answers = await asyncio.gather(*(judge.score(summary, item, [i]) for i, summary, item in calls))
            letter_a = [p for answer in answers if answer.ok for p in letter_a_of(answer)]
            if len(letter_a) >= FEW and goes_by_place(letter_a):
                raise JudgeError(always_the_same(judge.name, letter_a))
        return masses

    def repeated(self) -> dict[str, int]:
        """Requests that were repeated since the last call: "judge/http_429" → how many."""
        counts = {
            f"{judge.name}/{kind}": count for judge in self.judges for kind, count in judge.endpoint.repeats.items()
        }
        for judge in self.judges:
            judge.endpoint.repeats.clear()
        return counts

    async def score(
        self, summary: str | None, target: Interaction, group: Sequence[object], rollout: int = 0
    ) -> Reward:
        """Judge one summary.

        Args:
            group: what identifies the group; all its members share the order in which one-order judges see the items,
                so that position bias cannot enter an advantage.
            rollout: the member; only with judge_orders=per_rollout (as published) does it change that order.
        """
        began = time.monotonic()
        key = [*group, rollout] if self.per_rollout else list(group)
        replies = await asyncio.gather(*(judge.score(summary, target, key) for judge in self.judges))
        judgements = {judge.name: judgement for judge, judgement in zip(self.judges, replies)}
        answers = {name: judgement for name, judgement in judgements.items() if judgement.ok}
        failures = {name: judgement for name, judgement in judgements.items() if not judgement.ok}
        reward = Reward(
            None,
            by_judge={name: [judgement.p] for name, judgement in answers.items()},
            letter_a={name: letter_a_of(judgement) for name, judgement in answers.items()},
            missing={name: f"{judgement.status}: {judgement.error}" for name, judgement in failures.items()},
            seconds=time.monotonic() - began,
        )
        if failures:
            name, judgement = next(iter(failures.items()))
            return replace(reward, status=judgement.status, error=f"{name}: {judgement.error}")
        if answers:
            reward.value = fmean(judgement.p for judgement in answers.values())
        return reward


class Watched:
    """What judges held-out users' summaries: the judges of the reward as in training, and beside them those that
    watch, whose answers or failures change neither its value nor its status."""

    def __init__(self, judges: Judges, other_judges: Judges):
        self.judges, self.observers = judges, other_judges

    async def score(
        self, summary: str | None, target: Interaction, group: Sequence[object], rollout: int = 0
    ) -> Reward:
        """See `Judges.score`; `by_judge`, `letter_a` and `missing` are of both."""
        reward, other_reward = await asyncio.gather(
            *(judges.score(summary, target, group, rollout) for judges in (self.judges, self.observers))
        )
        return replace(
            reward,
            by_judge=reward.by_judge | other_reward.by_judge,
            letter_a=reward.letter_a | other_reward.letter_a,
            missing=reward.missing | other_reward.missing,
        )


def mean_reward(rewards: Sequence[Reward]) -> Reward:
    """What one summary earned by several targets, on average; as failed as the first that failed."""
    if len(rewards) == 1:
        return rewards[0]
    failure = next((reward for reward in rewards if reward.value is None), None)
    names = [name for name in rewards[0].by_judge if all(name in reward.by_judge for reward in rewards)]
    return Reward(
        None if failure else fmean(reward.value for reward in rewards if reward.value is not None),
        failure.status if failure else OK,
        failure.error if failure else None,
        by_judge={name: [p for reward in rewards for p in reward.by_judge[name]] for name in names},
        letter_a={name: [p for reward in rewards for p in reward.letter_a.get(name, ())] for name in names},
        missing={name: problem for reward in rewards for name, problem in reward.missing.items()},
        seconds=max(reward.seconds for reward in rewards),
    )


def judge_names(specs: str) -> list[str]:
    """The names in "name=url name=url"."""
    return [ModelSpec.parse(spec).name for spec in specs.split()]


def judge_keys(settings: Streaming) -> dict[str, str]:
    """Judge → variable with the key of its server, "" where it has none: those of the reward and those that watch.

    Raises:
        SettingsError: a judge that there is not, one that is named twice, or several variables for all.
    """
    names = judge_names(f"{settings.judges} {settings.val_judges}")
    try:
        return choose("judge_api_key_env", items(settings.judge_api_key_env or ""), names, "")
    except ValueError as error:
        raise SettingsError(f"streaming.{str(error).removeprefix('--')}") from error


def letter_a_of(judgement: Judgement) -> list[float]:
    """P(A) in each order that was asked."""
    p_first, p_second = judgement.p_chosen_first, judgement.p_chosen_second
    return [p for p in (p_first, None if p_second is None else 1 - p_second) if p is not None]


def goes_by_place(letter_a: Sequence[float]) -> bool:
    """True if a judge leans to one letter in all questions, and far on average. Either item may stand there, so no
    judge does that which reads the question. (One may well stay near 0.5 where a summary tells it nothing.)"""
    mean = sum(letter_a) / len(letter_a)
    return (min(letter_a) > 0.5 and mean > 0.75) or (max(letter_a) < 0.5 and mean < 0.25)


def always_the_same(name: str, letter_a: Sequence[float]) -> str:
    """The sentence for such a judge."""
    return (
        f"judge {name} gives the letter A a probability between {min(letter_a):.4f} and {max(letter_a):.4f} in all "
        f"{len(letter_a)} questions, whichever item stands there: its confidence says nothing about a summary"
    )


def tokenizer_of(settings: Streaming, spec: ModelSpec, endpoint: Endpoint) -> str:
    """Folder or hub id of the tokenizer that a judge is read with: the one that is named for it, else the server's."""
    tokenizers = named_paths(settings.judge_tokenizer)
    return tokenizers.get(spec.name) or tokenizers.get("") or spec.tokenizer or endpoint.root or ""


def named_paths(text: str | None) -> dict[str, str]:
    """A "path" → {"": path}; "a=path b=path", or one a line where paths have blanks → {a: path, b: path}."""
    paths = {}
    for item in items(text or ""):
        name, equals, path = item.partition("=")
        is_path = not equals or Path(item).exists()  # whatever signs it has
        paths["" if is_path else name] = item if is_path else path
    return paths
