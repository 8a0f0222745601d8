"""An answer heard while it is written: the pieces of a streamed reply, put together as one that came whole."""

import json
from collections.abc import AsyncIterable, Callable

import aiohttp

from alignxplore.prompts import answer_text
from alignxplore.serving.http_answers import read_text
from alignxplore.texts import loads

Hear = Callable[[str], None]  # is told the whole answer so far, again from its start where the request is repeated
ASKED = {"stream": True, "stream_options": {"include_usage": True}}
_MOST = 1 << 24  # bytes of one event; the reader's own lines end at 128 kB


async def whole_reply(reply: aiohttp.ClientResponse, hear: Hear) -> str:
    """The JSON of the reply as /v1/chat/completions gives it without `stream`. `hear` is told the answer as it grows.

    A server that does not stream is read as it answers.

    Raises:
        ConnectionError: the stream ended before the answer did, or holds an error of the server.
    """
    if reply.content_type != "text/event-stream":
        return await read_text(reply)
    message: dict[str, str | None] = {"content": None}
    finish_reason, usage = None, None
    async for event in _events(reply.content.iter_any()):
        if not isinstance(event, dict) or event.get("error"):
            raise ConnectionError(f"the stream holds an error: {json.dumps(event)[:200]}")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            finish_reason = choice.get("finish_reason") or finish_reason
            for field, piece in (choice.get("delta") or {}).items():
                if field in ("content", "reasoning", "reasoning_content", "refusal") and isinstance(piece, str):
                    message[field] = (message.get(field) or "") + piece
            hear(answer_text(message))
    if finish_reason is None:
        raise ConnectionError("the stream ended before the answer did")
    return json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage})


async def _events(chunks: AsyncIterable[bytes]) -> AsyncIterable[object]:
    """The JSON values of server-sent events, up to `[DONE]`."""
    tail = b""
    async for chunk in chunks:
        *lines, tail = (tail + chunk).split(b"\n")
        if len(tail) > _MOST:
            raise ConnectionError(f"an event of more than {_MOST} bytes")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                yield _value(data)


def _value(data: bytes) -> object:
    try:
        return loads(data.decode("utf-8", "replace"))[0]
    except ValueError:
        raise ConnectionError(f"an event that is not JSON: {data[:100]!r}") from None
