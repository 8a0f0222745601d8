"""Chains of summaries against a server that answers as scripted."""

import json

import pytest
from aiohttp import web

from alignxplore.history import split_stages
from alignxplore.journal import OK, REFUSED, TOO_LONG, TRANSPORT_ERROR
from alignxplore.prompts import FORMATS, PromptSet, answer_text
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import Endpoint
from alignxplore.summarize import Plan, Sampling, check_window, count_tokens, summarize

HISTORY = [Interaction(f"sea film {i}", f"car film {i}", "Which film?") for i in range(6)]
SAMPLING = Sampling(max_tokens=64)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


@pytest.fixture
def chain(fake_server, tokenizer, say):
    """Run one chain against scripted texts (or replies); returns the summaries and the requests."""

    async def run(replies, slices, sampling=SAMPLING, key="u1", window=4096, prompts="default"):
        rest = [say(r) if isinstance(r, str) else r for r in replies]
        answer = (
            (lambda body: rest.pop(0)) if len(rest) > 1 else (lambda body: rest[0]() if callable(rest[0]) else rest[0])
        )
        async with fake_server(answer) as server, Endpoint(server.url, patience=0.02) as endpoint:
            plan = Plan(slices, window - sampling.max_tokens)
            summaries = await summarize(endpoint, tokenizer, PromptSet(prompts), plan, sampling, key, window)
            return summaries, server.bodies

    return run


def answers(n):
    return [f"<think>\nbecause {i}\n</think>\n\nLikes {i}." for i in range(n)]


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("prompts", ["default", "hardened"])
async def test_each_stage_sees_its_slice_and_the_summary_before(chain, tokenizer, stages, prompts):
    slices = split_stages(HISTORY, stages)
    summaries, bodies = await chain(answers(stages), slices, prompts=prompts)
    assert (
        summaries.status == OK
        and summaries.summary == f"Likes {stages - 1}."
        and summaries.problem is None
        and summaries.error is None
    )
    assert [body["messages"] for body in bodies] == [
        PromptSet(prompts).infer(part, f"Likes {k - 1}." if k else None) for k, part in enumerate(slices)
    ]
    for k, (stage, body) in enumerate(zip(summaries.stages, bodies)):
        assert (stage.text, stage.reasoning, stage.summary) == (answers(stages)[k], f"because {k}", f"Likes {k}.")
        assert stage.dropped == 0 and stage.problem is None and stage.tokens == len(stage.text.split())
        assert stage.prompt_tokens == count_tokens(tokenizer, body["messages"])
    assert json.loads(json.dumps(summaries.row()))["stages"][-1]["summary"] == summaries.summary


async def test_a_stage_says_how_long_its_summary_is_and_how_long_it_took(chain, tokenizer):
    summaries, _ = await chain([answers(1)[0], "no block"], split_stages(HISTORY, 2))
    first, second = summaries.stages
    assert first.summary_tokens == len(tokenizer.encode("Likes 0.", add_special_tokens=False)) > second.summary_tokens
    assert second.summary_tokens == 0 and all(0 <= stage.seconds < 60 for stage in summaries.stages)


@pytest.mark.parametrize(
    "usage", [None, {}, {"completion_tokens": None}, {"completion_tokens": "7"}, {"completion_tokens": 0}, []]
)
async def test_a_server_that_counts_no_tokens_is_counted_for(chain, say, tokenizer, usage):
    """And where it does not say why an answer ended, one that is as long as allowed was cut."""
    text = answers(1)[0]
    tokens = len(tokenizer.encode(text, add_special_tokens=False))
    for limit, cut in ((64, False), (tokens, True)):
        reply = say(text) | {"usage": usage}
        reply["choices"][0].pop("finish_reason")
        summaries, _ = await chain([reply], split_stages(HISTORY, 1), Sampling(max_tokens=limit))
        (stage,) = summaries.stages
        assert (stage.tokens, stage.cut, stage.problem) == (tokens, cut, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Likes 0.", "not exactly one think block"),
        ("<think>because", "unfinished reasoning"),
        ("<think>because</think>", "empty summary"),
        ("", "not exactly one think block"),
    ],
)
async def test_bad_format_hands_on_an_empty_summary_and_is_recorded(chain, say, text, problem):
    summaries, bodies = await chain([say(text), answers(2)[1]], split_stages(HISTORY, 2))
    assert bodies[1]["messages"] == PromptSet().infer(HISTORY[3:]) and "Likes 0" not in str(bodies[1])
    assert [stage.problem for stage in summaries.stages] == [problem, None] and summaries.stages[0].summary == ""
    assert summaries.stages[0].text == text and summaries.summary == "Likes 1." and summaries.problem is None


async def test_an_answer_that_was_cut_is_marked_and_stays_well_formed(chain, say):
    full, cut = (say(text) for text in answers(2))
    cut["choices"][0]["finish_reason"] = "length"
    summaries, _ = await chain([full, cut], split_stages(HISTORY, 2))
    assert [(stage.cut, stage.problem) for stage in summaries.stages] == [
        (False, None),
        (True, None),
    ] and summaries.summary == "Likes 1."
    assert [stage["cut"] for stage in summaries.row()["stages"]] == [False, True]


