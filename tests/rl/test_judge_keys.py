"""Each judge gets its own key: none that is another's reaches its server."""

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from alignxplore.records import Interaction
from alignxplore.rl.checks import missing_keys
from alignxplore.rl.reward import Judges, judge_keys
from alignxplore.rl.same_run import served_by_judges
from alignxplore.rl.settings import SettingsError, Streaming
from tests.rl.fake_judge import FakeJudge
from tests.rl.test_presets import compose  # noqa: F401

TEA = Interaction("green tea", "black coffee", "What to drink?")


@pytest.fixture
async def servers(tmp_path, tokenizer, monkeypatch):
    """(what names two judges, the keys that each has been sent)."""
    monkeypatch.setenv("OWN_KEY", "secret-of-a")
    monkeypatch.setenv("OTHER_KEY", "secret-of-b")
    tokenizer.save_pretrained(tmp_path)
    keys: dict[str, set[str | None]] = {"a": set(), "b": set()}

    def application(name):
        @web.middleware
        async def noting(request, handler):
            keys[name].add(request.headers.get("Authorization"))
            return await handler(request)

        app = FakeJudge(str(tmp_path)).app()
        app.middlewares.append(noting)
        return app

    async with TestServer(application("a")) as a, TestServer(application("b")) as b:
        yield {"judges": f"a={a.make_url('/v1')}", "val_judges": f"b={b.make_url('/v1')}"}, keys


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ("a=OWN_KEY", ("secret-of-a", None)),
        ("a=OWN_KEY b=OTHER_KEY", ("secret-of-a", "secret-of-b")),
        ("OWN_KEY b=OTHER_KEY", ("secret-of-a", "secret-of-b")),
        ("OWN_KEY", ("secret-of-a", "secret-of-a")),
        (None, (None, None)),
    ],
)
async def test_each_judge_is_sent_its_own_key(servers, variables, expected):
    named, keys = servers
    settings = Streaming(**named, judge_api_key_env=variables)
    await served_by_judges(settings, 5)
    for connect in (Judges.connect, Judges.connect_watching):
        judges = await connect(settings)
        assert (await judges.score("likes tea", TEA, ["u", 0])).status == "ok"
        await judges.close()
    assert keys == {name: {key and f"Bearer {key}"} for name, key in zip("ab", expected)}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ("c=KEY", "streaming.judge_api_key_env: give one value for all models and NAME=VALUE for single ones of a, b"),
        ("KEY OTHER", "streaming.judge_api_key_env: give one value for all"),
        ("a=KEY a=OTHER", "streaming.judge_api_key_env: a is given twice"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(variables, sentence):
    settings = Streaming(judges="a=http://x/v1", val_judges="b=http://y/v1", judge_api_key_env=variables)
    with pytest.raises(SettingsError, match=f"^{re.escape(sentence)}"):
        judge_keys(settings)


def test_a_run_takes_keys_by_name_and_names_those_that_are_not_set(compose, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OWN_KEY", "k")
    config = compose('streaming.judge_api_key_env="judge=OWN_KEY b=NO_KEY"', VAL_JUDGES="b=http://y:2/v1")
    assert missing_keys(config) == ["streaming.judge_api_key_env: the environment variable NO_KEY is not set"]
