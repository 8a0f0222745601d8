"""Starting and stopping a server: a stand-in for what can go wrong, and (slow) real vLLM whose parent is killed."""

import asyncio
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest

from alignxplore.serving import server
from alignxplore.serving.server import ServerError, start, wait_ready
from alignxplore.world import tiny
from tests.conftest import serve

# Serves /health and starts a child that would outlive it; `MODE` says how it misbehaves.
STAND_IN = """#!{python}
import json, os, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
mode, arguments = os.environ.get("MODE", ""), sys.argv[1:]
if mode == "dies":
    print("\\n".join(f"line {{i}}" for i in range(40)) + "\\nValueError: no such model", flush=True)
    sys.exit(3)
child = subprocess.Popen(["sleep", "600"])
print(json.dumps({{"child": child.pid, "arguments": arguments, "environment": dict(os.environ)}}), flush=True)
if mode == "ends":
    import threading
    threading.Timer(2, os._exit, [0]).start()
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
host, port = (arguments[arguments.index(name) + 1] for name in ("--host", "--port"))
HTTPServer((host, int(port)), Health).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An executable named vllm that is not vLLM; returns the path of the server's log."""
    script = tmp_path / "vllm"
    script.write_text(STAND_IN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(server, "program", lambda: [str(script)])
    return tmp_path / "logs" / "serve.log"


def first_line(log):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().endswith("\n"):
            return json.loads(log.read_text().splitlines()[0])
        time.sleep(0.05)
    raise AssertionError("the stand-in never started")


def alive(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pids, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.1)
    return False


def test_serves_for_the_length_of_a_block(stand_in, monkeypatch):
    monkeypatch.setattr(server, "on_cpu", lambda: True)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with serve(
        "org/model", log_path=stand_in, revision="abc", arguments=("--max-model-len", "512", "--block-size", "64")
    ) as url:
        record = first_line(stand_in)
        arguments = record["arguments"]
        assert (
            arguments[:2] == ["serve", "org/model"]
            and url == f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}/v1"
        )
        assert (
            arguments[arguments.index("--host") + 1] == "127.0.0.1"
            and arguments[arguments.index("--revision") + 1] == "abc"
        )
        assert arguments[-4:] == ["--max-model-len", "512", "--block-size", "64"]  # ours come last, and win
        assert "--enforce-eager" in arguments and record["environment"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
        assert record["environment"]["OMP_NUM_THREADS"] == "7"  # what the user set wins
        assert psutil.pid_exists(record["child"])
    assert gone([record["child"]])


def test_no_cpu_settings_beside_a_gpu_build(stand_in, monkeypatch):
    monkeypatch.setattr(server, "on_cpu", lambda: False)
    with serve("m", log_path=stand_in):
        record = first_line(stand_in)
    assert "--dtype" not in record["arguments"] and "VLLM_CPU_OMP_THREADS_BIND" not in record["environment"]


def test_a_key_for_other_servers_is_not_asked_of_ourselves(stand_in, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with serve("m", log_path=stand_in):
        assert "VLLM_API_KEY" not in first_line(stand_in)["environment"]
    process, _ = start("m", log_path=stand_in.with_name("by_hand.log"))  # as verl/serve_judge.sh has it
    try:
        record = first_line(stand_in.with_name("by_hand.log"))
        assert record["environment"]["VLLM_API_KEY"] == "secret"
        assert (
            record["arguments"][record["arguments"].index("--middleware") + 1]
            == "alignxplore.serving.guard.KeyEverywhere"
        )
    finally:
        process.end()


@pytest.mark.parametrize(
    ("host", "arguments", "sentence"),
    [
        ("0.0.0.0", (), "0.0.0.0 lets everybody who reaches this machine use the model: .*VLLM_API_KEY"),
        ("::", (), "lets everybody"),
        ("127.0.0.1", ("--api-key", "secret"), "--api-key is read by every user of this machine"),
        ("127.0.0.1", ("--api_key=secret",), "vLLM asks for it under /v1 alone"),
    ],
)
def test_a_server_that_anybody_could_use_is_not_started(stand_in, monkeypatch, host, arguments, sentence):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(ServerError, match=sentence):
        start("m", log_path=stand_in, host=host, arguments=arguments)
    assert not stand_in.exists()


async def test_others_go_on_while_a_server_starts(stand_in):
    steps = 0

    async def others():
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(others())
    async with server.serve("m", log_path=stand_in):
        step_count, child = steps, first_line(stand_in)["child"]
    task.cancel()
    assert step_count and gone([child])


def test_an_error_in_the_block_still_stops_the_server(stand_in):
    with pytest.raises(KeyboardInterrupt), serve("m", log_path=stand_in):
        child = first_line(stand_in)["child"]
        raise KeyboardInterrupt
    assert gone([child])


def test_a_stubborn_server_is_killed_after_its_grace(stand_in, monkeypatch):
    monkeypatch.setenv("MODE", "stubborn")
    process, url = start("m", log_path=stand_in)
    wait_ready(process, url, log_path=stand_in)
    child, began = first_line(stand_in)["child"], time.monotonic()
    process.grace = 0.5
    process.end()
    assert process.poll() == -signal.SIGKILL and gone([child]) and time.monotonic() - began < 30


def test_what_a_dead_leader_left_behind_is_stopped_too(stand_in):
    process, url = start("m", log_path=stand_in)
    wait_ready(process, url, log_path=stand_in)
    child = first_line(stand_in)["child"]
    process.kill()
    process.wait()
    assert not gone([child], 0.3)
    process.end()
    assert gone([child])
    process.end()  # twice does no harm


def test_a_server_that_ends_is_an_error_with_the_end_of_its_log(stand_in, monkeypatch):
    monkeypatch.setenv("MODE", "dies")
    process, url = start("m", log_path=stand_in)
    with pytest.raises(ServerError) as caught:
        wait_ready(process, url, log_path=stand_in, limit=60)
    process.end()
    message = str(caught.value)
    assert (
        "ended with code 3" in message and str(stand_in) in message and message.endswith("ValueError: no such model")
    )
    assert "line 39" in message and "line 3\n" not in message


def test_a_server_that_is_never_ready(stand_in, unused_tcp_port):
    process, _ = start("m", log_path=stand_in)
    first_line(stand_in)
    with pytest.raises(ServerError, match="was not ready after 1 s"):
        wait_ready(process, f"http://127.0.0.1:{unused_tcp_port}/v1", log_path=stand_in, limit=0.6)
    process.end()


def test_an_http_proxy_does_not_stand_between(stand_in, monkeypatch, unused_tcp_port):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    process, url = start("m", log_path=stand_in)
    try:
        wait_ready(process, url, log_path=stand_in, limit=60)
    finally:
        process.end()


def test_the_thread_that_starts_a_server_may_end_and_stopping_leaves_no_guard(stand_in):
    children = set(psutil.Process().children())
    with ThreadPoolExecutor(1) as pool:
        process, url = pool.submit(start, "m", log_path=stand_in).result()
    wait_ready(process, url, log_path=stand_in)
    time.sleep(0.5)
    assert process.poll() is None
    process.end()
    assert set(psutil.Process().children()) == children


PARENT = """
import json, sys, time
from alignxplore.serving import server
if sys.argv[3]:
    server.program = lambda: [sys.argv[3]]
process, url = server.start(sys.argv[1], log_path=sys.argv[2], arguments=json.loads(sys.argv[4]))
print(process.pid, flush=True)
server.wait_ready(process, url, log_path=sys.argv[2])
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def parent(model, log, executable="", arguments=()):
    """A process of its own that serves; yields it and the pid of its server."""
    command = [sys.executable, "-c", PARENT, str(model), str(log), executable, json.dumps(arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    server = int(process.stdout.readline())
    try:
        yield process, server
    finally:
        process.kill()
        process.wait()
        for pid in family(server):
            os.kill(pid, signal.SIGKILL)


def family(server):
    """The server, everything it started, and everything in its session."""
    pids = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == server:
                pids |= {process.pid} | {p.pid for p in process.children(recursive=True)}
    return pids


def heap(pid):
    """Where a process keeps what it allocates: another place in every program that is started, that of the parent in a
    fork."""
    with open(f"/proc/{pid}/maps") as file:
        return next(line.partition("-")[0] for line in file if line.endswith("[heap]\n"))


@pytest.mark.parametrize(("host", "address"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1")])
def test_the_address_that_it_listens_at_is_the_one_that_is_asked(stand_in, monkeypatch, host, address):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    process, url = start("m", log_path=stand_in, host=host)
    try:
        wait_ready(process, url, log_path=stand_in, limit=60)
        assert url.startswith(f"http://{address}:")
    finally:
        process.end()


def test_by_hand_address_and_limit_are_passed_on_and_the_rest_is_for_vllm(monkeypatch):
    calls = {}

    class Process:
        def poll(self):
            return None

        def end(self, *requests):
            calls["ended"] = requests

    def started(model, **options):
        calls.update(options)
        return Process(), "http://127.0.0.3:8000/v1"

    def waited(process, url, *, log_path, limit):
        calls["limit"] = limit
        raise KeyboardInterrupt

    for name, stand in (("start", started), ("wait_ready", waited)):
        monkeypatch.setattr(server, name, stand)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["serving", "m", "--host", "127.0.0.3", "--limit", "7", "--max-model-len", "9"])
    with pytest.raises(SystemExit, match="130"):
        runpy.run_module("alignxplore.serving", run_name="__main__")
    assert (calls["host"], calls["limit"], calls["arguments"]) == ("127.0.0.3", 7, ["--max-model-len", "9"])
    assert calls["ended"] == ((signal.SIGTERM, server._GRACE_STARTING),), "nobody waits long for one that still starts"


def test_by_hand_a_server_that_ends_by_itself_is_an_error(stand_in, monkeypatch, capsys):
    """vLLM ends with 0 where its engine has died."""
    monkeypatch.setenv("MODE", "ends")
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["serving", "m", "--log", str(stand_in)])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("alignxplore.serving", run_name="__main__")
    output = capsys.readouterr()
    assert end.value.code not in (None, 0) and "ready: m at" in output.out
    assert "vllm serve ended with code 0; see" in f"{output.err}{end.value.code}"


@pytest.mark.parametrize("mode", ["", "stubborn"])
def test_a_killed_parent_leaves_no_server_behind(stand_in, monkeypatch, mode):
    """Not even one that does not heed the first signal."""
    monkeypatch.setenv("MODE", mode)
    with parent("m", stand_in, str(stand_in.parent.parent / "vllm")) as (process, server):
        assert process.stdout.readline() == "ready\n"
        pids = family(server)
        assert len(pids) == 2
        process.send_signal(signal.SIGKILL)
        assert gone(pids)


def test_ctrl_c_in_the_terminal_leaves_no_server_behind(stand_in):
    """It reaches the whole foreground group at once, but must not reach what looks after the server."""
    with parent("m", stand_in, str(stand_in.parent.parent / "vllm")) as (process, server):
        assert process.stdout.readline() == "ready\n"
        pids = family(server)
        os.killpg(process.pid, signal.SIGINT)
        assert gone(pids)


ARGUMENTS = ("--max-model-len", "1024", "--max-num-seqs", "32")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["importing", "starting its engine", "serving"])
def test_a_killed_parent_leaves_no_vllm_behind(tmp_path, moment):
    tiny.write_model(tiny.TinyOptions(out=str(tmp_path / "model")))
    with parent(tmp_path / "model", tmp_path / "serve.log", arguments=ARGUMENTS) as (process, server):
        if moment == "importing":
            time.sleep(2)
        elif moment == "serving":
            assert process.stdout.readline() == "ready\n"
        else:  # some time after its first words
            deadline = time.monotonic() + 60
            while "APIServer" not in (tmp_path / "serve.log").read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(3)
        pids = family(server)
        assert server in pids and (moment != "serving" or len(pids) > 1)
        assert moment != "serving" or len(set(map(heap, pids))) == 1, "the engine is no fork: it imported all again"
        process.send_signal(signal.SIGKILL)
        assert gone(pids, 120), [psutil.Process(p).cmdline() for p in pids if alive(p)]
        assert not family(server)


@pytest.mark.slow
def test_a_folder_without_a_model_says_so(tmp_path):
    with (
        pytest.raises(ServerError, match=r"(?s)vllm serve ended with code 1; see .*serve\.log"),
        serve(str(tmp_path), log_path=tmp_path / "serve.log"),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "has_time"),
    [
        ((), False),
        (("--tensor-parallel-size", "1", "--data-parallel-size=1"), False),
        (("--data-parallel-size", "2"), True),
        (("-tp", "4"), True),
        (("--tensor_parallel_size=2",), True),
    ],
)
def test_a_server_of_several_workers_has_time_to_take_its_queues_away(stand_in, arguments, has_time):
    with serve("m", log_path=stand_in, arguments=arguments):
        assert ("--shutdown-timeout" in first_line(stand_in)["arguments"]) == has_time
