"""How servers are named, which fields a server is asked with, and errors that travel between processes."""

import asyncio
import json
import pickle

import pytest
from aiohttp import web

from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError, is_url, parse_spec
from alignxplore.serving.http_answers import Retry

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("spec", "name", "target"),
    [
        ("judge=http://host:8000/v1", "judge", "http://host:8000/v1"),
        ("http://host:8000/v1/", "host:8000", "http://host:8000/v1/"),
        ("http://host/v1?a=b", "v1?a=b", "http://host/v1?a=b"),
        ("Qwen/Qwen3-8B", "Qwen3-8B", "Qwen/Qwen3-8B"),
        ("ours=runs/a=b/model", "ours", "runs/a=b/model"),
        ("runs/a=b/model/", "model", "runs/a=b/model/"),
    ],
)
def test_names_and_targets(spec, name, target):
    assert parse_spec(spec) == (name, target)


def test_an_existing_path_is_one_whatever_signs_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3e-5").mkdir()
    assert parse_spec("lr=3e-5") == ("lr=3e-5", "lr=3e-5")
    assert parse_spec("ours=lr=3e-5") == ("ours", "lr=3e-5")


def test_urls_paths_and_a_forgotten_scheme():
    assert is_url("https://host/v1") and is_url("http://host")
    assert not any(map(is_url, ("Qwen/Qwen3-8B", "/models/x", "runs/30", "30/actor", "2024", "./m:8")))
    for spec in ("127.0.0.1:8000/v1", "localhost:8000"):
        with pytest.raises(ValueError, match=f"'{spec}' has no scheme; write http://{spec}"):
            is_url(spec)
    with pytest.raises(ValueError, match="'models/x' is not a URL"):
        Endpoint("models/x")


@pytest.mark.parametrize(
    "error", [RequestError(400, "too long"), TransportError("HTTP 502: gone"), Retry("HTTP 429", 3.0)]
)
def test_errors_survive_the_way_between_processes(error):
    """Ray pickles what a worker raises; an error that cannot be rebuilt hides the cause."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


FIELDS = {"top_k": 20, "chat_template_kwargs": {"enable_thinking": True}, "skip_special_tokens": True}
EXTRA = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
# How servers refuse fields: some name the first, some all of them.
UNKNOWN = {
    "OpenAI": (400, lambda names: f"Unrecognized request argument supplied: {names[0]}"),
    "another": (400, lambda names: f"property '{names[0]}' is unsupported"),
    "pydantic": (422, lambda names: json.dumps({"detail": [EXTRA | {"loc": ["body", name]} for name in names]})),
    "transformers": (422, lambda names: json.dumps({"detail": f"Unexpected fields in the request: {set(names)}"})),
}


@pytest.mark.parametrize("unknown", [list(FIELDS), ["top_k", "skip_special_tokens"], ["chat_template_kwargs"]])
@pytest.mark.parametrize("server_of", UNKNOWN)
async def test_a_server_is_asked_without_the_fields_that_it_does_not_know_from_then_on(
    fake_server, say, caplog, server_of, unknown
):
    code, text = UNKNOWN[server_of]

    def answer(body):
        refused = [name for name in unknown if name in body]
        return web.Response(status=code, text=text(refused)) if refused else say("well")

    async with fake_server(answer) as server, Endpoint(server.url) as endpoint:
        replies = await asyncio.gather(*(endpoint.chat(MESSAGES, max_tokens=3, **FIELDS) for _ in range(3)))
        request_count = len(server.bodies)
        replies.append(await endpoint.chat(MESSAGES, max_tokens=3, **FIELDS))
        assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["well"] * 4
        fields = {name: value for name, value in FIELDS.items() if name not in unknown}
        assert request_count <= 3 + 3 * len(unknown) and server.bodies[request_count:] == [
            {"model": "fake", "messages": MESSAGES, "max_tokens": 3} | fields
        ]
        assert set(endpoint.not_sent) == set(unknown)
    assert all(len([line for line in caplog.messages if f"know {name}" in line]) <= 1 for name in unknown)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (400, "top_k must be at least 1"),
        (400, "Unrecognized request argument supplied: logprob_token_ids"),
        (403, "top_k is not allowed"),
        (400, "unknown model"),
    ],
)
async def test_any_other_refusal_is_one(fake_server, code, text):
    async with fake_server(lambda _: web.Response(status=code, text=text)) as server, Endpoint(server.url) as endpoint:
        with pytest.raises(RequestError, match=text):
            await endpoint.chat(MESSAGES, top_k=20)
        assert len(server.bodies) == 1 and endpoint.not_sent == ()


async def test_a_field_that_was_not_asked_with_is_no_reason_to_ask_again(fake_server):
    async with (
        fake_server(lambda _: web.Response(status=400, text="unknown field top_k")) as server,
        Endpoint(server.url) as endpoint,
    ):
        with pytest.raises(RequestError, match="unknown field"):
            await endpoint.chat(MESSAGES)
        assert len(server.bodies) == 1


def test_an_endpoint_that_lets_nothing_through_is_refused():
    with pytest.raises(ValueError, match="concurrency 0: at least one"):
        Endpoint("http://host/v1", concurrency=0)
