"""Summaries that go on: laws of updating and forgetting, and that nothing good is ever replaced by nothing."""

import asyncio
import json
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from aiohttp import web

from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.continuing import continue_summaries, word_diff
from alignxplore.evaluation.forgetting import read_deletions
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.updates import Updates
from alignxplore.records import RecordError, content_hash
from tests import ROOT


def answer(body: dict, say) -> dict:
    """A summary that tells everything that it was made of."""
    if "BAD" in body["messages"][-1]["content"]:
        return say("no format at all")
    return say(f"<think>\nread\n</think>\n\nlikes {content_hash([body['messages'], body['seed']])}")


@pytest.fixture
def policy(fake_server, say, tokenizer, tmp_path):
    """`policy(fault)`: a server that answers so; it is `fault(body)` that may answer instead."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def start(fault=lambda body: None):
        return fake_server(lambda body: fault(body) or answer(body, say))

    return start


@pytest.fixture
def run(policy, record, benchmark_file, tmp_path):
    """A finished run about five persons; `run(...)` continues it and returns the requests that this took."""
    path = benchmark_file("world_films", [record(f"u{i}") for i in range(5)])
    out = tmp_path / "out"

    def options(server, **options_given) -> GenerationArguments:
        return GenerationArguments(
            model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"], concurrency=4, **options_given
        )

    async def begin() -> None:
        async with policy() as server:
            await generate(options(server, data=[str(path)], out=str(out), settings=["streaming"]))

    asyncio.run(begin())

    def go_on(folder=out, fault=lambda body: None, model=True, **options_given) -> list[dict]:
        async def ask():
            async with policy(fault) as server:
                arguments = options(server, continue_run=str(folder), **options_given)
                if not model:
                    arguments.model = []
                await asyncio.to_thread(continue_summaries, arguments)
                return server.bodies

        return asyncio.run(ask())

    go_on.out = out
    return go_on


def films(*names: str) -> list[dict]:
    return [{"query": None, "chosen": name, "rejected": f"not {name}"} for name in names]


def new(folder: Path, name: str = "new.jsonl", **persons: list[dict]) -> list[str]:
    """`--data` with these persons' new interactions."""
    path = folder / name
    path.write_text("".join(json.dumps({"userid": user, "history": xs}) + "\n" for user, xs in persons.items()))
    return [f"world_films={path}"]


def set_of(out: Path) -> SummarySet:
    return SummarySet(out, "ours", "world_films", "streaming", 0)


def of_nobody(run, folder: Path) -> Path:
    """A run as the finished one, whose persons are all still to come."""
    meta_path = set_of(folder).meta_path
    meta_path.parent.mkdir(parents=True)
    shutil.copy(set_of(run.out).meta_path, meta_path)
    return folder


def current(out: Path) -> dict[str, dict]:
    path = Updates(set_of(out)).current_path
    return {row["user"]: row for row in map(json.loads, path.read_text().splitlines())}


def versions(out: Path) -> dict[str, dict]:
    """Id → what was written, without when."""
    path = Updates(set_of(out)).versions_path
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"when": 0, "model": 0} for row in rows]
    return {row["id"]: row | {"stage": row["stage"] and row["stage"] | {"seconds": 0}} for row in rows}


def test_a_stream_goes_on_for_persons_with_new_interactions_only(run, tmp_path, capsys):
    before = {row["user"]: row["stages"][-1]["summary"] for row in set_of(run.out).by_record().values()}
    bodies = run(data=new(tmp_path, u1=films("Heat"), u3=films("Alien", "Brazil")))
    assert len(bodies) == 2
    prompt = next(body["messages"][-1]["content"] for body in bodies if "Heat" in body["messages"][-1]["content"])
    assert before["u1"] in prompt and prompt.count("Passed over") == 1
    summary_of = current(run.out)
    assert set(summary_of) == {"u1", "u3"} and summary_of["u1"]["summary"] not in before.values()
    assert (summary_of["u1"]["version"], summary_of["u1"]["slices"]) == (3, 3)
    assert [row["number"] for row in versions(run.out).values() if row["user"] == "u1"] == [0, 1, 2]
    assert "2 persons with 3 new interactions, 0 without; 2 summaries written" in capsys.readouterr().out


