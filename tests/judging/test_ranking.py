"""A choice among k items against a server whose utilities are known: ways of asking, rotations, groups, failures."""

import copy
import json
import math
import re
from string import ascii_uppercase

import pytest
from aiohttp import web

from alignxplore.evaluation.measures import all_of
from alignxplore.evaluation.measures import ranked as in_tiers
from alignxplore.journal import REFUSED, TRANSPORT_ERROR
from alignxplore.judging.free_form import ReasoningJudge
from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.ranking import MOST, check, first_shares, groups, purpose_of, rank, rotated
from alignxplore.judging.yes_no import YesNoJudge, find_words
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, Offer
from alignxplore.serving.endpoint import Endpoint

FLOOR = -9999.0  # vLLM writes minus infinity so
MASS = 0.96
PATHS = {"ids": {}, "top 20": {"reads_ids": False}, "strict": {"reads_ids": False, "strict": True}}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


@pytest.fixture(scope="session")
def lettered(tokenizer):
    """A tokenizer with a token of its own for each letter, as large ones have."""
    tokenizer_ = copy.deepcopy(tokenizer)
    tokenizer_.add_tokens([f" {letter}" for letter in ascii_uppercase])
    return tokenizer_


def offer_of(count: int, chosen: int = 1) -> Offer:
    items = [f"item {place}" for place in range(count)]
    return Offer(items[0], None, "Which?", tuple(items[1:chosen]), tuple(items[chosen:]))


def utility(item: str) -> float:
    """Between 0 and 8, all different."""
    return (int(item.split()[1]) * 37 % 101) / 101 * 8


def shares(offer: Offer, of=utility) -> list[float]:
    weights = [math.exp(of(item)) for item in offer.candidates]
    return [weight / sum(weights) for weight in weights]


class Server:
    """vLLM's chat API for a model whose letters have the odds exp(`of(item, place)`)."""

    def __init__(
        self,
        tokenizer,
        of=lambda item, place: utility(item),
        reads_ids=True,
        strict=False,
        mass=MASS,
        names=ascii_uppercase,
    ):
        self.letters, self.of, self.reads_ids, self.strict = (
            find_letters(tokenizer, names),
            of,
            reads_ids,
            strict,
        )
        self.mass, self.asked = mass, []

    def __call__(self, body):
        if "logprob_token_ids" in body and self.strict:
            return web.Response(status=400, text="unrecognized field logprob_token_ids")
        assert (
            body["messages"][-1] == {"role": "assistant", "content": self.letters.prefill} and body["max_tokens"] == 1
        )
        items = re.findall(r"^Item ([A-Z]): (.*)$", body["messages"][1]["content"], re.MULTILINE)
        if "return_token_ids" not in body:  # which only finds out how to ask
            self.asked.append([item for _, item in items])
        assert [name for name, _ in items] == list(ascii_uppercase[: len(items)])
        weights = [math.exp(self.of(item, place)) for place, (_, item) in enumerate(items)]
        logs = {i: math.log(self.mass * w / sum(weights)) for i, w in zip(self.letters.tokens, weights)}
        logs |= {100_000 + i: math.log((1 - self.mass) / 40) for i in range(40)}
        if "structured_outputs" in body:
            allowed = {self.letters.tokens[self.letters.texts.index(x)] for x in body["structured_outputs"]["choice"]}
            mass = sum(math.exp(logs[i]) for i in allowed)
            logs = {i: log - math.log(mass) if i in allowed else FLOOR for i, log in logs.items()}
        best = sorted(logs, key=logs.get, reverse=True)
        tokens = (
            body["logprob_token_ids"]
            if "logprob_token_ids" in body and self.reads_ids
            else best[: body.get("top_logprobs", 0)]
        )
        entries = [{"token": f"token_id:{i}", "logprob": logs[i]} for i in tokens]
        return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}


