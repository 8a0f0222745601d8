"""What several tests share: small real tokenizers in the styles of real models, and a server that answers as a test
says."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignxplore.prompts import SETS
from alignxplore.serving import server
from tests import ROOT


@pytest.fixture(autouse=True)
def logging_is_left_as_it_was():
    """Libraries that change it for a whole process are imported in a process of their own: later tests read logs."""
    before = logging.root.level, logging.root.manager.disable
    yield
    assert (logging.root.level, logging.root.manager.disable) == before, "this test changed logging for those after it"


@contextlib.contextmanager
def serve(*arguments: Any, **options: Any) -> Iterator[str]:
    """`server.serve` for tests that are no coroutines."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # with a factory, no test's loop is replaced
        served = contextlib.AsyncExitStack()
        url = runner.run(served.enter_async_context(server.serve(*arguments, **options)))
        try:
            yield url
        finally:
            runner.run(served.aclose())


CHATML = """{%- if messages[0].role == 'system' %}{{- '<|im_start|>system
' + messages[0].content + '<|im_end|>
' }}{%- endif %}
{%- for m in messages %}{%- if m.role != 'system' or not loop.first %}
{%- if m.role == 'assistant' and '</think>' in m.content and not loop.last %}{{- '<|im_start|>assistant
' + m.content.split('</think>')[-1].lstrip('
') + '<|im_end|>
' }}
{%- else %}{{- '<|im_start|>' + m.role + '
' + m.content + '<|im_end|>
' }}{%- endif %}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant
' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>

</think>

' }}{%- endif %}{%- endif %}"""

# The control tokens of real model families, as their tokenizers write them.
CONTROL_TOKENS = {
    "qwen3": (
        "<|im_end|>",
        "<|endoftext|>",
        "<|im_start|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<|fim_prefix|>",
        "<|object_ref_start|>",
        "<|vision_pad|>",
    ),
    "llama3": (
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|python_tag|>",
    ),
    "llama2": ("</s>", "<s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    "deepseek": (
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<think>",
        "</think>",
        "<|EOT|>",
    ),
    "mistral": (
        "</s>",
        "<s>",
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[THINK]",
        "[/THINK]",
        "[IMG]",
        "<pad>",
    ),
    "gemma": ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<pad>", "<mask>", "<start_of_image>"),
    "harmony": ("<|return|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"),
    "smollm2": (
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<repo_name>",
        "<reponame>",
        "<file_sep>",
        "<filename>",
        "<gh_stars>",
        "<issue_start>",
        "<jupyter_output>",
        "<empty_output>",
    ),
}


NEWER = ("choose", "short")


