"""P(Yes) of an item: how a recommender in TALLRec's style is scored. Eval uses it in the place of `Judge`
(`--judge_format yes_no`).

Such a model (`sft/tallrec.py`) reads a history and one item and answers Yes or No. Each item of a pair is asked about
by itself; the chosen one is foreseen where its P(Yes) = P("Yes") / (P("Yes") + P("No")) is the greater of the two. As
a `Judgement`: `p_chosen_first` = P(Yes) of the chosen item, `p_chosen_second` = 1 - P(Yes) of the other, so that p >
0.5 says just that, and AUC is TALLRec's own: P(Yes) of chosen against passed-over items. TALLRec: arXiv 2305.00447.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.free_form import PaperJudgement
from alignxplore.judging.letters import Judge, JudgeError, Judgement, Letters, Reading, chosen_first
from alignxplore.prompts import Messages
from alignxplore.records import Interaction

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
    whole = [
        tokenizer.apply_chat_template(
            [*question, {"role": "assistant", "content": word}], tokenize=True, return_dict=False
        )
        for word in ANSWERS
    ]
    for thinking in (False, True):
        opened = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=thinking
        )
        rest = [ids[len(opened) :] for ids in whole if ids[: len(opened)] == opened]
        if len(rest) == 2 and rest[0][0] != rest[1][0]:
            tokens = (rest[0][0], rest[1][0])
            return Letters("", tokens, tuple(tokenizer.decode([token]) for token in tokens)), thinking
    raise JudgeError(
        "this chat template writes something before a trained answer that no prompt ends in: Yes and No cannot be read"
    )


class YesNoJudge(Judge):
    """A model that says of one item whether a user will like it. It reads histories only; see the module's
    docstring."""

    direct_purpose = "tallrec"
    sees_both = False

    def _prepare(self) -> None:
        self.letters, self._thinking = find_words(self.tokenizer)
        self._reads_ids, self.orders = None, "both"  # one item alone would say nothing of the pair

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """The question about the longer of the two items."""
        return self._about(history, item, max(item.chosen, item.rejected or "", key=len))

    def _about(self, history: Sequence[Interaction], item: Interaction, text: str) -> Messages:
        return self.prompts.render("tallrec", interactions=history, query=item.query, item=text)

    async def read_one(self, history: Sequence[Interaction], item: Interaction, text: str) -> Reading:
        """P(Yes) of one text in the place of an item."""
        return await self._read(self._about(history, item, text))

    def sample_messages(self, known: Sequence[Interaction], item: Interaction) -> Messages:
        return self.direct_messages(known, item)

    async def score(self, summary: str | None, item: Interaction, key: Any) -> Judgement:
        raise JudgeError(f"{self.name} is a yes/no model: it reads histories, not summaries")

    async def score_direct(self, history: Sequence[Interaction], item: Interaction, key: Any) -> Judgement:
        """P(Yes) of both items of a pair, after the raw history."""
        return await self._both(lambda asked, _: self._about(history, item, asked), item, key)

    async def select(self, history: Sequence[Interaction], item: Interaction, key: Any) -> PaperJudgement:
        """The same for protocol `paper`: the item with the greater P(Yes) is its selection (none where they are
        equal)."""
        found = await self.score_direct(history, item, key)
        first = chosen_first("paper order", key, self.seed)
        selection = None
        if found.ok and found.correct != 0.5:
            selection = "Item A" if (found.correct == 1.0) == first else "Item B"
        return PaperJudgement(found.status, "A" if first else "B", selection, found.error)

    def opened(self, messages: Messages) -> dict:
        return {"messages": messages, "chat_template_kwargs": {"enable_thinking": self._thinking}}
