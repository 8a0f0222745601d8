"""How a judge finds out what its server can be asked, when many questions come before it knows."""

import asyncio

import pytest
from aiohttp import web

from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR
from alignxplore.records import Interaction
from tests.judging.test_letters import GOOD, PATHS, LetterServer, items, judged, prefers_good


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


MANY = [Interaction(f"a good film {i}", f"a bad film {i}") for i in range(20)]


def together(judge):
    return asyncio.gather(*(judge.score("s", item, i) for i, item in enumerate(MANY)))


def probes(server):
    return [body for body in server.bodies if body.get("return_token_ids")]


async def test_many_questions_at_once_find_it_out_once(fake_server, tokenizer):
    for options in PATHS.values():
        (judgements,), server = await judged(
            fake_server, tokenizer, LetterServer(tokenizer, prefers_good, **options), together
        )
        assert [judgement.status for judgement in judgements] == [OK] * len(MANY) and len(probes(server)) == 1


async def test_a_prompt_that_is_refused_is_probed_with_for_nobody_else(fake_server, tokenizer):
    works = LetterServer(tokenizer, prefers_good)

    def answer(body):
        return web.Response(status=400, text="too long") if items(body)[0].endswith("film 0") else works(body)

    (judgements,), server = await judged(fake_server, tokenizer, answer, together)
    assert [judgement.status for judgement in judgements] == [REFUSED] + [OK] * (len(MANY) - 1)
    assert len(probes(server)) == 3, "both orders of the first question, and one of another"


async def test_who_probes_may_be_cancelled_and_who_waits_may_not_wait_for_ever(fake_server, tokenizer):
    async def first_is_cancelled(judge):
        first, others = asyncio.create_task(judge.score("s", GOOD, "k")), together(judge)
        await asyncio.sleep(0)
        first.cancel()
        return await others

    (judgements,), server = await judged(
        fake_server, tokenizer, LetterServer(tokenizer, prefers_good), first_is_cancelled
    )
    assert {judgement.status for judgement in judgements} == {OK} and len(probes(server)) == 1
    (judgements,), _ = await judged(fake_server, tokenizer, lambda body: web.Response(status=503), together)
    assert {judgement.status for judgement in judgements} == {TRANSPORT_ERROR}


@pytest.mark.parametrize("place", [0, 1])
async def test_whoever_waits_for_a_slow_probe_may_be_cancelled_and_the_others_get_their_numbers(
    fake_server, tokenizer, place
):
    """Also who asked first, and whose task the probe was begun in."""
    letters = LetterServer(tokenizer, prefers_good)
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(body):
        if body.get("return_token_ids"):
            began.set()
            await goes_on.wait()
        return letters(body)

    async def one_of_two_is_cancelled(judge):
        questions = [asyncio.create_task(judge.score("s", item, i)) for i, item in enumerate(MANY[:2])]
        await began.wait()
        questions[place].cancel()
        await asyncio.wait(questions[place : place + 1])
        goes_on.set()
        return await asyncio.gather(*questions, return_exceptions=True)

    (outcomes,), server = await judged(fake_server, tokenizer, slow, one_of_two_is_cancelled)
    assert isinstance(outcomes[place], asyncio.CancelledError)
    assert outcomes[1 - place].status == OK and outcomes[1 - place].p == pytest.approx(0.8)
    assert len(probes(server)) == 1
