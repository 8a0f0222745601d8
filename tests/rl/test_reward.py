"""The reward through the one judge over HTTP: several judges, orders, failures. The server is a stand-in, the rest is
real."""

import asyncio
import math
import random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from alignxplore.journal import TRANSPORT_ERROR
from alignxplore.judging.judgement import JudgeError
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.rl import reward as reward_module
from alignxplore.rl.checks import check_judges
from alignxplore.rl.reward import Judges, Watched, tokenizer_of
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError
from alignxplore.serving.models import ModelSpec
from tests.rl import fake_judge

COFFEE = Interaction("cold coffee", "mint tea", "What to drink?")
TEA = Interaction("green tea", "black coffee", "What to drink?")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from alignxplore.world.tiny import make_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(1, 800, PromptSet("default")).save_pretrained(folder)
    return str(folder)


@pytest.fixture
async def judges(tokenizer):
    """judges("words", "a", judge_orders=...) → connected Judges, and the servers behind them."""
    servers, connected = [], []

    async def connect(*modes, **settings):
        fakes = [fake_judge.FakeJudge(tokenizer, mode) for mode in modes]
        for fake in fakes:
            servers.append(TestServer(fake.app()))
            await servers[-1].start_server()
        named = " ".join(f"{chr(97 + i)}={server.make_url('/v1')}" for i, server in enumerate(servers))
        connected.append(
            await Judges.connect(Streaming(judges=named, **{"judge_timeout": 0.5, "judge_patience": 2.5} | settings))
        )
        return connected[0], fakes

    yield connect
    for each in connected:
        await each.close()
    for server in servers:
        await server.close()


async def test_the_reward_is_the_mean_of_the_judges_and_each_is_kept(judges):
    both, _ = await judges("words", "a")
    reward = await both.score("likes green tea", TEA, ["u", 0])
    assert reward.by_judge["b"] == [pytest.approx(0.5)] and reward.by_judge["a"][0] > 0.7
    assert reward.value == pytest.approx((reward.by_judge["a"][0] + 0.5) / 2) and reward.seconds > 0


async def test_a_judge_that_always_says_a_gives_half_in_both_orders(judges):
    one, _ = await judges("a")
    assert (await one.score("likes tea", TEA, ["u", 0])).value == pytest.approx(0.5)


QUESTIONS = [("likes green tea", TEA), ("likes cold coffee", COFFEE)] * 2


@pytest.mark.parametrize("orders", ["both", "one", "per_rollout"])
async def test_a_judge_that_goes_by_the_place_is_refused_and_others_are_not(judges, orders):
    two, fakes = await judges("words", "a", judge_orders=orders)
    with pytest.raises(JudgeError, match="judge b gives the letter A a probability between 0.99"):
        await two.check(QUESTIONS)
    jitter = random.Random(0)
    fakes[1].log_probabilities = lambda question: (lambda p: (math.log(1 - p), math.log(p)))(
        jitter.uniform(0.95, 0.999)
    )
    with pytest.raises(JudgeError, match="judge b gives the letter A a probability between 0.0"):
        await two.check(QUESTIONS)
    fakes[1].log_probabilities = lambda question: (math.log(0.5), math.log(0.5))  # knows nothing
    assert set(await two.check(QUESTIONS)) == {"a", "b"}


async def test_a_judge_that_answers_nan_is_refused(judges):
    one, _ = await judges("nan")
    with pytest.raises(JudgeError, match="no judge"):
        await one.check([(None, TEA)])


async def test_repeated_requests_are_counted_by_kind_once(judges):
    one, fakes = await judges("words")
    fakes[0].mode, fakes[0].faults = "faults", 7  # the next faults: 500, an HTML page, torn JSON
    while one.judges[0].endpoint.retries < 3:
        await one.score("likes tea", TEA, ["u", 0])
    assert one.repeated() == {"a/http_500": 1, "a/not_json": 2} and one.repeated() == {}


async def test_replies_without_usable_log_probabilities_are_asked_for_again(judges):
    one, fakes = await judges("words")
    fakes[0].mode, fakes[0].faults = "faults", 10  # the next faults: no log-probabilities, NaN
    while one.judges[0].endpoint.retries < 2:
        assert (await one.score("likes tea", TEA, ["u", 0])).status == "ok"
    assert one.repeated() == {"a/unusable": 2}


async def test_a_server_that_never_gives_log_probabilities_is_named_at_once(judges):
    one, fakes = await judges("words", judge_patience=600.0)
    fakes[0].reply = lambda *_, **__: web.json_response(
        {"choices": [{"index": 0, "message": {"content": " A"}, "logprobs": None}]}
    )
    with pytest.raises(TransportError, match="serve the judge with vLLM"):
        await asyncio.wait_for(one.check([("likes tea", TEA)]), 5)


