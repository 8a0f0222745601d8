"""One user's stream during training: K groups of summaries, each written upon a summary of the group before it.

    stage 1: n summaries of slice 1 ──judge, target 1──► r1          (runs beside everything below)
               └─ one well-formed member, drawn by hash ─► past summary
    stage 2: n summaries of slice 2 and the past summary ──judge, target 2──► r2 ...

A rollout is judged the moment it is written; a stage starts as soon as its past summary is known to be well-formed and
never waits for a reward. Bad format is reward 0 without a judge call. This module knows nothing of verl: it is given
something that writes (`Policy`) and something that judges (`alignxplore.rl.reward.Judges`).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from alignxplore.history import HistoryError
from alignxplore.journal import OK, TOO_LONG
from alignxplore.prompts import Answer, parse_answer
from alignxplore.records import Interaction, hash_seed
from alignxplore.rl.credit import Scored, StageReturns, draw_order, shuffled, stream_returns, too_alike
from alignxplore.rl.dataset import Stage
from alignxplore.rl.reward import Reward, mean_reward
from alignxplore.rl.settings import Streaming

BAD_FORMAT = "bad_format"


class Prompt(NamedTuple):
    """A rendered prompt that fits the budget; `dropped` oldest interactions were left out whole."""

    ids: list[int]
    dropped: int


class Generation(NamedTuple):
    """What the rollout engine wrote; `versions`: the training step of the weights and how many tokens they wrote, one
    pair for each time that it was begun or gone on with."""

    ids: list[int]
    log_probs: list[float] | None
    text: str
    versions: Sequence[tuple[int | None, int]]


class Policy(Protocol):
    """Renders prompts and writes answers, the same one for the same prompt and seed as far as its engine can."""

    async def prompt(self, interactions: Sequence[Interaction], past_summary: str | None) -> Prompt: ...

    async def write(self, prompt: Prompt, seed: int) -> Generation: ...


class Scorer(Protocol):
    """Judges a summary (`alignxplore.rl.reward.Judges`)."""

    async def score(
        self, summary: str | None, target: Interaction, group: Sequence[object], rollout: int = 0
    ) -> Reward: ...


@dataclass
class Rollout:
    """One summary: what was written, how it was judged, what it earned (`total` None: not trained on). Times are
    seconds since the chain began."""

    generation: Generation
    answer: Answer
    began: float
    written: float
    reward: Reward | None = None
    judged: float | None = None
    total: float | None = None

    @property
    def status(self) -> str:
        if not self.answer.well_formed:
            return BAD_FORMAT
        return self.reward.status if self.reward else OK


@dataclass
class Group:
    """The summaries of one prompt, which GRPO compares. `parent`: index of the past summary's rollout in the stage
    before (None: written without one); `drawn`: the member that was continued."""

    stage: int
    parent: int | None
    prompt: Prompt
    rollouts: list[Rollout] = field(default_factory=list)
    drawn: int | None = None
    drawn_bonus: float | None = None

    def scored(self) -> Scored:
        """Rewards and well-formedness of the members, for alignxplore/rl/credit.py."""
        return Scored(
            [r.reward.value if r.reward else None for r in self.rollouts],
            [r.answer.well_formed for r in self.rollouts],
        )

    def earned(self) -> list[float | None]:
        """Rewards of the members, bad format 0."""
        rewards = [r.reward.value if r.reward else None for r in self.rollouts]
        return [0.0 if r.status == BAD_FORMAT else value for r, value in zip(self.rollouts, rewards)]

    def settle(self, results: StageReturns) -> None:
        """Write the returns onto the members."""
        self.drawn_bonus = results.drawn_bonus
        for rollout, total in zip(self.rollouts, results.returns, strict=True):
            rollout.total = total


@dataclass
class Chain:
    """All groups of one user at one step; `problem` says why the chain ended before its last stage (None: it did not),
    and `lost` how many summaries were therefore never written. `baseline_rewards`: of the stages after the first."""

    user: str
    groups: list[Group] = field(default_factory=list)
    baseline_rewards: list[Reward] = field(default_factory=list)
    problem: str | None = None
    lost: int = 0
    seconds: float = 0.0


def rollout_seed(seed: int, occasion: int | str, user: str, stage: int, parent: int | None, i: int) -> int:
    """What member `i` of a group is sampled with; `occasion` is a training step or the word validation."""
    return hash_seed("rollout", seed, occasion, user, stage, parent, i)


class ChainRunner:
    """Runs the chain of one user.

    Args:
        step: together with the user and `settings.seed` it is what draws and the seeds of sampling are hashed from.
            Validation samples alike at every step: what changes between two is the policy, not the luck.
        rollouts: summaries a stage (validation writes one).
    """

    def __init__(
        self,
        user: str,
        stages: Sequence[Stage],
        policy: Policy,
        judges: Scorer,
        settings: Streaming,
        step: int,
        rollouts: int,
    ):
        self.chain = Chain(user)
        self.stages, self.policy, self.judges, self.settings = stages, policy, judges, settings
        self.step, self.rollouts = step, rollouts
        self._began = time.monotonic()
        self._occasion: int | str = step
        self._write_tasks: list[list[asyncio.Task[Rollout]]] = []  # one list a group, in the order of chain.groups
        self._judge_tasks: list[asyncio.Task[None]] = []
        self._baselines: list[asyncio.Task[Reward]] = []

    async def run(self, training: bool = True) -> Chain:
        """Write, judge and (in training) credit all stages. Raises what the rollout engine raises."""
        if not training:
            self._occasion = "validation"
        if training and self.settings.credit == "centered":
            self._baselines = [asyncio.create_task(self._score(None, k, 0)) for k in range(1, len(self.stages))]
        try:
            await self._grow()
            for group, tasks in zip(self.chain.groups, self._write_tasks, strict=True):
                group.rollouts = list(await asyncio.gather(*tasks))
            await asyncio.gather(*self._judge_tasks)
            self.chain.baseline_rewards = list(await asyncio.gather(*self._baselines))
        finally:
            for task in [task for tasks in self._write_tasks for task in tasks] + self._judge_tasks + self._baselines:
                task.cancel()
        if training:
            self._credit()
        self.chain.seconds = self._now()
        return self.chain

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _grow(self) -> None:
        past_summary, parent = None, None
        for k in range(len(self.stages)):
            group = await self._open(k, past_summary, parent)
            if group is None:
                self.chain.lost += self.rollouts * (len(self.stages) - k)
                return
            if k == len(self.stages) - 1:
                return
            past_summary, parent = None, None
            for i in draw_order(self.rollouts, self.settings.seed, self.step, self.chain.user, k):
                rollout = await self._write_tasks[k][i]
                if rollout.answer.well_formed:
                    past_summary, parent, group.drawn = rollout.answer.summary, i, i
                    break

    async def _open(self, k: int, past_summary: str | None, parent: int | None) -> Group | None:
        """Start writing a group; None (and `chain.problem`) where its prompt cannot be made to fit."""
        try:
            prompt = await self.policy.prompt(self.stages[k].interactions, past_summary)
        except HistoryError as error:
            self.chain.problem = f"{TOO_LONG}: stage {k + 1}: {error}"
            return None
        group = Group(k, parent, prompt)
        self.chain.groups.append(group)
        self._write_tasks.append([asyncio.create_task(self._write(group, i)) for i in range(self.rollouts)])
        return group

    async def _write(self, group: Group, i: int) -> Rollout:
        began, k = self._now(), group.stage
        generation = await self.policy.write(
            group.prompt, rollout_seed(self.settings.seed, self._occasion, self.chain.user, k, group.parent, i)
        )
        rollout = Rollout(generation, parse_answer(generation.text, self.settings.form), began, self._now())
        if rollout.answer.well_formed:
            self._judge_tasks.append(asyncio.create_task(self._judge(rollout, k, i)))
        return rollout

    async def _judge(self, rollout: Rollout, k: int, i: int) -> None:
        rollout.reward = await self._score(rollout.answer.summary, k, i)
        rollout.judged = self._now()

    async def _score(self, summary: str | None, k: int, i: int) -> Reward:
        calls = [
            self.judges.score(summary, target, [self.chain.user, k, *([place] if place else [])], i)
            for place, target in enumerate(self.stages[k].targets)
        ]
        return mean_reward(await asyncio.gather(*calls))

    def _credit(self) -> None:
        groups, discount = self.chain.groups, self.settings.discount
        if not groups:
            return
        # A baseline whose judgement failed is replaced by what a judge says that knows nothing.
        baselines = [0.5 if reward.value is None else reward.value for reward in self.chain.baseline_rewards]
        stages = [group.scored() for group in groups]
        parents = [group.drawn for group in groups]
        for group, returns in zip(
            groups,
            stream_returns(stages, parents, self.settings.credit, discount, baselines[: len(stages) - 1]),
        ):
            if too_alike(group.earned(), self.settings.least_spread):
                returns = returns._replace(returns=[None] * len(group.rollouts))
            elif self.settings.shuffle_rewards:
                returns = shuffled(returns, self.settings.seed, self.step, self.chain.user, group.stage)
            group.settle(returns)
