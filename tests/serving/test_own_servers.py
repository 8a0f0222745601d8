"""Servers that we start: another one at their port, one that dies while it is asked, what the end of a log shows."""

import asyncio
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from alignxplore.serving import server
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.judges import JudgesOptions, serve_judges
from alignxplore.serving.models import ModelSpec, open_model
from alignxplore.serving.server import ServerError, free_port, start, wait_ready
from tests.conftest import serve
from tests.serving.test_server import first_line, gone, stand_in  # noqa: F401  (a fixture)


@pytest.fixture
def other_server():
    """A healthy server of somebody else; yields its port."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd.server_port
    httpd.shutdown()
    httpd.server_close()


def test_a_port_that_another_server_has_is_refused_before_anything_starts(stand_in, other_server):  # noqa: F811
    with pytest.raises(
        ServerError, match=f"port {other_server} of 127.0.0.1: Address already in use; .* another port"
    ):
        start("m", log_path=stand_in, port=other_server)
    assert not stand_in.exists()


def test_judges_too(tmp_path, other_server, capsys):
    options = JudgesOptions(models="a=org/A", device="cpu", port=other_server, logs=tmp_path / "logs")
    with pytest.raises(ServerError, match=f"judge 'a': port {other_server} .* another --port"):
        serve_judges(options, [])
    assert "JUDGES=" not in capsys.readouterr().out


def test_the_health_of_another_server_is_not_ours(stand_in, other_server):  # noqa: F811
    """It took the port after ours was started and before ours listened."""
    process, _ = start("m", log_path=stand_in)
    try:
        with pytest.raises(ServerError, match="answered by another server"):
            wait_ready(process, f"http://127.0.0.1:{other_server}/v1", log_path=stand_in, limit=60)
    finally:
        process.end()


async def test_a_server_that_dies_is_not_asked_for_ever(stand_in, monkeypatch):  # noqa: F811
    """Patience is for servers that may come back; ours does not."""
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.05)
    async with server.serve("m", log_path=stand_in) as url:
        child = first_line(stand_in)["child"]
        with stand_in.open("a") as log:
            log.write("RuntimeError: the engine is gone\n")
        endpoint = Endpoint(url, "m", watch=lambda: server.check_alive(url), patience=300)
        os.kill(server._running[url].pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"(?s)vllm serve ended with code -9; see .*the engine is gone"):
            await asyncio.wait_for(endpoint.chat([{"role": "user", "content": "hi"}]), 30)
        assert time.monotonic() - began < 15
        await endpoint.close()
    assert gone([child])


async def test_every_model_that_is_opened_is_watched(stand_in, monkeypatch, tmp_path):  # noqa: F811
    watches = []

    class Watched(Endpoint):
        async def connect(self):
            watches.append(self._watch)
            return self

    monkeypatch.setattr("alignxplore.serving.models.Endpoint", Watched)
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.bin"):
        (folder / name).write_text("{}")
    async with open_model(ModelSpec.parse(f"m={folder}"), log_folder=tmp_path, tokenizer=False):
        watches[0]()
        for process in server._running.values():
            process.kill()
            process.wait()
        with pytest.raises(ServerError):
            watches[0]()


def test_one_that_was_still_starting_is_ended_soon(stand_in, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MODE", "stubborn")
    monkeypatch.setattr(server, "_GRACE_STARTING", 0.5)

    def interrupted(*_, **__):
        first_line(stand_in)
        time.sleep(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "wait_ready", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), serve("m", log_path=stand_in):
        pass
    assert time.monotonic() - began < 15


def test_the_first_error_of_a_log_is_shown_before_its_end(tmp_path):
    log = tmp_path / "serve.log"
    log.write_text("ValueError: of an earlier server\n")
    before = log.stat().st_size
    cause = "(EngineCore pid=7) ERROR 11-28 [core.py:700] OSError: model-00002.safetensors is not there"
    lines = ["INFO starting", cause, *(f"at line {i}" for i in range(30)), "RuntimeError: See root cause above."]
    with log.open("a") as file:
        file.write("\n".join(lines) + "\n")
    tail = server._tail(log, before).splitlines()
    assert tail[0] == f"the first error: {cause}" and tail[-1] == "RuntimeError: See root cause above."
    assert len(tail) == 17 and "earlier" not in "\n".join(tail)
    log.write_text("a\nb\nValueError: short\n")
    assert server._tail(log).splitlines() == ["a", "b", "ValueError: short"]


def test_a_port_is_free_again_after_a_server(stand_in):  # noqa: F811
    port = free_port()
    for _ in range(2):
        process, url = start("m", log_path=stand_in, port=port)
        wait_ready(process, url, log_path=stand_in)
        process.end()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_each_server_has_a_folder_of_its_own_and_takes_it_away(stand_in, monkeypatch):  # noqa: F811
    """vLLM leaves seven files in the temporary folder."""
    with serve("m", log_path=stand_in):
        environment = first_line(stand_in)["environment"]
        folder = Path(environment["VLLM_RPC_BASE_PATH"])
        (folder / "left behind").touch()
        (Path(environment["TMPDIR"]) / "and this").touch()
        assert Path(environment["TMPDIR"]).is_relative_to(folder) and environment["PYTHONUTF8"] == "1"
    assert not folder.exists()
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", str(stand_in.parent))  # what the user set wins, and stays
    with serve("m", log_path=stand_in.with_name("second.log")):
        assert first_line(stand_in.with_name("second.log"))["environment"]["VLLM_RPC_BASE_PATH"] == str(
            stand_in.parent
        )
    assert stand_in.parent.is_dir()