async def test_one_order_is_shared_by_the_group_and_differs_between_groups(judges):
    one, _ = await judges("a", judge_orders="one")
    group = {(await one.score("x", TEA, ["u7", 0], rollout)).value for rollout in range(8)}
    assert len(group) == 1
    groups = {round((await one.score("x", TEA, [f"u{i}", 0], 0)).value, 3) for i in range(16)}
    assert groups == {0.01, 0.99}


async def test_the_published_order_is_drawn_for_each_rollout(judges):
    one, _ = await judges("a", judge_orders="per_rollout")
    assert len({round((await one.score("x", TEA, ["u7", 0], rollout)).value, 3) for rollout in range(16)}) == 2


async def test_nan_is_a_failure_and_not_a_reward(judges):
    one, _ = await judges("nan")
    reward = await one.score("likes tea", TEA, ["u", 0])
    assert reward.value is None and reward.status != "ok" and reward.error.startswith("a: ")


async def test_one_failed_judge_of_two_fails_the_reward(judges):
    both, fakes = await judges("words", "words")
    fakes[1].mode, fakes[1].asked = "dead", 0
    fakes[1].log_probabilities = lambda question: 1 / 0
    reward = await both.score("likes tea", TEA, ["u", 0])
    assert reward.value is None and reward.status == TRANSPORT_ERROR and "b: " in reward.error


@pytest.fixture
async def watched(judges, tokenizer):
    """watched(mode, ...) → what judges held-out users under judge `a` and a second one, `w`, that only watches, with
    the fakes behind them."""
    async with TestServer(fake_judge.FakeJudge(tokenizer, "words").app()) as server:

        async def connect(**settings):
            reward, (fake,) = await judges("words", **settings)
            settings = {"judge_timeout": 0.5, "judge_patience": 1.0} | settings
            watching = await Judges.connect_watching(
                Streaming(judges="a=http://x/v1", val_judges=f"w={server.make_url('/v1')}", **settings)
            )
            opened.append(watching)
            return Watched(reward, watching), fake

        opened: list[Judges] = []
        connect.url = f"w={server.make_url('/v1')}"
        yield connect
        for each in opened:
            await each.close()


async def test_a_judge_that_watches_is_asked_in_both_orders_and_is_in_no_reward(watched):
    both, fake = await watched(judge_orders="one")
    fake.mode = "a"
    reward = await both.score("likes green tea", TEA, ["u", 0])
    assert [reward.value] == reward.by_judge["a"] in ([0.99], [pytest.approx(0.01)])
    assert reward.by_judge["w"][0] > 0.7 and len(reward.letter_a["w"]) == 2 and len(reward.letter_a["a"]) == 1
    assert reward.status == "ok" and reward.missing == {}


async def test_a_judge_that_watches_and_fails_is_missing_and_costs_no_reward(watched):
    both, _ = await watched()
    await both.observers.judges[0].endpoint.close()
    both.observers.judges[0].endpoint.url = "http://127.0.0.1:9/v1"  # nobody listens there any more
    reward = await both.score("likes green tea", TEA, ["u", 0])
    assert [reward.value] == reward.by_judge["a"] and reward.value > 0.7
    assert (reward.status, reward.error) == ("ok", None)
    assert set(reward.by_judge) == {"a"} and reward.missing["w"].startswith(TRANSPORT_ERROR)


@pytest.mark.parametrize(("patience", "watching"), [(1000.0, 0.2), (0.2, 1000.0)])
async def test_a_judge_that_watches_and_has_gone_is_waited_for_no_longer_than_a_minute(
    watched, monkeypatch, patience, watching
):
    """Or for as long as a judge of the reward, where that is less."""
    assert reward_module.WATCHING_PATIENCE == 60
    monkeypatch.setattr(reward_module, "WATCHING_PATIENCE", watching)
    both, _ = await watched(judge_patience=patience)
    both.observers.judges[0].endpoint.url = "http://127.0.0.1:9/v1"  # nobody listens there any more
    reward = await asyncio.wait_for(both.score("likes green tea", TEA, ["u", 0]), 20)
    assert reward.value > 0.7 and set(reward.missing) == {"w"}


async def test_a_judge_of_the_reward_that_fails_leaves_what_the_other_said(watched):
    both, fake = await watched()
    fake.mode = "nan"
    reward = await both.score("likes green tea", TEA, ["u", 0])
    assert reward.value is None and reward.status == TRANSPORT_ERROR and reward.error.startswith("a: ")
    assert set(reward.by_judge) == {"w"} and set(reward.missing) == {"a"}


def rows_of(questions):
    """RL data, as far as the check at the start reads it."""
    return [
        {
            "extra_info": {
                "user": "u",
                "history": [{"query": item.query, "chosen": item.chosen, "rejected": item.rejected}] * 3,
                "positions": [1, 2],
            }
        }
        for item in questions
    ]


