"""A server that others can reach: a key on every path; and answers that repeat beside judgements (slow, real vLLM)."""

import asyncio
import random
import urllib.error
import urllib.request

import pytest

from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.guard import KeyEverywhere
from alignxplore.serving.server import ServerError, check_key, start, wait_ready
from alignxplore.world import tiny


async def asked(path, *headers, kind="http"):
    """What a request comes to: the status, or "through" if the server itself is asked."""
    events = []

    async def server(scope, receive, send):
        events.append("through")

    async def send(message):
        events.append(message.get("status") or message.get("code"))

    await KeyEverywhere(server)({"type": kind, "path": path, "headers": list(headers)}, None, send)
    return events[0]


async def test_every_path_but_health_wants_the_key(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "sécret")
    key = (b"authorization", b"Bearer " + "sécret".encode())
    for path in ("/invocations", "/v1/models", "/metrics", "/tokenize", "/health/", "/"):
        assert await asked(path) == 401 and await asked(path, key) == "through", path
        assert await asked(path, (b"authorization", b"Bearer wrong")) == 401
        assert await asked(path, (b"authorization", b"Basic " + key[1][7:])) == 401
    assert await asked("/health") == "through" and await asked("", kind="lifespan") == "through"
    assert await asked("/v1/realtime", kind="websocket") == 1008


def status(url, key=None, data=b"{}"):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data, headers, method="POST")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of a tiny model's server, which wants the key "secret"."""
    folder = tmp_path_factory.mktemp("guarded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", "secret")
        tiny.write_model(tiny.TinyOptions(out=str(folder / "model")))
        process, url = start(
            str(folder / "model"),
            log_path=folder / "log",
            arguments=["--max-model-len", "1024", "--max-num-seqs", "32"],
        )
        try:
            wait_ready(process, url, log_path=folder / "log")
            yield url
        finally:
            process.end()


@pytest.mark.slow
def test_real_vllm_wants_the_key_where_it_would_not_have_asked_for_it(server, monkeypatch):
    root = server.removesuffix("/v1")
    for path in ("/v1/models", "/invocations", "/tokenize"):
        assert status(root + path) == 401 and status(root + path, "secret") != 401, path
    check_key(server)
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: open("/dev/null"))
    with pytest.raises(ServerError, match="answers POST /invocations without VLLM_API_KEY"):
        check_key(server)


ITEM = Interaction("a quiet film by the sea", "a loud film with cars", "Which film?")


@pytest.mark.slow
async def test_a_seeded_answer_repeats_beside_judgements_and_not_beside_unseeded_requests(server, monkeypatch):
    """vLLM 0.27.1 on a CPU; should the last line fail, it has been mended there and ONE_TOKEN needs no seed."""
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    prompts = PromptSet()
    async with Endpoint(server, api_key_env="VLLM_API_KEY") as endpoint:
        from transformers import AutoTokenizer

        judge = Judge(endpoint, AutoTokenizer.from_pretrained(endpoint.root), prompts)

        async def written(seed):
            reply = await endpoint.chat(prompts.infer([ITEM] * 3), max_tokens=200, temperature=1.0, seed=seed)
            return reply["choices"][0]["message"]["content"]

        async def beside(ask):
            async def go_on():
                while True:
                    await ask()

            tasks = [asyncio.create_task(go_on()) for _ in range(4)]
            await asyncio.sleep(0.3)
            texts = [await written(seed) for seed in range(3)]
            for task in tasks:
                task.cancel()
            return texts

        async def judged():
            assert (await judge.score(f"Likes {random.random()}.", ITEM, "k")).ok

        async def unseeded():
            await endpoint.chat(prompts.infer([ITEM]), max_tokens=8, temperature=1.0)

        alone = [await written(seed) for seed in range(3)]
        assert alone == [await written(seed) for seed in range(3)] and len(set(alone)) == 3
        assert await beside(judged) == alone
        assert judge.reader._together is not None
        judge.reader._together, judge.reader._reads_ids = None, False  # as a GPU's server is asked
        assert await beside(judged) == alone
        assert await beside(unseeded) != alone
