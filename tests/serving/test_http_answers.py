"""What stands between a client and a model, or answers in its place: encodings, redirections, certificates."""

import asyncio
import contextlib
import gzip
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable

import pytest

from alignxplore.serving.endpoint import Endpoint, is_url
from alignxplore.serving.failures import RequestError, TransportError

TEXT = "Likes é😀 完."
MODELS = json.dumps({"data": [{"id": "m"}]}).encode()
SOUND = json.dumps({"choices": [{"message": {"role": "assistant", "content": TEXT}}]}, ensure_ascii=False).encode()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Connection: close",
        *headers,
        *([f"Content-Length: {len(body)}"] if length else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def raw(reply: Callable[[str, str, bytes], bytes], **options: ssl.SSLContext) -> AsyncIterator[str]:
    """A server that sends the bytes of `reply(method, path, the sound body)`, seven at once; yields its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(1)
            if not first.isalpha():  # the beginning of TLS
                writer.write(answer(b"", status="400 Bad Request"))
                writer.close()
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            length = next((int(x.split(":")[1]) for x in head.splitlines() if x.lower().startswith("content-len")), 0)
            await reader.readexactly(length)
            method, path, _ = head.split(" ", 2)
            sent = reply(method, path, SOUND if path.endswith("completions") else MODELS)
            for start in range(0, len(sent), 7):
                writer.write(sent[start : start + 7])
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    async with server:
        scheme = "https" if options else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def ask(url: str, patience: float = 10.0) -> str:
    async with Endpoint(url, patience=patience) as endpoint:
        return (await endpoint.chat([{"role": "user", "content": "Hi"}]))["choices"][0]["message"]["content"]


def in_chunks(body: bytes) -> bytes:
    parts = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    return answer(parts, "Transfer-Encoding: chunked", length=False)


DRESSES = {
    "chunks that cut characters": in_chunks,
    "ends with the connection": lambda body: answer(body, length=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a page by its type": lambda body: answer(body, "Content-Type: text/html"),
    "a charset that it has not": lambda body: answer(body, "Content-Type: application/json; charset=latin-1"),
    "a charset that there is not": lambda body: answer(body, "Content-Type: application/json; charset=nonsense"),
    "gzip": lambda body: answer(gzip.compress(body), "Content-Encoding: gzip"),
    "a byte-order mark": lambda body: answer(b"\xef\xbb\xbf" + body),
    "white space": lambda body: answer(b"\n \n" * 50 + body + b"\r\n"),
    "a cookie that is none": lambda body: answer(body, 'Set-Cookie: a b=c; Path="; =;;'),
    "hints before it": lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(body),
}


@pytest.mark.parametrize("dress", DRESSES)
async def test_an_answer_is_read_whatever_it_comes_in(dress):
    async with raw(lambda method, path, body: DRESSES[dress](body)) as url:
        assert await ask(url) == TEXT


async def test_what_is_no_utf_8_is_read_in_the_charset_that_is_named():
    body = SOUND.decode().replace("😀 完", "").encode("latin-1")

    def reply(method: str, path: str, sound: bytes) -> bytes:
        return answer(sound if method == "GET" else body, "Content-Type: application/json; charset=latin-1")

    async with raw(reply) as url:
        assert await ask(url) == "Likes é."


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirection_that_keeps_the_question_is_followed(status):
    def reply(method: str, path: str, body: bytes) -> bytes:
        return answer(b"", f"Location: /real{path}", status=status) if not path.startswith("/real") else answer(body)

    async with raw(reply) as url:
        assert await ask(url) == TEXT


@pytest.mark.parametrize(
    ("status", "place"), [("301 Moved", "/real/v1/chat/completions"), ("302 Found", "/login"), ("307 Gone", "")]
)
async def test_a_redirection_that_loses_the_question_is_named(status, place):
    """A POST becomes a GET; what that answers tells nothing."""

    def reply(method: str, path: str, body: bytes) -> bytes:
        if path != "/v1/chat/completions":
            return answer(body)
        return answer(b"", *([f"Location: {place}"] if place else []), status=status)

    async with raw(reply) as url:
        with pytest.raises(RequestError, match=f"it redirects to {place or 'nowhere'}; give the address"):
            await ask(url)


async def test_a_refusal_after_a_redirection_says_where_that_led():
    """The key is not sent on to another address, which then asks for it."""

    def reply(method: str, path: str, body: bytes) -> bytes:
        if path == "/v1/models":
            return answer(b"", "Location: /other/models", status="307 Temporary Redirect")
        return answer(b"no key", status="401 Unauthorized")

    async with raw(reply) as url:
        with pytest.raises(RequestError, match=r"no key .*\(redirected to http://127.0.0.1:\d+/other/models\)"):
            await ask(url)


async def test_a_login_page_says_that_it_was_redirected_to():
    def reply(method: str, path: str, body: bytes) -> bytes:
        if path == "/login":
            return answer(b"<html>sign in</html>", "Content-Type: text/html")
        return answer(b"", "Location: /login", status="302 Found")

    async with raw(reply) as url:
        with pytest.raises(TransportError, match=r"not a JSON object: '<html>.*\(redirected to http://.*/login\)"):
            await ask(url, patience=0.1)


async def test_what_a_library_says_over_several_lines_is_one():
    async with raw(lambda method, path, body: answer(body, "Content-Encoding: gzip")) as url:
        with pytest.raises(TransportError, match="Can not decode content-encoding: gzip") as caught:
            await ask(url, patience=0.1)
    assert "\n" not in str(caught.value)


async def test_an_error_that_comes_as_a_success_is_asked_again():
    """As gateways send it whose provider has failed."""
    errors = [b'{"error": {"message": "Provider returned error", "code": 502}}'] * 2

    def reply(method: str, path: str, body: bytes) -> bytes:
        return answer(errors.pop() if method == "POST" and errors else body)

    async with raw(reply) as url:
        assert await ask(url) == TEXT
        errors += [b'{"error": "overloaded"}'] * 10_000
        with pytest.raises(TransportError, match="an error in a reply of HTTP 200: .*overloaded"):
            await ask(url, patience=0.1)


async def test_a_pause_longer_than_our_patience_is_named():
    async with raw(lambda *_: answer(b"busy", "Retry-After: 86400", status="503 Service Unavailable")) as url:
        with pytest.raises(TransportError, match=r"HTTP 503: busy \(it asks for a pause of 86400 s\)"):
            await ask(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A file with a key and a certificate that it has signed itself, for 127.0.0.1."""
    path = str(tmp_path_factory.mktemp("tls") / "own.pem")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *words.split(), "-keyout", path, "-out", path + ".crt"], check=True, capture_output=True
    )
    with open(path, "a") as file, open(path + ".crt") as signed:
        file.write(signed.read())
    return path


