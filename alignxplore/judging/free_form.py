"""Downstream models that reason first, their final answer read. Eval asks through here in the place of `Judge` where a
downstream model has a format with reasoning (`--judge_format`; gpt-oss, thinking modes).

Such a model has no position whose letters' probabilities would say how sure it is, so each order gives 1 or 0: mean p
and AUC are those of votes. An answer that names no item is no opinion (0.5) and is counted; in protocol `paper` it is
wrong, as published.
"""

from collections.abc import Sequence
from string import ascii_uppercase

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import Reading, Said
from alignxplore.judging.letter_tokens import MOST
from alignxplore.judging.sampled import MIN_PARSED, ask_selection
from alignxplore.judging.summary_judge import SummaryJudge
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint

_VOTE = 20.0  # log-odds of an item that a free answer names: far from the others, and alike for all


class ReasoningJudge(SummaryJudge):
    """A judge whose answers are written in `form` (a format with reasoning) and take at most `answer_tokens` tokens.

    Sampled as published (models that reason repeat themselves when greedy), with a seed from the content of the
    question.
    """

    least_mass = MIN_PARSED
    items_at_once = MOST  # it writes letters, which needs no tokens of their own

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        form: str,
        *,
        orders: str = "both",
        seed: int = 0,
        answer_tokens: int = 2048,
    ):
        super().__init__(endpoint, tokenizer, prompts, orders=orders, seed=seed)
        self.form, self.answer_tokens = form, answer_tokens

    async def check(self, questions: Sequence[tuple[str | None, Interaction]]) -> float:
        """All of its answers are written."""
        return await self.check_written(questions)

    async def _read(self, messages: Messages) -> Reading:
        selection, unread = await ask_selection(self, messages, hash_seed("free answer", messages, self.seed))
        return Reading(0.5 if selection is None else float(selection == "Item A"), None, unread)

    async def say(self, messages: Messages, count: int) -> Said:
        """A vote for one of the items."""
        names = ascii_uppercase[:count]
        selection, unread = await ask_selection(self, messages, hash_seed("free answer", messages, self.seed), names)
        return Said([_VOTE * (selection == f"Item {name}") for name in names], None, unread)
