"""Summaries that other weights, windows or stages made are written anew, and never averaged with those of the same name."""

import json

import pytest
from evaluate import EvaluationArguments, build_cells, evaluate
from gen_preference import GenerationArguments, generate
from suite import SummarySet, load_benchmarks

from alignxplore.records import RecordError
from alignxplore.serving import free_port


@pytest.fixture
def write(fake_server, say, tokenizer, record, benchmark_file, tmp_path):
    """`write(root, window, ...)`: have an endpoint write summaries; returns how many requests that took."""
    path = benchmark_file("world_films", [record(f"u{i}") for i in range(5)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    port = free_port()  # the same in every run, as with a server that is started again

    async def run(root: str = "/checkpoints/30", window: int = 16384, **options) -> int:
        async with fake_server(lambda body: say("<think>\nI read\n</think>\n\nfilms"), max_model_len=window, port=port) as server:
            server.models[0]["root"] = root
            await generate(GenerationArguments(model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"], data=[str(path)], out=str(tmp_path / "out"),
                                               **{"settings": ["full"], "concurrency": 4} | options))
            return len(server.bodies)

    return run


@pytest.fixture
def arguments(tmp_path) -> EvaluationArguments:
    return EvaluationArguments(judge=[], data=[str(tmp_path / "world_films_upi.jsonl")], out=str(tmp_path / "out"), cues=[])


async def test_other_weights_or_another_window_under_the_same_address_are_other_summaries(write):
    assert [await write(), await write(), await write(root="/checkpoints/60"), await write(window=8192), await write()] == [5, 0, 5, 5, 0]


async def test_sets_of_one_name_made_in_other_ways_are_not_pooled(write, arguments):
    await write(seeds=[0, 1, 2])
    benchmarks = {b.name: b for b in load_benchmarks(arguments.data)}
    assert [cell.seed for cell in build_cells(arguments, benchmarks) if cell.policy == "ours"] == [0, 1, 2]
    await write(root="/checkpoints/60")
    with pytest.raises(RecordError, match=r"films.full.s1.jsonl: these summaries were made in another way .* than .*films.full.s0.jsonl"):
        build_cells(arguments, benchmarks)
    await write(root="/checkpoints/60", seeds=[1, 2])
    assert len(build_cells(arguments, benchmarks)) == 5  # three seeds, other users' and none


async def test_strangers_read_the_summaries_of_the_smallest_seed_that_there_is(write, arguments):
    await write(seeds=[3, 5])
    found = build_cells(arguments, {b.name: b for b in load_benchmarks(arguments.data)})
    assert [(cell.policy, cell.seed) for cell in found] == [("ours", 3), ("ours", 5), ("other user's (ours)", 3), ("no summary", 0)]


async def test_each_set_stands_in_the_record_of_the_run(write, arguments, tmp_path):
    await write()
    await write(root="/checkpoints/60", settings=["streaming"], stages=3)
    await evaluate(arguments)
    sets = json.loads((tmp_path / "out" / "run.json").read_text())["policies"]["ours"]["sets"]
    assert {name: (made["identity"].partition("=")[2], made["stages"], made["window"]) for name, made in sets.items()} == {
        "world_films.full.s0": ("/checkpoints/30", 1, 16384), "world_films.streaming.s0": ("/checkpoints/60", 3, 16384)}
    assert SummarySet(tmp_path / "out", "ours", "world_films", "full", 0).meta()["recipe"] != sets["world_films.streaming.s0"]["recipe"]