def test_the_same_data_twice_are_one_update_and_of_a_whole_history_the_rest_is_new(run, record, tmp_path):
    data = new(tmp_path, u1=films("Heat"))
    run(data=data)
    first = versions(run.out)
    assert run(data=data) == [] and versions(run.out) == first
    history = [asdict(x) for x in record("u1").history] + films("Heat", "Ran")
    [body] = run(data=new(tmp_path, "whole.jsonl", u1=history))
    assert "Ran" in body["messages"][-1]["content"] and "Heat" not in body["messages"][-1]["content"]


def test_an_update_in_bad_format_replaces_nothing_and_is_read_again_with_the_next(run, tmp_path, capsys):
    run(data=new(tmp_path, u1=films("Heat")))
    good = current(run.out)["u1"]
    run(data=new(tmp_path, "bad.jsonl", u1=films("BAD")))
    assert current(run.out)["u1"] == good | {"slices": 4}
    assert "1 persons kept the older one (" in capsys.readouterr().out
    bodies = run(fault=lambda body: None, data=new(tmp_path, "next.jsonl", u1=films("Ran")))
    assert all(
        "BAD" in body["messages"][-1]["content"] and "Ran" in body["messages"][-1]["content"] for body in bodies
    )
    assert run(data=new(tmp_path, "next.jsonl", u1=films("Ran"))) == []


def test_a_failed_update_is_asked_again_and_ends_as_if_nothing_had_happened(run, tmp_path):
    data = new(tmp_path, **{f"u{i}": films(f"Film {i}") for i in range(5)})
    refusal = web.Response(status=400, text="no credit")
    with pytest.raises(Exception, match="failed"):
        run(fault=lambda body: refusal if "Film 3" in body["messages"][-1]["content"] else None, data=data)
    assert {user for user, row in current(run.out).items() if row["version"] == 3} == {"u0", "u1", "u2", "u4"}
    assert len(run(data=data)) == 1
    assert {user: row["version"] for user, row in current(run.out).items()} == {f"u{i}": 3 for i in range(5)}


@pytest.mark.parametrize("request_count", [3])
async def test_kill_9_loses_nothing(run, policy, environment, say, tmp_path, request_count):
    """Killed after so many requests; then the same command: the same versions, and only what was in flight again."""
    people = {f"person {i}": films(f"Film {i}") for i in range(10)}
    spec, model = new(tmp_path, **people)[0], f"#{tmp_path / 'tokenizer'}"

    async def slow(body: dict) -> dict:
        await asyncio.sleep(0.05)
        return answer(body, say)

    async def command(url: str, out: Path) -> asyncio.subprocess.Process:
        words = (ROOT / "eval/gen_preference.py", "--continue", out, "--model", f"ours={url}{model}", "--data", spec)
        return await asyncio.create_subprocess_exec(
            sys.executable, *map(str, words), "--concurrency", "2", env=environment, stdout=asyncio.subprocess.DEVNULL
        )

    async with policy(slow) as server:
        for name in ("calm", "killed"):
            of_nobody(run, tmp_path / name)
        assert await (await command(server.url, tmp_path / "calm")).wait() == 0
        server.bodies.clear()
        process = await command(server.url, tmp_path / "killed")
        while len(server.bodies) <= request_count:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        before = len(server.bodies)
        assert await (await command(server.url, tmp_path / "killed")).wait() == 0
        assert before < 10 and len(server.bodies) <= 10 + 2  # two in flight
    assert versions(tmp_path / "killed") == versions(tmp_path / "calm") and len(current(tmp_path / "killed")) == 10


def test_all_versions_of_a_person_are_shown_word_by_word(run, tmp_path, capsys):
    folder = of_nobody(run, tmp_path / "own")
    run(folder=folder, data=new(tmp_path, "a.jsonl", ann=films("Alien")))
    run(folder=folder, data=new(tmp_path, "b.jsonl", ann=films("BAD")))
    run(folder=folder, data=new(tmp_path, "c.jsonl", bob=films("Brazil")))
    capsys.readouterr()
    assert run(folder=folder, model=False, diff=["ann", "nobody"]) == []
    output = capsys.readouterr().out
    assert re.search(
        r"ann, version 1: 1 interactions of a.jsonl; policy \S+, 2\S+\n\{\+likes [0-9a-f]+\+\}", output
    ), output
    assert "ann, version 2: 1 interactions of b.jsonl" in output and "kept the older summary" in output
    assert "nobody: no updates" in output and "ann: no updates" not in output and "Brazil" not in output


