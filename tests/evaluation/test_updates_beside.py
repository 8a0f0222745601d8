"""Summaries that go on, and what stands beside them: `--check`."""

import asyncio

import pytest

from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate
from tests.evaluation.test_updates import films, new, policy  # noqa: F401  # fixture


@pytest.mark.parametrize("option", ["data", "forget"])
def test_check_asks_for_the_window_of_the_run(policy, record, benchmark_file, tmp_path, option):  # noqa: F811
    """A model made for few tokens: the options' own window would be too long for it."""
    path, model, out = benchmark_file("world_films", [record("u1")]), tmp_path / "model", tmp_path / "out"

    async def begin() -> None:
        async with policy() as server:
            spec = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
            first = GenerationArguments(model=spec, data=[str(path)], out=str(out), max_tokens=64, max_model_len=400)
            await generate(first)

    asyncio.run(begin())
    model.mkdir()
    for name, text in (("config.json", '{"max_position_embeddings": 512}'), ("tokenizer.json", "{}")):
        (model / name).write_text(text)
    header = b"{}      "
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    forget = tmp_path / "forget.jsonl"
    forget.write_text('{"userid": "u1"}\n')
    values = {"data": new(tmp_path, u1=films("Heat")), "forget": str(forget)}
    options = {"settings": ["full"], option: values[option]}
    line = GenerationArguments(model=[f"ours={model}"], continue_run=str(out), check=True, **options)
    assert "check: nothing was asked or written" in (continue_summaries(line) or "")
