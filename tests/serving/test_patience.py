"""A server that has gone is given up by all that wait for it at once, and used again as soon as it is back. One that
answers somebody is none that has gone."""

import asyncio
import time

import pytest
from aiohttp import web

from alignxplore.serving import endpoint as module
from alignxplore.serving.endpoint import Endpoint, TransportError

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    jittered = module._jittered
    monkeypatch.setattr(module, "_jittered", lambda state: jittered(state) / 20)


async def outcomes(endpoint, count):
    """(answers, errors, seconds) of so many requests at once."""
    began = time.monotonic()
    replies = await asyncio.gather(*(endpoint.chat(MESSAGES, n=n) for n in range(count)), return_exceptions=True)
    errors = [reply for reply in replies if isinstance(reply, TransportError)]
    return count - len(errors), errors, time.monotonic() - began


async def test_a_dead_server_costs_one_patience_and_not_one_a_request(unused_tcp_port):
    async with asyncio.timeout(60):
        endpoint = Endpoint(f"http://127.0.0.1:{unused_tcp_port}/v1", "m", concurrency=2, patience=1)
        answer_count, errors, seconds = await outcomes(endpoint, 20)
        await endpoint.close()
    assert answer_count == 0 and 0.5 < seconds < 3 and all("Cannot connect" in str(error) for error in errors)


@pytest.mark.parametrize(
    "fault", [lambda: None, lambda: web.Response(status=502), lambda: {"error": "no backend"}, lambda: {}]
)
async def test_so_does_a_gateway_without_a_model(fake_server, fault):
    """Each request is sent twice all the same: others may be answered."""

    def usable(reply):
        if not reply.get("choices"):
            raise TransportError("no choices")

    async with (
        fake_server(lambda body: fault()) as server,
        Endpoint(server.url, concurrency=2, patience=1) as endpoint,
        asyncio.timeout(60),
    ):
        began = time.monotonic()
        replies = asyncio.gather(
            *(endpoint.chat(MESSAGES, usable=usable, n=n) for n in range(20)), return_exceptions=True
        )
        assert {type(error) for error in await replies} == {module.Retry} and time.monotonic() - began < 4
    counts = [sum(body["n"] == n for body in server.bodies) for n in range(20)]
    assert min(counts) == 2 and max(counts) > 2


async def test_nothing_is_lost_where_the_server_comes_back_in_time(fake_server, say):
    async with fake_server(lambda body: say("one")) as server:
        endpoint = await Endpoint(server.url, concurrency=2, patience=10).connect()
        port = server._server.port
    replies = asyncio.create_task(outcomes(endpoint, 20))
    while endpoint.retries < 6:
        await asyncio.sleep(0.01)
    async with fake_server(lambda body: say("back"), port=port), asyncio.timeout(30):
        answer_count, errors, _ = await replies
        await endpoint.close()
    assert (answer_count, errors) == (20, [])


async def test_a_server_that_comes_back_after_it_was_given_up_is_used_again(fake_server, say):
    async with fake_server(lambda body: say("one")) as server:
        endpoint = await Endpoint(server.url, concurrency=2, patience=0.5).connect()
        port = server._server.port
    assert (await outcomes(endpoint, 6))[0] == 0
    async with fake_server(lambda body: say("back"), port=port):
        assert (await outcomes(endpoint, 6))[0] == 6
    assert 0.2 < (await outcomes(endpoint, 6))[2] < 2, "an outage of its own, with a patience of its own"
    await endpoint.close()


@pytest.mark.parametrize("fault", ["429", "time-out", "500"])
async def test_what_only_some_requests_meet_is_no_outage(fake_server, say, fault):
    """Every second request fails twice, some of them later than the patience after the first failure of all."""
    failure_counts: dict[int, int] = {}

    def answer(body):
        n = body["n"]
        failure_counts[n] = failure_counts.get(n, 0) + 1
        if n % 2 or failure_counts[n] > 2:
            return say("well")
        if fault == "time-out":
            return asyncio.sleep(5, say("late"))
        return web.Response(status=int(fault))

    async with (
        fake_server(answer) as server,
        Endpoint(server.url, concurrency=2, patience=1, timeout=0.3) as endpoint,
    ):
        answer_count, errors, _ = await outcomes(endpoint, 12)
    assert (answer_count, errors) == (12, [])


async def test_a_rate_limit_on_everybody_is_no_outage(fake_server, say):
    """Nobody is let through for longer than the patience; each request waits its own."""
    counts: dict[int, int] = {}

    def answer(body):
        n = body["n"]
        counts[n] = counts.get(n, 0) + 1
        return say("well") if counts[n] == 4 else web.Response(status=429, headers={"Retry-After": "0.15"})

    async with fake_server(answer) as server, Endpoint(server.url, concurrency=1, patience=0.9) as endpoint:
        assert (await outcomes(endpoint, 3))[:2] == (3, [])


async def test_a_request_that_times_out_is_sent_once_more_whatever_others_met(fake_server, say):
    failure_counts: dict[int, int] = {}

    def answer(body):
        n = body["n"]
        failure_counts[n] = failure_counts.get(n, 0) + 1
        return say("well") if n == 3 and failure_counts[n] == 2 else asyncio.sleep(5, say("late"))

    async with (
        fake_server(answer) as server,
        Endpoint(server.url, concurrency=1, patience=0.4, timeout=0.2) as endpoint,
    ):
        answer_count, _, _ = await outcomes(endpoint, 4)
    assert answer_count == 1 and failure_counts[3] == 2
