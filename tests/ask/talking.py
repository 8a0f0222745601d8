"""A server that is policy and judge at once: it streams one answer, and prefers the sea where a summary says so."""

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

from aiohttp import web

from alignxplore.judging.letters import find_letters, letters_of

ANSWER = "<think>\nseas\n</think>\n\nLikes the sea."


def talking(tokenizer: Any, answer: str = ANSWER, pause: float = 0.0) -> Callable[[dict], Any]:
    """What a `FakeServer` answers with; `pause` is the seconds between two pieces of the stream."""

    async def stream() -> web.Response:
        lines = [{"choices": [{"delta": {"content": answer[i : i + 4]}}]} for i in range(0, len(answer), 4)]
        lines.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        await asyncio.sleep(pause)
        return web.Response(text=text, content_type="text/event-stream")

    def reply(body: dict) -> Any:
        if not body.get("logprobs"):
            return stream()
        question = body["messages"][-2]["content"]
        letters = letters_of(tokenizer, "ABC") if "Item C" in question else find_letters(tokenizer)
        items = [line for line in question.splitlines() if line.lstrip().startswith(("Item ", "[Item"))]
        sea = next((i for i, line in enumerate(items) if "sea" in line), 0)
        logs = {i: math.log(0.04) for i in letters.tokens}
        logs[letters.tokens[sea if "Likes the sea" in question else 0]] = math.log(0.9)
        tops = [{"token": f"token_id:{i}", "logprob": log} for i, log in logs.items()]
        content = [tops[0] | {"top_logprobs": tops}]
        message = {"content": "x"}
        return {"choices": [{"message": message, "finish_reason": "length", "logprobs": {"content": content}}]}

    return reply
