"""Questions that wait at the same moment go in one request, where a server reads token ids as it reads the chat."""

import asyncio
import json
import math
import threading

import pytest
from aiohttp import web

from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.together import LONGEST, MOST
from alignxplore.judging.token_reader import TokenReader
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint
from tests.conftest import FakeServer


class TwoWays(FakeServer):
    """vLLM's two ways of being asked, for a judge that is sure of `P(A)` by the number in item A's text.

    `spoil(choices)` changes the reply to a request of token ids, or raises an HTTP error.
    """

    def __init__(self, tokenizer, spoil=lambda choices: None, other_template=False):
        super().__init__(self.chat_reply)
        self.tokenizer, self.spoil, self.other_template = tokenizer, spoil, other_template
        self.letters, self.batches, self.short_replies = find_letters(tokenizer), [], []
        self._server.app.router.add_post("/v1/completions", self.complete)

    def logs(self, text):
        p = float(text.rsplit("Item A: ", 1)[1].split()[0])
        return {f"token_id:{i}": math.log(x) for i, x in zip(self.letters.tokens, (p, 1 - p))}

    def chat_reply(self, body):
        if "refused" in str(body["messages"]):
            return web.Response(status=400, text="a prompt of 1100 tokens is longer than 1024")
        entries = [{"token": k, "logprob": v} for k, v in self.logs(body["messages"][-2]["content"]).items()]
        ids = self.tokenizer.apply_chat_template(
            body["messages"], continue_final_message=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        content = [{"token": "x", "top_logprobs": entries}]
        return {
            "choices": [{"message": {"content": "x"}, "logprobs": {"content": content}}],
            "prompt_token_ids": ids[1:] if self.other_template else ids,
        }

    async def complete(self, request):
        body = await request.json()
        assert body["logprob_token_ids"] == list(self.letters.tokens) and body["max_tokens"] == 1
        if self.short_replies:
            return web.json_response(self.short_replies.pop())
        texts = [self.tokenizer.decode(ids) for ids in body["prompt"]]
        self.batches.append(len(texts))
        if any("refused" in text for text in texts):
            return web.Response(status=400, text="a prompt of 1100 tokens is longer than 1024")
        choices = [
            {"index": i, "text": "x", "logprobs": {"top_logprobs": [self.logs(text)]}} for i, text in enumerate(texts)
        ]
        self.spoil(choices)
        return web.Response(text=json.dumps({"choices": choices[::-1]}), content_type="application/json")


def item(number):
    """Its chosen film is foreseen with 0.01 `number`, whatever the order: the other one says the opposite."""
    return Interaction(f"{number / 100:.2f} film", f"{1 - number / 100:.2f} film")


async def judged(tokenizer, numbers, summary="s", **options):
    """(judgements, server) of items that are all asked about at once, after a check."""
    async with TwoWays(tokenizer, **options) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        await judge.check([("s", item(50))])
        server.bodies.clear()
        server.batches.clear()
        return await asyncio.gather(*(judge.score(summary, item(n), n) for n in numbers)), server


async def test_each_question_of_a_request_gets_its_own_answer(tokenizer):
    numbers = list(range(5, 95))
    judgements, server = await judged(tokenizer, numbers)
    assert [j.p_chosen_first for j in judgements] == pytest.approx([n / 100 for n in numbers])
    assert [j.p_chosen_second for j in judgements] == pytest.approx([n / 100 for n in numbers])
    assert {j.status for j in judgements} == {OK} and [j.mass for j in judgements] == pytest.approx([1.0] * 90)
    assert server.bodies == [] and server.batches == [MOST] * 5 + [180 - 5 * MOST]


async def test_prompts_are_tokenised_beside_the_loop(tokenizer, monkeypatch):
    """The check looks at one prompt itself; all others are a thread's of their own, and still go together."""
    threads, ids = [], TokenReader._ids

    def noted(self, *arguments, **options):
        threads.append(threading.current_thread())
        return ids(self, *arguments, **options)

    monkeypatch.setattr(TokenReader, "_ids", noted)
    judgements, server = await judged(tokenizer, range(5, 95))
    assert [j.p_chosen_first for j in judgements] == pytest.approx([n / 100 for n in range(5, 95)])
    assert threads.count(threading.main_thread()) == 1 and len(set(threads)) == 2 and len(threads) == 181
    assert server.batches == [MOST] * 5 + [180 - 5 * MOST]


async def test_a_server_that_renders_the_chat_otherwise_is_asked_by_chat(tokenizer):
    judgements, server = await judged(tokenizer, [20, 80], other_template=True)
    assert [j.p for j in judgements] == pytest.approx([0.2, 0.8]) and server.batches == [] and len(server.bodies) == 4


def other_numbers(choices):
    for choice in choices:
        choice["logprobs"]["top_logprobs"][0] = {
            key: math.log(0.5) - 1 for key in choice["logprobs"]["top_logprobs"][0]
        }


def almost_the_same(choices):
    """As a server that computes both ways in another precision: other numbers than the chat's, by 0.01."""
    for choice in choices:
        entries = choice["logprobs"]["top_logprobs"][0]
        choice["logprobs"]["top_logprobs"][0] = {key: log - 0.01 for key, log in entries.items()}


def no_route(choices):
    raise web.HTTPNotFound


@pytest.mark.parametrize("spoil", [other_numbers, almost_the_same, no_route])
async def test_a_server_that_answers_ids_otherwise_or_not_at_all_is_asked_by_chat(tokenizer, spoil):
    judgements, server = await judged(tokenizer, [20, 80], spoil=spoil)
    assert [j.p for j in judgements] == pytest.approx([0.2, 0.8]) and server.batches == [] and len(server.bodies) == 4


async def test_what_is_refused_fails_alone(tokenizer):
    async with TwoWays(tokenizer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        await judge.check([("s", item(50))])
        judgements = await asyncio.gather(
            *(judge.score("refused" if n == 3 else "s", item(n), n) for n in range(1, 6))
        )
    assert [j.status for j in judgements] == [OK, OK, REFUSED, OK, OK] and "longer than 1024" in judgements[2].error
    assert [j.p for j in judgements if j.ok] == pytest.approx([0.01, 0.02, 0.04, 0.05])


async def test_an_answer_without_its_numbers_is_asked_for_by_itself(tokenizer):
    def spoil(choices):
        if len(choices) > 1:
            choices[0]["logprobs"]["top_logprobs"][0] = {}
            choices[3]["logprobs"]["top_logprobs"][0] |= {
                key: math.nan for key in choices[3]["logprobs"]["top_logprobs"][0]
            }

    judgements, server = await judged(tokenizer, [10, 20, 30], spoil=spoil)
    assert [j.p for j in judgements] == pytest.approx([0.1, 0.2, 0.3]) and len(server.bodies) == 2


async def test_no_reply_fails_all_who_waited(tokenizer):
    def spoil(choices):
        if len(choices) > 1:
            del choices[0]

    judgements, _ = await judged(tokenizer, [10, 20], spoil=spoil)
    assert {j.status for j in judgements} == {TRANSPORT_ERROR} and "3 choices for 4 prompts" in judgements[0].error


REPEATED = [{"index": 0, "logprobs": None}] * 2 + [{"index": place, "logprobs": None} for place in range(2, 32)]


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": None},
        {"message": "upstream warming up"},
        {"choices": [{"index": 0}]},
        {"choices": REPEATED},
        {"choices": [{"index": str(place)} for place in range(32)]},
    ],
    ids=["none", "null", "a message", "too few", "one twice", "no numbers"],
)
async def test_a_reply_without_one_choice_for_each_prompt_is_asked_for_again(tokenizer, reply):
    """Once, as of a gateway whose model is still coming up: nothing is lost."""
    async with TwoWays(tokenizer) as server, Endpoint(server.url, patience=20) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        await judge.check([("s", item(50))])
        server.short_replies = [reply]
        judgements = await asyncio.gather(*(judge.score("s", item(n), n) for n in range(10, 26)))
    assert [j.p for j in judgements] == pytest.approx([n / 100 for n in range(10, 26)])
    assert endpoint.repeats == {"unusable": 1}


