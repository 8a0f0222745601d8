"""The demo beside a model that answers as a test says, for a browser in another process.

python -m tests.demo.served MODEL_FOLDER PORT BENCHMARK
"""

import asyncio
import sys
from pathlib import Path

from transformers import AutoTokenizer

from alignxplore.demo.__main__ import DemoOptions, show
from tests.ask.talking import talking
from tests.conftest import FakeServer

ANSWER = (
    "<think>\nCounts: Comedy +3 <script>alert(1)</script>\n</think>\n\n"
    "Likes the sea. Prefers films of whales to films of cars. <b>Never</b> horror."
)


async def main(folder: str, port: str, data: str) -> None:
    """Serve until the process is ended."""
    server = FakeServer(talking(AutoTokenizer.from_pretrained(folder), ANSWER, pause=0.5), max_model_len=8192)
    server.models[0]["root"] = folder
    async with server:
        models, judges = ([f"{name}={server.url}" for name in names] for names in (("sft", "rl"), ("judge", "judge2")))
        await show(DemoOptions(model=models, judge=judges, data=data, port=int(port), logs=Path(data).parent))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
