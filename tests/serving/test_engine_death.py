"""A real vLLM whose engine is killed ends the run at once, with the end of its log, and leaves nothing behind."""

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.serving.server import ServerError

SOON = 60.0  # seconds; a request alone would be tried again for five minutes


def engines() -> list[psutil.Process]:
    """The engine cores that this process's servers have started."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "EngineCore" in f"{process.name()} {' '.join(process.cmdline())}"]


@pytest.mark.slow
async def test_the_run_ends_soon_after_its_engine(model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # an engine of its own, as on a GPU
    history = tuple(Interaction(f"film {i}", f"other {i}") for i in range(6))
    records = [UserRecord(f"u{n}", history, Interaction(f"a {n}", f"b {n}")) for n in range(40)]
    write_jsonl(tmp_path / "world_films_upi.jsonl", map(user_row, records))
    out = tmp_path / "out"
    arguments = GenerationArguments(
        model=[f"m={model_folder}"],
        data=[str(tmp_path / "world_films_upi.jsonl")],
        out=str(out),
        settings=["full"],
        max_model_len=2048,
        max_tokens=1024,
        concurrency=2,
    )
    journal: Path = SummarySet(out, "m", "world_films", "full", 0).journal_path
    running = asyncio.create_task(generate(arguments))
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        assert not running.done(), running.exception()
        await asyncio.sleep(0.2)
    (engine,) = engines()
    engine.kill()
    began = time.monotonic()
    with pytest.raises(ServerError) as error:
        await running
    assert time.monotonic() - began < SOON
    assert "vllm serve ended with code" in str(error.value) and "EngineDeadError" in str(error.value), error.value
    assert not engines() and 1 < journal.read_bytes().count(b"\n") < 40