async def test_a_server_that_never_has_a_choice_for_each_prompt_is_asked_by_chat_at_once(tokenizer):
    async with TwoWays(tokenizer, spoil=list.clear) as server, Endpoint(server.url, patience=600) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        await asyncio.wait_for(judge.check([("s", item(50))]), 20)
        assert (await judge.score("s", item(20), 0)).p == pytest.approx(0.2) and server.batches == [1]


async def test_a_probability_above_1_is_not_believed(tokenizer):
    """Raw logits in the place of log-probabilities, which would read as a judge that is sure."""

    def spoil(choices):
        if len(choices) > 1:
            entries = choices[0]["logprobs"]["top_logprobs"][0]
            choices[0]["logprobs"]["top_logprobs"][0] = dict(zip(entries, (18.2, 3.5)))

    judgements, server = await judged(tokenizer, [10, 20, 30], spoil=spoil)
    assert [j.p for j in judgements] == pytest.approx([0.1, 0.2, 0.3]) and len(server.bodies) == 1
    assert [j.mass for j in judgements] == pytest.approx([1.0] * 3)


async def test_long_prompts_go_by_chat(tokenizer):
    judgements, server = await judged(tokenizer, [10, 20], summary="long " * LONGEST)
    assert [j.p for j in judgements] == pytest.approx([0.1, 0.2]) and server.batches == [] and len(server.bodies) == 4
