"""Every way a server can fail: retried or typed as documented, nothing hangs, and no key in any message."""

import asyncio
import inspect
import json
import logging
import resource
import time

import pytest
from aiohttp import web

from alignxplore.serving import endpoint as module
from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError

MESSAGES = [{"role": "user", "content": "hi"}]
CANARY = "sk-canary-6d1f"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Back-off as written, a hundred times faster; what the server asks for by Retry-After is kept."""
    jittered = module._jittered
    monkeypatch.setattr(module, "_jittered", lambda state: jittered(state) / 100)


def in_turn(*replies):
    """Answer with each reply once, then with the last one for ever."""
    rest = list(replies)

    def answer(body):
        reply = rest.pop(0) if len(rest) > 1 else rest[0]
        return reply() if callable(reply) else reply

    return answer


def status(code, text="", headers=None, content_type="text/plain"):
    return lambda: web.Response(status=code, text=text, headers=headers, content_type=content_type)


FAULTS = {
    "429": status(429, "slow down"),
    "429 with Retry-After as a date": status(429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    "408": status(408),
    "500": status(500, "out of memory"),
    "503": status(503),
    "502 with a page": status(502, "<html><body>Bad Gateway</body></html>", content_type="text/html"),
    "connection reset": lambda: None,
    "truncated JSON": status(200, '{"choices": [{"message": {"con', content_type="application/json"),
    "a JSON list": status(200, "[1]", content_type="application/json"),
    "an empty body": status(200, ""),
    "bytes that are no text": lambda: web.Response(body=b"\xff\xfe{", content_type="application/json"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_passing_faults_are_retried(fake_server, say, fault):
    async with (
        fake_server(in_turn(FAULTS[fault], FAULTS[fault], say("well"))) as server,
        Endpoint(server.url) as endpoint,
    ):
        reply = await endpoint.chat(MESSAGES, max_tokens=3)
        assert reply["choices"][0]["message"]["content"] == "well"
        assert endpoint.retries == 2 and len(server.bodies) == 3 and sum(endpoint.repeats.values()) == 2
        assert server.bodies == [{"model": "fake", "messages": MESSAGES, "max_tokens": 3}] * 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_lasting_faults_end_as_transport_errors(fake_server, monkeypatch, fault):
    monkeypatch.setattr(module, "OutOfPatience", lambda *_: module.tenacity.stop_after_attempt(3))
    async with fake_server(in_turn(FAULTS[fault])) as server, Endpoint(server.url, patience=5) as endpoint:
        with pytest.raises(TransportError) as caught:
            await asyncio.wait_for(endpoint.chat(MESSAGES), 30)
        assert len(server.bodies) == 3 and str(caught.value)


async def test_patience_ends(fake_server):
    async with fake_server(in_turn(FAULTS["500"])) as server, Endpoint(server.url, patience=2) as endpoint:
        with pytest.raises(TransportError, match="HTTP 500: out of memory"):
            await asyncio.wait_for(endpoint.chat(MESSAGES), 30)
        assert len(server.bodies) > 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
async def test_refusals_are_final(fake_server, code):
    async with (
        fake_server(in_turn(status(code, "prompt is longer than the window"))) as server,
        Endpoint(server.url, patience=2) as endpoint,
    ):
        with pytest.raises(RequestError, match=f"HTTP {code}: prompt is longer than the window") as caught:
            await endpoint.chat(MESSAGES)
        assert len(server.bodies) == 1 and endpoint.retries == 0 and caught.value.status == code


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": None},
        {},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
    ],
)
async def test_a_reply_without_an_answer_is_typed_and_quoted(fake_server, reply):
    async with fake_server(in_turn(reply)) as server, Endpoint(server.url) as endpoint:
        with pytest.raises(TransportError, match="a reply without choices") as caught:
            await endpoint.chat(MESSAGES)
        assert json.dumps(reply) in str(caught.value) and server.url in str(caught.value)


async def test_half_a_character_of_an_answer_is_replaced(fake_server, say):
    async with fake_server(in_turn(say("cut \ud83d"))) as server, Endpoint(server.url) as endpoint:
        reply = await endpoint.chat(MESSAGES)
    assert reply["choices"][0]["message"]["content"] == "cut \ufffd"


async def test_retry_after_is_obeyed(fake_server, say):
    async with (
        fake_server(in_turn(status(429, headers={"Retry-After": "0.4"}), say("well"))) as server,
        Endpoint(server.url) as endpoint,
    ):
        began = time.monotonic()
        await endpoint.chat(MESSAGES)
        assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("wait", ["3600", "inf"])
async def test_a_wait_beyond_our_patience_is_not_waited(fake_server, wait):
    async with (
        fake_server(in_turn(status(429, "quota", headers={"Retry-After": wait}))) as server,
        Endpoint(server.url, patience=60) as endpoint,
    ):
        with pytest.raises(TransportError, match="HTTP 429: quota"):
            await asyncio.wait_for(endpoint.chat(MESSAGES), 30)
        assert len(server.bodies) == 1


async def test_a_request_that_takes_too_long_is_ended_and_repeated(fake_server, say):
    answers = in_turn(lambda: asyncio.sleep(60, say("late")), say("well"))
    async with fake_server(answers) as server, Endpoint(server.url, timeout=0.8) as endpoint:
        began = time.monotonic()
        assert (await endpoint.chat(MESSAGES))["choices"][0]["message"]["content"] == "well"
        assert 0.8 <= time.monotonic() - began < 30 and endpoint.retries == len(server.bodies) - 1 >= 1


async def test_a_time_out_longer_than_the_patience_is_repeated_all_the_same(fake_server, say):
    """The two stand to each other as the defaults do."""
    usual = inspect.signature(Endpoint).parameters
    patience = 0.6 * usual["patience"].default / usual["timeout"].default
    answers = in_turn(lambda: asyncio.sleep(60, say("late")), say("well"))
    async with fake_server(answers) as server, Endpoint(server.url, timeout=0.6, patience=patience) as endpoint:
        assert (await endpoint.chat(MESSAGES))["choices"][0]["message"]["content"] == "well"
        assert endpoint.repeats == {"timeout": 1}


async def test_a_body_that_drips_for_ever_is_ended(fake_server):
    """Bytes keep coming, so only a limit on the whole request can end it."""

    class Drip(web.StreamResponse):
        async def prepare(self, request):
            writer = await super().prepare(request)
            for _ in range(300):
                await self.write(b" ")
                await asyncio.sleep(0.1)
            return writer

    async with fake_server(lambda body: Drip()) as server, Endpoint(server.url, timeout=0.2, patience=0.3) as endpoint:
        began = time.monotonic()
        with pytest.raises(TransportError, match="TimeoutError"):
            await endpoint.chat(MESSAGES)
        assert time.monotonic() - began < 15


async def test_a_server_that_dies_and_comes_back(fake_server, say):
    async with fake_server(in_turn(say("one"))) as server:
        endpoint = Endpoint(server.url, patience=20)
        await endpoint.connect()
        port = server._server.port
    waiting = asyncio.create_task(endpoint.chat(MESSAGES))
    while endpoint.retries < 3:
        await asyncio.sleep(0.01)
    assert not waiting.done()
    async with fake_server(in_turn(say("back")), port=port):
        assert (await waiting)["choices"][0]["message"]["content"] == "back"
        await endpoint.close()


async def test_nobody_there(unused_tcp_port):
    endpoint = Endpoint(f"http://127.0.0.1:{unused_tcp_port}/v1", patience=0.1)
    with pytest.raises(TransportError, match="Cannot connect"):
        await endpoint.connect()
    await endpoint.close()
    await endpoint.close()  # twice does no harm


async def test_the_served_model_is_found_or_named(fake_server, say):
    def answer(body):
        served = body["model"] in [entry["id"] for entry in server.models]
        return say("x") if served else web.Response(status=404, text=f"no model {body['model']}")

    async with fake_server(answer, model="org/model-8b", max_model_len=4096) as server:
        async with Endpoint(server.url) as endpoint:
            assert (endpoint.model, endpoint.root, endpoint.max_model_len) == ("org/model-8b", "org/model-8b", 4096)
            await endpoint.chat(MESSAGES)
            assert server.bodies[-1]["model"] == "org/model-8b"
        with pytest.raises(RequestError, match=rf"{server.url} serves org/model-8b; name one of them.*no model other"):
            await Endpoint(server.url, "other").connect()
        server.models.append({"id": "adapter", "root": "/models/adapter"})
        with pytest.raises(RequestError, match="serves org/model-8b, adapter; name one"):
            await Endpoint(server.url).connect()
        async with Endpoint(server.url, "adapter") as endpoint:
            assert (endpoint.root, endpoint.name, endpoint.max_model_len) == ("/models/adapter", "adapter", None)
        server.models.clear()
        with pytest.raises(RequestError, match="serves none"):
            await Endpoint(server.url).connect()


async def test_no_more_requests_in_flight_than_asked_and_time_in_the_queue_is_free(fake_server, say):
    """40 requests of 0.1 s, 4 at a time, take 1 s: longer than time-out and patience, which start at the gate."""
    flying = most = 0

    async def answer(body):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.1)
        flying -= 1
        return say("well")

    async with (
        fake_server(lambda body: answer(body)) as server,
        Endpoint(server.url, concurrency=4, timeout=0.9, patience=0.9) as endpoint,
    ):
        began = time.monotonic()
        await asyncio.gather(*(endpoint.chat(MESSAGES) for _ in range(40)))
        assert most == 4 and endpoint.retries == 0 and time.monotonic() - began > 0.95


@pytest.fixture
def few_open_files():
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


async def test_thousands_of_requests_are_in_flight_where_1024_open_files_are_usual(fake_server, say, few_open_files):
    """The server answers nobody before it has all of them; its own ends of the connections are open files of this
    process, too."""
    arrived, all_there = 0, asyncio.Event()

    async def answer(body):
        nonlocal arrived
        arrived += 1
        if arrived == 2000:
            all_there.set()
        await all_there.wait()
        return say("well")

    async with fake_server(lambda body: answer(body)) as server, Endpoint(server.url, concurrency=2000) as endpoint:
        async with asyncio.timeout(60):
            await asyncio.gather(*(endpoint.chat(MESSAGES) for _ in range(2000)))
        assert endpoint.retries == 0


async def test_patience_starts_at_the_gate(fake_server, say):
    """The last request in the queue also gets its second try."""
    failed = set()

    async def answer(body):
        await asyncio.sleep(0.15)
        first = body["n"] not in failed
        failed.add(body["n"])
        return web.Response(status=500) if first else say("well")

    async with (
        fake_server(lambda body: answer(body)) as server,
        Endpoint(server.url, concurrency=1, patience=1.5) as endpoint,
    ):
        await asyncio.gather(*(endpoint.chat(MESSAGES, n=n) for n in range(8)))
        assert endpoint.retries == 8


async def test_the_key_is_sent_and_never_shown(fake_server, say, monkeypatch, caplog):
    """A gateway that quotes the key in each of its errors: no message, log line or repr may hold it."""
    monkeypatch.setenv("TEST_KEY", CANARY + "\n")  # a key read from a file often ends in a newline
    quoting = [status(code, f"Authorization: Bearer {CANARY} " * 9) for code in (500, 429, 200)]
    quoting.append({"error": CANARY})
    answers = in_turn(*quoting, status(401, f"bad key {CANARY}"), {"choices": [], "said": CANARY}, say("well"))
    caplog.set_level(logging.DEBUG)
    async with fake_server(answers) as server, Endpoint(server.url, api_key_env="TEST_KEY") as endpoint:
        texts = [repr(endpoint), str(vars(endpoint))]
        for expected in (RequestError, TransportError):
            with pytest.raises(expected) as caught:
                await endpoint.chat(MESSAGES)
            texts += [str(caught.value), repr(caught.value), str(caught.value.args)]
        await endpoint.chat(MESSAGES)
        assert all(headers["Authorization"] == f"Bearer {CANARY}" for headers in server.headers)
        endpoint._patience = 0.05
        for fault in quoting:
            server.answer = in_turn(fault)
            with pytest.raises(TransportError) as caught:
                await endpoint.chat(MESSAGES)
            texts += [str(caught.value), repr(caught.value)]
    assert endpoint.retries > 3 and "trying again" in caplog.text
    assert CANARY not in "".join(texts) and CANARY not in caplog.text


async def test_no_key_no_header(fake_server, say):
    async with fake_server(in_turn(say("x"))) as server, Endpoint(server.url) as endpoint:
        await endpoint.chat(MESSAGES)
        assert "Authorization" not in server.headers[0]
        await endpoint.close()
        await endpoint.chat(MESSAGES)  # a closed endpoint opens again


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_key_that_is_not_set_is_named(monkeypatch, value):
    monkeypatch.delenv("TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(
        ValueError, match="the environment variable TEST_KEY is not set; it should hold the key of http://h/v1"
    ):
        Endpoint("http://h/v1", api_key_env="TEST_KEY")


def test_a_key_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="would reach logs") as caught:
        Endpoint(f"https://user:{CANARY}@host/v1")
    assert CANARY not in str(caught.value)
