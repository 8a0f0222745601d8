"""A proxy in the environment is used for remote endpoints, with NO_PROXY, and never for this machine's own servers."""

import asyncio
import json

import pytest

from alignxplore.serving.endpoint import Endpoint, TransportError
from alignxplore.serving.proxies import proxy_of

DEAD = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Proxy:
    """A proxy for http:// that answers each request itself with `reply`; `asked` holds first lines and headers."""

    def __init__(self, reply):
        self.reply, self.asked = json.dumps(reply).encode(), []

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        status = "502 Bad Gateway" if head.startswith("CONNECT") else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(self.reply)}\r\nConnection: close\r\n\r\n".encode())
        writer.write(self.reply)
        await writer.drain()
        writer.close()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()


MODELS = {"data": [{"id": "hosted"}]}


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_a_remote_endpoint_is_reached_through_the_proxy(monkeypatch, variable):
    async with Proxy(MODELS) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        async with Endpoint("http://models.example/v1", patience=0.1) as endpoint:
            assert endpoint.model == "hosted"
    assert proxy.asked[0].startswith("GET http://models.example/v1/models ")


async def test_an_encrypted_one_through_a_tunnel_and_a_netrc_is_not_read(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine models.example login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("KEY", "sk-1")
    async with Proxy(MODELS) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        endpoint = Endpoint("https://models.example/v1", patience=0.1, api_key_env="KEY")
        with pytest.raises(TransportError, match="502"):
            await endpoint.connect()
        await endpoint.close()
    assert proxy.asked[0].startswith("CONNECT models.example:443 ") and "sk-1" not in "".join(proxy.asked)


async def test_a_server_of_this_machine_is_asked_directly(monkeypatch, fake_server, say):
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, DEAD)
    async with fake_server(lambda body: say("x")) as server, Endpoint(server.url, patience=0.1) as endpoint:
        assert (await endpoint.chat([]))["choices"]


async def test_a_proxy_that_is_not_there_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    endpoint = Endpoint("http://models.example/v1", patience=0.1)
    with pytest.raises(TransportError, match=r"through the proxy 127.0.0.1:9; NO_PROXY=models.example") as caught:
        await endpoint.connect()
    await endpoint.close()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "through"),
    [
        ("http://judge-host:8000/v1", "", True),
        ("http://judge-host:8000/v1", "judge-host", False),
        ("http://judge-host:8000/v1", "other,judge-host:8000", False),
        ("https://a.corp.example/v1", ".corp.example", False),
        ("https://a.corp.example/v1", "*", False),
        ("http://203.0.113.3:8000/v1", "203.0.113.0/24", False),
        ("http://198.51.100.3:8000/v1", "203.0.113.0/24", True),
        ("http://localhost:8000/v1", "", False),
        ("http://127.0.0.2:8000/v1", "", False),
        ("http://[::1]:8000/v1", "", False),
        ("http://0.0.0.0:8000/v1", "", False),
    ],
)
def test_who_is_asked_through_it(monkeypatch, url, no_proxy, through):
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_of(url) == ("http://proxy.example:3128" if through else None)


def test_a_proxy_of_another_kind_is_an_error(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    with pytest.raises(ValueError, match="a socks5 proxy for http://models.example/v1, and only HTTP ones"):
        proxy_of("http://models.example/v1")