async def ranked(fake_server, tokenizer, answer, offer, *, form=None, cls=Judge, summary="s", history=None, **options):
    async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        more = {"form": form} if form else {}
        judge = cls(endpoint, tokenizer, PromptSet(), *more.values())
        return await rank(judge, summary, history, offer, "key", **options), server.bodies


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [2, 5, 20, 26])
async def test_the_letters_of_k_items_are_read_at_one_position(fake_server, lettered, path, count):
    """Also those outside the twenty most probable tokens, where the server names no others."""
    server = Server(lettered, **PATHS[path])
    ranking, _ = await ranked(fake_server, lettered, server, offer_of(count))
    assert ranking.status == "ok" and len(ranking.rotations) == 2
    for scores in ranking.rotations:
        assert scores == pytest.approx(shares(offer_of(count)), abs=1e-12)
    if path == "ids":
        assert len(server.asked) == 2 and ranking.mass == pytest.approx(MASS)
    orders = {tuple(items) for items in server.asked}
    assert len(orders) == 2 and len({items[0] for items in orders}) == 2, "two rotations"
    assert json.loads(json.dumps(ranking.row()))["rotations"] == [list(scores) for scores in ranking.rotations]


async def test_a_direct_reader_sees_the_history_in_the_place_of_a_summary(fake_server, lettered):
    history = (Interaction("seen", "not seen"),)
    _, bodies = await ranked(fake_server, lettered, Server(lettered), offer_of(3), summary=None, history=history)
    assert all("Chosen: seen" in body["messages"][1]["content"] for body in bodies)
    assert all("What is known" not in body["messages"][1]["content"] for body in bodies)


@pytest.mark.parametrize("count, requests", [(27, 2), (51, 2), (52, 3), (120, 5)])
async def test_longer_lists_are_put_together_by_the_item_that_all_groups_share(fake_server, lettered, count, requests):
    server = Server(lettered)
    ranking, _ = await ranked(fake_server, lettered, server, offer_of(count))
    for scores in ranking.rotations:
        assert scores == pytest.approx(shares(offer_of(count)), abs=1e-12) and sum(scores) == pytest.approx(1)
    item_lists = server.asked
    assert len(item_lists) == 2 * requests and max(map(len, item_lists)) <= MOST and min(map(len, item_lists)) > 1
    (anchor,) = set.intersection(*map(set, item_lists))
    assert {item for items in item_lists for item in items} == set(offer_of(count).candidates)
    assert sorted(item for items in item_lists[:requests] for item in items if item != anchor) == sorted(
        set(offer_of(count).candidates) - {anchor}
    )


def test_the_order_knows_nothing_of_what_was_chosen():
    """The same items, another of them chosen: the same questions; another record or seed: others."""
    one, other = (
        offer_of(40),
        Offer("item 7", None, "Which?", (), tuple(x for x in offer_of(40).candidates if x != "item 7")),
    )

    def texts(offer, key="k", seed=0):
        return [[offer.candidates[place] for place in group] for group in groups(offer, key, seed)]

    assert texts(one) == texts(other) != texts(one, key="l") and texts(one) != texts(one, seed=1)
    assert [rotated(range(6), turn, 3) for turn in range(3)] == [
        [0, 1, 2, 3, 4, 5],
        [2, 3, 4, 5, 0, 1],
        [4, 5, 0, 1, 2, 3],
    ]
    first = [groups(offer_of(20), key, 0)[0][0] for key in range(2000)]
    assert all(60 < first.count(place) < 145 for place in range(20)), "each place as often: 100 ± 4.6 deviations"


async def test_a_judge_that_always_says_a_is_worth_chance(fake_server, lettered):
    """In all k rotations exactly; in two it puts the items first that stood first, whatever they are."""
    offer = offer_of(6, chosen=2)

    def always(item, place):
        return 3.0 * (place == 0)

    ranking, _ = await ranked(fake_server, lettered, Server(lettered, always), offer, rotations=6)
    assert all_of(in_tiers(ranking.averaged, 2)) == pytest.approx(all_of(in_tiers([0.0] * len(ranking.averaged), 2)))
    ranking, _ = await ranked(fake_server, lettered, Server(lettered, always), offer)
    best = max(ranking.averaged)
    shown_first = first_shares(offer, "key", 0, 2)
    assert [score == pytest.approx(best) for score in ranking.averaged] == [x == 0.5 for x in shown_first]


async def test_among_two_items_it_is_the_pair_s_judgement(fake_server, lettered):
    def leaning(item, place):
        return utility(item) / 4 + 0.7 * (place == 0)

    ranking, _ = await ranked(fake_server, lettered, Server(lettered, leaning), offer_of(2))
    async with fake_server(Server(lettered, leaning)) as server, Endpoint(server.url) as endpoint:
        pair = await Judge(endpoint, lettered, PromptSet()).score(
            "s", Interaction("item 0", "item 1", "Which?"), "key"
        )
    assert ranking.averaged[0] == pytest.approx(pair.p)


