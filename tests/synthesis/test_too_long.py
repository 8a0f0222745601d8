"""What is too long for a server, and what only sounds so: a user leaves for good where no repeat can help, and for
nothing else."""

import pytest
from aiohttp import web

from alignxplore.serving.failures import is_about_length
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import Models, asked, hinted, is_judge

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
