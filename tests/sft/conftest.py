"""SFT tests: the scripts of sft/ are imported by name, as they import each other; rows and a tiny Qwen3 to train."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from alignxplore.judge import find_letters
from alignxplore.tiny import make_model
from alignxplore.world_text import item_values, summary_statements

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "sft"), str(Path(__file__).parent)]


def make_row(number: int) -> dict:
    """A prompt and a completion with reasoning, of varied length; no two alike."""
    rng = random.Random(number)
    words = [rng.choice("item user chosen other likes dislikes A B JSON selection".split()) for _ in range(rng.randint(3, 60))]
    answer = " ".join(words[: 2 + len(words) // 4])
    return {
        "prompt": [{"role": "system", "content": "Describe."}, {"role": "user", "content": f"{number}: {' '.join(words)}"}],
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
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("WORLD_", "RANK", "LOCAL_", "NPROC"))}
    return inherited | extra


@pytest.fixture(scope="session")
def run_script(environment: dict[str, str]):
    """`run_script([command], VARIABLE="value")` → finished process with its output as text; `expect` its exit status."""

    def run(command: list, expect: int | None = 0, **variables: str) -> subprocess.CompletedProcess:
        words = [str(part) for part in command]
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment | variables, start_new_session=True, **out) as process:
            try:
                stdout, stderr = process.communicate(timeout=900)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # with the workers of a launcher
                raise
        done = subprocess.CompletedProcess(words, process.returncode, stdout, stderr)
        if expect is not None:
            assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        return done

    return run


class CarefulJudge:
    """A server that foresees a choice exactly as far as the summary tells."""

    def __init__(self, tokenizer):
        self.tokens = find_letters(tokenizer).tokens

    def __call__(self, body: dict) -> dict:
        known, items = body["messages"][-2]["content"].split("\nItem A: ")
        value = {}
        for liked, disliked, strength in summary_statements(known):
            value |= {liked: strength, disliked: -strength}
        a, b = (sum(value.get(v, 0) for v in item_values(text)) for text in items.split("\nItem B: "))
        p = 1 / (1 + math.exp(b - a))
        tops = [{"token": f"token_id:{token}", "logprob": math.log(q)} for token, q in zip(self.tokens, (p, 1 - p))]
        return {"choices": [{"index": 0, "message": {"content": "A"}, "logprobs": {"content": [tops[0] | {"top_logprobs": tops}]}}]}


@pytest.fixture
def careful_judge(tokenizer) -> CarefulJudge:
    return CarefulJudge(tokenizer)


@pytest.fixture
def through(fake_server, tokenizer, tmp_path):
    """`await through(items, signal, say)` → (row of the user, the requests made)."""
    from rounds import Thresholds, Workshop, synthesise_user
    from synthesize import journalled
    from teachers import ITEMS, SURE, Models, good

    from alignxplore.endpoint import Endpoint
    from alignxplore.journal import Journal
    from alignxplore.judge import Judge
    from alignxplore.models import Model
    from alignxplore.prompts import PromptSet
    from alignxplore.summarize import Sampling

    async def run(items=ITEMS, signal=SURE, say=good, window=16384):
        models = Models(tokenizer, say)
        async with fake_server(models) as server, Endpoint(server.url) as endpoint:
            with Journal(tmp_path / "calls.jsonl") as journal:
                teacher = Model("teacher", endpoint, tokenizer, "t")
                judge, sampling = Judge(endpoint, tokenizer, PromptSet()), Sampling(max_tokens=64)
                shop = Workshop(teacher, judge, PromptSet(), sampling, Thresholds(), window, journalled(journal), "x")
                return await synthesise_user(shop, "u", items, signal), models.asked

    return run


@pytest.fixture
def arguments(tmp_path, model_folder):
    """`arguments(url, users=2, **options)` → options of a run over users of whom every choice can be foreseen."""
    from synthesize import SynthesisArguments
    from teachers import ITEMS

    from alignxplore.records import UserRecord, user_row, write_jsonl

    def make(url: str, users: int = 2, **options) -> "SynthesisArguments":
        records = [UserRecord(f"u{n}", tuple(ITEMS[:17]), ITEMS[17]) for n in range(users)]
        write_jsonl(tmp_path / "users.jsonl", map(user_row, records))
        scores = [{"position": i, "p": 0.95} for i in range(18)]
        write_jsonl(tmp_path / "scores.jsonl", ({"id": record.id, "scores": scores, "dropped": 0} for record in records))
        return SynthesisArguments(data=str(tmp_path / "users.jsonl"), scores=str(tmp_path / "scores.jsonl"),
                                  output=str(tmp_path / "out"), **{"teacher": f"m={url}#{model_folder}", "max_tokens": 64} | options)

    return make
