"""Start a local `vllm serve` for a model folder or hub id, wait until it is healthy, and stop it with everything it
started.

    async with serve("outputs/sft", log_path="outputs/eval/policy.log") as url, Endpoint(url) as endpoint: ...

The same call serves on GPUs and on a CPU; on a CPU (vLLM's CPU build) it adds the settings that make small models fast
there. By hand: `python -m alignxplore.serving`.
"""

import asyncio
import contextlib
import http.client
import importlib.metadata
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import psutil

from alignxplore.command import Checkable, option, planned
from alignxplore.environment import ROOT
from alignxplore.errors import UserError, above_zero, check_port
from alignxplore.processes import Family, members, socket_folder, temporary_files, undisturbed
from alignxplore.serving.beforehand import check_files
from alignxplore.serving.serve_options import has_option, last_value

log = logging.getLogger(__name__)

CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default pins every server to core 0
    "OMP_NUM_THREADS": "1",  # more threads spin at barriers and slow small models down
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine and worker in one process: a third less work to start
    # A count in vLLM's sampler is compiled even with --enforce-eager: seconds of g++, which may not be there.
    "TORCH_COMPILE_DISABLE": "1",
    # Bytes. glibc would raise it to the size of passing tensors, and they leave holes in the heap: 200 MB in a judge.
    "MALLOC_MMAP_THRESHOLD_": str(2**20),
}
# FlashInfer's sampler is compiled by nvcc when a server warms up, which ends where there is none. Requests that have a
# seed, as ours do, never use it.
GPU_ENVIRONMENT = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
MEMORY_SHARE = 0.9  # of a GPU, for all servers that are up at the same time
# Blocks of 128 tokens, the CPU default, would keep short prompts out of the prefix cache. A prompt that is read in
# pieces and sampled with a seed ends the CPU engine (it rewinds a CUDA generator), so prompts are read whole.
_CPU_ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill")

ANYWHERE = ("0.0.0.0", "::", "")  # addresses at which a server is reached from everywhere
LIMIT = 900.0  # seconds that a server may take until it answers: large models are read from slow disks
# Without time to end, vLLM kills all that it started, trackers of resources too, and the queues between its processes
# stay in /dev/shm: up to 240 MB each. One process alone has no such queues.
_ENDING = ("--shutdown-timeout", "5")
_PARALLEL = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")
_GRACE = 20.0  # seconds in which a server may end by itself
_GRACE_STARTING = 3.0  # and one that was not ready yet, and has nothing to lose
# What the first error of a log looks like: later ones are mostly of those who waited for it.
_ERROR = re.compile(r"(?:^|[\s\]])(?:[\w.]*(?:Error|Exception)|[\w.]+\.\w+Error): \S")


class ServerError(UserError):
    """The server did not come up, or has ended; the message quotes its log."""


class Server(Family):
    """A `vllm serve`, and where in its log it began."""

    log_path = Path()
    log_start = 0  # bytes that were there before: earlier servers wrote into the same file
    sockets: Path | None = None  # folder of its sockets and temporary files, which vLLM leaves behind

    def end(self, *requests: tuple[signal.Signals, float]) -> list[str]:
        """As `Family.end`; its own folder is taken away."""
        with undisturbed():
            kill_lines = super().end(*requests)
            if self.sockets:
                shutil.rmtree(self.sockets, ignore_errors=True)
        return kill_lines

    def ended(self) -> ServerError | None:
        """What to say of a server that has ended by itself; None while it lives."""
        if self.poll() is None:
            return None
        return ServerError(f"vllm serve ended with code {self.returncode}; see {self.log_path}:\n{self.said()}")

    def said(self) -> str:
        """The end of its log, and before it the first error."""
        return _tail(self.log_path, self.log_start)


_running: dict[str, Server] = {}  # by base URL


def check_alive(url: str) -> None:
    """Raise `ServerError` if a server that this process started at `url` has ended: nobody need ask it again."""
    server = _running.get(url)
    if server and (error := server.ended()):
        raise error


