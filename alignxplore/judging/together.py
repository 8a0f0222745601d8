"""Many prompts in one request: how a judge asks vLLM, whose own work for a request is more than that of a small model.

Prompts go to /v1/completions as token ids, so that neither chat template nor tokenizer runs in the server; what waits
at the same moment goes together. `TokenReader` uses it where a server has shown that it reads such prompts as it reads
the chat. The numbers are those of the chat.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignxplore.prompts import Messages
from alignxplore.serving.endpoint import Endpoint, RequestError, TransportError

MOST = 32  # prompts in one request
LONGEST = 8192  # characters of a prompt that is sent so: longer ones are work for the model, not for the server
MASKED = -9000.0  # vLLM writes minus infinity as -9999: no log-probability of a letter
MAX_MASS = 1.01  # what rounding may add to a probability
# Which token is written does not matter, only how probable each was. With a seed, because vLLM 0.27.1 on a CPU forgets
# the seeds of all requests in a batch that holds one without (a greedy one, too): what a teacher writes beside a judge
# on one server would not repeat. Temperature 1 changes no probability.
ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 1.0, "seed": 0}
AGREE = 1e-3  # log-probabilities of the same prompt asked in both ways


class Together:
    """Log-probabilities of some tokens after prompts of token ids, asked for many at a time.

    Args:
        endpoint: connected endpoint of a vLLM server.
        tokens: the ids whose log-probabilities are asked for.
        tokenise: a prompt → its ids. It is called in a thread of its own: a long prompt takes some milliseconds, for
            which the loop that streams all users would stand still.
    """

    def __init__(self, endpoint: Endpoint, tokens: Sequence[int], tokenise: Callable[[Messages], list[int]]):
        self.endpoint, self.tokens, self.tokenise = endpoint, list(tokens), tokenise
        self._aside = ThreadPoolExecutor(1, "tokenise")
        self._queue: list[tuple[Messages, asyncio.Future[dict[int, float] | None]]] = []
        self._sent: set[asyncio.Task[None]] = set()

    async def agrees(self, ids: list[int], chat_logs: dict[int, float]) -> bool:
        """Whether the server reads a prompt of ids as it has read the same prompt as a chat."""
        try:
            (logs,) = await self._ask([ids], again=False)
        except (RequestError, TransportError):
            return False
        return logs is not None and all(abs(logs[i] - chat_logs[i]) < AGREE for i in self.tokens)

    async def read(self, messages: Messages) -> dict[int, float] | None:
        """Log-probability of each token after one prompt; None where the prompt has to be asked by itself, to learn
        what is wrong with it.

        Raises:
            TransportError: no usable reply in the time given.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[int, float] | None] = loop.create_future()
        self._queue.append((messages, answer))
        if len(self._queue) == 1:
            loop.call_soon(self._send)  # after whoever else is about to ask
        return await answer

    def _send(self) -> None:
        queue, self._queue = self._queue, []
        for start in range(0, len(queue), MOST):
            task = asyncio.create_task(self._answer(queue[start : start + MOST]))
            self._sent.add(task)  # or nobody would hold it
            task.add_done_callback(self._sent.discard)

    async def _answer(self, queue: Sequence[tuple[Messages, asyncio.Future[dict[int, float] | None]]]) -> None:
        replies: Sequence[dict[int, float] | None]
        error: Exception | None = None
        try:
            loop, prompts = asyncio.get_running_loop(), [messages for messages, _ in queue]
            replies = await self._ask(await loop.run_in_executor(self._aside, self._tokenised, prompts))
        except RequestError:  # one of them is to blame
            replies = [None] * len(queue)
        except Exception as problem:
            replies, error = [None] * len(queue), problem
        for (_, answer), logs in zip(queue, replies, strict=True):
            if answer.done():  # who asked has gone
                continue
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(logs)

    def _tokenised(self, prompts: list[Messages]) -> list[list[int]]:
        return [self.tokenise(messages) for messages in prompts]

    async def _ask(self, prompts: list[list[int]], again: bool = True) -> list[dict[int, float] | None]:
        choices = await self.endpoint.complete(
            prompts,
            again=again,
            **ONE_TOKEN,
            logprobs=1,
            logprob_token_ids=self.tokens,
            return_tokens_as_token_ids=True,
        )
        return [self._log_probabilities(choice) for choice in choices]

    def _log_probabilities(self, choice: dict) -> dict[int, float] | None:
        try:
            entries = choice["logprobs"]["top_logprobs"][0]
            logs = {i: float(entries[f"token_id:{i}"]) for i in self.tokens}
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        if not all(log > MASKED for log in logs.values()):  # NaN is not greater either
            return None
        return logs if mass_of(logs.values()) <= MAX_MASS else None


def mass_of(logs: Iterable[float]) -> float:
    """The sum of the probabilities; more than 1 where a server reports something else, and then of any size."""
    return sum(math.exp(min(log, 100.0)) for log in logs)
