"""What a teacher is shown of a target: its pair in an order that says nothing; and which drafts a merge leaves out."""

import re

import pytest

from alignxplore.prompts import Answer, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.models import Model
from alignxplore.summarize import Sampling
from alignxplore.synthesis.rounds import Stopped, Thresholds, Workshop, Written, fit_merge, hint_messages
from tests.synthesis.teachers import ITEMS

PAIR = Interaction("the chosen one", "the other one", "Which?")


@pytest.fixture
def workshop(tokenizer):
    """`workshop(window)`: one whose teacher is asked nothing."""

    def make(window: int = 16384) -> Workshop:
        teacher, sampling = Model("t", None, tokenizer, "t"), Sampling(max_tokens=64)
        return Workshop(teacher, None, PromptSet(), sampling, Thresholds(), window, None, "x")

    return make


def test_the_chosen_item_is_named_first_as_often_as_not_and_always_alike_for_a_draft(workshop):
    """Else a teacher could learn from the place what the user will choose."""

    def prompts():
        return [hint_messages(workshop(), ITEMS[:2], "", PAIR, ("user", 1, i)) for i in range(200)]

    heads = [re.search(r"^Item A: (.*)$", messages[-1]["content"], re.MULTILINE)[1] for messages in prompts()]
    assert set(heads) == {PAIR.chosen, PAIR.rejected} and 70 <= heads.count(PAIR.chosen) <= 130
    assert prompts() == prompts()
    other = [re.search(r"^Item B: (.*)$", messages[-1]["content"], re.MULTILINE)[1] for messages in prompts()]
    assert all({a, b} == {PAIR.chosen, PAIR.rejected} for a, b in zip(heads, other))


async def test_the_hints_of_a_run_hold_both_orders(through):
    _, requests = await through()
    hints = [text for is_judged, text in requests if not is_judged and "next have to choose" in text]
    heads = [re.search(r"^Item A: (\w+) thing", text, re.MULTILINE)[1] for text in hints]
    assert len(heads) == 10 and set(heads) == {"red", "blue"}


def drafts_of(*words: int):
    answers = [Answer("red " * count, "Likes red.") for count in words]
    return [(Written(str(count), answer), item) for count, answer, item in zip(words, answers, ITEMS)]


@pytest.mark.parametrize("words", [(30, 90, 60, 40), (90, 30, 40, 60), (40, 60, 30, 90)])
def test_a_merge_that_is_too_long_leaves_the_longest_draft_out(workshop, words):
    drafts = drafts_of(*words)
    others = [(draft, target) for draft, target in drafts if draft.call != "90"]
    _, messages = fit_merge(workshop(), others)
    window = workshop().tokens(messages, is_merge=True) + 64
    assert fit_merge(workshop(window), drafts) == (others, messages)
    assert fit_merge(workshop(), drafts)[0] == drafts
    with pytest.raises(Stopped, match="merge_too_long"):
        fit_merge(workshop(window - 1), drafts)
