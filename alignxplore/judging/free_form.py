"""Downstream models asked in free form, their final answer read: the published protocol, and models that reason first.

Eval asks through here in protocol `paper` (`ask_paper`), and in the place of `Judge` where a downstream model has a
format with reasoning (`--judge_format`; gpt-oss, thinking modes). Such a model has no position whose letters'
probabilities would say how sure it is, so each order gives 1 or 0: mean p and AUC are those of votes. An answer that
names no item is no opinion (0.5) and is counted; in protocol `paper` it is wrong, as published.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR
from alignxplore.judging.letters import Judge, JudgeError, Reading, chosen_first, taken
from alignxplore.prompts import FORMATS, Messages, PromptSet, parse_answer
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError
from alignxplore.serving.replies import said

# Published sampling of the judge: temperature 0.6, top_p 0.95, top_k 20, 16 new tokens (2,048 for models that reason).
PAPER_SAMPLING: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
MIN_PARSED = 0.5  # share of the first answers that must name an item


class ReasoningJudge(Judge):
    """A judge whose answers are written in `form` (a format with reasoning) and take at most `answer_tokens` tokens.

    Sampled as published (models that reason repeat themselves when greedy), with a seed from the content of the
    question.
    """

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

    def _prepare(self) -> None:
        """No letters to find: any tokenizer will do."""

    async def check(self, questions: Sequence[tuple[str | None, Interaction]]) -> float:
        """Refuse a model most of whose answers name no item. Returns the share that does.

        Raises:
            JudgeError: fewer than half of the answers could be read; what to look at first is the format.
        """
        messages = [self.prompts.judge(summary, item.query, *item.items) for summary, item in questions]
        _, read = await taken(messages, self._read)
        share = sum(reading.unread is None for reading in read) / len(read)
        if share < MIN_PARSED:
            raise JudgeError(
                f"{self.name} is no judge: only {share:.0%} of its answers name an item when read as '{self.form}' "
                f"within {self.answer_tokens} tokens; give its format by --judge_format, or a larger --answer_tokens"
            )
        return share

    async def _read(self, messages: Messages) -> Reading:
        selection, unread = await ask_selection(self, messages, hash_seed("free answer", messages, self.seed))
        return Reading(0.5 if selection is None else float(selection == "Item A"), None, unread)


@dataclass(frozen=True)
class PaperJudgement:
    """One sampled answer of the published protocol; `selection` None means that it could not be parsed (counted
    wrong), and `unread` is then what was answered."""

    status: str = OK
    chosen_letter: str = "A"
    selection: str | None = None
    error: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def correct(self) -> float:
        """1 if the chosen item was selected, else 0. A failed request has no answer that could be wrong."""
        if not self.ok:
            raise JudgeError(f"a failed request has no answer ({self.status}: {self.error})")
        return float(self.selection == f"Item {self.chosen_letter}")

    def row(self) -> dict:
        """JSON form."""
        said = {"status": self.status, "letter": self.chosen_letter, "selection": self.selection, "error": self.error}
        return said | ({"unread": self.unread} if self.unread else {})


async def ask_paper(
    judge: Judge, summary: str | None, item: Interaction, key: Any, history: Sequence[Interaction] | None = None
) -> PaperJudgement:
    """The published protocol: one order by hash, a sampled answer, exact match of the selection. `history`: read
    instead of a summary."""
    letter = "A" if chosen_first("paper order", key, judge.seed) else "B"
    a, b = item.items if letter == "A" else item.items[::-1]
    if history is None:
        messages = judge.prompts.judge(summary, item.query, a, b)
    else:
        messages = judge.prompts.direct(history, item.query, a, b)
    try:
        selection, unread = await ask_selection(judge, messages, hash_seed("paper answer", key, judge.seed))
    except TransportError as error:
        return PaperJudgement(TRANSPORT_ERROR, letter, error=str(error)[:300])
    except RequestError as error:
        return PaperJudgement(REFUSED, letter, error=str(error)[:300])
    return PaperJudgement(chosen_letter=letter, selection=selection, unread=() if unread is None else (unread,))


async def ask_selection(
    judge: Judge, messages: Messages, seed: int, letters: str = "AB"
) -> tuple[str | None, str | None]:
    """A sampled answer in the judge's own format: (the item that its final part selects, None), or where it names none
    (None, the whole answer)."""
    form = FORMATS[judge.form]
    reply = await judge.endpoint.chat(
        messages,
        max_tokens=judge.answer_tokens,
        seed=seed,
        chat_template_kwargs={"enable_thinking": form.reasons},
        skip_special_tokens=not form.control_tokens,
        **PAPER_SAMPLING,
    )
    answer = said(reply)
    selection = parse_selection(parse_answer(answer, judge.form).summary, letters)
    return selection, answer if selection is None else None


def parse_selection(text: str, letters: str = "AB") -> str | None:
    """The `selection` of the last JSON object in a free answer (any text may stand before it); None if there is none,
    or if it is of no item of these `letters`."""
    decoder, items = json.JSONDecoder(), [f"Item {letter}" for letter in letters]
    for start in reversed([i for i, c in enumerate(text) if c == "{"]):
        try:
            value, _ = decoder.raw_decode(text[start:])
        except (ValueError, RecursionError):  # a model that repeats itself can nest brackets without end
            continue
        if value.get("selection") in items:
            return value["selection"]
    return None
