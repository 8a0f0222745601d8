"""A streamed answer is heard as it grows, ends as it would have come whole, and is asked for again if it breaks."""

import json

import pytest
from aiohttp import web

from alignxplore.serving import endpoint as module
from alignxplore.serving.endpoint import Endpoint, TransportError
from alignxplore.serving.replies import said

MESSAGES = [{"role": "user", "content": "hi"}]
ANSWER = "<think>\nwhy ☂\n</think>\n\nLikes the sea."


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(module, "_jittered", lambda state: 0.001)


def event(delta: dict, **choice) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta} | choice]}, ensure_ascii=False) + "\n\n"


def pieces(text: str = ANSWER, field: str = "content") -> list[str]:
    cut = [text[place : place + 5] for place in range(0, len(text), 5)]
    return [event({"role": "assistant", "content": ""}), *(event({field: piece}) for piece in cut)]


END = [
    event({}, finish_reason="stop"),
    'data: {"choices": [], "usage": {"completion_tokens": 7}}\n\n',
    "data: [DONE]\n\n",
]


def stream(*events: str):
    body = "".join(events).encode()
    return lambda _=None: web.Response(body=body, content_type="text/event-stream")


async def heard(fake_server, answer, **options):
    texts = []
    async with fake_server(answer) as server, Endpoint(server.url, **({"patience": 2} | options)) as endpoint:
        return await endpoint.chat(MESSAGES, hear=texts.append, top_k=20), texts, server.bodies


async def test_what_is_heard_grows_into_the_answer(fake_server):
    reply, texts, bodies = await heard(fake_server, stream(*pieces(), *END))
    assert said(reply) == texts[-1] == ANSWER
    assert len(set(texts)) > 5 and all(after.startswith(before) for before, after in zip(texts, texts[1:]))
    assert reply["usage"]["completion_tokens"] == 7 and reply["choices"][0]["finish_reason"] == "stop"
    assert bodies[0]["stream"] is True and bodies[0]["top_k"] == 20


async def test_reasoning_in_a_field_of_its_own_is_heard_in_its_block(fake_server):
    reply, texts, _ = await heard(fake_server, stream(*pieces("because", "reasoning"), *pieces("Likes it."), *END))
    assert texts[3].startswith("<think>\nbecau") and said(reply) == "<think>\nbecause\n</think>\n\nLikes it."


async def test_a_server_that_does_not_stream_is_read_as_it_answers(fake_server, say):
    reply, texts, _ = await heard(fake_server, lambda _: say(ANSWER))
    assert said(reply) == ANSWER and texts == []


async def test_an_empty_answer_is_the_models_own(fake_server):
    reply, _, _ = await heard(fake_server, stream(*pieces(""), *END))
    assert said(reply) == ""


@pytest.mark.parametrize(
    "broken",
    [
        pieces()[:3],
        [*pieces()[:3], 'data: {"error": {"message": "engine died"}}\n\n'],
        [*pieces()[:3], "data: {torn\n\n"],
        [*pieces()[:3], "data: [1]\n\n"],
    ],
    ids=["cut", "error", "torn", "no object"],
)
async def test_a_broken_stream_is_asked_for_again_from_its_start(fake_server, broken):
    rest = [stream(*broken), stream(*pieces(), *END)]
    reply, texts, bodies = await heard(fake_server, lambda _: rest.pop(0)())
    assert said(reply) == ANSWER == texts[-1] and len(bodies) == 2
    assert any(not after.startswith(before) for before, after in zip(texts, texts[1:]))


async def test_a_stream_that_always_breaks_is_a_transport_error(fake_server):
    with pytest.raises(TransportError, match="ended before the answer did"):
        await heard(fake_server, stream(*pieces()), patience=0.02)
