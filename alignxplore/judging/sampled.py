"""Written answers that select an item: the published protocol, and all that models which reason first can give."""

import json
from collections.abc import Sequence
from typing import Any

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.judgement import JudgeError, PaperJudgement, chosen_first, taken
from alignxplore.prompts import FORMATS, Messages, parse_answer
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.failures import UNANSWERED, failed
from alignxplore.serving.replies import said

# Published sampling of the judge: temperature 0.6, top_p 0.95, top_k 20, 16 new tokens (2,048 for models that reason).
PAPER_SAMPLING: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
MIN_PARSED = 0.5  # share of the first answers that must name an item


async def check_written(judge: Downstream, questions: Sequence[Messages]) -> float:
    """Refuse a model most of whose written answers name no item. Returns the share that does.

    Raises:
        JudgeError: fewer than half of the answers could be read; what to look at first is the format.
    """
    _, answers = await taken(
        questions, lambda messages: ask_selection(judge, messages, hash_seed("free answer", messages, judge.seed))
    )
    share = sum(unread is None for _, unread in answers) / len(answers)
    if share < MIN_PARSED:
        raise JudgeError(
            f"{judge.name} is no judge: only {share:.0%} of its answers name an item when read as '{judge.form}' "
            f"within {judge.answer_tokens} tokens; give its format by --judge_format, or a larger --answer_tokens"
        )
    return share


async def ask_paper(
    judge: Downstream, summary: str | None, item: Interaction, key: Any, history: Sequence[Interaction] | None = None
) -> PaperJudgement:
    """The published protocol: one order by hash, a sampled answer, exact match of the selection. `history`: read
    instead of a summary."""
    letter = "A" if chosen_first("paper order", key, judge.seed) else "B"
    a, b = item.items if letter == "A" else item.items[::-1]
    messages = judge.prompts.pair(summary, history, item.query, a, b)
    try:
        selection, unread = await ask_selection(judge, messages, hash_seed("paper answer", key, judge.seed))
    except UNANSWERED as error:
        return PaperJudgement(chosen_letter=letter, **failed(error))
    return PaperJudgement(chosen_letter=letter, selection=selection, unread=() if unread is None else (unread,))


async def ask_selection(
    judge: Downstream, messages: Messages, seed: int, letters: str = "AB"
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
    """The `selection` of the last JSON object that has one in a free answer (any text may stand around it); None if
    there is none, or if it is of no item of these `letters`: what was said before is taken back."""
    decoder, items = json.JSONDecoder(), [f"Item {letter}" for letter in letters]
    for start in reversed([i for i, c in enumerate(text) if c == "{"]):
        try:
            value, _ = decoder.raw_decode(text[start:])
        except (ValueError, RecursionError):  # a model that repeats itself can nest brackets without end
            continue
        if "selection" in value:
            return value["selection"] if value["selection"] in items else None
    return None
