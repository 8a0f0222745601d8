"""Which questions a server takes: what it refuses tells nothing of a judge, and whatever else went wrong is told."""

import pytest

from alignxplore.judging.judgement import taken
from alignxplore.serving.endpoint import RequestError, TransportError


async def answers(replies: dict):
    async def ask(question: str):
        if isinstance(replies[question], Exception):
            raise replies[question]
        return replies[question]

    return await taken(list(replies), ask)


async def test_what_is_refused_is_left_out():
    assert await answers({"a": RequestError(400, "too long"), "b": 1, "c": 2}) == (["b", "c"], [1, 2])
    with pytest.raises(RequestError, match="too long"):
        await answers({"a": RequestError(400, "too long"), "b": RequestError(400, "no such field")})


@pytest.mark.parametrize("error", [TransportError("reset"), KeyError("choices")])
@pytest.mark.parametrize("place", [0, 1])
async def test_an_error_that_is_no_refusal_is_raised_whatever_was_answered(error, place):
    replies = [("a", 1), ("b", error)]
    with pytest.raises(type(error), match=str(error)):
        await answers(dict(replies[::-1] if place else replies))