@pytest.mark.parametrize("status, outcome", [(500, TRANSPORT_ERROR), (400, REFUSED)])
async def test_a_failed_request_is_a_failure_and_no_ranking(fake_server, lettered, status, outcome):
    ranking, _ = await ranked(fake_server, lettered, lambda body: web.Response(status=status, text="no"), offer_of(4))
    assert ranking.status == outcome and not ranking.rotations and "no" in ranking.error


async def test_a_reasoning_model_gives_a_vote_a_question(fake_server, lettered, say):
    def answer(body):
        items = dict(re.findall(r"^Item ([A-Z]): (.*)$", body["messages"][1]["content"], re.MULTILINE))
        best = max(items, key=lambda name: utility(items[name]))
        return say(f'<think>x</think>{{"selection": "Item {best}"}}')

    offer = offer_of(8)
    ranking, _ = await ranked(fake_server, lettered, answer, offer, form="think", cls=ReasoningJudge)
    scores = ranking.averaged
    assert max(range(8), key=lambda place: scores[place]) == max(range(8), key=lambda place: shares(offer)[place])
    assert ranking.mass is None and ranking.unparsed == 0
    ranking, _ = await ranked(fake_server, lettered, lambda body: say("hm"), offer, form="think", cls=ReasoningJudge)
    assert ranking.unparsed == 2 and ranking.unread == ("hm", "hm")
    assert all_of(in_tiers(ranking.averaged, 1)) == pytest.approx(all_of(in_tiers([0.0] * 8, 1))), (
        "no opinion is chance"
    )


async def test_a_yes_no_reader_is_asked_about_each_item(fake_server, lettered):
    letters, _ = find_words(lettered)

    def answer(body):
        item = body["messages"][-1]["content"].split("\nItem: ")[1].split("\n")[0]
        p = shares(offer_of(5))[int(item.split()[1])]
        entries = [
            {"token": f"token_id:{i}", "logprob": math.log(0.9 * x)} for i, x in zip(letters.tokens, (p, 1 - p))
        ]
        return {"choices": [{"message": {"content": ""}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}

    ranking, _ = await ranked(
        fake_server, lettered, answer, offer_of(5), cls=YesNoJudge, history=(Interaction("a", "b"),)
    )
    assert ranking.rotations == (pytest.approx(shares(offer_of(5))),) and ranking.mass == pytest.approx(0.9)


@pytest.mark.parametrize("mass, right", [(0.96, True), (0.6, False)])
async def test_a_model_that_answers_with_no_letter_is_refused(fake_server, lettered, mass, right):
    async with fake_server(Server(lettered, mass=mass)) as server, Endpoint(server.url) as endpoint:
        judge = Judge(endpoint, lettered, PromptSet())
        questions = [("s", offer_of(20)), ("t", offer_of(40))]
        if right:
            assert await check(judge, questions) == pytest.approx(mass)
        else:
            with pytest.raises(JudgeError, match="is no judge among several items: only 0.600"):
                await check(judge, questions)


@pytest.mark.parametrize("history", [None, (Interaction("seen", "b"),)])
async def test_a_tokenizer_that_knows_a_and_b_alone_is_asked_about_pairs_that_share_an_item(
    fake_server, tokenizer, history
):
    """As the tiny models of the quick start, by the question that they have learnt."""
    server, offer = Server(tokenizer, names="AB"), offer_of(20)
    ranking, bodies = await ranked(fake_server, tokenizer, server, offer, history=history)
    for scores in ranking.rotations:
        assert scores == pytest.approx(shares(offer), abs=1e-9)
    assert len(server.asked) == 2 * 19 and {len(items) for items in server.asked} == {2}
    assert len(set.intersection(*map(set, server.asked))) == 1, "the anchor"
    items = server.asked[0]
    pair = PromptSet().judge("s", "Which?", *items)
    if history:
        pair = PromptSet().direct(history, "Which?", *items)
    assert pair in [body["messages"][:2] for body in bodies]
    judge = Judge(Endpoint("http://nowhere/v1"), tokenizer, PromptSet())
    assert (judge.items_at_once, purpose_of(judge, "judge"), purpose_of(judge, "direct")) == (2, "judge", "direct")


def test_a_tokenizer_with_all_letters_is_asked_about_all_items_at_once(lettered):
    judge = Judge(Endpoint("http://nowhere/v1"), lettered, PromptSet())
    assert (judge.items_at_once, purpose_of(judge, "judge")) == (MOST, "choose")
