"""A server that nothing of ours wrote, in a thread of its own, so that real commands can ask it; it records who asked
what."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Self

from tests.conftest import FakeServer


class Served:
    """`with Served(answer) as server:` an endpoint at `server.url`, whose replies are those of `FakeServer`.

    `answer` may be exchanged at any time. `asked` counts the requests that arrived, by their content.
    """

    def __init__(self, answer: Callable[[dict], Any], port: int | None = None, **model: Any):
        self.answer, self.model, self.port = answer, model, port
        self.asked: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def _answer(self, body: dict) -> Any:
        self.asked[json.dumps(body, sort_keys=True)] += 1
        return self.answer(body)

    async def _start(self) -> None:
        self._server = FakeServer(self._answer, port=self.port, **self.model)
        await self._server.__aenter__()
        self.url, self.port = self._server.url, self._server._server.port

    async def _stop(self) -> None:
        await self._server.__aexit__()

    def _run(self, work: Coroutine) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def down(self, seconds: float) -> None:
        """Close the port now, from within an answer, and open it again later: an outage."""

        async def away() -> None:
            await self._stop()
            await asyncio.sleep(seconds)
            await self._start()

        self._loop.create_task(away())

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