def _byte_level_bpe(vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # A template more would be another tokenizer, and other golden values: those that are newer are not learnt from.
    texts = [path.read_text() for path in sorted(SETS.glob("*/*.jinja")) if path.stem not in NEWER] * 3
    answers = ['{"selection": "Item A"}', '{"selection": "Item B"}', "system user assistant\n"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts + answers, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def build_tokenizer(family: str = "qwen3", vocabulary: int = 600) -> PreTrainedTokenizerFast:
    """A trained byte-level BPE with the control tokens of one family and a ChatML template."""
    tokenizer = _byte_level_bpe(vocabulary)
    tokens = CONTROL_TOKENS[family]
    plain = [token for token in tokens if "think" in token]  # Qwen3 and DeepSeek keep these visible when they decode
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens if token not in plain]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=tokens[0], pad_token=tokens[1], clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHATML
    return fast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A Qwen3-style tokenizer of 600 pieces."""
    return build_tokenizer()


@pytest.fixture(scope="session", params=list(CONTROL_TOKENS))
def family(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], PreTrainedTokenizerFast]:
    """The control tokens of one model family and a tokenizer that has them."""
    return CONTROL_TOKENS[request.param], build_tokenizer(request.param)


class FakeServer:
    """An OpenAI-compatible server whose chat replies are what `answer(body)` returns (a dict, or an aiohttp response).

    `async with FakeServer(answer) as server` serves at `server.url`; `server.bodies` holds the requests in order.
    """

    def __init__(
        self,
        answer: Callable[[dict], Any],
        model: str = "fake",
        max_model_len: int | None = None,
        port: int | None = None,
    ):
        self.answer, self.bodies, self.headers = answer, [], []
        self.models = [{"id": model, "root": model, "max_model_len": max_model_len}]
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._server = TestServer(app, port=port)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": self.models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        reply = self.answer(body)
        if isinstance(reply, Awaitable):
            reply = await reply
        if reply is None:  # the connection breaks
            request.transport.abort()
            await asyncio.sleep(0)
            return web.Response()
        return web.json_response(reply) if isinstance(reply, dict) else reply

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        self.url = str(self._server.make_url("/v1"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()


def chat_reply(content: str | None, **extra: Any) -> dict:
    """A chat completion that says `content`."""
    return {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content} | extra, "finish_reason": "stop"}
        ],
        "usage": {"completion_tokens": len((content or "").split())},
    }


@pytest.fixture
def fake_server() -> type[FakeServer]:
    return FakeServer


@pytest.fixture
def say() -> Callable[..., dict]:
    """`say("text")` is the reply of a model that says so."""
    return chat_reply


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """`jsonl(row, "raw line", b"raw bytes", ...)` writes a file with one of them a line and returns its path."""

    def write(*lines: dict | str | bytes, end: bytes = b"\n", name: str = "users.jsonl") -> Path:
        as_bytes = [
            x if isinstance(x, bytes) else (x if isinstance(x, str) else json.dumps(x)).encode() for x in lines
        ]
        path = tmp_path / name
        path.write_bytes(b"\n".join(as_bytes) + end)
        return path

    return write


def make_row(number: int) -> dict:
    """A prompt and a completion with reasoning, of varied length; no two alike."""
    rng = random.Random(number)
    words = [
        rng.choice("item user chosen other likes dislikes A B JSON selection".split())
        for _ in range(rng.randint(3, 60))
    ]
    answer = " ".join(words[: 2 + len(words) // 4])
    return {
        "prompt": [
            {"role": "system", "content": "Describe."},
            {"role": "user", "content": f"{number}: {' '.join(words)}"},
        ],
        "completion": [{"role": "assistant", "content": f"<think>\nseen {number}\n</think>\n\nprefers {answer}"}],
    }


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    return [make_row(number) for number in range(80)]


@pytest.fixture(scope="session")
def rows_file(rows: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of 0.1 M parameters with its tokenizer; its head is untied, as that of the 8B model is."""
    import torch  # takes seconds, and most tests do without
    from transformers import AutoModelForCausalLM, set_seed

    from alignxplore.world.tiny import make_model

    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = make_model(tokenizer, seed=1, hidden=64, layers=2).config
    config.tie_word_embeddings = False
    set_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment for scripts in processes of their own: offline, one thread each."""
    extra = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHON": sys.executable}
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("WORLD_", "RANK", "LOCAL_", "NPROC"))
    }
    return inherited | extra


@pytest.fixture(scope="session")
def run_script(environment: dict[str, str]):
    """`run_script([command], VARIABLE="value")` → finished process with its output as text; `expect` its exit
    status."""

    def run(command: list, expect: int | None = 0, **variables: str) -> subprocess.CompletedProcess:
        words = [str(part) for part in command]
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment | variables, start_new_session=True, **out) as process:
            try:
                stdout, stderr = process.communicate(timeout=900)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # with the workers of a launcher
                raise
        finished = subprocess.CompletedProcess(words, process.returncode, stdout, stderr)
        if expect is not None:
            assert finished.returncode == expect, (
                f"exit {finished.returncode}\n{finished.stdout[-3000:]}\n{finished.stderr[-5000:]}"
            )
        return finished

    return run


LONGEST = ("quickstart", "rl", "sft", "evaluation")  # folders in the order of what their slow tests take


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked slow run last: a mistake in the fast ones shows first. The longest of them come first: two
    processes that share the files out then end at about the same time."""

    def turn(item: pytest.Item) -> tuple[bool, int]:
        slow = item.get_closest_marker("slow") is not None
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return slow, LONGEST.index(folder) if slow and folder in LONGEST else len(LONGEST)

    items.sort(key=turn)
