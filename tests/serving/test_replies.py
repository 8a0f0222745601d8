"""Answers in parts, null, filtered, or no text at all: joined, or a failed request; never stored as what they are."""

import pytest

from alignxplore.journal import OK, TRANSPORT_ERROR
from alignxplore.judging.letters import Judge
from alignxplore.judging.sampled import ask_paper
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint, TransportError
from alignxplore.serving.replies import said
from alignxplore.summarize import Plan, Sampling, summarize

ITEM = Interaction("green tea", "coffee", "What to drink?")
TEXT = "<think>\nshe drinks tea\n</think>\n\nLikes tea."


def reply(content, ended="stop", **fields):
    return {"choices": [{"index": 0, "message": {"content": content} | fields, "finish_reason": ended}]}


async def written(fake_server, tokenizer, answer):
    async with fake_server(lambda body: answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        return await summarize(
            endpoint, tokenizer, PromptSet(), Plan([[ITEM]], 4032), Sampling(max_tokens=64), "u", 4096
        )


PARTS = {
    "parts": [
        {"type": "text", "text": "<think>\nshe drinks"},
        {"type": "text", "text": " tea\n</think>\n\nLikes tea."},
    ],
    "one part": [{"type": "text", "text": TEXT}],
    "output_text": [{"type": "output_text", "text": TEXT, "annotations": []}],
    "strings": ["<think>\nshe drinks tea", "\n</think>\n\nLikes tea."],
}


@pytest.mark.parametrize("content", PARTS)
async def test_parts_of_text_are_one_text(fake_server, tokenizer, content):
    summaries = await written(fake_server, tokenizer, reply(PARTS[content]))
    assert summaries.status == OK and summaries.problem is None
    assert (summaries.stages[0].text, summaries.summary) == (TEXT, "Likes tea.")


async def test_reasoning_in_parts(fake_server, tokenizer):
    parts = [{"type": "text", "text": "she "}, {"type": "text", "text": "drinks"}]
    summaries = await written(fake_server, tokenizer, reply("Likes tea.", reasoning=parts))
    assert (summaries.stages[0].reasoning, summaries.summary) == ("she drinks", "Likes tea.")


@pytest.mark.parametrize(
    "content", [5, {"text": "x"}, [{"type": "image_url", "image_url": "x"}], [None], [["x"]], True]
)
async def test_what_is_no_text_is_a_failed_request(fake_server, tokenizer, content):
    summaries = await written(fake_server, tokenizer, reply(content))
    assert (
        summaries.status == TRANSPORT_ERROR
        and summaries.stages == ()
        and "a message that is no text" in summaries.error
    )


NO_ANSWER = {
    "the answer is null (finish_reason stop)": reply(None),
    "the answer is null (refusal: I will not)": reply(None, refusal="I will not"),
    "the server filtered the answer": reply("Likes", "content_filter"),
}


@pytest.mark.parametrize("problem", NO_ANSWER)
async def test_no_answer_is_asked_for_again_by_the_next_run(fake_server, tokenizer, problem):
    summaries = await written(fake_server, tokenizer, NO_ANSWER[problem])
    assert summaries.status == TRANSPORT_ERROR and problem in summaries.error
    async with fake_server(lambda body: NO_ANSWER[problem]) as server, Endpoint(server.url) as endpoint:
        judged = await ask_paper(Judge(endpoint, tokenizer, PromptSet()), "s", ITEM, "k")
    assert judged.status == TRANSPORT_ERROR and problem in judged.error


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply(""), ""),
        (reply(None, "length"), ""),  # all tokens went into hidden reasoning
        (reply(None, reasoning=""), ""),  # a reasoning parser that was given nothing
        (reply(None, reasoning="why"), "<think>\nwhy"),
    ],
)
def test_an_empty_answer_is_the_models_own(answer, text):
    assert said(answer) == text


def test_a_filtered_answer_is_none():
    with pytest.raises(TransportError, match="content_filter"):
        said(reply("half", "content_filter"))
