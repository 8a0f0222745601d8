"""The first question to an endpoint: what kind of server, address or key is wrong; servers that do not list models."""

import asyncio
import time

import pytest
from aiohttp import web

from alignxplore.serving import endpoint as module
from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError
from tests.conftest import FakeServer

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(module, "_jittered", lambda state: 0.01)
    monkeypatch.setattr(module, "CONNECT_PATIENCE", 0.3)


class Lists(FakeServer):
    """A server whose /v1/models is what a test says; it answers for the model `DIR`."""

    def __init__(self, listed, say):
        super().__init__(
            lambda body: say("well") if body["model"] == "/a/DIR" else web.Response(status=404, text="no such model")
        )
        self.listed = listed

    async def _models(self, request):
        reply = self.listed()
        return await reply if asyncio.iscoroutine(reply) else reply


LISTS = {
    "none": lambda: web.json_response({"data": []}),
    "others": lambda: web.json_response({"data": [{"id": "a/b"}, {"id": "c/d"}]}),
    "null": lambda: web.json_response({"data": None}),
    "texts": lambda: web.json_response({"data": ["a", "b"]}),
    "500": lambda: web.Response(status=500, text="Internal Server Error"),
    "404": lambda: web.json_response({"detail": "Not Found"}, status=404),
    "no JSON": lambda: web.Response(text="<html>"),
}


@pytest.mark.parametrize("listed", LISTS)
async def test_a_model_that_is_named_is_asked_for_whatever_the_list_says(say, listed, caplog):
    async with Lists(LISTS[listed], say) as server, Endpoint(server.url, "/a/DIR") as endpoint:
        assert (endpoint.model, endpoint.root, endpoint.max_model_len) == ("/a/DIR", "/a/DIR", None)
        assert (await endpoint.chat(MESSAGES))["choices"][0]["message"]["content"] == "well"
    assert caplog.text.count("its window and its weights are not known") == 1


@pytest.mark.parametrize("listed", LISTS)
async def test_a_model_that_it_does_not_answer_for_is_named_with_those_it_has(say, listed):
    async with Lists(LISTS[listed], say) as server:
        with pytest.raises(RequestError, match="asked for typo it says: no such model"):
            await Endpoint(server.url, "typo").connect()


@pytest.mark.parametrize("listed", LISTS)
async def test_without_a_name_it_is_asked_for(say, listed):
    async with Lists(LISTS[listed], say) as server:
        with pytest.raises((RequestError, TransportError), match=f"as {server.url}@MODEL"):
            await Endpoint(server.url).connect()


async def test_a_refused_key_names_the_address_and_the_option(say, monkeypatch):
    async with Lists(lambda: web.Response(status=401, text="Unauthorized"), say) as server:
        for model in (None, "/a/DIR"):
            with pytest.raises(RequestError, match=rf"{server.url}/models: Unauthorized .*--api_key_env") as caught:
                await Endpoint(server.url, model).connect()
            assert caught.value.status == 401
        monkeypatch.setenv("MY_KEY", "sk-1")
        with pytest.raises(RequestError, match="the key is that of the environment variable MY_KEY"):
            await Endpoint(server.url, api_key_env="MY_KEY").connect()


async def test_a_url_without_v1_is_asked_about(say):
    async with Lists(LISTS["none"], say) as server:
        with pytest.raises(RequestError, match="/models: 404: Not Found; most base URLs end in /v1"):
            await Endpoint(server.url.removesuffix("/v1")).connect()


async def test_a_server_that_stalls_is_given_up_soon_and_says_how_long(say):
    async with Lists(lambda: asyncio.sleep(30, web.Response()), say) as server:
        began = time.monotonic()
        with pytest.raises(TransportError, match=rf"{server.url}: TimeoutError: no whole answer within 0.3 s"):
            await Endpoint(server.url).connect()
        assert time.monotonic() - began < 10


async def test_a_server_that_has_answered_nothing_for_long_is_named(say, monkeypatch, caplog):
    monkeypatch.setattr(module, "SILENCE", 0.2)
    pauses = iter((0.6, 0.6, 0.0))
    async with FakeServer(lambda body: asyncio.sleep(next(pauses), say("well"))) as server:
        async with Endpoint(server.url) as endpoint:
            await endpoint.chat(MESSAGES)
            await endpoint.chat(MESSAGES)
        assert caplog.text.count(f"{server.url} has answered nothing for 0.2 s") == 1
        async with Endpoint(server.url) as endpoint:
            await endpoint.chat(MESSAGES)
            await asyncio.sleep(0.4)
        assert caplog.text.count("has answered nothing") == 1, "one that answers at once is not"


async def test_a_failed_start_leaves_no_session_open(say):
    async with Lists(LISTS["404"], say) as server:
        endpoint = Endpoint(server.url)
        with pytest.raises(RequestError):
            async with endpoint:
                pass
        assert endpoint._session is None