def test_a_person_whom_the_run_did_not_know_begins(run, tmp_path):
    [body] = run(data=new(tmp_path, stranger=films("Heat")))
    assert not re.search("likes [0-9a-f]{16}", body["messages"][-1]["content"])
    assert current(run.out)["stranger"]["version"] == 1


def test_what_is_forgotten_is_gone_from_disk_and_the_rest_is_as_if_it_had_never_been_seen(run, tmp_path, capsys):
    reference = of_nobody(run, tmp_path / "never")
    run(folder=reference, data=new(tmp_path, "a.jsonl", ann=films("Alien"), bob=films("Brazil")))
    run(folder=reference, data=new(tmp_path, "b.jsonl", ann=films("Casablanca"), bob=films("Dune")))
    folder = of_nobody(run, tmp_path / "seen")
    run(folder=folder, data=new(tmp_path, "a.jsonl", ann=films("Alien", "Zebra"), bob=films("Brazil")))
    run(folder=folder, data=new(tmp_path, "b.jsonl", ann=films("Casablanca"), bob=films("Dune")))
    file = tmp_path / "forget.jsonl"
    file.write_text(json.dumps({"userid": "ann", "chosen": "Zebra"}) + "\n")
    bodies = run(folder=folder, forget=str(file))
    assert len(bodies) == 2 and versions(folder) == versions(reference)
    assert {u: r["summary"] for u, r in current(folder).items()} == {
        u: r["summary"] for u, r in current(reference).items()
    }
    assert not any(b"Zebra" in path.read_bytes() for path in folder.rglob("*.jsonl"))
    assert "forgotten of 1 persons; of 1 statements of their summaries 1 are gone" in capsys.readouterr().out
    assert run(folder=folder, forget=str(file)) == []


def test_a_person_and_a_file_can_be_forgotten(run, tmp_path):
    run(data=new(tmp_path, "diary.jsonl", u1=films("Heat"), u2=films("Ran")))
    file = tmp_path / "forget.jsonl"
    file.write_text('{"userid": "u1"}\n{"source": "diary.jsonl"}\n')
    assert run(forget=str(file)) == []  # what stands of u2 rests on older slices only, and is there
    assert set(current(run.out)) == {f"u{i}" for i in (0, 2, 3, 4)} and current(run.out)["u2"]["version"] == 2
    assert not any(b"Ran" in path.read_bytes() for path in (run.out / "updates").rglob("*.jsonl"))
    assert "u1" not in {row["user"] for row in set_of(run.out).by_record().values()}


def test_what_is_not_there_to_be_forgotten_is_said(run, tmp_path, capsys):
    file = tmp_path / "forget.jsonl"
    file.write_text('{"userid": "u1", "chosen": "no such film"}\n{"userid": "nobody"}\n')
    assert run(forget=str(file)) == []
    output = capsys.readouterr().out
    assert "Nothing of it stands in these summaries." in output and "forgotten of" not in output


def test_a_run_goes_on_in_the_window_that_it_had(policy, record, benchmark_file, tmp_path):
    """As with sampling, nobody has to say it again: the same prompts as a run of one stage more."""
    path = benchmark_file("world_films", [record("u1")])
    model = f"#{tmp_path / 'tokenizer'}"

    async def work() -> None:
        async with policy() as server:
            spec, out = [f"ours={server.url}{model}"], str(tmp_path / "out")
            first = {"data": [str(path)], "out": out, "settings": ["streaming"]}
            await generate(GenerationArguments(model=spec, max_tokens=64, max_model_len=400, **first))
            data = new(tmp_path, u1=[{"chosen": f"film {i} {'x' * 40}", "rejected": None} for i in range(40)])
            go_on = GenerationArguments(model=spec, continue_run=out, data=data, settings=["streaming"])
            await asyncio.to_thread(continue_summaries, go_on)
            assert server.bodies[-1]["max_tokens"] == 64 and "film 39" in server.bodies[-1]["messages"][-1]["content"]
            assert "film 0 " not in server.bodies[-1]["messages"][-1]["content"], "400 tokens do not hold all of it"

    asyncio.run(work())


