"""What a model said in a reply of /v1/chat/completions, and whether it said anything: one way for all who read it."""

from typing import Any

from alignxplore.prompts import answer_text
from alignxplore.serving.failures import TransportError


def plain(reply: dict) -> dict:
    """The reply, with the texts of its first message as plain ones. A ValueError says what it lacks."""
    try:
        message = reply["choices"][0]["message"]
        for field in ("content", "reasoning", "reasoning_content"):
            if message.get(field) is not None:
                message[field] = _text(message[field])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("a reply without choices") from None
    return reply


def _text(content: Any) -> str:
    """A message as one text; some servers send it in parts, of which those of text are joined. Anything else is a
    ValueError."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"a message that is no text but {type(content).__name__}")
    texts: list[str] = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ValueError(f"a message that is no text but a part of type {kind}")
        texts.append(text)
    return "".join(texts)


def said(reply: dict) -> str:
    """The whole answer of a reply from `Endpoint.chat`, reasoning included.

    An empty answer, and one that was cut before it began, are the model's own.

    Raises:
        TransportError: no answer, or one that the server has filtered. The next run asks again.
    """
    choice = reply["choices"][0]
    message, finish_reason = choice["message"], choice.get("finish_reason")
    if finish_reason == "content_filter":
        raise TransportError("the server filtered the answer (finish_reason content_filter)")
    has_reasoning = any(isinstance(message.get(field), str) for field in ("reasoning", "reasoning_content"))
    if message.get("content") is None and not has_reasoning and finish_reason != "length":
        cause = f"refusal: {message['refusal']}" if message.get("refusal") else f"finish_reason {finish_reason}"
        raise TransportError(f"the answer is null ({cause})")
    return answer_text(message)
