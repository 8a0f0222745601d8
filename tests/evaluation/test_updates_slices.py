"""What a version was written from: the files that it came in, and what the policy was shown of a history."""

import asyncio
import json
from dataclasses import asdict

import pytest

from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.updates import Stream, Updates, begin
from alignxplore.records import write_jsonl
from alignxplore.summarize import StageSummary
from tests.evaluation.test_updates import (  # noqa: F401  # fixtures
    current,
    films,
    new,
    of_nobody,
    policy,
    run,
    set_of,
    versions,
)


@pytest.mark.parametrize("line", [{}, {"userid": "u1"}])
def test_a_file_is_forgotten_also_where_it_was_read_with_one_in_bad_format(run, tmp_path, line):  # noqa: F811
    """Each interaction keeps the file that it came in, whatever other file it is read with."""
    run(data=new(tmp_path, "first.jsonl", u1=films("BAD")))
    old = current(run.out)["u1"]
    run(data=new(tmp_path, "second.jsonl", u1=films("Secret"), u2=films("Other")))
    streams_path, file = Updates(set_of(run.out)).streams_path, tmp_path / "forget.jsonl"
    file.write_text(json.dumps(line | {"source": "second.jsonl"}) + "\n")
    run(forget=str(file))
    text = streams_path.read_text()
    assert "Secret" not in text and "BAD" in text and ("Other" in text) == bool(line)
    assert current(run.out)["u1"] == old and not run(data=new(tmp_path, "first.jsonl", u1=films("BAD")))
    bodies = run(data=new(tmp_path, "third.jsonl", u1=films("Third")))
    assert "BAD" in bodies[0]["messages"][-1]["content"], "what stays is read again with the next"
    file.write_text(json.dumps(line | {"source": "first.jsonl"}) + "\n")
    [body] = run(forget=str(file))
    assert "Third" in body["messages"][-1]["content"] and "BAD" not in streams_path.read_text()


def test_all_files_of_a_version_are_named(run, tmp_path, capsys):  # noqa: F811
    folder = of_nobody(run, tmp_path / "own")
    for name, film in (("a.jsonl", "BAD"), ("b.jsonl", "BAD too"), ("c.jsonl", "BAD again")):
        run(folder=folder, data=new(tmp_path, name, ann=films(film)))
    capsys.readouterr()
    run(folder=folder, model=False, diff=["ann"])
    assert "ann, version 1: 3 interactions of a.jsonl, b.jsonl, c.jsonl;" in capsys.readouterr().out


def test_streams_of_one_source_a_slice_are_read(run, tmp_path):  # noqa: F811
    """As they were written before a slice could hold several."""
    run(data=new(tmp_path, "first.jsonl", u1=films("Heat")))
    updates, file = Updates(set_of(run.out)), tmp_path / "forget.jsonl"
    (row,) = map(json.loads, updates.streams_path.read_text().splitlines()[-1:])
    slices = Stream.of(row).slices
    old_slices = [{"source": "old.jsonl", "interactions": [asdict(x) for x in one.interactions]} for one in slices]
    write_jsonl(updates.streams_path, [row | {"slices": old_slices}])
    before = versions(run.out)
    assert run(data=new(tmp_path, "first.jsonl", u1=films("Heat"))) == [] and versions(run.out) == before
    run(data=new(tmp_path, "second.jsonl", u1=films("Ran")))
    file.write_text('{"source": "old.jsonl"}\n')
    [body] = run(forget=str(file))
    assert "Ran" in body["messages"][-1]["content"] and "Heat" not in updates.streams_path.read_text()


def test_what_the_published_fit_showed_can_be_forgotten(policy, record, benchmark_file, tmp_path):  # noqa: F811
    """It cuts the newer half of a long history, and so shows other interactions than ours would, and in other stages:
    what a stage was shown is gone with the stage."""
    path, file, out = benchmark_file("movielens", [record("u1", 30)]), tmp_path / "forget.jsonl", tmp_path / "out"
    options = {"settings": ["streaming"], "max_tokens": 64, "max_model_len": 400, "data": [str(path)]}

    async def first_run() -> list[str]:
        async with policy() as server:
            model = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
            await generate(GenerationArguments(model=model, out=str(out), fit="published", **options))
            return [body["messages"][-1]["content"] for body in server.bodies]

    prompts = asyncio.run(first_run())
    stages = [[x.chosen for x in record("u1", 30).history if f"{x.chosen}\n" in prompt] for prompt in prompts]
    assert len(stages) == 2 and all(stages)
    for number, film in ((1, stages[1][-1]), (0, stages[0][-1])):
        file.write_text(json.dumps({"userid": "u1", "chosen": film}) + "\n")
        continue_summaries(GenerationArguments(continue_run=str(out), forget=str(file)))
        versions_path = Updates(SummarySet(out, "ours", "movielens", "streaming", 0)).versions_path
        assert [json.loads(line)["number"] for line in versions_path.read_text().splitlines()] == list(range(number))


def test_a_stream_holds_what_a_run_of_the_published_fit_showed(record, tmp_path):
    """Of twelve films the newer six, and of these the first two thirds: what is beyond our two thirds can be
    forgotten, too, and what was left out is not new."""
    film_user = record("u", 12)
    stage = asdict(StageSummary("<think>r</think>s", "r", "s", None, 0, 100, 5))
    row = {"stages": [stage | {"dropped": 6}, stage]}
    meta = {"task": "recommendation", "stages": 2, "fit": "published", "identity": "i", "prompt_hash": "p"}
    with Updates(SummarySet(tmp_path, "ours", "movielens", "streaming", 0)) as updates:
        stream = begin(updates, film_user, meta, row, "films.jsonl")
        assert [part.interactions for part in stream.slices] == [film_user.history[:8], film_user.history[8:10]]
        assert stream.new(film_user.history) == film_user.history[10:]
        ours = begin(updates, film_user, meta | {"fit": "ours"}, {"stages": [stage, stage]}, "films.jsonl")
        assert [part.interactions for part in ours.slices] == [film_user.history[:4], film_user.history[4:8]]
