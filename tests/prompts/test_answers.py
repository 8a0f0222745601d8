"""The answer parser: every format that a policy or a downstream model may answer in, and what breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.prompts import FORMATS, Answer, answer_text, parse_answer, parse_merge


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<think>why</think>what", None),
        ("\n <think>\nwhy\n</think>\n\nwhat\n", None),
        ("<think>why", "unfinished reasoning"),
        ("<think>why</think>", "empty summary"),
        ("<think>why</think> \n", "empty summary"),
        ("<think> \n</think>what", "empty reasoning"),
        ("<think></think>", "empty reasoning"),
        ("what", "not exactly one think block"),
        ("", "not exactly one think block"),
        ("why</think>what", "not exactly one think block"),
        ("<think>a</think>b<think>c</think>d", "not exactly one think block"),
        ("<think>a<think>b</think>c", "not exactly one think block"),
        ("<think>a</think>b</think>c", "not exactly one think block"),
        ("Sure. <think>why</think>what", "text before the think block"),
        ("</think>why<think>what", "text before the think block"),
        ("</think><think>", "text before the think block"),
    ],
)
def test_parser_table(text, problem):
    answer = parse_answer(text)
    assert answer.problem == problem and answer.well_formed is (problem is None)
    assert (answer.reasoning, answer.summary) == (("why", "what") if problem is None else ("", ""))


@pytest.mark.parametrize(
    ("text", "summary", "problem"),
    [
        (" what\n", "what", None),
        ("<think>\n\n</think>\n\nwhat", "what", None),  # Qwen3 without thinking repeats its empty block
        ("", "", "empty summary"),
        ("<think></think> \n", "", "empty summary"),
        ("<think>why</think>what", "", "reasoning in an answer without"),
        ("<think></think>what<think>", "", "reasoning in an answer without"),
    ],
)
def test_an_answer_without_reasoning(text, summary, problem):
    answer = parse_answer(text, "plain")
    assert (answer.reasoning, answer.summary, answer.problem) == ("", summary, problem)


CHANNELS = "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>what"


@pytest.mark.parametrize(
    ("form", "text", "problem"),
    [
        ("r1", "why</think>what", None),
        ("r1", "<think>\nwhy\n</think>\n\nwhat", None),  # a template that leaves the opening tag to the model
        ("r1", "why", "unfinished reasoning"),
        ("r1", "</think>what", "empty reasoning"),
        ("r1", "why</think>", "empty summary"),
        ("r1", "why</think>what</think>", "not exactly one think block"),
        ("r1", "", "unfinished reasoning"),
        ("answer", "<think>why</think><answer>what</answer>", None),
        ("answer", "why\n</think>\n\n<answer>\nwhat\n</answer>\n", None),
        ("answer", "<think>why</think>what", "not exactly one answer block"),
        ("answer", "<think>why</think><answer>what", "not exactly one answer block"),
        ("answer", "<think>why</think><answer>what</answer><answer>what</answer>", "not exactly one answer block"),
        ("answer", "<think>why</think><answer><answer>what</answer>", "not exactly one answer block"),
        ("answer", "<think>why</think><answer>what</answer> So.", "not exactly one answer block"),
        ("answer", "<think>why</think><answer> </answer>", "empty summary"),
        ("answer", "<think>why <answer>what</answer>", "unfinished reasoning"),
        ("harmony", CHANNELS, None),
        ("harmony", CHANNELS + "<|return|>", None),
        ("harmony", "<think>\nwhy\n</think>\n\nwhat", None),  # the server took the channels apart
        ("harmony", CHANNELS.replace("what", ""), "empty summary"),
        ("harmony", CHANNELS.split("<|end|>")[0], "unfinished reasoning"),
        (
            "harmony",
            CHANNELS + "<|end|><|start|>assistant<|channel|>final<|message|>no, this",
            "not exactly one final channel",
        ),
        ("harmony", "analysiswhyassistantfinalwhat", "channels without their control tokens"),
        ("harmony", "analysiswhy", "channels without their control tokens"),
        ("harmony", "", "empty summary"),
    ],
)
def test_formats_of_other_models(form, text, problem):
    answer = parse_answer(text, form)
    assert (answer.reasoning, answer.summary, answer.problem) == (
        ("why", "what", None) if problem is None else ("", "", problem)
    )


def test_a_final_channel_may_come_alone_and_reasoning_in_pieces():
    alone = "<|channel|>final<|message|>what"
    assert parse_answer(alone, "harmony") == parse_answer("what", "harmony") == Answer("", "what")
    pieces = (
        "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>commentary<|message|>so<|end|><|start|>assistant"
        + alone
    )
    assert parse_answer(pieces, "harmony") == Answer("why\nso", "what")


def test_an_answer_is_the_same_whether_or_not_the_server_took_the_reasoning_out():
    for field in ("reasoning", "reasoning_content"):
        message = {"content": "what", field: "why"}
        assert all(
            parse_answer(answer_text(message), form) == Answer("why", "what") for form in ("think", "r1", "harmony")
        )
        assert parse_answer(answer_text(message | {"content": "<answer>what</answer>"}), "answer") == Answer(
            "why", "what"
        )
        for form in ("think", "r1", "answer", "harmony"):  # cut off while it reasoned
            assert parse_answer(answer_text({"content": None, field: "why"}), form).problem == "unfinished reasoning"


@given(
    st.sampled_from(list(FORMATS)),
    st.text()
    | st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                "<answer>",
                "</answer>",
                "<|channel|>",
                "analysis",
                "final",
                "<|message|>",
                "<|end|>",
                "a",
                " ",
            ]
        )
    ).map("".join),
)
def test_no_format_raises_and_what_breaks_it_gives_no_summary(form, text):
    answer = parse_answer(text, form)
    assert bool(answer.summary) is answer.well_formed and not (answer.reasoning and not answer.well_formed)
    assert "think>" not in answer.summary or form == "harmony"


plain = st.text(min_size=1).filter(lambda text: text.strip() and "think>" not in text)


@given(plain, plain, st.sampled_from(["", "\n", "\n\n", " "]))
def test_parser_takes_a_well_formed_answer_apart(reasoning, summary, gap):
    answer = parse_answer(f"{gap}<think>{gap}{reasoning}{gap}</think>{gap}{summary}")
    assert answer.well_formed and (answer.reasoning, answer.summary) == (reasoning.strip(), summary.strip())


@given(st.text() | st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "think>"])).map("".join))
def test_parser_never_raises_and_is_well_formed_only_for_one_block(text):
    answer = parse_answer(text)
    if answer.well_formed:
        assert text.count("<think>") == text.count("</think>") == 1 and text.strip().startswith("<think>")
        assert answer.reasoning and answer.summary
    else:
        assert answer.reasoning == answer.summary == ""


JOINED = "<joined_reasoning>\nwhy\n</joined_reasoning>\n<joined_description>\nwhat\n</joined_description>"


@pytest.mark.parametrize(
    "text",
    [JOINED, f"\n{JOINED}\n", f"<think>Annotator 1 says so.</think>\n\n{JOINED}", f"<think>{JOINED}</think>{JOINED}"],
)
def test_of_a_merge_the_joined_parts_are_taken_and_no_thought(text):
    assert parse_merge(text) == Answer("why", "what")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<think>\nwhy\n</think>\n\nwhat", "not one joined reasoning and one joined description"),
        (f"Here you are:\n{JOINED}", "not one joined reasoning and one joined description"),
        (JOINED + JOINED, "not one joined reasoning and one joined description"),
        (JOINED.removesuffix("</joined_description>"), "not one joined reasoning and one joined description"),
        (f"<think>\n{JOINED} is what they want", "not one joined reasoning and one joined description"),
        (JOINED.replace("why", ""), "empty reasoning"),
        (JOINED.replace("what", " "), "empty summary"),
        (JOINED.replace("why", "<think>why"), "not exactly one think block"),
        (JOINED.replace("why", "annotator 2 says why"), "names the annotators"),
        (JOINED.replace("what", "Both Annotators: what"), "names the annotators"),
    ],
)
def test_what_is_no_merge_is_named(text, problem):
    assert parse_merge(text) == Answer("", "", problem)
