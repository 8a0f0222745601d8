"""Replies that other requests of a batch have torn, and numbers that are no log-probabilities: never believed."""

import math
import random

import pytest

from alignxplore.journal import OK, TRANSPORT_ERROR
from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.letters import Judge
from alignxplore.prompts import PromptSet
from alignxplore.serving.endpoint import Endpoint
from tests.judging.test_letters import GOOD, PATHS, LetterServer, prefers_good


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


def tops(reply):
    return reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]


def torn_by_ids(reply):
    """vLLM 0.27.1, in a batch that holds a request with `logprob_token_ids`."""
    tops(reply)[1:] = [{"token": "token_id:0", "logprob": -9999.0}]


def only_the_best(reply):
    del tops(reply)[1:]


def rarer_letter_lost(reply):
    """Twenty entries, of which one is masked: the rare letter."""
    entries = tops(reply)
    low = min((top for top in entries[:2]), key=lambda top: top["logprob"])
    low["token"], low["logprob"] = "token_id:0", -9999.0


TEARS = [torn_by_ids, only_the_best, rarer_letter_lost]


class Shared(LetterServer):
    """A judge beside another run: a third of the replies that list the most probable tokens are torn."""

    def __init__(self, tokenizer, weigh, tear, **options):
        super().__init__(tokenizer, weigh, **options)
        self.tear, self.chance = tear, random.Random(1)

    def __call__(self, body):
        reply = super().__call__(body)
        if isinstance(reply, dict) and "top_logprobs" in body:
            if self.chance.random() < 1 / 3:
                self.tear(reply)
        return reply


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_judge_that_another_run_asks_too_is_taken_and_read_rightly(fake_server, tokenizer, path, tear):
    answer = Shared(tokenizer, prefers_good, tear, **PATHS[path])
    async with fake_server(answer) as server, Endpoint(server.url, patience=5) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        assert await judge.check([("s", GOOD)] * 4) == pytest.approx(0.98)
        judgements = [await judge.score("s", GOOD, i) for i in range(3)]
    assert [judgement.p for judgement in judgements] == pytest.approx([0.8] * 3) and judgements[
        0
    ].mass == pytest.approx(0.98)


@pytest.mark.parametrize("tear", TEARS[:2])
async def test_a_torn_choice_of_two_letters_is_asked_for_again(fake_server, tokenizer, tear):
    """The rare letter stands outside the twenty best; a torn answer would make the other one certain."""

    def weigh(a, b):
        return (0.1, 0.3) if "good" in a else (0.3, 0.1)

    class Torn(LetterServer):
        choices = 0

        def __call__(self, body):
            reply = super().__call__(body)
            if "structured_outputs" in body:
                self.choices += 1
                if self.choices % 3:
                    tear(reply)
            elif isinstance(reply, dict):  # both letters beyond the twenty best
                tops(reply)[:] = [{"token": f"token_id:{100_000 + i}", "logprob": -4.0} for i in range(20)]
            return reply

    answer = Torn(tokenizer, weigh, reads_ids=False)
    async with fake_server(answer) as server, Endpoint(server.url, patience=5) as endpoint:
        judgement = await Judge(endpoint, tokenizer, PromptSet()).score("s", GOOD, "k")
    assert judgement.orders == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize("tear", TEARS[:2])
@pytest.mark.parametrize("path", PATHS)
async def test_a_reply_that_is_always_torn_is_a_failure_and_never_a_score(fake_server, tokenizer, path, tear):
    class Always(LetterServer):
        def __call__(self, body):
            reply = super().__call__(body)
            if isinstance(reply, dict) and tops(reply):
                tear(reply)
            return reply

    answer = Always(tokenizer, prefers_good, **PATHS[path])
    async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judgement = await Judge(endpoint, tokenizer, PromptSet()).score("s", GOOD, "k")
    assert judgement.status == TRANSPORT_ERROR and judgement.orders == () and "torn" in judgement.error


@pytest.mark.parametrize("path", PATHS)
async def test_a_mass_above_one_is_no_probability(fake_server, tokenizer, path):
    """`vllm serve --logprobs-mode raw_logits`: the letters' "log-probabilities" are 9 and 8."""

    class Logits(LetterServer):
        raw = True

        def __call__(self, body):
            reply = super().__call__(body)
            if isinstance(reply, dict) and self.raw:
                for top in tops(reply):
                    top["logprob"] += 9
            return reply

    answer = Logits(tokenizer, prefers_good, **PATHS[path])
    async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet())
        with pytest.raises(JudgeError, match=rf"a probability of {0.98 * math.exp(9):.3f}, .*--logprobs-mode"):
            await judge.check([("s", GOOD)])
        judgement = await judge.score("s", GOOD, "k")
        assert judgement.status == TRANSPORT_ERROR and "probability of" in judgement.error
        answer.raw = False
        assert (await judge.score("s", GOOD, "k")).status == OK
