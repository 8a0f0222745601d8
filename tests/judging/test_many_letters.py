"""Letters of several items beside a server that is asked about pairs in one request, and which item is longest."""

import re

import pytest
from aiohttp import web

from alignxplore.journal import TRANSPORT_ERROR
from alignxplore.judging.judgement import Judgement
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.ranking import question, rank
from alignxplore.judging.yes_no import YesNoJudge
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, Offer
from alignxplore.serving.endpoint import Endpoint
from tests.conftest import FakeServer
from tests.judging.test_ranking import MASS, Server, lettered, offer_of, shares  # noqa: F401


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


class BothWays(FakeServer):
    """The server of `test_ranking`, which also reads many prompts of token ids in one request, as vLLM does."""

    def __init__(self, tokenizer):
        super().__init__(self.chat_reply)
        self.tokenizer, self.of_letters, self.batches = tokenizer, Server(tokenizer), []
        self._server.app.router.add_post("/v1/completions", self.complete)

    def chat_reply(self, body):
        ids = self.tokenizer.apply_chat_template(
            body["messages"], continue_final_message=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        return self.of_letters(body) | {"prompt_token_ids": ids}

    async def complete(self, request):
        body = await request.json()
        self.batches.append(len(body["prompt"]))
        choices = []
        for i, ids in enumerate(body["prompt"]):
            messages = [None, {"content": self.tokenizer.decode(ids).replace("<|im_end|>", "")}, {"role": "assistant"}]
            messages[2]["content"] = self.of_letters.letters.prefill
            fields = {"messages": messages, "max_tokens": 1, "logprob_token_ids": body["logprob_token_ids"]}
            (content,) = self.of_letters(fields)["choices"][0]["logprobs"]["content"]
            logs = {entry["token"]: entry["logprob"] for entry in content["top_logprobs"]}
            choices.append({"index": i, "text": "x", "logprobs": {"top_logprobs": [logs]}})
        return web.json_response({"choices": choices})


async def test_letters_of_many_items_are_asked_for_by_themselves_where_pairs_go_together(lettered):  # noqa: F811
    """What goes together asks for two letters, and has no number of the others."""
    offer, pair = offer_of(5), Interaction("item 0", "item 1", "Which?")
    async with BothWays(lettered) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judge = Judge(endpoint, lettered, PromptSet())
        assert (await judge.score("s", pair, "k")).p == pytest.approx(shares(offer_of(2))[0])
        assert server.batches == [1, 2], "the probe's, and a pair in both orders"
        ranking = await rank(judge, "s", None, offer, "key")
    assert [list(scores) for scores in ranking.rotations] == [pytest.approx(shares(offer))] * 2
    assert ranking.mass == pytest.approx(MASS) and server.batches == [1, 2]
    assert not [body for body in server.bodies if "structured_outputs" in body]


async def test_a_choice_that_lacks_what_it_is_measured_by_is_a_failure_and_no_ranking(fake_server, lettered):  # noqa: F811
    """Some of 26 letters stand outside the twenty best; the reply about them has all but the most probable one."""
    server = Server(lettered, reads_ids=False)

    def answer(body):
        reply = server(body)
        if len(body.get("structured_outputs", {}).get("choice", server.letters.texts)) < 26:
            entries = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            entries[0] |= {"token": "token_id:99999"}
            for top in entries:
                top["logprob"] = max(top["logprob"], -50.0)
        return reply

    async with fake_server(answer) as fake, Endpoint(fake.url, patience=0.02) as endpoint:
        ranking = await rank(Judge(endpoint, lettered, PromptSet()), "s", None, offer_of(26), "key")
    assert (ranking.status, ranking.rotations) == (TRANSPORT_ERROR, ()) and "not a number" in ranking.error


@pytest.mark.parametrize("sure", [True, False])
async def test_a_probability_far_beyond_what_a_float_holds_is_one_or_nought(fake_server, tokenizer, sure):
    letters = find_letters(tokenizer)

    def answer(body):
        is_first = body["messages"][1]["content"].rsplit("Item A: ", 1)[1].startswith("good")
        logs = (-1e-9, -2000.0) if is_first == sure else (-2000.0, -1e-9)
        entries = [{"token": f"token_id:{i}", "logprob": log} for i, log in zip(letters.tokens, logs)]
        return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}

    async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judgement = await Judge(endpoint, tokenizer, PromptSet()).score("s", Interaction("good", "bad"), "k")
    assert isinstance(judgement, Judgement) and judgement.ok and judgement.p == pytest.approx(float(sure), abs=1e-12)


@pytest.mark.parametrize("chosen", [1, 3])
def test_a_prompt_as_long_as_any_holds_the_longest_items(tokenizer, chosen):
    """Of a tokenizer that knows A and B alone: the two longest of all."""
    items = ("short", "a much longer item of an offer", "s", "quite a long item")
    offer = Offer(items[0], None, "Which?", items[1:chosen], items[chosen:])
    judge = Judge(Endpoint("http://nowhere/v1"), tokenizer, PromptSet())
    (text,) = [m["content"] for m in question(judge, "s", None, offer) if m["role"] == "user"]
    assert sorted(re.findall(r"^Item [A-Z]: (.*)$", text, re.MULTILINE)) == [items[1], items[3]]
    assert judge.items_at_once == 2


@pytest.mark.parametrize(("chosen", "rejected"), [("longer item", "short"), ("short", "longer item")])
def test_a_yes_no_reader_is_measured_by_the_longer_item_of_a_pair(tokenizer, chosen, rejected):
    judge = YesNoJudge(Endpoint("http://nowhere/v1"), tokenizer, PromptSet())
    item, history = Interaction(chosen, rejected, "Which?"), (Interaction("seen", "other"),)
    assert judge.direct_messages(history, item) == judge.about(None, history, "Which?", ["longer item"])
