"""P(Yes) of an item: how a recommender in TALLRec's style is scored. Eval uses it in the place of `Judge`
(`--judge_format yes_no`).

Such a model (`sft/tallrec.py`) reads a history and one item and answers Yes or No. Each item of a pair is asked about
by itself; the chosen one is foreseen where its P(Yes) = P("Yes") / (P("Yes") + P("No")) is the greater of the two. As
a `Judgement`: `p_chosen_first` = P(Yes) of the chosen item, `p_chosen_second` = 1 - P(Yes) of the other, so that p >
0.5 says just that, and AUC is TALLRec's own: P(Yes) of chosen against passed-over items. TALLRec: arXiv 2305.00447.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.judgement import JudgeError, Judgement, PaperJudgement, Reading, Said, chosen_first
from alignxplore.judging.letter_tokens import Letters
from alignxplore.judging.token_reader import MIN_MASS, TokenReader
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint

ANSWERS = ("Yes", "No")
MOST_CHOICES, MOST_TOKENS = 50, 8192  # of a history, the newest ones, and of a row: in training as in evaluation


def find_words(tokenizer: PreTrainedTokenizerBase) -> tuple[Letters, bool]:
    """(first token of each answer where a trained answer stands, whether the chat template is to be asked for
    reasoning).

    Qwen3's template puts an empty think block before an answer without reasoning, and so does a prompt that asks for
    none.

    Raises:
        JudgeError: the template offers no prompt after which a trained answer would begin at once.
    """
    question = [{"role": "user", "content": "?"}]
    full_ids = [
        tokenizer.apply_chat_template(
            [*question, {"role": "assistant", "content": word}], tokenize=True, return_dict=False
        )
        for word in ANSWERS
    ]
    for thinking in (False, True):
        prompt_ids = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=thinking
        )
        answer_ids = [ids[len(prompt_ids) :] for ids in full_ids if ids[: len(prompt_ids)] == prompt_ids]
        if len(answer_ids) == 2 and answer_ids[0][0] != answer_ids[1][0]:
            tokens = (answer_ids[0][0], answer_ids[1][0])
            return Letters("", tokens, tuple(tokenizer.decode([token]) for token in tokens)), thinking
    raise JudgeError(
        "this chat template writes something before a trained answer that no prompt ends in: Yes and No cannot be read"
    )


class YesNoJudge(Downstream):
    """A model that says of one item whether a user will like it. It reads histories only; see the module's
    docstring."""

    direct_purpose = "tallrec"
    reads_summaries = False
    sees_both = False
    most_choices = MOST_CHOICES
    most_tokens = MOST_TOKENS
    least_mass = MIN_MASS
    items_at_once = 1

    def __init__(self, endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase, prompts: PromptSet, *, seed: int = 0):
        super().__init__(endpoint, tokenizer, prompts, seed=seed)  # both orders: one item says nothing of a pair
        words, thinking = find_words(tokenizer)
        self.reader = TokenReader(endpoint, tokenizer, words, partial(_opened, thinking))

    async def check(self, questions: Sequence[tuple[Sequence[Interaction], Interaction]]) -> float:
        """Refuse a model that answers neither. Returns the mean mass on Yes and No."""
        return await self.reader.check(self._samples(questions))

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """The question about the longer of the two items."""
        return self.about(None, history, item.query, [max(item.chosen, item.rejected or "", key=len)])

    def about(
        self, summary: str | None, history: Sequence[Interaction] | None, query: str | None, items: Sequence[str]
    ) -> Messages:
        """The question about one item."""
        (text,) = items
        return self.prompts.render("tallrec", interactions=history or (), query=query, item=text)

    async def say(self, messages: Messages, count: int) -> Said:
        """P(Yes) of one item."""
        reading = await self.reader.read(messages)
        return Said([reading.p_a], reading.mass)

    async def check_written(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """It writes nothing, and is read the same way in protocol `paper`."""
        return await self.check(questions)

    async def answer(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> Judgement:
        """P(Yes) of both items of a pair, after the raw history."""
        return await self._both(lambda candidate, _: self.about(None, history, item.query, [candidate]), item, key)

    async def select(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> PaperJudgement:
        """The same for protocol `paper`: the item with the greater P(Yes) is its selection (none where they are
        equal)."""
        judgement = await self.answer(summary, history, item, key)
        is_chosen_first = chosen_first("paper order", key, self.seed)
        selection = None
        if judgement.ok and judgement.correct != 0.5:
            selection = "Item A" if (judgement.correct == 1.0) == is_chosen_first else "Item B"
        return PaperJudgement(judgement.status, "A" if is_chosen_first else "B", selection, judgement.error)

    def _sample(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        return self.direct_messages(history, item)

    async def _read(self, messages: Messages) -> Reading:
        return await self.reader.read(messages)


def _opened(thinking: bool, messages: Messages, _: str) -> dict:
    """The request up to the answer, nothing of which is written beforehand."""
    return {"messages": messages, "chat_template_kwargs": {"enable_thinking": thinking}}
