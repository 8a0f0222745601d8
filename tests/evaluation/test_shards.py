"""Summaries written in shards: every person in one of them, all read together, and the same as without shards."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore import datasets
from alignxplore.datasets.building import Job
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.benchmarks import BenchmarkFile, SummarySet, find_sets, load_benchmarks
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate, preview
from alignxplore.evaluation.scoring import build_cells
from alignxplore.evaluation.shards import WHOLE, Shard
from alignxplore.journal import RunLock
from alignxplore.records import RecordError, content_hash
from tests import ROOT

PERSONS = 12


@pytest.fixture
def run(fake_server, say, tokenizer, record, benchmark_file, tmp_path):
    """`run(out, shard, ...)` writes summaries of twelve persons; how many requests that took."""
    path = benchmark_file("world_films", [record(f"u{i}") for i in range(PERSONS)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def answer(body: dict) -> dict:
        return say(f"<think>\nread\n</think>\n\nlikes {content_hash([body['messages'], body['seed']])}")

    def work(out: str, shard: str = "", goes_on: bool = False, **options_given) -> int:
        async def ask() -> int:
            async with fake_server(answer, max_model_len=16384) as server:
                server.models[0]["root"] = options_given.pop("root", "org/model")
                place = {"continue_run": str(tmp_path / out)} if goes_on else {"out": str(tmp_path / out)}
                options = {"data": [str(path)], "settings": ["full"], "concurrency": 4} | place | options_given
                model = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
                arguments = GenerationArguments(model=model, shard=shard, **options)
                if goes_on:
                    await asyncio.to_thread(continue_summaries, arguments)
                else:
                    await generate(arguments)
                return len(server.bodies)

        return asyncio.run(ask())

    work.path = path
    return work


def summaries(out: Path) -> dict[str, str]:
    rows = SummarySet(out, "ours", "world_films", "full", 0).by_record().values()
    return {row["user"]: row["stages"][-1]["summary"] for row in rows}


def test_shards_together_are_the_run_without_shards(run, tmp_path):
    counts = [run("cut", f"{number}/3") for number in range(3)]
    assert run("whole") == PERSONS == sum(counts) and min(counts) > 0
    assert summaries(tmp_path / "cut") == summaries(tmp_path / "whole") and len(summaries(tmp_path / "cut")) == PERSONS
    assert [run("cut", f"{number}/3") for number in range(3)] == [0, 0, 0], "each goes on by the same command"
    (summary_set,) = find_sets(tmp_path / "cut")
    assert summary_set.folder == tmp_path / "cut" and summary_set.meta()["spent"]["summaries"] == PERSONS
    arguments = EvaluationArguments(judge=[], data=[str(run.path)], out=str(tmp_path / "cut"), cues=[])
    cell = next(c for c in build_cells(arguments, {b.name: b for b in load_benchmarks(arguments.data)}) if c.meta)
    assert len(cell.questions) == PERSONS and all(question.summaries for question in cell.questions)


def test_a_file_a_shard_keeps_everybody_of_each_file(run, record, benchmark_file, tmp_path):
    """However the files were cut, and whatever the benchmark is called; it goes on and is updated in the same way."""
    for number in range(3):
        part = benchmark_file("world_films", [record(f"u{i}") for i in range(number, PERSONS, 3)])
        part = part.rename(tmp_path / f"{number}.jsonl")
        options = {"shard": f"file:{number}/3", "data": [f"world_films={part}"]}
        assert run("cut", **options) == PERSONS // 3 and run("cut", **options) == 0
        row = {"userid": f"u{number}", "history": [{"chosen": "Heat", "rejected": None}]}
        part.with_suffix(".new.jsonl").write_text(json.dumps(row) + "\n")
        options["data"] = [f"world_films={part.with_suffix('.new.jsonl')}"]
        assert run("cut", goes_on=True, **options) == 1
    benchmark_file("world_films", [record(f"u{i}") for i in range(PERSONS)])
    run("whole")
    assert summaries(tmp_path / "cut") == summaries(tmp_path / "whole") and len(summaries(tmp_path / "cut")) == PERSONS


def test_a_shard_that_reads_nobody_is_of_the_kind_that_is_there(tmp_path):
    """To forget, or to show versions: no file tells whether the shard is one."""
    (tmp_path / "shards/1-of-2-files").mkdir(parents=True)
    options = {"continue_run": str(tmp_path), "model": ["ours=org/model"], "shard": "0/2"}
    assert GenerationArguments(**options, diff=["u1"]).folder.name == "0-of-2-files"
    with pytest.raises(UserError, match="go on with --shard file:I/2"):
        GenerationArguments(**options, data=["own=x.jsonl"]).folder  # noqa: B018


def test_what_a_shard_is_to_write_is_counted(run, tmp_path):
    run("out", "0/2")
    options = {
        "model": [f"ours=http://127.0.0.1:9/v1#{tmp_path / 'tokenizer'}"],
        "data": [str(run.path)],
        "settings": ["full"],
        "check": True,
    }
    done_count = len(summaries(tmp_path / "out"))
    texts = [preview(GenerationArguments(**options, out=str(tmp_path / "out"), shard=f"{i}/2")) for i in range(2)]
    assert "To write: 0 summaries" in texts[0] and f"To write: {PERSONS - done_count} summaries" in texts[1]


def test_a_shard_has_a_lock_of_its_own(run, tmp_path):
    with RunLock(Shard(0, 2).folder(tmp_path / "out")):
        run("out", "1/2")
        with pytest.raises(UserError, match="0-of-2: process"), RunLock(Shard(0, 2).folder(tmp_path / "out")):
            pass


def test_a_folder_is_cut_in_one_way(run, tmp_path):
    run("cut", "0/3")
    run("files", "file:0/3")
    run("whole")
    for out, shard, message in (
        ("cut", "0/4", "holds 0-of-3: go on with --shard I/3"),
        ("cut", "file:0/3", "holds 0-of-3: go on with --shard I/3"),
        ("files", "0/3", "holds 0-of-3-files: go on with --shard file:I/3"),
        ("cut", "", "holds shards .0-of-3, ....: give --shard"),
        ("whole", "0/3", "holds a run without shards"),
    ):
        with pytest.raises(UserError, match=message):
            run(out, shard)


def test_shards_that_another_model_wrote_are_not_read_together(run, tmp_path):
    run("out", "0/2")
    run("out", "1/2", root="org/other")
    with pytest.raises(RecordError, match="1-of-2.*made in another way than .*0-of-2"):
        summaries(tmp_path / "out")


def test_a_shard_goes_on_and_forgets_for_its_own_persons(run, record, tmp_path):
    """New interactions of everybody, given to both shards: each takes its own, and forgets its own."""
    whole_folder, cut_folder = tmp_path / "whole", tmp_path / "cut"
    for number in range(2):
        run("cut", f"{number}/2")
    run("whole")
    new_file, forget = tmp_path / "new.jsonl", tmp_path / "forget.jsonl"
    rows = [{"userid": f"u{i}", "history": [{"chosen": f"Heat {i}", "rejected": None}]} for i in range(PERSONS)]
    new_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    forget.write_text("".join(json.dumps({"userid": f"u{i}"}) + "\n" for i in range(4)))
    addition, deletion = {"data": [f"world_films={new_file}"]}, {"data": [], "forget": str(forget)}
    for step, person_count in ((addition, PERSONS), (deletion, PERSONS - 4)):
        for number in range(2):
            run("cut", f"{number}/2", goes_on=True, **step)
        run("whole", goes_on=True, **step)
        summaries_of = [
            {row["user"]: row["summary"] for path in out.rglob("*.current.jsonl") for row in _rows(path)}
            for out in (whole_folder, cut_folder)
        ]
        assert summaries_of[0] == summaries_of[1] and len(summaries_of[0]) == person_count


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_builder_cuts_as_shards_do():
    job = {"dataset": datasets.get("movielens"), "raw": Path("raw")}
    for number in range(5):
        is_wanted = Job(**job, persons=(number / 5, (number + 1) / 5)).wanted
        assert all(is_wanted(str(i)) == Shard(number, 5).holds("movielens~shuffled", f"{i}#2") for i in range(300))


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/2", "1/0", "1/2/3", "file:3/3", "1-of-3"])
def test_what_is_no_shard_is_said(text):
    with pytest.raises(ValueError, match=f"--shard {text}: write I/N"):
        Shard.parse(text)
    assert Shard.parse("") == WHOLE and Shard.parse("2/3") == Shard(2, 3)


def test_a_shard_without_persons_is_no_error_and_an_empty_file_is(tmp_path, record, benchmark_file):
    path = benchmark_file("own", [record("a")])
    sizes = [BenchmarkFile("own", "selection", path, shard=Shard(number, 2)).sizes for number in range(2)]
    assert sorted(sizes) == [(0, 0), (1, 0)]
    sample_sizes = [
        BenchmarkFile("own", "selection", path, limit=1, shard=Shard(number, 2)).sizes for number in range(2)
    ]
    assert sample_sizes == sizes
    with pytest.raises(RecordError, match="no records in this file"):
        BenchmarkFile("own", "selection", benchmark_file("none", [])).sizes  # noqa: B018


READ = """
import sys
from alignxplore.evaluation.benchmarks import BenchmarkFile
from alignxplore.journal import Journal
file = BenchmarkFile("own", "selection", __import__("pathlib").Path(sys.argv[1]))
users, _ = file.sizes
with Journal(sys.argv[2]) as journal:
    for record in file:
        journal.append(record.id, {"stages": [record.history[0].chosen * 20]})
    assert all(record.id in journal for record in file) and len(journal) == users
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(users, int(peak) // 1024)
"""


def test_memory_does_not_grow_with_the_persons(tmp_path):
    """Read, written and found again: ten times the persons take no more than a few megabytes more."""
    peaks = []
    for persons in (1_000, 10_000):
        path = tmp_path / f"{persons}.jsonl"
        choice = {"query": None, "chosen": "film " * 20, "rejected": "other " * 20}
        with path.open("w") as out:
            for number in range(persons):
                history = [choice | {"chosen": f"film {number} {i}"} for i in range(4)]
                out.write(json.dumps({"userid": f"user {number}", "history": history, "target": choice}) + "\n")
        command = [sys.executable, "-c", READ, str(path), str(tmp_path / f"{persons}.journal")]
        users, peak = map(int, subprocess.check_output(command, cwd=ROOT).split())
        assert users == persons
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 12, peaks
