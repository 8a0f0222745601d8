"""The judge against a server whose probabilities are known: ways of asking, orders, failures, published protocol."""

import json
import math

import pytest
from aiohttp import web

from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR
from alignxplore.judging.judgement import JudgeError, Judgement, PaperJudgement, correctness
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.sampled import ask_paper
from alignxplore.judging.token_reader import MIN_MASS
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint, RequestError

GOOD = Interaction("a good film", "a bad film", "Which film?")
FLOOR = -9999.0  # vLLM writes minus infinity so


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


def items(body):
    """(item A, item B) as they stand in the prompt that arrived."""
    text = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    a, b = text.rsplit("Item A: ", 1)[1].split("\nItem B: ")
    return a, b


class LetterServer:
    """Answers like vLLM's chat API for a model with P(A), P(B) = `weigh(item_a, item_b)`; the rest is spread over
    `others` ids.

    reads_ids: newer servers report the log-probabilities of `logprob_token_ids`; older ones ignore the field.
    strict: the field is refused.
    """

    def __init__(self, tokenizer, weigh, reads_ids=True, strict=False, others=40):
        self.letters, self.weigh, self.reads_ids, self.strict, self.others = (
            find_letters(tokenizer),
            weigh,
            reads_ids,
            strict,
            others,
        )

    def __call__(self, body):
        assert body["messages"][-1] == {"role": "assistant", "content": self.letters.prefill}
        assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
        assert body["max_tokens"] == 1 and body["temperature"] == 1 and body["seed"] == 0 and body["logprobs"] is True
        if "logprob_token_ids" in body and self.strict:
            return web.Response(status=400, text="unrecognized field logprob_token_ids")
        p = dict(zip(self.letters.tokens, self.weigh(*items(body))))
        p |= {100_000 + i: (1 - sum(p.values())) / self.others for i in range(self.others)}
        logs = {i: math.log(x) if x > 0 else FLOOR for i, x in p.items()}
        best = sorted(logs, key=logs.get, reverse=True)
        if "structured_outputs" in body:
            assert body["structured_outputs"] == {"choice": list(self.letters.texts)}
            logs = {i: log if i in self.letters.tokens else FLOOR for i, log in logs.items()}
            tokens = sorted(logs, key=logs.get, reverse=True)[: body["top_logprobs"]]
        elif "logprob_token_ids" in body and self.reads_ids:
            tokens = [best[0], *body["logprob_token_ids"]]
        else:
            tokens = best[: body.get("top_logprobs", 0)]
        entries = [{"token": f"token_id:{i}", "logprob": logs[i]} for i in tokens]
        return {
            "choices": [
                {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}
            ]
        }


def prefers_good(a, b, sure=0.8, mass=0.98):
    return (sure * mass, (1 - sure) * mass) if "good" in a else ((1 - sure) * mass, sure * mass)


async def judged(fake_server, tokenizer, answer, *calls, **options):
    """Run `calls(judge)` one after another against a server; returns their results and the server."""
    async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
        judge = Judge(endpoint, tokenizer, PromptSet(), **options)
        return [await call(judge) for call in calls], server


PATHS = {"ids": {}, "top 20": {"reads_ids": False}, "strict": {"reads_ids": False, "strict": True}}


@pytest.mark.parametrize("path", PATHS)
async def test_both_orders_are_asked_and_averaged(fake_server, tokenizer, path):
    def weigh(a, b):  # leans to A by 0.1
        a_probability = (0.8 if "good" in a else 0.2) + 0.1
        return 0.9 * a_probability, 0.9 * (1 - a_probability)

    answer = LetterServer(tokenizer, weigh, **PATHS[path])
    (judgement,), server = await judged(
        fake_server, tokenizer, answer, lambda j: j.score("Likes good films.", GOOD, "k")
    )
    assert judgement.ok and judgement.orders == pytest.approx((0.9, 0.7)) and judgement.p == pytest.approx(0.8)
    assert judgement.correct == 1 and judgement.flipped is False and judgement.mass == pytest.approx(0.9)
    pairs = [items(body) for body in server.bodies if "logprob_token_ids" not in body or path == "ids"]
    assert {("a good film", "a bad film"), ("a bad film", "a good film")} == set(pairs)
    assert all("Likes good films." in body["messages"][1]["content"] for body in server.bodies)
    assert Judgement(**json.loads(json.dumps(judgement.row()))) == judgement


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("missing", ["good", "bad"])
async def test_a_letter_outside_the_twenty_best_is_asked_for_by_a_choice(fake_server, tokenizer, path, missing):
    """The rare letter has 0.001, below each of 30 others with 0.01: its exact share must still be found."""

    def weigh(a, b):
        return (0.001, 0.699) if missing in a else (0.699, 0.001)

    answer = LetterServer(tokenizer, weigh, others=30, **PATHS[path])
    (judgement,), server = await judged(fake_server, tokenizer, answer, lambda j: j.score("s", GOOD, "k"))
    share = 0.001 / 0.7 if missing == "good" else 0.699 / 0.7
    assert judgement.orders == pytest.approx((share, share)) and judgement.correct == (missing == "bad")
    assert judgement.mass == pytest.approx(0.7 if path == "ids" else 0.699)
    assert any("structured_outputs" in body for body in server.bodies) is (path != "ids")


