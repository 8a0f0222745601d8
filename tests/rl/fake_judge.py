"""A judge for tests: an HTTP server that answers like vLLM and can be told to misbehave. No model behind it.

    python tests/rl/fake_judge.py --port 8123 --tokenizer runs/world/models/base --mode words

Modes: `words` prefers the item that shares more words with the summary; `older` does the same and, like vLLM on GPUs,
knows of no `logprob_token_ids` and gives the most probable tokens; `a` always says A; `nan` answers NaN; `faults`
answers every third request with 429, 500, an HTML page, cut JSON, no log-probabilities, NaN or nothing, in turn. GET
/mode/NAME changes the mode while it runs.
"""

import argparse
import asyncio
import json
import math
import re

from aiohttp import web
from transformers import AutoTokenizer

from alignxplore.judging.letters import find_letters


class FakeJudge:
    """Answers /v1/models and /v1/chat/completions.

    Args:
        latency: seconds added to every answer.
    """

    def __init__(self, tokenizer_path: str, mode: str = "words", latency: float = 0.0):
        self.root, self.mode, self.latency = tokenizer_path, mode, latency
        self.letters = find_letters(AutoTokenizer.from_pretrained(tokenizer_path)).tokens
        self.asked = self.faults = 0
        self.names = ["fake"]

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/mode/{mode}", self.change)
        return app

    async def change(self, request: web.Request) -> web.Response:
        self.mode = request.match_info["mode"]
        return web.Response(text=self.mode)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"data": [{"id": name, "root": self.root, "max_model_len": 4096} for name in self.names]}
        )

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.mode == "faults" and self.asked % 3 == 0:
            return await self.fault()
        most = body.get("top_logprobs", 0) if self.mode == "older" else None
        return self.reply(*self.log_probabilities(body["messages"][-2]["content"]), most=most)

    def reply(self, *log_probabilities: float, most: int | None = None) -> web.Response:
        """`most`: how many of the most probable tokens; None: the letters alone."""
        tops = [{"token": f"token_id:{i}", "logprob": p} for i, p in zip(self.letters, log_probabilities)]
        if most is not None:
            tops += [{"token": f"token_id:{10**6 + i}", "logprob": -50.0 - i} for i in range(20)]
            tops = sorted(tops, key=lambda top: -top["logprob"])[:most]
        content = [{"token": "x", "logprob": log_probabilities[0], "top_logprobs": tops}]
        # NaN is no JSON, yet Python's own parser takes it, as it would from a server written in Python.
        reply = json.dumps({"choices": [{"index": 0, "message": {"content": " A"}, "logprobs": {"content": content}}]})
        return web.Response(text=reply, content_type="application/json")

    async def fault(self) -> web.Response:
        self.faults += 1
        match self.faults % 7:
            case 0:
                return web.Response(status=429, headers={"Retry-After": "1"})
            case 1:
                return web.Response(status=500, text="Internal Server Error")
            case 2:
                return web.Response(text="<html><body>502 Bad Gateway</body></html>", content_type="text/html")
            case 3:
                return web.Response(text='{"choices": [{"mess', content_type="application/json")
            case 4:
                return web.json_response({"choices": [{"index": 0, "message": {"content": " A"}, "logprobs": None}]})
            case 5:
                return self.reply(math.nan, math.nan)
            case _:
                await asyncio.sleep(60)
                return web.Response(status=500)

    def log_probabilities(self, question: str) -> tuple[float, float]:
        if self.mode == "nan":
            return math.nan, math.nan
        if self.mode == "a":
            return math.log(0.99), math.log(0.01)
        items = [re.search(rf"^Item {letter}: (.*)$", question, re.MULTILINE).group(1) for letter in "AB"]
        summary = set(re.findall(r"\w+", question.split("Item A:")[0].lower()))
        shared = [len(summary & set(re.findall(r"\w+", item.lower()))) for item in items]
        p = 0.98 / (1 + math.exp(0.7 * (shared[1] - shared[0]))) + 0.01
        return math.log(p), math.log(1 - p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--mode", default="words", choices=("words", "older", "a", "nan", "faults"))
    parser.add_argument("--latency", type=float, default=0.0)
    args = parser.parse_args()
    application = FakeJudge(args.tokenizer, args.mode, args.latency).app()
    web.run_app(
        application, host="127.0.0.1", port=args.port, print=None, shutdown_timeout=1
    )  # answers that hang do not hold it up


if __name__ == "__main__":
    main()