def test_forgetting_needs_no_model_but_then_says_who_waits(run, tmp_path, capsys):
    run(data=new(tmp_path, u1=films("Heat", "Ran")))
    file = tmp_path / "forget.jsonl"
    file.write_text(json.dumps({"userid": "u1", "chosen": "Ran"}) + "\n")
    assert run(model=False, forget=str(file)) == []
    assert "1 wait for --model ours=" in capsys.readouterr().out
    assert current(run.out)["u1"]["version"] == 2  # the one before; nothing that rests on it
    [body] = run(forget=str(file))
    assert "Heat" in body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"userid": "a", "item": "x"}', "item"),
        ('{"userid": "a", "chosen": 3}', "chosen"),
        ('{"source": "data/new.jsonl"}', "source.*name the file alone"),
        ('{"chosen": "x"}', "name a person"),
        ("{}", "name a person"),
    ],
)
def test_a_line_that_names_nothing_to_forget_is_refused(tmp_path, line, problem):
    (tmp_path / "f.jsonl").write_text(line + "\n")
    with pytest.raises(RecordError, match=f"f.jsonl:1.*{problem}"):
        read_deletions(tmp_path / "f.jsonl")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"forget": "f"}, "--forget needs --continue"),
        ({"continue_run": "a", "out": "b"}, "leave --out out"),
        ({"continue_run": "a", "data": ["x"]}, "--model is needed"),
        ({"continue_run": "a"}, "needs --data"),
        ({"model": ["m"], "data": ["x"]}, "--out is needed"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        GenerationArguments(**values)


def test_a_benchmark_that_the_run_does_not_have_is_named(run, tmp_path):
    [spec] = new(tmp_path, u1=films("Heat"))
    with pytest.raises(Exception, match="has summaries of world_films only"):
        run(data=[spec.replace("world_films", "mind")])
    with pytest.raises(ValueError, match="--data: world_films is given twice"):
        run(data=[spec, *new(tmp_path, "other.jsonl", u1=films("Ran"))])


def test_a_policy_that_the_run_does_not_have_is_not_begun_unnoticed(run, tmp_path):
    for kind in ("", ".meta"):
        path = set_of(run.out).journal_path.with_suffix(f"{kind}.json" if kind else ".jsonl")
        (run.out / "summaries/theirs").mkdir(exist_ok=True)
        path.rename(run.out / "summaries/theirs" / path.name)
    with pytest.raises(UserError, match="--model ours: it has no summaries of world_films .* those of theirs"):
        run(data=new(tmp_path, u1=films("Heat")))


def test_a_folder_without_summaries_is_said(run, tmp_path):
    data = new(tmp_path, u1=films("Heat"))
    for options in ({"model": False, "diff": ["u1"]}, {"data": data}, {"data": data, "check": True}):
        with pytest.raises(UserError, match="nothing: there are no summaries"):
            run(folder=tmp_path / "nothing", **options)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "options",
    [{"limit": 3}, {"benchmarks": ["world_films"]}, {"stages": 3}, {"fit": "published"}, {"gpus": 1}, {"at_once": 2}],
)
def test_options_of_a_new_run_are_refused(options):
    line = {"continue_run": "a", "model": ["m"], "data": ["x"]}
    with pytest.raises(ValueError, match=f"--{next(iter(options))} is not for --continue"):
        GenerationArguments(**line, **options)
    GenerationArguments(**line)


@pytest.mark.parametrize(
    ("options", "old"),
    [
        ({"temperature": 0.1}, "0.6"),
        ({"top_p": 0.5}, "0.95"),
        ({"top_k": 3}, "20"),
        ({"max_tokens": 64}, "4096"),
        ({"max_model_len": 8192}, "16384"),
        ({"format": ["plain"]}, "think"),
    ],
)
def test_a_run_is_not_written_in_another_way(run, tmp_path, options, old):
    data, name = new(tmp_path, u1=films("Heat")), next(iter(options))
    with pytest.raises(ValueError, match=f"--{name} .*: --continue writes .* as the run did, with {old};"):
        run(data=data, **options)
    assert not (run.out / "updates").exists()
    assert len(run(data=data, max_tokens=4096)) == 1, "what the run was written with may be said again"


def test_a_run_whose_data_moved_says_where_they_were(run, tmp_path):
    (tmp_path / "world_films_upi.jsonl").rename(tmp_path / "elsewhere.jsonl")
    with pytest.raises(Exception, match="world_films_upi.jsonl.*put it there"):
        run(data=new(tmp_path, u1=films("Heat")))


def test_words_that_came_and_went_are_marked():
    assert word_diff("likes old films", "likes new long films") == "likes [-old-]{+new long+} films"
    assert word_diff("", "a") == "{+a+}" and word_diff("a b", "a b") == "a b"