async def test_a_certificate_that_is_not_trusted_is_named_at_once(certificate, monkeypatch):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with raw(lambda method, path, body: answer(body), ssl=context) as url:
        async with asyncio.timeout(20):
            with pytest.raises(TransportError, match="certificate is not trusted: .*self-signed.*; SSL_CERT_FILE="):
                await ask(url)
        with pytest.raises(TransportError):  # speaks TLS and is not asked so
            await ask(url.replace("https", "http"), patience=0.1)
    async with raw(lambda method, path, body: answer(body)) as url, asyncio.timeout(20):
        with pytest.raises(TransportError, match="no encrypted connection: .*; a server without TLS has .* http://"):
            await ask(url.replace("http", "https"))


def test_a_base_url_is_told_from_the_address_of_a_question():
    for end in ("/chat/completions", "/completions/", "/models", "?api-version=1"):
        with pytest.raises(ValueError, match=r"its end is added here; give the base URL, http://h/v1$"):
            Endpoint(f"http://h/v1{end}")
    for url in (
        "http://h:99999/v1",
        "http:///v1",
        "http://::1:8000/v1",
        "http://[::1/v1",
        "http://h:0/v1",
        "http://h:x/v1",
    ):
        with pytest.raises(ValueError, match=r"names no host and port; an IPv6 address stands in brackets"):
            Endpoint(url)
    assert Endpoint("http://[::1]:8000/v1").url == "http://[::1]:8000/v1"
    assert is_url("HTTP://h/v1") and Endpoint("HTTPS://h/v1").url == "HTTPS://h/v1"
