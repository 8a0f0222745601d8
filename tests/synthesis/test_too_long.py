"""What is too long for a server, and what only sounds so: a user leaves for good where no repeat can help, and for
nothing else."""

import pytest
from aiohttp import web

from alignxplore.records import Interaction
from alignxplore.serving.failures import is_about_length
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import ITEMS, SURE, Models, asked, hinted, is_judge

RATE = "Rate limit: the number of tokens per minute is exceeded"


def judges_a_summary(body: dict) -> bool:
    return is_judge(body) and "Likes red." in asked(body)


@pytest.mark.parametrize("of", [judges_a_summary, hinted], ids=["judge", "teacher"])
@pytest.mark.parametrize("status", [429, 403])
async def test_a_busy_server_that_counts_tokens_is_asked_again_by_the_next_run(
    fake_server, tokenizer, arguments, of, status
):
    models, is_busy = Models(tokenizer), True

    def answer(body: dict):
        if not (is_busy and of(body)):
            return models(body)
        return web.json_response({"error": {"message": RATE}}, status=status, headers={"Retry-After": "600"})

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, max_error_rate=1)))["outcomes"] == {"unanswered": 2}
        is_busy = False
        assert (await synthesise(arguments(server.url)))["outcomes"] == {DONE: 2}


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ("HTTP 400: This model's maximum context length is 2048 tokens", True),
        ("HTTP 400: exceeds the maximum allowed length", True),
        ("HTTP 403: exceeds the maximum allowed length", True),
        ("HTTP 413: input is too long", True),
        ("HTTP 422: the number of tokens of the prompt is above 2048", True),
        ("HTTP 401: number of tokens", False),
        (f"HTTP 402: {RATE}", False),
        (f"HTTP 403: {RATE}", False),
        ("HTTP 400: unknown field", False),
    ],
)
def test_a_refusal_of_key_or_quota_is_none_of_length(refusal, expected):
    assert is_about_length(refusal) is expected


def with_giants(places) -> list[Interaction]:
    """A user some of whose pairs are longer than a window of 2,048 tokens."""
    return [Interaction("red " + "thing " * 3000, "blue thing") if i in places else x for i, x in enumerate(ITEMS)]


async def test_a_pair_that_is_too_long_for_a_hint_fails_as_one_draft_and_the_others_count(through):
    row, requests = await through(items=with_giants([8]), signal=SURE | {11: 0.1}, window=2048)
    assert row["outcome"] == DONE
    note = row["rounds"][0]
    problem_of = {draft["target"]["chosen"][:12]: draft["problem"] for draft in note["drafts"]}
    assert problem_of.pop("red thing th") == "prompt too long" and set(problem_of.values()) == {None}
    assert (note["targets"], note["well_formed"], note["merge"]["of"]) == (5, 4, 4)
    assert sum(not judge and "next have to choose" in text for judge, text in requests) == 4 + 5


async def test_the_other_drafts_are_those_of_a_run_without_the_long_one(through):
    """Each keeps its prompt and its seed: of these its unit in the journal is made."""
    calls = []
    for places in ([], [8]):
        row, _ = await through(items=with_giants(places), signal=SURE | {11: 0.1}, window=2048)
        calls.append([draft["call"] for draft in row["rounds"][0]["drafts"]])
    assert [call or None for call in calls[1]] == [calls[0][0], calls[0][1], None, *calls[0][3:]]


@pytest.mark.parametrize(("places", "outcome"), [([8], DONE), ([7, 8, 9], "prompt_too_long_1")])
async def test_a_user_leaves_unasked_where_too_few_hints_fit(through, places, outcome):
    row, requests = await through(items=with_giants(places), signal=SURE | {11: 0.1}, window=2048)
    assert row["outcome"] == outcome and bool(requests) == (outcome == DONE)


async def test_a_user_whose_newest_choice_alone_does_not_fit_leaves_as_that(through):
    row, requests = await through(items=with_giants([5]), window=2048)
    assert row["outcome"] == "interaction_too_long_1" and not requests
