"""Stages and the token budget: nothing is lost silently, nothing is cut inside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.history import CHARACTERS, HistoryError, fit, protocol_slices, split_stages, too_old
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.summarize import count_tokens, fit_prompt


@given(st.integers(1, 60), st.integers(1, 9))
def test_stages_partition_the_history(n, stages):
    slices = split_stages(list(range(n)), stages)
    assert [x for part in slices for x in part] == list(range(n))
    assert len(slices) == min(n, stages)
    sizes = [len(part) for part in slices]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1 and sizes[-1] >= sizes[0]


def test_known_stages():
    assert split_stages("abcde", 2) == [("a", "b"), ("c", "d", "e")]
    assert split_stages("ab", 5) == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("n", "task", "stages", "expected"),
    [
        (9, "recommendation", 1, [(0, 1, 2, 3, 4, 5)]),
        (9, "recommendation", 2, [(0, 1, 2), (3, 4, 5)]),  # third 1, then third 2
        (9, "recommendation", 3, [(0, 1), (2, 3), (4, 5)]),
        (11, "recommendation", 2, [(0, 1, 2), (3, 4, 5)]),
        (3, "recommendation", 2, [(0,), (1,)]),
        (2, "recommendation", 2, [(0,)]),
        (1, "recommendation", 2, [(0,)]),
        (4, "selection", 1, [(0, 1, 2, 3)]),
        (4, "selection", 2, [(0, 1), (2, 3)]),
        (1, "selection", 2, [(0,)]),
        (4, "generation", 2, [(0, 1), (2, 3)]),
    ],
)
def test_published_protocol(n, task, stages, expected):
    assert protocol_slices(range(n), task, stages) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda: split_stages([1], 0),
        lambda: split_stages([], 2),
        lambda: protocol_slices([1], "chess", 1),
    ],
)
def test_impossible_cuts_are_errors(call):
    with pytest.raises(HistoryError):
        call()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 29), st.sampled_from([-1, 0, 1]))
def test_fit_drops_the_fewest_oldest(sizes, rest, near):
    """Budgets at and beside the edge where one interaction more would fit."""

    def count(xs):
        return 10 + sum(xs)

    budget = count(sizes[-rest - 1 :]) + near

    if 10 + sizes[-1] > budget:
        with pytest.raises(HistoryError, match=f"takes {10 + sizes[-1]} tokens .* the budget is {budget}"):
            fit(sizes, count, budget)
        return
    fitted = fit(sizes, count, budget)
    assert (
        fitted.interactions == tuple(sizes[fitted.dropped :]) and fitted.tokens == count(fitted.interactions) <= budget
    )
    assert fitted.dropped == 0 or count(sizes[fitted.dropped - 1 :]) > budget


@pytest.mark.parametrize("count", range(1, 7))
def test_fit_uses_the_budget_to_the_last_token(count):
    sizes = [3, 1, 4, 1, 5, 9]
    fitted = fit(sizes, sum, sum(sizes[-count:]))
    assert fitted == (tuple(sizes[-count:]), 6 - count, sum(sizes[-count:]))


def test_fit_counts_seldom():
    calls = []
    fit(list(range(1000)), lambda xs: calls.append(1) or len(xs), 10)
    assert len(calls) < 15


@pytest.mark.parametrize("past", [None, "Likes the sea."])
def test_a_history_longer_than_the_context_keeps_instruction_and_newest(tokenizer, past):
    prompts = PromptSet()
    history = [Interaction(f"film number {i} by the sea", f"car chase number {i}", "Which film?") for i in range(200)]
    fitted = fit_prompt(tokenizer, prompts, history, past, 900)
    messages = prompts.infer(fitted.interactions, past)
    assert fitted.dropped > 100 and len(fitted.interactions) + fitted.dropped == 200
    assert fitted.tokens == count_tokens(tokenizer, messages) <= 900
    assert count_tokens(tokenizer, prompts.infer(history[fitted.dropped - 1 :], past)) > 900
    full_text, text = prompts.infer(history, past)[-1]["content"], messages[-1]["content"]
    assert text.endswith(full_text[full_text.index("Describe the user's preferences") :])
    assert ("Likes the sea." in text) is (past is not None)
    for x in fitted.interactions:
        assert f"Chosen: {x.chosen}\n" in text and f"Passed over: {x.rejected}\n" in text
    assert f"film number {fitted.dropped - 1} by" not in text


def test_count_tokens_counts_what_the_server_will_see(tokenizer):
    messages = [{"role": "user", "content": "a film"}]
    for thinking in (True, False):
        text = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, enable_thinking=thinking
        )
        assert count_tokens(tokenizer, messages, thinking) == len(tokenizer.encode(text, add_special_tokens=False))
    assert count_tokens(tokenizer, messages, False) > count_tokens(tokenizer, messages, True)


def test_what_no_budget_could_hold_is_not_tokenised():
    history = [Interaction("a" * CHARACTERS, "b" * CHARACTERS) for _ in range(10)]
    assert [too_old(history, budget) for budget in (2, 5, 6, 20, 21)] == [9, 8, 7, 0, 0]
    with pytest.raises(
        HistoryError, match="takes more than 1 tokens with the newest interaction alone: its items have"
    ):
        too_old(history, 1)