async def test_judges_that_watch_are_checked_at_the_start_like_the_others(watched, tokenizer):
    both, fake = await watched()
    named = f"a={both.judges.judges[0].endpoint.url}"
    settings = Streaming(judges=named, val_judges=watched.url, judge_timeout=0.5, judge_patience=1.0)
    assert set(await check_judges(settings, rows_of([TEA, COFFEE]))) == {"a", "w"}
    fake.mode = "a"
    swapped = Streaming(judges=watched.url, val_judges=named, judge_timeout=0.5, judge_patience=1.0)
    with pytest.raises(JudgeError, match="judge a gives the letter A"):
        await check_judges(swapped, rows_of([TEA, COFFEE]))


async def test_settings_that_cannot_be_meant(judges, tokenizer):
    with pytest.raises(SettingsError, match="empty"):
        Streaming.from_config({"judges": ""})
    for value in (-1, 2.5):
        with pytest.raises(
            SettingsError, match=f"val_temperature={value} is no temperature from 0 to 2; 0 decodes gr"
        ):
            Streaming.from_config({"judges": "a=http://x/v1", "val_temperature": value})
    with pytest.raises(JudgeError, match="no judge"):
        one, fakes = await judges("words")
        fakes[0].log_probabilities = lambda question: (-5.0, -5.0)
        await one.check([(None, TEA)])


async def test_one_of_the_models_of_a_server_is_named(tokenizer):
    fake = fake_judge.FakeJudge(tokenizer)
    fake.names = ["org/small", "org/large"]
    async with TestServer(fake.app()) as server:
        with pytest.raises(RequestError, match=r"serves org/small, org/large; name one of them, as http.*/v1@MODEL"):
            await Judges.connect(Streaming(judges=f"large={server.make_url('/v1')}"))
        both = await Judges.connect(
            Streaming(judges=f"{server.make_url('/v1')}@org/small large={server.make_url('/v1')}@org/large")
        )
        assert [(judge.name, judge.endpoint.model) for judge in both.judges] == [
            ("small", "org/small"),
            ("large", "org/large"),
        ]
        await both.close()


@pytest.mark.parametrize("form", ["PATH", "a=PATH b=Q", "a=PATH\nb=PATH\n", "a=PATH\n"])
async def test_a_tokenizer_may_lie_in_a_folder_with_blanks(judges, tokenizer, tmp_path, form):
    (tmp_path / "my judge").symlink_to(tokenizer)
    form = form.replace("PATH", str(tmp_path / "my judge") if "Q" not in form else tokenizer).replace("Q", tokenizer)
    both, _ = await judges("words", "words", judge_tokenizer=form)
    assert (await both.score("likes green tea", TEA, ["u", 0])).value > 0.7


async def test_a_judge_without_a_tokenizer_says_how_to_give_one(tokenizer, tmp_path):
    async with TestServer(fake_judge.FakeJudge(tokenizer).app()) as server:
        settings = Streaming(judges=f"a={server.make_url('/v1')}", judge_tokenizer=str(tmp_path))
        sentence = rf"judge a: no tokenizer at {tmp_path} \(.*\); or name another one with JUDGE_TOKENIZER=a=PATH"
        with pytest.raises(SettingsError, match=sentence):
            await Judges.connect(settings)


@pytest.mark.parametrize(
    ("judge_tokenizer", "judge", "source"),
    [
        ("a", "j=http://x/v1#b", "a"),
        ("j=a", "j=http://x/v1#b", "a"),
        ("other=a", "j=http://x/v1#b", "b"),
        (None, "j=http://x/v1#b", "b"),
        ("other=a", "j=http://x/v1", "root"),
        (None, "j=http://x/v1", "root"),
    ],
)
def test_a_tokenizer_that_the_settings_name_goes_before_those_of_judge_and_server(judge_tokenizer, judge, source):
    endpoint = Endpoint("http://x/v1")
    endpoint.root = "root"
    settings = Streaming(judges=judge, judge_tokenizer=judge_tokenizer)
    assert tokenizer_of(settings, ModelSpec.parse(judge), endpoint) == source


async def test_what_was_opened_is_closed_where_a_judge_is_missing(judges, tokenizer, monkeypatch, unused_tcp_port):
    (there, _), closed, close = await judges("words"), [], Endpoint.close

    async def noted(endpoint):
        closed.append(endpoint.name)
        await close(endpoint)

    monkeypatch.setattr(Endpoint, "close", noted)
    url = there.judges[0].endpoint.url
    with pytest.raises(TransportError):
        await Judges.connect(
            Streaming(
                judges=f"a={url} b=http://127.0.0.1:{unused_tcp_port}/v1",
                judge_tokenizer=tokenizer,
                judge_patience=0.1,
            )
        )
    assert closed == ["b", "a"]
