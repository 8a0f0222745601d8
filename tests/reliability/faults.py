"""The faults of an endpoint, and what each of them comes to in each command. `test_endpoint_faults.py` runs the
table.

A fault makes the reply to a request out of the sound one. It comes to `OK` (the right result all the same), to a
failed unit that the next run asks again (`TRANSPORT_ERROR`, `REFUSED`), or to `UNREAD`: an answer of the model's own
that cannot be used, which is final and counted.
"""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR

UNREAD = "unread"
COMMANDS = ("gen_preference", "evaluate choice", "evaluate paper", "synthesize")
LETTERS, TEACHER = "evaluate choice", "synthesize"
LONG = "and so on " * 2000


@dataclass(frozen=True)
class Fault:
    """`reply(the sound one)` is what arrives. `comes_to` is what that is in every command but those of `but`.

    `message`, a pattern, is found in what is said; `repeated`: it is asked again within the run.
    """

    reply: Callable[[dict], Any]
    comes_to: str
    message: str = ""
    but: dict[str, str] = field(default_factory=dict)
    repeated: bool = True

    def outcome(self, command: str) -> str:
        return self.but.get(command, self.comes_to)


class Drip(web.StreamResponse):
    """A body that comes byte by byte, for longer than any command of the tests waits."""

    async def prepare(self, request: web.Request) -> Any:
        writer = await super().prepare(request)
        for _ in range(200):
            await self.write(b" ")
            await asyncio.sleep(0.05)
        return writer


def status(code: int, text: str, kind: str = "text/plain", **headers: str) -> Callable[[dict], web.Response]:
    return lambda _: web.Response(
        status=code, text=text, content_type=kind, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def changed(change: Callable[[dict], None]) -> Callable[[dict], dict]:
    """A reply whose first choice is not what it should be."""

    def reply(sound: dict) -> dict:
        answer = copy.deepcopy(sound)
        change(answer["choices"][0])
        return answer

    return reply


def null_content(choice: dict) -> None:
    choice["message"]["content"] = None


def in_parts(choice: dict) -> None:
    text = choice["message"]["content"]
    choice["message"]["content"] = [{"type": "text", "text": part} for part in (text[:5], text[5:])]


def null_logprobs(choice: dict) -> None:
    choice["logprobs"] = None


def torn(choice: dict) -> None:
    for entry in (choice.get("logprobs") or {"content": [{"top_logprobs": []}]})["content"][0]["top_logprobs"]:
        entry["logprob"] = -9999.0


def too_long(choice: dict) -> None:
    choice["message"]["content"] = "<think>\n" + LONG
    choice["finish_reason"] = "length"


UNANSWERED = {TEACHER: TRANSPORT_ERROR}  # a user of synthesis does not tell why a request was not answered
WRONG_MODEL = '{"error": {"message": "The model `other` does not exist.", "code": 404}}'
PAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>"
FAULTS = {
    "429": Fault(status(429, "slow down"), TRANSPORT_ERROR, "HTTP 429: slow down"),
    "429 with Retry-After": Fault(status(429, "wait", Retry_After="0.1"), TRANSPORT_ERROR, "HTTP 429: wait"),
    "500 with a page": Fault(status(500, PAGE, "text/html"), TRANSPORT_ERROR, "HTTP 500: <html>"),
    "502 with a page": Fault(status(502, PAGE, "text/html"), TRANSPORT_ERROR, "HTTP 502: <html>"),
    "reset": Fault(lambda _: None, TRANSPORT_ERROR, "Disconnected"),
    "slow drip": Fault(lambda _: Drip(), TRANSPORT_ERROR, "no whole answer within"),
    "truncated JSON": Fault(
        status(200, '{"choices": [{"message": {"con', "application/json"), TRANSPORT_ERROR, "not a JSON object"
    ),
    "empty choices": Fault(lambda _: {"choices": []}, TRANSPORT_ERROR, "without (choices|log-prob)", repeated=False),
    "null content": Fault(
        changed(null_content), TRANSPORT_ERROR, "the answer is null", but={LETTERS: OK}, repeated=False
    ),
    "content in parts": Fault(changed(in_parts), OK),
    "null logprobs": Fault(
        changed(null_logprobs), OK, "without log-probabilities", but=dict.fromkeys((LETTERS, TEACHER), TRANSPORT_ERROR)
    ),
    "-9999": Fault(changed(torn), OK, "neither letter", but=dict.fromkeys((LETTERS, TEACHER), TRANSPORT_ERROR)),
    "wrong model": Fault(status(404, WRONG_MODEL), REFUSED, "does not exist", repeated=False, but=UNANSWERED),
    "401 half-way": Fault(
        status(401, "the key has expired"), REFUSED, "the key has expired", repeated=False, but=UNANSWERED
    ),
    "longer than allowed": Fault(changed(too_long), UNREAD, but={LETTERS: OK}, repeated=False),
}