async def test_the_way_of_asking_is_found_out_once(fake_server, tokenizer):
    async def many(judge):
        for i in range(3):
            await judge.score("s", GOOD, i)

    for path, options in PATHS.items():
        _, server = await judged(
            fake_server,
            tokenizer,
            LetterServer(tokenizer, prefers_good, **options),
            lambda j: j.check([("s", GOOD)]),
            many,
        )
        later = server.bodies[-6:]
        assert all(("logprob_token_ids" in body) is (path == "ids") for body in later)
        assert len(server.bodies) <= 9  # check: one question and one probe (two where it is refused)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("weight", [0.97, 0.501, 0.3])
async def test_a_judge_that_always_says_a_scores_exactly_half(fake_server, tokenizer, path, weight):
    answer = LetterServer(tokenizer, lambda a, b: (weight, 0.98 - weight), **PATHS[path])
    judgements, _ = await judged(
        fake_server,
        tokenizer,
        answer,
        *[lambda j, i=i: j.score("s", Interaction(f"good {i}", "bad"), i) for i in range(5)],
    )
    assert [j.correct for j in judgements] == [0.5] * 5 and all(
        abs(j.p - 0.5) < 1e-9 and j.flipped for j in judgements
    )


async def test_extreme_probabilities_neither_overflow_nor_become_ties(fake_server, tokenizer):
    def weigh(a, b):
        return (1.0, 1e-300) if "good" in a else (1e-300, 1.0)

    for options in PATHS.values():
        (hit, miss), _ = await judged(
            fake_server,
            tokenizer,
            LetterServer(tokenizer, weigh, **options),
            lambda j: j.score("s", GOOD, "k"),
            lambda j: j.score("s", Interaction(GOOD.rejected, GOOD.chosen), "k"),
        )
        assert hit.p == pytest.approx(1) and hit.correct == 1 and miss.p == pytest.approx(0) and miss.correct == 0


async def test_one_order_is_drawn_by_a_hash_of_key_and_seed(fake_server, tokenizer):
    """The letter alone decides this judge, so the draw shows in p: 0.7 as A, 0.3 as B."""

    async def many(judge):
        return [await judge.score("s", GOOD, ["user", i]) for i in range(64)]

    async def draws(seed):
        answer = LetterServer(tokenizer, lambda a, b: (0.7, 0.3))
        (judgements,), server = await judged(fake_server, tokenizer, answer, many, orders="one", seed=seed)
        assert len(server.bodies) == 65 and all(len(j.orders) == 1 and j.flipped is None for j in judgements)
        for j in judgements:
            if j.p_chosen_first is not None:
                assert j.p == pytest.approx(0.7) and j.p_chosen_second is None
            else:
                assert j.p == pytest.approx(0.3) and j.p_chosen_second is not None
        return [j.p_chosen_first is not None for j in judgements]

    first = await draws(0)
    assert first == await draws(0) != await draws(1)
    assert 18 <= sum(first) <= 46  # 32 ± 3.5 standard deviations


def plain(entries):
    return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}


BROKEN = {
    "null logprobs": {"choices": [{"message": {"content": "x"}, "logprobs": None}]},
    "no logprobs": {"choices": [{"message": {"content": "x"}}]},
    "no position": {"choices": [{"message": {"content": ""}, "logprobs": {"content": []}}]},
    "text instead of ids": plain([{"token": " A", "logprob": -0.1}]),
    "null probability": plain([{"token": "token_id:5", "logprob": None}]),
    "neither letter": plain([{"token": "token_id:999999", "logprob": -0.1}]),
    "empty choices": {"choices": []},
    "server error": lambda: web.Response(status=500, text="CUDA error"),
    "reset": lambda: None,
}