async def test_after_bad_format_no_older_summary_comes_back(chain):
    summaries, bodies = await chain([answers(1)[0], "no block", answers(3)[2]], split_stages(HISTORY, 3))
    assert bodies[2]["messages"] == PromptSet().infer(HISTORY[4:]) and [
        s.problem is None for s in summaries.stages
    ] == [
        True,
        False,
        True,
    ]


async def test_bad_format_at_the_end_is_the_outcome(chain):
    summaries, _ = await chain([answers(1)[0], "no block"], split_stages(HISTORY, 2))
    assert (
        summaries.status == OK
        and summaries.summary == ""
        and summaries.problem == "not exactly one think block"
        and len(summaries.stages) == 2
    )


async def test_published_sampling_is_sent_and_seeds_are_content_hashes(chain):
    assert Sampling() == Sampling(0.6, 0.95, 20, 4096, 0, "think")
    runs = [
        await chain(answers(2), split_stages(HISTORY, 2), Sampling(max_tokens=64, seed=seed), key)
        for seed, key in ((0, "u1"), (0, "u1"), (1, "u1"), (0, "u2"))
    ]
    (_, one), (_, same), (_, seed), (_, key) = runs
    assert one == same
    body = one[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.6, 0.95, 20, 64)
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["seed"] == hash_seed("summary", "u1", 0, 0)
    seeds = [body["seed"] for bodies in (one, seed, key) for body in bodies]
    assert len(set(seeds)) == 6  # another stage, seed or user draws anew


WRITTEN = {
    "think": "<think>\nbecause 0\n</think>\n\nLikes 0.",
    "plain": "Likes 0.",
    "r1": "because 0\n</think>\n\nLikes 0.",
    "answer": "because 0\n</think>\n\n<answer>\nLikes 0.\n</answer>",
    "harmony": "<|channel|>analysis<|message|>because 0<|end|><|start|>assistant<|channel|>final<|message|>Likes 0.",
}


@pytest.mark.parametrize("form", FORMATS)
async def test_a_policy_answers_in_its_own_format(chain, tokenizer, form):
    summaries, bodies = await chain([WRITTEN[form]], [HISTORY], Sampling(max_tokens=64, form=form))
    thinking = form != "plain"
    assert summaries.summary == "Likes 0." and summaries.problem is None
    assert summaries.stages[0].reasoning == ("because 0" if thinking else "")
    assert bodies[0]["messages"] == PromptSet().infer(HISTORY, None, form)
    assert bodies[0]["chat_template_kwargs"] == {"enable_thinking": thinking}
    assert bodies[0]["skip_special_tokens"] is (form != "harmony")
    assert summaries.stages[0].prompt_tokens == count_tokens(tokenizer, bodies[0]["messages"], thinking)


async def test_what_does_not_fit_is_dropped_whole_and_counted(chain, tokenizer):
    """Prompt and answer share the window; the past summary counts too."""
    tokens = count_tokens(tokenizer, PromptSet().infer(HISTORY * 4))
    texts = ["<think>x</think>" + "Likes the sea. " * 20, answers(1)[0]]
    summaries, bodies = await chain(texts, [HISTORY * 4, HISTORY * 4], window=tokens // 2 + 64)
    first, second = summaries.stages
    assert 0 < first.dropped < second.dropped < 24
    for stage, body, past in ((first, bodies[0], None), (second, bodies[1], first.summary)):
        assert body["messages"] == PromptSet().infer((HISTORY * 4)[stage.dropped :], past)
        assert stage.prompt_tokens == count_tokens(tokenizer, body["messages"]) <= tokens // 2


async def test_a_past_summary_that_fills_the_window_is_a_recorded_outcome(chain):
    summaries, bodies = await chain(
        ["<think>x</think>" + "Likes the sea. " * 2000, answers(1)[0]], [HISTORY, HISTORY], window=800
    )
    assert summaries.status == TOO_LONG and "with the newest interaction alone, the budget is 736" in summaries.error
    assert (
        len(bodies) == 1
        and summaries.summary == ""
        and summaries.problem == summaries.error
        and summaries.stages == ()
    )


def test_a_window_without_room_is_said_at_once():
    with pytest.raises(ValueError, match="a window of 64 tokens leaves no room for a prompt beside an answer of 64"):
        check_window(64, 64)


async def test_a_refused_prompt_is_not_repeated_in_the_same_run(chain):
    summaries, bodies = await chain([lambda: web.Response(status=400, text="too long")], [HISTORY])
    assert (summaries.status, summaries.error) == (REFUSED, "HTTP 400: too long") and len(bodies) == 1


@pytest.mark.parametrize(
    "reply", [lambda: web.Response(status=500), lambda: None, lambda: {"choices": []}, lambda: {"choices": [{}]}]
)
async def test_a_transport_error_is_asked_again(chain, reply):
    summaries, _ = await chain([reply], [HISTORY])
    assert (
        summaries.status == TRANSPORT_ERROR and summaries.error and summaries.summary == "" and summaries.stages == ()
    )


async def test_reasoning_that_the_server_took_out_is_put_back(chain, say):
    for field in ("reasoning", "reasoning_content"):
        summaries, _ = await chain([say("Likes 0.", **{field: "because 0"})], [HISTORY])
        assert summaries.problem is None and (summaries.stages[0].reasoning, summaries.summary) == (
            "because 0",
            "Likes 0.",
        )
    assert answer_text({"content": "x", "reasoning": ""}) == "x" and answer_text({"content": None}) == ""
