"""How probable a few tokens are where an answer goes on, asked for by one chat request. vLLM names them by their ids.

A reply may have been torn by other requests of its batch, or hold numbers that are no log-probabilities: neither is
believed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignxplore.judging.letter_tokens import Letters
from alignxplore.judging.together import MASKED, MAX_MASS, ONE_TOKEN, mass_of
from alignxplore.prompts import Messages
from alignxplore.serving.endpoint import Endpoint, TransportError

TOP = 20  # vLLM's limit of `top_logprobs`
MOST_PROBABLE: dict[str, Any] = {"top_logprobs": TOP}
_LOOKS = 5  # replies that the check at the start takes before it believes what it sees


@dataclass(frozen=True)
class NextToken:
    """The question which of some letters comes next. Further `fields` say what the server is to name.

    `opened`: a prompt and the start of its answer → the request up to the position that is read.
    """

    endpoint: Endpoint
    letters: Letters
    opened: Callable[[Messages, str], dict]

    @property
    def by_id(self) -> dict:
        """Fields for the letters alone, whatever else is more probable."""
        return {"logprob_token_ids": list(self.letters.tokens)}

    @property
    def choice(self) -> dict:
        """Fields for the letters alone, as if nothing else could be answered: this hides their mass."""
        return MOST_PROBABLE | {"structured_outputs": {"choice": list(self.letters.texts)}}

    def request(self, messages: Messages) -> dict:
        """The request up to the position that is read."""
        return self.opened(messages, self.letters.prefill)

    def has_all(self, logs: dict[int, float]) -> bool:
        """Whether no letter is missing."""
        return all(i in logs for i in self.letters.tokens)

    def mass(self, logs: dict[int, float]) -> float:
        """The sum of the letters' probabilities."""
        return mass_of(logs[i] for i in self.letters.tokens if i in logs)

    async def ask(self, messages: Messages, fields: dict) -> dict[int, float]:
        """Log-probabilities by token id; a reply that cannot be believed is asked for again."""
        return self.log_probabilities(await self._reply(messages, fields, self._believed))

    async def look(self, messages: Messages, fields: dict) -> dict[int, float]:
        """What the check at the start is told: a torn reply is asked for again a few times, and then taken."""
        logs: dict[int, float] = {}
        for _ in range(_LOOKS):
            logs = self.log_probabilities(await self._reply(messages, fields))
            if not self._torn(logs):
                break
        return logs

    async def try_out(self, messages: Messages, fields: dict, again: bool) -> dict:
        """A reply as it is; with `again` one of numbers, which is asked for again where they are none."""
        return await self._reply(messages, fields, self._all_numbers if again else None)

    def log_probabilities(self, reply: dict) -> dict[int, float]:
        """Log-probabilities by token id.

        Raises:
            TransportError: the reply has none.
        """
        name = self.endpoint.name
        try:
            entries = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return {int(entry["token"].removeprefix("token_id:")): float(entry["logprob"]) for entry in entries}
        except (KeyError, IndexError, TypeError, ValueError):
            raise TransportError(
                f"{name}: a reply without log-probabilities of token ids; serve the judge with vLLM, or let "
                "evaluate.py read what it writes (--protocol paper, or --judge_format harmony)"
            ) from None

    async def _reply(self, messages: Messages, fields: dict, usable: Callable[[dict], None] | None = None) -> dict:
        return await self.endpoint.chat(
            **self.request(messages),
            **ONE_TOKEN,
            logprobs=True,
            return_tokens_as_token_ids=True,
            usable=usable,
            **fields,
        )

    def _torn(self, logs: dict[int, float]) -> bool:
        """Whether a reply lacks a letter for another reason than that it is improbable.

        vLLM 0.27.1 overwrites the most probable tokens of all requests in a batch that holds one with
        `logprob_token_ids`: few are left, and they stand beside -9999.
        """
        if all(logs.get(i, -math.inf) > MASKED for i in self.letters.tokens):
            return False
        return len(logs) < TOP or any(log <= MASKED for log in logs.values())

    def _all_numbers(self, reply: dict) -> None:
        if any(math.isnan(value) for value in self.log_probabilities(reply).values()):
            raise TransportError(f"{self.endpoint.name}: a log-probability that is not a number")

    def _believed(self, reply: dict) -> None:
        self._all_numbers(reply)
        logs, name = self.log_probabilities(reply), self.endpoint.name
        if self._torn(logs):
            raise TransportError(f"{name}: neither letter in the reply, or one that another request has torn")
        if self.mass(logs) > MAX_MASS:
            raise TransportError(f"{name}: letters with a probability of {self.mass(logs):.3f}")
