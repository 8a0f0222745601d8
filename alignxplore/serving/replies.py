"""What a model said in a reply of /v1/chat/completions, and whether it said anything: one way for all who read it."""

from alignxplore.prompts import answer_text
from alignxplore.serving.endpoint import TransportError


def said(reply: dict) -> str:
    """The whole answer of a reply from `Endpoint.chat`, reasoning included.

    An empty answer, and one that was cut before it began, are the model's own.

    Raises:
        TransportError: no answer, or one that the server has filtered. The next run asks again.
    """
    choice = reply["choices"][0]
    message, ended = choice["message"], choice.get("finish_reason")
    if ended == "content_filter":
        raise TransportError("the server filtered the answer (finish_reason content_filter)")
    reasoned = any(isinstance(message.get(field), str) for field in ("reasoning", "reasoning_content"))
    if message.get("content") is None and not reasoned and ended != "length":
        why = f"refusal: {message['refusal']}" if message.get("refusal") else f"finish_reason {ended}"
        raise TransportError(f"the answer is null ({why})")
    return answer_text(message)
