"""Processes that work on chunks beside each other; what they make comes in the order of the chunks.

They are commands of their own, not copies of this process: a script that builds needs no `if __name__ ==
"__main__"`, and the engine's threads are not copied. They end with the process that started them, however it ends:
their input ends, too.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from alignxplore.errors import UserError

_AHEAD = 3  # chunks for each process that are worked on, or wait for the one before them
_COMMAND = "from alignxplore.datasets.workers import serve; serve()"


def side_by_side(work: Callable[[Any], Any], chunks: Iterable[Any], processes: int) -> Iterator[Any]:
    """`map(work, chunks)` in other processes, which get a copy of `work` (by pickling).

    Raises:
        UserError: one of them was killed.
        Exception: what `work` raised.
    """
    idle = SimpleQueue[subprocess.Popen[bytes]]()
    queue = deque[Future[Any]]()
    workers = [_start(work) for _ in range(processes)]
    for process in workers:
        idle.put(process)

    def hand_over(chunk: Any) -> Any:
        process = idle.get()
        result = _ask(process, chunk)
        idle.put(process)
        return result

    threads = ThreadPoolExecutor(processes)
    try:
        for chunk in chunks:
            queue.append(threads.submit(hand_over, chunk))
            if len(queue) > _AHEAD * processes:
                yield _made(queue.popleft())
        while queue:
            yield _made(queue.popleft())
    finally:
        for process in workers:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in workers:
            with process:  # closes its pipes
                pass


def _start(work: Callable[[Any], Any]) -> subprocess.Popen[bytes]:
    library = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=1 << 20,
    )
    assert process.stdin
    pickle.dump(work, process.stdin)
    process.stdin.flush()
    return process


def _ask(process: subprocess.Popen[bytes], chunk: Any) -> Any:
    assert process.stdin and process.stdout
    try:
        pickle.dump(chunk, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        status = process.wait()
        return UserError(f"a process that made rows ended with status {status}; if memory was short, make room")


def _made(future: Future[Any]) -> Any:
    result = future.result()
    if isinstance(result, Exception):
        raise result
    return result


def serve() -> None:
    """What such a process does until its input ends."""
    chunks, results = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what anybody prints is no result
    work = pickle.load(chunks)
    while True:
        try:
            chunk = pickle.load(chunks)
        except EOFError:
            return
        try:
            result = work(chunk)
        except Exception as error:
            result = error
        pickle.dump(result, results, pickle.HIGHEST_PROTOCOL)
        results.flush()
