"""Downstream models that reason first, against a server that answers as a test says."""

import pytest
from aiohttp import web

from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.sampled import ask_paper
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint

GOOD = Interaction("a good film", "a bad film", "Which film?")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


def pick(body, word="good"):
    """The item with the wanted word, as JSON."""
    first = body["messages"][-1]["content"].rsplit("Item A: ", 1)[1].split("\nItem B: ")[0]
    return f'{{"selection": "Item {"A" if word in first else "B"}"}}'


@pytest.fixture
def ask(fake_server, say, tokenizer):
    """`ask(reply(body), call(judge), ...)`: the results of the calls, and the requests."""

    async def run(reply, *calls, form="harmony", **options):
        answer = lambda body: r if not isinstance(r := reply(body), str) else say(r)  # noqa: E731
        async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
            judge = ReasoningJudge(endpoint, tokenizer, PromptSet(), form, **options)
            return [await call(judge) for call in calls], server.bodies

    return run


async def score(judge):
    return await judge.score("Likes good films.", GOOD, "k")


def harmony(body):
    """Names the wrong item while it reasons: only the final channel counts."""
    return (
        f"<|channel|>analysis<|message|>Maybe {pick(body, 'bad')}?<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{pick(body)}"
        "<|return|>"
    )


async def test_the_final_channel_is_read_in_both_orders(ask):
    (pair, one), bodies = await ask(harmony, score, lambda j: j.answer(None, [GOOD], GOOD, "k"))
    for judgement in (pair, one):
        assert (
            judgement.ok
            and judgement.orders == (1.0, 1.0)
            and judgement.correct == 1
            and not judgement.unparsed
            and judgement.mass is None
        )
    assert len(bodies) == 4 and len({body["seed"] for body in bodies}) == 4
    for body in bodies:
        assert (body["max_tokens"], body["temperature"], body["top_p"], body["top_k"]) == (2048, 0.6, 0.95, 20)
        assert body["skip_special_tokens"] is False and body["chat_template_kwargs"] == {"enable_thinking": True}
    (again, _), repeated = await ask(harmony, score, lambda j: j.answer(None, [GOOD], GOOD, "k"))
    assert again == pair and repeated == bodies


async def test_the_reasoning_field_of_an_api_is_no_answer(ask, say):
    (judgement,), _ = await ask(
        lambda body: say(pick(body), reasoning_content=f"or {pick(body, 'bad')}"), score, form="r1", answer_tokens=512
    )
    assert judgement.orders == (1.0, 1.0)
    (judgement,), bodies = await ask(
        lambda body: say(None, reasoning_content=pick(body)), score, form="r1", answer_tokens=512
    )
    assert judgement.ok and judgement.orders == (0.5, 0.5) and judgement.unparsed == 2 and judgement.correct == 0.5
    assert all(text.startswith("<think>\n") for text in judgement.unread) and len(judgement.unread) == 2, (
        "as it was answered"
    )
    assert bodies[0]["max_tokens"] == 512


async def test_always_the_first_item_is_exactly_half_right(ask):
    (judgement,), _ = await ask(lambda body: '<think>x</think>{"selection": "Item A"}', score, form="think")
    assert judgement.orders == (1.0, 0.0) and judgement.correct == 0.5 and judgement.flipped


async def test_one_unread_order_leaves_the_other(ask):
    (judgement,), _ = await ask(
        lambda body: "<think>x</think>" + (pick(body) if "A" in pick(body) else "hm"), score, form="think"
    )
    assert judgement.orders == (1.0, 0.5) and judgement.unparsed == 1 and judgement.correct == 1
    assert judgement.unread == ("<think>x</think>hm",)


async def test_a_failed_request_is_a_failure_not_an_answer(ask):
    (judgement,), _ = await ask(lambda body: web.Response(status=500), score)
    assert judgement.status == "transport_error" and not judgement.ok
    (judgement,), _ = await ask(lambda body: web.Response(status=400, text="too long"), score)
    assert judgement.status == "request_error" and "too long" in judgement.error


async def test_the_published_protocol_reads_the_final_channel_too(ask):
    (judgement,), bodies = await ask(harmony, lambda j: ask_paper(j, "Likes good films.", GOOD, "k"))
    assert judgement.ok and judgement.correct == 1 and bodies[0]["max_tokens"] == 2048


async def test_check_refuses_what_cannot_be_read(ask):
    (share,), _ = await ask(harmony, lambda j: j.check([("s", GOOD)] * 3))
    assert share == 1
    with pytest.raises(
        JudgeError, match="only 0% of its answers name an item when read as 'harmony' within 2048 tokens"
    ):
        await ask(lambda body: "analysis... assistantfinal " + pick(body), lambda j: j.check([("s", GOOD)] * 3))


async def test_check_passes_over_what_the_server_refuses(ask):
    long = Interaction("x" * 200, "a bad film")

    def reply(body):
        return web.Response(status=400, text="too long") if "x" * 99 in str(body) else harmony(body)

    (share,), _ = await ask(reply, lambda j: j.check([("s", long), ("s", GOOD)]))
    assert share == 1