@pytest.mark.parametrize("reply", BROKEN)
async def test_a_failure_is_a_typed_outcome_and_never_a_score(fake_server, tokenizer, reply):
    answer = BROKEN[reply] if callable(BROKEN[reply]) else lambda: BROKEN[reply]
    (judgement, direct, paper), _ = await judged(
        fake_server,
        tokenizer,
        lambda body: answer(),
        lambda j: j.score("s", GOOD, "k"),
        lambda j: j.answer(None, [GOOD], GOOD, "k"),
        lambda j: ask_paper(j, "s", GOOD, "k"),
    )
    for outcome in (judgement, direct):
        assert (
            outcome.status == TRANSPORT_ERROR
            and not outcome.ok
            and outcome.error
            and outcome.orders == ()
            and outcome.mass is None
        )
        for value in ("p", "correct"):
            with pytest.raises(JudgeError, match="a failed judgement has no probability"):
                getattr(outcome, value)
    if reply in ("empty choices", "server error", "reset"):
        assert paper.status == TRANSPORT_ERROR and paper.selection is None
        with pytest.raises(JudgeError):
            paper.correct  # noqa: B018


@pytest.mark.parametrize("which", [0, 1])
async def test_a_probability_that_is_not_a_number_is_a_failure(fake_server, tokenizer, which):
    letters = find_letters(tokenizer)
    logs = [-0.1, -0.2]
    logs[which] = math.nan
    reply = plain([{"token": f"token_id:{i}", "logprob": log} for i, log in zip(letters.tokens, logs)])
    (judgement,), _ = await judged(fake_server, tokenizer, lambda body: reply, lambda j: j.score("s", GOOD, "k"))
    assert judgement.status == TRANSPORT_ERROR and "not a number" in judgement.error


async def test_one_failed_order_fails_the_judgement(fake_server, tokenizer):
    works = LetterServer(tokenizer, prefers_good)

    def answer(body):
        return web.Response(status=503) if items(body)[0] == GOOD.rejected else works(body)

    (judgement,), _ = await judged(fake_server, tokenizer, answer, lambda j: j.score("s", GOOD, "k"))
    assert judgement.status == TRANSPORT_ERROR and judgement.orders == ()


async def test_a_refused_prompt_is_final_and_says_why(fake_server, tokenizer):
    (judgement, paper), _ = await judged(
        fake_server,
        tokenizer,
        lambda body: web.Response(status=400, text="longer than the window"),
        lambda j: j.score("s", GOOD, "k"),
        lambda j: ask_paper(j, "s", GOOD, "k"),
    )
    assert (
        (judgement.status, paper.status) == (REFUSED, REFUSED)
        and "longer than the window" in judgement.error
        and "window" in paper.error
    )


async def test_only_a_pair_can_be_judged(fake_server, tokenizer):
    with pytest.raises(ValueError, match="only an interaction with an alternative"):
        await judged(fake_server, tokenizer, None, lambda j: j.score("s", Interaction("x"), "k"))
    with pytest.raises(ValueError, match="orders must be one of both, one"):
        Judge(None, tokenizer, PromptSet(), orders="ab")


async def test_direct_reads_the_history(fake_server, tokenizer):
    (judgement,), server = await judged(
        fake_server,
        tokenizer,
        LetterServer(tokenizer, prefers_good),
        lambda j: j.answer(None, [Interaction("a green film")], GOOD, "k"),
    )
    assert judgement.p == pytest.approx(0.8) and all(
        "Chosen: a green film" in body["messages"][1]["content"] for body in server.bodies
    )


@pytest.mark.parametrize("path", PATHS)
async def test_check_takes_a_judge_and_returns_its_mass(fake_server, tokenizer, path):
    answer = LetterServer(
        tokenizer, lambda a, b: prefers_good(a, b, mass=0.93 if "x" in a + b else 0.97), **PATHS[path]
    )
    (mass,), _ = await judged(
        fake_server, tokenizer, answer, lambda j: j.check([("s", GOOD), (None, Interaction("x", "y"))])
    )
    assert mass == pytest.approx(0.95)