def taken(host: str, port: int) -> str | None:
    """Why nothing can listen there; None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"port {port} of {host}: {error.strerror}"
    return None


def on_cpu() -> bool:
    """True if this environment's vLLM is the CPU build."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(
    model: str,
    *,
    log_path: str | Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    revision: str | None = None,
    arguments: Sequence[str] = (),
    with_key: bool = True,
) -> tuple[Server, str]:
    """Start the server. Returns its process, which ends with this one or by `end()`, and its base URL; it is not ready
    yet (`wait_ready`).

    Args:
        host: the address to listen at; 0.0.0.0 for all of this machine's, of which the URL names 127.0.0.1.
        with_key: an exported VLLM_API_KEY is asked of every request (alignxplore/serving/guard.py).

    Raises:
        ServerError: no vLLM, a port that another server has, or a server that anybody could use.
    """
    if problem := open_to_anybody(host, arguments, with_key):
        raise ServerError(problem)
    if port and (problem := taken(host, port)):
        raise ServerError(f"{problem}; end what listens there or choose another port")
    port = port or free_port()
    command = [*program(), "serve", model, "--host", host, "--port", str(port), "--disable-uvicorn-access-log"]
    command += ["--revision", revision] if revision else []
    environment = dict(os.environ) | {"VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    if not with_key:
        environment.pop("VLLM_API_KEY", None)
    elif environment.get("VLLM_API_KEY"):
        command += ["--middleware", "alignxplore.serving.guard.KeyEverywhere"]
    if on_cpu():
        command += _CPU_ARGUMENTS
    environment = (CPU_ENVIRONMENT if on_cpu() else GPU_ENVIRONMENT) | environment
    command += [*(_ENDING if _has_several_workers(arguments) else ()), *arguments]
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    sockets = socket_folder("axp-serve", "/" + "0" * 36)  # names of vLLM's sockets are random ids
    environment = {"VLLM_RPC_BASE_PATH": str(sockets)} | environment | temporary_files(sockets)
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/v1"
    with open(log_path, "ab") as out:
        process = Server(
            command, environment=environment, grace=_GRACE, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
        process.log_path, process.log_start, process.sockets = Path(log_path), out.tell(), sockets
    _running[url] = process
    return process, url


def program() -> list[str]:
    """The words by which vLLM is started."""
    executable = shutil.which("vllm", path=os.path.dirname(sys.executable)) or shutil.which("vllm")
    if executable is None:
        raise ServerError(
            "vllm is not installed in this environment; install the requirements or give the URL of an endpoint"
        )
    if on_cpu():  # -P: as with `vllm` itself, nothing of the folder that one happens to be in is imported
        return [sys.executable, "-P", "-c", "from alignxplore.serving.forked_vllm import run; run()"]
    return [executable]


def _has_several_workers(arguments: Sequence[str]) -> bool:
    return any(last_value(arguments, name) not in (None, "1") for name in _PARALLEL)


def open_to_anybody(host: str, arguments: Sequence[str], with_key: bool = True) -> str | None:
    """Why a server that asks for an exported VLLM_API_KEY (`with_key`) must not be started so; None if it may."""
    if has_option(arguments, "--api-key"):
        return (
            "--api-key is read by every user of this machine in the list of processes, and vLLM asks for it under /v1 "
            "alone: set VLLM_API_KEY in the environment"
        )
    if host in ANYWHERE and not (with_key and os.environ.get("VLLM_API_KEY")):
        return (
            f"{host} lets everybody who reaches this machine use the model: listen at the address by which those who "
            "ask see this machine, or set VLLM_API_KEY"
        )
    return None


def check_key(url: str) -> None:
    """Raise `ServerError` if a server that was started with a key answers without one. vLLM by itself would, at
    /invocations."""
    request = urllib.request.Request(url.removesuffix("/v1") + "/invocations", b"{}", method="POST")
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()
    except urllib.error.HTTPError as refusal:
        if refusal.code == 401:
            return
    raise ServerError(f"{url} answers POST /invocations without VLLM_API_KEY: it must not be reached by others")


def announced(path: Path) -> str | None:
    """The URL of a server whose output goes to this file, once it has said "ready: MODEL at URL"."""
    match = re.search(r"^ready: .* at (\S+)$", path.read_text(errors="replace"), flags=re.MULTILINE)
    return match and match.group(1)


def wait_ready(process: Server, url: str, *, log_path: str | Path, limit: float = LIMIT) -> None:
    """Return once the server answers its health check; raise `ServerError` if it ends first, takes over `limit`
    seconds, or if it is another server that answers."""
    deadline = time.monotonic() + limit
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # a cluster's HTTP proxy cannot reach this server
    while time.monotonic() < deadline:
        if error := process.ended():
            raise error
        with contextlib.suppress(OSError, http.client.HTTPException):
            opener.open(url.removesuffix("/v1") + "/health", timeout=5).close()
            if not _listens(process, int(url.removesuffix("/v1").rpartition(":")[2])):
                raise ServerError(f"{url} is answered by another server than the one that was started there")
            return
        time.sleep(0.25)
    raise ServerError(f"vllm serve was not ready after {limit:.0f} s; see {log_path}:\n{process.said()}")


def _listens(process: Server, port: int) -> bool:
    """Whether it is this server, or a process of its family, that listens at a port."""
    for member in members(process.name):
        with contextlib.suppress(psutil.Error):
            listeners = (entry for entry in member.net_connections("tcp") if entry.status == psutil.CONN_LISTEN)
            if any(entry.laddr.port == port for entry in listeners):
                return True
    return False


def _end(process: Server, url: str, is_ready: bool) -> None:
    """End it; one that was still starting is given little time."""
    _running.pop(url, None)
    if is_ready or process.poll() is not None:
        process.end()
        return
    log.info("ending a server that was still starting")
    process.end((signal.SIGTERM, _GRACE_STARTING))


@contextlib.asynccontextmanager
async def serve(
    model: str, *, log_path: str | Path, revision: str | None = None, arguments: Sequence[str] = ()
) -> AsyncIterator[str]:
    """Serve `model` for the length of a with-block; yields the base URL. Who asks is this process: no key is wanted.

    While the server starts and ends, others go on. On GPUs servers start one by one.
    """
    async with contextlib.AsyncExitStack() as turn:
        await turn.enter_async_context(_turn())
        began, is_ready = time.monotonic(), False
        process, url = start(model, log_path=log_path, revision=revision, arguments=arguments, with_key=False)
        try:
            await asyncio.to_thread(wait_ready, process, url, log_path=log_path)
            is_ready = True
            log.info("serving %s at %s after %.0f s", model, url, time.monotonic() - began)
            await turn.aclose()
            yield url
        finally:
            await asyncio.to_thread(_end, process, url, is_ready)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _turn() -> contextlib.AbstractAsyncContextManager[Any]:
    """When it is a server's turn to start. vLLM takes what others fill on its GPU meanwhile for its own use, and what
    is left for keys and values shrinks by it."""
    if on_cpu():
        return contextlib.nullcontext()
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def beside(arguments: Sequence[str], count: int) -> list[str]:
    """`arguments` for one of `count` servers that are up at the same time: an equal share of a GPU's memory, unless
    they name one."""
    if count < 2 or on_cpu() or has_option(arguments, "--gpu-memory-utilization"):
        return list(arguments)
    return [*arguments, "--gpu-memory-utilization", f"{MEMORY_SHARE / count:.3f}"]


def _tail(path: str | Path, start: int = 0, lines: int = 15) -> str:
    """The last lines of a log from byte `start` on, and before them the first error, if it stands further up."""
    with Path(path).open("rb") as file:
        file.seek(start)
        text_lines = file.read().decode(errors="replace").splitlines()
    first_error = next((line.strip() for line in text_lines[:-lines] if _ERROR.search(line)), None)
    return "\n".join(([f"the first error: {first_error}", "..."] if first_error else []) + text_lines[-lines:])


@dataclass(kw_only=True)
class ServeOptions(Checkable):
    """What is served where."""

    model: str = option("folder or hub id; it may stand first, without its name")
    host: str = option("address to listen at", "127.0.0.1")
    port: int | None = option("port; default: any free one; it is printed", None)
    limit: float = option("seconds that it may take to come up", LIMIT)
    log: str = option("where the server's own output goes", "serve.log")
    revision: str | None = option("revision of a hub model", None)

    def __post_init__(self) -> None:
        check_port(self.port)
        above_zero(self, "limit")


def serve_until_stopped(options: ServeOptions, arguments: Sequence[str]) -> NoReturn:
    """Serve until Ctrl-C or a TERM signal.

    Args:
        arguments: more of them, for `vllm serve`.

    Raises:
        ServerError: the server has ended by itself, with whatever code: vLLM's is 0 where its engine has died.
    """
    if options.model.startswith((".", "/", "~")) and not Path(options.model).exists():
        raise FileNotFoundError(f"{options.model}: no such model folder")
    if "/" in options.model and (Path(options.model).exists() or not options.check):  # --check asks no hub
        check_files(options.model, options.revision, arguments)
    if options.check:
        print(planned(options, f"for vllm serve besides: {' '.join(arguments) or 'nothing'}"))
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through the finally below, so that nothing stays behind
    is_ready = False
    process, url = start(
        options.model,
        log_path=options.log,
        host=options.host,
        port=options.port,
        revision=options.revision,
        arguments=arguments,
    )
    try:
        wait_ready(process, url, log_path=options.log, limit=options.limit)
        if os.environ.get("VLLM_API_KEY"):
            check_key(url)
        is_ready = True
        print(f"ready: {options.model} at {url}", flush=True)
        process.wait()
        error = process.ended()
        assert error  # it has just been waited for
        raise error
    finally:
        _end(process, url, is_ready)
