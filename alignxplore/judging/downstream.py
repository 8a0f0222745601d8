"""What evaluation asks of a downstream model, whichever way it answers: by letters, in free form, or by yes and no."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import Judgement, PaperJudgement, Reading, Said, chosen_first, mean_mass
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.failures import UNANSWERED, failed

ORDERS = ("both", "one")


class Downstream(ABC):
    """A model behind an endpoint that says which item a user will choose. Where a `history` is given, it is read in
    the place of a summary.

    Args:
        endpoint: connected endpoint of the model.
        tokenizer: the tokenizer of that model.
        prompts: the prompt set.
        orders: "both", or "one" drawn from a hash of the key and `seed`.
        seed: of drawn orders and sampled answers.

    Attributes:
        form: format of its written answers (`FORMATS`).
        answer_tokens: tokens of such an answer, at most.
        direct_purpose: template of the direct setting.
        reads_summaries: else it reads histories alone.
        sees_both: items stand in one question, so that their places can matter.
        most_choices: of a history that it reads, the newest ones (None: all that fit).
        most_tokens: of a prompt and its answer (None: as many as the server takes).
        least_mass: what the letters' probability, or the share of readable answers, must be for it to be a judge.
    """

    form = "plain"
    answer_tokens = 16
    direct_purpose: str
    reads_summaries: bool
    sees_both: bool
    most_choices: int | None = None
    most_tokens: int | None = None
    least_mass: float

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        *,
        orders: str = "both",
        seed: int = 0,
    ):
        if orders not in ORDERS:
            raise ValueError(f"orders must be one of {', '.join(ORDERS)}, not '{orders}'")
        self.endpoint, self.tokenizer, self.prompts = endpoint, tokenizer, prompts
        self.orders, self.seed = orders, seed

    @property
    def name(self) -> str:
        """As it stands in tables and journals."""
        return self.endpoint.name

    @property
    @abstractmethod
    def items_at_once(self) -> int:
        """Items that can stand in one question."""

    @abstractmethod
    async def check(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """Refuse a model that is none; returns what `least_mass` bounds. `questions`: (what it reads, pair)."""

    @abstractmethod
    async def check_written(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """`check` of what protocol `paper` alone needs of it."""

    @abstractmethod
    async def answer(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> Judgement:
        """P(chosen) of a pair. `key` draws the order where one is asked."""

    @abstractmethod
    async def select(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> PaperJudgement:
        """The item of a pair that it takes, in protocol `paper`."""

    @abstractmethod
    def about(
        self, summary: str | None, history: Sequence[Interaction] | None, query: str | None, items: Sequence[str]
    ) -> Messages:
        """The question about some items of a choice among k, at most `items_at_once`."""

    @abstractmethod
    async def say(self, messages: Messages, count: int) -> Said:
        """What it says of the `count` items of such a question."""

    @abstractmethod
    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """A prompt of the direct setting, as long as any that is asked about this pair."""

    @abstractmethod
    def _sample(self, context: Any, item: Interaction) -> Messages:
        """A prompt to check it on; `context` is what it reads."""

    @abstractmethod
    async def _read(self, messages: Messages) -> Reading:
        """What it answers to one question about a pair."""

    def _samples(self, questions: Sequence[tuple[Any, Interaction]]) -> list[Messages]:
        if not questions or any(item.rejected is None for _, item in questions):
            raise ValueError("a judge is checked on at least one interaction, each with an alternative")
        return [self._sample(context, item) for context, item in questions]

    async def _both(self, build: Callable[[str, str], Messages], item: Interaction, key: Any) -> Judgement:
        """The question of a pair that `build` makes of its items, in the orders that are to be asked."""
        if item.rejected is None:
            raise ValueError("only an interaction with an alternative can be judged")
        with_first = self.orders == "both" or chosen_first("judge order", key, self.seed)
        with_second = self.orders == "both" or not with_first
        pairs = [(item.chosen, item.rejected)] * with_first + [(item.rejected, item.chosen)] * with_second
        try:
            readings = await asyncio.gather(*(self._read(build(a, b)) for a, b in pairs))
        except UNANSWERED as error:
            return Judgement(**failed(error))
        return Judgement(
            p_chosen_first=readings[0].p_a if with_first else None,
            p_chosen_second=1 - readings[-1].p_a if with_second else None,
            mass=mean_mass(reading.mass for reading in readings),
            unparsed=sum(reading.unread is not None for reading in readings),
            unread=tuple(reading.unread for reading in readings if reading.unread is not None),
        )