async def test_check_passes_over_what_the_server_refuses(fake_server, tokenizer):
    letters = LetterServer(tokenizer, prefers_good)

    def answer(body):
        return web.Response(status=400, text="too long") if "x" * 99 in str(body) else letters(body)

    long = Interaction("x" * 200, "a bad film")
    (mass,), _ = await judged(fake_server, tokenizer, answer, lambda j: j.check([("s", long), ("s", GOOD)]))
    assert mass > MIN_MASS
    with pytest.raises(RequestError, match="HTTP 400: too long"):
        await judged(fake_server, tokenizer, answer, lambda j: j.check([("s", long)]))


@pytest.mark.parametrize("mass", [0.0, 0.5, MIN_MASS - 0.01])
async def test_check_refuses_a_model_that_does_not_answer_with_a_letter(fake_server, tokenizer, mass):
    yes = tokenizer.encode("The", add_special_tokens=False)[0]
    letters = find_letters(tokenizer)

    def answer(body):
        p = (
            dict.fromkeys(range(200_000, 200_012), 0.0)
            | {yes: 1 - mass - 1e-9}
            | dict.fromkeys(letters.tokens, mass / 2)
        )
        return plain([{"token": f"token_id:{i}", "logprob": math.log(x) if x else FLOOR} for i, x in p.items()])

    with pytest.raises(
        JudgeError, match=rf"is no judge: only {mass:.3f} of its probability is on the letters after .*most probable"
    ) as caught:
        await judged(fake_server, tokenizer, answer, lambda j: j.check([("s", GOOD)] * 3))
    assert f"{tokenizer.decode([yes])!r} {1 - mass:.3f}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Out of range float values are not JSON compliant: nan", r"its probabilities are no numbers \(NaN\)"),
        ("Unexpected fields in the request: {'continue_final_message'}", "cannot be asked for .* of a letter"),
    ],
)
async def test_check_says_what_a_server_cannot(fake_server, tokenizer, text, problem):
    async with fake_server(lambda _: web.Response(status=400, text=text)) as server, Endpoint(server.url) as endpoint:
        with pytest.raises(JudgeError, match=problem):
            await Judge(endpoint, tokenizer, PromptSet()).check([("s", GOOD)])


async def test_check_needs_questions(fake_server, tokenizer):
    for questions in ([], [("s", Interaction("x"))]):
        with pytest.raises(ValueError, match="checked on at least one interaction, each with an alternative"):
            await judged(fake_server, tokenizer, None, lambda j, q=questions: j.check(q))


def test_correctness_has_a_band_of_ties():
    assert [correctness(p) for p in (0.5 - 2e-6, 0.5 - 5e-7, 0.5, 0.5 + 5e-7, 0.5 + 2e-6, 1, 0)] == [
        0,
        0.5,
        0.5,
        0.5,
        1,
        1,
        0,
    ]
    assert (
        Judgement(p_chosen_first=0.9, p_chosen_second=0.4).correct == 1
        and Judgement(p_chosen_first=0.9, p_chosen_second=0.4).flipped
    )
    assert not Judgement(p_chosen_first=0.1, p_chosen_second=0.4).flipped


async def test_paper_protocol(fake_server, tokenizer, say):
    """One hashed order, the published sampling, an exact match; always saying A is right where A was drawn."""

    async def many(judge):
        return [await ask_paper(judge, "Likes good films.", GOOD, i) for i in range(40)]

    (judgements,), server = await judged(fake_server, tokenizer, lambda body: say('{"selection": "Item A"}'), many)
    assert all(j.ok and j.selection == "Item A" and j.correct == (j.chosen_letter == "A") for j in judgements)
    assert 9 <= sum(j.correct for j in judgements) <= 31
    for j, body in zip(judgements, server.bodies):
        assert items(body) == (
            (GOOD.chosen, GOOD.rejected) if j.chosen_letter == "A" else (GOOD.rejected, GOOD.chosen)
        )
        assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.6, 0.95, 20, 16)
        assert body["messages"][-1]["role"] == "user"
    assert len({body["seed"] for body in server.bodies}) == 40
    (again,), server2 = await judged(fake_server, tokenizer, lambda body: say('{"selection": "Item A"}'), many)
    assert again == judgements and server2.bodies == server.bodies


@pytest.mark.parametrize("content", ["I choose the first.", ""])
async def test_paper_protocol_counts_the_unparsable_as_wrong(fake_server, tokenizer, say, content):
    (judgement,), _ = await judged(
        fake_server, tokenizer, lambda body: say(content), lambda j: ask_paper(j, "s", GOOD, "k")
    )
    assert judgement.status == OK and judgement.selection is None and judgement.correct == 0.0
    assert PaperJudgement(selection="Item B", chosen_letter="B").correct == 1.0
