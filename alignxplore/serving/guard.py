"""The key of a server, asked for on every path.

vLLM 0.27.1 asks for VLLM_API_KEY under /v1 and a few more, not on the others, and `POST /invocations` takes the same
questions as /v1: whoever reaches the port could use the model without a key. alignxplore/serving/server.py hands this
class to `vllm serve` as --middleware wherever a key is set, and looks at the start whether it works.
"""

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
OPEN = ("/health",)  # tells nothing but that the server is up, and is asked before anybody has a key


class KeyEverywhere:
    """ASGI middleware: 401 for every request without `Authorization: Bearer $VLLM_API_KEY`."""

    def __init__(self, app: App):
        self.app, self.key = app, _digest(os.environ["VLLM_API_KEY"].encode())

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        asks = scope["type"] in ("http", "websocket") and scope["path"] not in OPEN
        if not asks or hmac.compare_digest(_digest(_given(scope)), self.key):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server wants a key"})


def _given(scope: Scope) -> bytes:
    """The key of a request; none: empty."""
    scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
    return key if scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
