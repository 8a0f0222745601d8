"""One HTTP answer of an endpoint: its text, or the error that it comes to. `endpoint.py` asks, and asks again.

Whatever stands between a client and a model can answer in its place: a proxy, a gateway, a login page.
"""

import ssl
from collections.abc import Callable

import aiohttp

from alignxplore.serving.failures import RequestError, TransportError
from alignxplore.texts import loads

_LATER = (408, 409, 425, 429)  # and all from 500: it may be taken another time


class Retry(TransportError):
    """No usable reply to this attempt; the next one may have one. `nobody_there`: no connection came about."""

    def __init__(self, message: str, pause: float = 0.0, kind: str = "", nobody_there: bool = False):
        super().__init__(message)
        self.pause = pause  # seconds that the server asked us to wait
        self.kind = kind  # http_429, timeout, connection, not_json, error, unusable: what is counted
        self.nobody_there = nobody_there


async def read_text(reply: aiohttp.ClientResponse) -> str:
    """The body as text. JSON is UTF-8, with or without a byte-order mark; some servers name another charset all the
    same, and only what is no UTF-8 is read in that."""
    raw = await reply.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return await reply.text(errors="replace")


def refuse_failure(reply: aiohttp.ClientResponse, method: str, text: str, about_key: str) -> None:
    """Raise `Retry` or `RequestError` for an answer that is none of a model.

    Args:
        method: which was asked for; a redirection may turn POST into GET.
        text: of the body, without secrets.
        about_key: what to add where the key may be at fault.
    """
    if 300 <= reply.status < 400 or reply.method != method:
        first = reply.history[0] if reply.history else reply
        place = first.headers.get("Location") or "nowhere"
        raise RequestError(first.status, f"it redirects to {place}; give the address that answers by itself")
    way = redirected(reply)
    if reply.status in _LATER or reply.status >= 500:
        pause = _seconds(reply.headers.get("Retry-After"))
        wish = f" (it asks for a pause of {pause:g} s)" if pause >= 1 else ""
        raise Retry(f"HTTP {reply.status}: {text[:200]}{wish}{way}", pause, f"http_{reply.status}")
    if reply.status >= 400:
        raise RequestError(reply.status, text[:500] + about_key + way)


def redirected(reply: aiohttp.ClientResponse) -> str:
    """Where an answer comes from, if not from whom was asked: what to add to a message about it."""
    return f" (redirected to {reply.url})" if reply.history else ""


def json_object(text: str, hide: Callable[[str], str], way: str) -> dict:
    """The object in a body; `Retry` for what is none, and for an error that a gateway sends as a success.

    Args:
        way: see `redirected`.
    """
    try:
        value, _ = loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Retry(f"a body that is not a JSON object: {hide(text)[:100]!r}{way}", kind="not_json")
    if value.get("error") and not value.get("choices") and not value.get("data"):
        raise Retry(f"an error in a reply of HTTP 200: {hide(text)[:200]}", kind="error")
    return value


def broken(error: Exception, limit: float, way: str) -> TransportError:
    """What to raise for a connection that did not come about or broke.

    Args:
        limit: seconds that an answer is waited for.
        way: what to say of the proxy.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        hint = "SSL_CERT_FILE=FILE names the certificate of whoever signed that of the server"
        return TransportError(f"the server's certificate is not trusted: {error}{way}; {hint}")
    if isinstance(error, aiohttp.ClientSSLError):
        return TransportError(f"no encrypted connection: {error}{way}; a server without TLS has a URL of http://")
    kind = "timeout" if isinstance(error, TimeoutError) else "connection"
    cause = " ".join(str(error).split()) or (
        f"no whole answer within {limit:g} s" if kind == "timeout" else "the connection broke"
    )
    is_unconnected = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    return Retry(f"{type(error).__name__}: {cause}{way}", kind=kind, nobody_there=is_unconnected)


def _seconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # an HTTP date: the usual back-off serves
