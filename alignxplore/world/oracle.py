"""A teacher for the simulated world behind an OpenAI-compatible server: it reads the prompt as a careful reader would,
with faults.

    python -m alignxplore.world.oracle --port 8777                                  # until Ctrl-C or a TERM signal
    python sft/synthesize.py --teacher teacher=http://127.0.0.1:8777/v1#models/base ...

Used by `studies/signal_to_sft.sh`, where a 32B model would take days. It knows the words of the world but not its
users. All it says is counted from the choices in the prompt, the past summary, or the descriptions to be merged. Of
what it finds, a share is told the wrong way round and a share left out (never what bears on a hint). What is told
wrong or left out is drawn from the prompt and the request's seed.
"""

import random
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from alignxplore.command import option, run
from alignxplore.errors import check_port
from alignxplore.records import hash_seed
from alignxplore.world.text import (
    ATTRIBUTES,
    MUCH,
    Statement,
    item_values,
    reasoning_text,
    summary_statements,
    summary_text,
)

ATTRIBUTE_OF = {value: attribute for attribute, values in ATTRIBUTES.items() for value in values}
PAST = re.compile(r"What was known about the user before:\n(.*?)\n\n", re.DOTALL)


@dataclass(kw_only=True)
class OracleOptions:
    """Where it listens, and its faults."""

    port: int = option("port at 127.0.0.1", 8777)
    error_rate: float = option("share of findings told the wrong way round", 0.1)
    gap_rate: float = option("share left out", 0.2)

    def __post_init__(self) -> None:
        check_port(self.port)


def read_choices(prompt: str) -> Counter[str]:
    """Per value how often it was chosen minus how often it was passed over."""
    tally: Counter[str] = Counter()
    for label, item in re.findall(r"^(Chosen|Passed over): (.*)$", prompt, re.MULTILINE):
        for value in item_values(item):
            tally[value] += 1 if label == "Chosen" else -1
    return tally


def conclude(tally: Counter[str], past: str) -> list[Statement]:
    """One statement an attribute in which one value leads; what was known before counts like a few choices more."""
    before = {ATTRIBUTE_OF[liked]: (liked, strength) for liked, _, strength in summary_statements(past)}
    statements = []
    for attribute, (first, second) in ATTRIBUTES.items():
        liked, strength = before.get(attribute, (first, 0))
        lead = tally[first] - tally[second] + (strength if liked == first else -strength)
        if lead:
            pair = (first, second) if lead > 0 else (second, first)
            statements.append((*pair, 2 if abs(lead) >= MUCH else 1))
    return statements


def faulty(
    statements: list[Statement], certain: set[str], error_rate: float, gap_rate: float, rng: random.Random
) -> list[Statement]:
    """Statements with faults; none about the attributes `certain` is left out."""
    conclusions = []
    for liked, disliked, strength in statements:
        fault = rng.random()
        if fault < error_rate:
            conclusions.append((disliked, liked, strength))
        elif fault >= error_rate + gap_rate or ATTRIBUTE_OF[liked] in certain:
            conclusions.append((liked, disliked, strength))
    return conclusions


def merge(prompt: str) -> list[Statement]:
    """What most annotators say of each attribute; none where as many say the opposite."""
    votes: Counter[str] = Counter()
    strengths: dict[str, int] = {}
    for summary in re.findall(r"^Annotator \d+ concluded:\n(.*)$", prompt, re.MULTILINE):
        for liked, disliked, strength in summary_statements(summary):
            votes[liked] += 1
            votes[disliked] -= 1
            strengths[liked] = max(strength, strengths.get(liked, 0))
    return [
        (liked, disliked, strengths[liked])
        for pair in ATTRIBUTES.values()
        for liked, disliked in (pair, pair[::-1])
        if votes[liked] > 0
    ]


def answer(prompt: str, seed: int, error_rate: float, gap_rate: float) -> str | None:
    """The teacher's answer to one prompt of the default set; None for a prompt that is none of its kinds."""
    rng = random.Random(hash_seed("oracle", prompt, seed))
    if "Annotator 1 concluded:" in prompt:
        reasoned = re.search(r"^Annotator 1 reasoned:\n(.*)$", prompt, re.MULTILINE)
        reasoning, description = reasoned[1] if reasoned else "", summary_text(merge(prompt), rng)
        return (
            f"<joined_reasoning>\n{reasoning}\n</joined_reasoning>\n"
            f"<joined_description>\n{description}\n</joined_description>"
        )
    if tally := read_choices(prompt):
        past = PAST.search(prompt)
        hint = {
            ATTRIBUTE_OF[value]
            for item in re.findall(r"^Item [AB]: (.*)$", prompt, re.MULTILINE)
            for value in item_values(item)
        }
        reasoning = reasoning_text(tally)
        statements = faulty(conclude(tally, past[1] if past else ""), hint, error_rate, gap_rate, rng)
        return f"<think>\n{reasoning}\n</think>\n\n{summary_text(statements, rng)}"
    return None


def make_app(error_rate: float, gap_rate: float) -> web.Application:
    """The oracle's server."""
    return chat_app(
        "oracle",
        lambda prompt, seed: answer(prompt, seed, error_rate, gap_rate),
        "the oracle reads prompts of the default set about the simulated world",
    )


def chat_app(name: str, reply: Callable[[str, int], str | None], refusal: str) -> web.Application:
    """A server of the model `name`: /v1/models and /v1/chat/completions.

    Args:
        reply: (last message, the request's seed) -> the answer; None is answered with 400 and `refusal`.
    """

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model", "max_model_len": 4096}]})

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        text = reply(body["messages"][-1]["content"], body.get("seed") or 0)
        if text is None:
            return web.json_response({"error": {"message": refusal}}, status=400)
        message = {"role": "assistant", "content": text}
        return web.json_response(
            {
                "object": "chat.completion",
                "model": name,
                "usage": {"completion_tokens": len(text.split())},
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        )

    app = web.Application(client_max_size=1 << 24)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return app


def serve(options: OracleOptions) -> None:
    """Answer until Ctrl-C or a TERM signal."""
    serve_app(make_app(options.error_rate, options.gap_rate), "oracle", options.port)


def serve_app(app: web.Application, name: str, port: int) -> None:
    """Answer at 127.0.0.1 until Ctrl-C or a TERM signal; says where once it is ready. Port 0: one that is free."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        ready = f"ready: {name} at http://127.0.0.1:{listening.getsockname()[1]}/v1"
        web.run_app(app, sock=listening, print=lambda *_: print(ready, flush=True))


if __name__ == "__main__":
    run(serve, OracleOptions, __doc__)
