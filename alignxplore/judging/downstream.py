"""What evaluation asks of a downstream model, whichever way it answers: by letters, in free form, or by yes and no."""

from collections.abc import Sequence
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import Judgement, PaperJudgement, Said
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint


class Speaker(Protocol):
    """A model that can be asked to write an answer.

    Attributes:
        form: format of its answers (`FORMATS`).
        answer_tokens: tokens of an answer, at most.
        seed: of drawn orders and sampled answers.
    """

    endpoint: Endpoint
    tokenizer: PreTrainedTokenizerBase
    prompts: PromptSet
    seed: int
    form: str
    answer_tokens: int

    @property
    def name(self) -> str:
        """As it stands in tables and journals."""


class Downstream(Speaker, Protocol):
    """A model that says which item a user will choose. Where a `history` is given, it is read in the place of a
    summary.

    Attributes:
        direct_purpose: template of the direct setting.
        reads_summaries: else it reads histories alone.
        sees_both: items stand in one question, so that their places can matter.
        most_choices: of a history that it reads, the newest ones (None: all that fit).
        most_tokens: of a prompt and its answer (None: as many as the server takes).
        least_mass: what the letters' probability, or the share of readable answers, must be for it to be a judge.
    """

    direct_purpose: str
    reads_summaries: bool
    sees_both: bool
    most_choices: int | None
    most_tokens: int | None
    least_mass: float

    @property
    def items_at_once(self) -> int:
        """Items that can stand in one question."""

    async def check(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """Refuse a model that is none; returns what `least_mass` bounds. `questions`: (what it reads, pair)."""

    async def check_written(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """`check` of what protocol `paper` alone needs of it."""

    async def answer(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> Judgement:
        """P(chosen) of a pair. `key` draws the order where one is asked."""

    async def select(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> PaperJudgement:
        """The item of a pair that it takes, in protocol `paper`."""

    def about(
        self, summary: str | None, history: Sequence[Interaction] | None, query: str | None, items: Sequence[str]
    ) -> Messages:
        """The question about some items of a choice among k, at most `items_at_once`."""

    async def say(self, messages: Messages, count: int) -> Said:
        """What it says of the `count` items of such a question."""

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """A prompt of the direct setting, as long as any that is asked about this pair."""
