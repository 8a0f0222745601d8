"""P(chosen | summary): the one judge, used to filter synthesis, as RL reward and in eval.

The downstream model's answer is prefilled with the start of the JSON (`{"selection": "Item`, cut where the tokenizer
itself cuts the whole answer) and one token is read: p = P(A) / (P(A) + P(B)), or one minus that. Both orders of the
two items are asked by default and averaged, so a judge that always says A scores exactly 50 %. Paper: reward and
evaluation sections; the published protocol samples 16 tokens in one order instead, and models that reason first have
no such position: both are asked in free form (`free_form.py`, `sampled.py`).
"""

from collections.abc import Sequence
from string import ascii_uppercase

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import Reading, Said
from alignxplore.judging.letter_tokens import find_letters, letters_known, letters_of
from alignxplore.judging.summary_judge import SummaryJudge
from alignxplore.judging.token_reader import MIN_MASS, WRITTEN, TokenReader
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint


class Judge(SummaryJudge):
    """A judge of which the probabilities of the letters are read. `remedy`: see `TokenReader`."""

    least_mass = MIN_MASS

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        *,
        orders: str = "both",
        seed: int = 0,
        remedy: str = WRITTEN,
    ):
        super().__init__(endpoint, tokenizer, prompts, orders=orders, seed=seed)
        self.reader = TokenReader(endpoint, tokenizer, find_letters(tokenizer), begun, remedy)

    @property
    def items_at_once(self) -> int:
        """26, or two where only A and B are tokens: these are asked about by the question about a pair."""
        return letters_known(self.tokenizer)

    async def check(self, questions: Sequence[tuple[str | None, Interaction]]) -> float:
        """Refuse a model that does not answer with a letter. Returns the mean mass on the two letters."""
        return await self.reader.check(self._samples(questions))

    async def say(self, messages: Messages, count: int) -> Said:
        """The log-probabilities of the first `count` letters."""
        return await self.reader.read_all(messages, letters_of(self.tokenizer, ascii_uppercase[:count]))

    async def _read(self, messages: Messages) -> Reading:
        return await self.reader.read(messages)


def begun(messages: Messages, prefill: str) -> dict:
    """The request up to a letter: the answer, begun."""
    return {
        "messages": [*messages, {"role": "assistant", "content": prefill}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }
