"""Several rows of one person (`person#row`): the person's id means all of them, a row's id that row alone."""

import asyncio
import json

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate
from tests.evaluation.test_updates import films, new, policy  # noqa: F401  # fixture

ROWS = ("7#1", "7#2", "71#1", "8")


@pytest.fixture
def windows(policy, record, benchmark_file, tmp_path):  # noqa: F811
    """A finished run about two windows of one person, and two others; `windows(...)` continues it and returns the
    prompts that this took."""
    path, out = benchmark_file("world_films", [record(user) for user in ROWS]), tmp_path / "out"

    def go_on(**options) -> list[str]:
        async def ask():
            async with policy() as server:
                model = [f"ours={server.url}#{tmp_path / 'tokenizer'}"]
                if "continue_run" in options:
                    print(await asyncio.to_thread(continue_summaries, GenerationArguments(model=model, **options)))
                else:
                    await generate(GenerationArguments(model=model, **options))
                return [body["messages"][-1]["content"] for body in server.bodies]

        return asyncio.run(ask())

    go_on(data=[str(path)], out=str(out), settings=["streaming"])
    summaries = SummarySet(out, "ours", "world_films", "streaming", 0)
    go_on.out, go_on.summaries = out, summaries
    go_on.users = lambda: {row["user"] for row in summaries.rows()}
    go_on.text = lambda: "".join(path.read_text() for path in sorted(out.rglob("*.jsonl")))
    return go_on


def forget(windows, tmp_path, line: dict, **options) -> list[str]:
    file = tmp_path / "forget.jsonl"
    file.write_text(json.dumps(line) + "\n")
    return windows(continue_run=str(windows.out), forget=str(file), **options)


@pytest.mark.parametrize("updates_first", [False, True])
def test_a_person_is_forgotten_with_all_rows(windows, tmp_path, capsys, updates_first):
    if updates_first:
        data = new(tmp_path, **{user: films(f"Film {user}") for user in ROWS})
        windows(continue_run=str(windows.out), data=data)
    summary_of = {row["user"]: row["stages"][-1]["summary"] for row in windows.summaries.rows()}
    assert forget(windows, tmp_path, {"userid": "7"}) == []
    assert "forgotten of 1 persons (2 rows); of " in capsys.readouterr().out
    text = windows.text()
    assert '"7#1"' not in text and '"7#2"' not in text and '"71#1"' in text and '"8"' in text
    assert windows.users() == set(ROWS[2:])
    assert all((summary_of[user] in text) == (user in ROWS[2:]) for user in ROWS)
    assert ("Film 7#" not in text) and ("Film 71#1" in text) == updates_first


def test_the_id_of_a_row_is_that_row_alone(windows, tmp_path):
    forget(windows, tmp_path, {"userid": "7#1"})
    assert windows.users() == {"7#2", "71#1", "8"} and '"7#1"' not in windows.text()


def test_an_interaction_of_a_person_is_forgotten_in_all_rows(windows, tmp_path):
    data = new(tmp_path, **{user: films("Secret") + films(f"Film {user}") for user in ROWS})
    windows(continue_run=str(windows.out), data=data)
    prompts = forget(windows, tmp_path, {"userid": "7", "chosen": "Secret"})
    assert sorted(user for user in ROWS for prompt in prompts if f"Film {user}\n" in prompt) == ["7#1", "7#2"]
    assert not any("Secret" in prompt for prompt in prompts)
    streams = [json.loads(line) for path in windows.out.rglob("*.streams.jsonl") for line in path.open()]
    assert {row["user"] for row in streams if "Secret" in json.dumps(row)} == {"71#1", "8"}


def test_the_versions_of_a_person_are_those_of_all_rows(windows, tmp_path, capsys):
    windows(continue_run=str(windows.out), data=new(tmp_path, **{user: films("Heat") for user in ROWS}))
    capsys.readouterr()
    windows(continue_run=str(windows.out), diff=["7"])
    output = capsys.readouterr().out
    assert "7#1, version 3" in output and "7#2, version 3" in output and "71#1" not in output


def test_a_person_does_not_go_on_where_rows_of_theirs_have_the_summaries(windows, tmp_path):
    before = windows.text()
    data = new(tmp_path, **{"8": films("Up"), "7": films("Heat")})
    with pytest.raises(UserError, match=r"'7' has 2 rows here, .*\(7#1, 7#2\): say as `userid` which"):
        windows(continue_run=str(windows.out), data=data)
    assert windows.text() == before
    assert len(windows(continue_run=str(windows.out), data=new(tmp_path, **{"7#1": films("Heat")}))) == 1
    assert len(windows(continue_run=str(windows.out), data=new(tmp_path, **{"7#3": films("Heat")}))) == 1  # begins


def test_a_person_does_not_go_on_where_updates_alone_know_the_rows(windows, tmp_path):
    for row in ("9#1", "9#2"):
        windows(continue_run=str(windows.out), data=new(tmp_path, **{row: films("Up")}))
    with pytest.raises(UserError, match=r"'9' has 2 rows here, .*\(9#1, 9#2\)"):
        windows(continue_run=str(windows.out), data=new(tmp_path, **{"9": films("Heat")}))


@pytest.mark.parametrize(("text", "problem"), [(None, "no such file"), ('{"userid": "7"', "not JSON"), ("[1]", "")])
def test_check_reads_what_is_to_be_forgotten(windows, tmp_path, text, problem):
    file = tmp_path / "forget.jsonl"
    if text:
        file.write_text(f"{text}\n")
    with pytest.raises(UserError, match=f"forget.jsonl.*({problem})"):
        windows(continue_run=str(windows.out), forget=str(file), check=True)


def test_check_counts_what_is_to_be_forgotten(windows, tmp_path, capsys):
    before = windows.text()
    assert forget(windows, tmp_path, {"userid": "7"}, check=True) == [] and windows.text() == before
    assert "forget.jsonl: would forget 1 persons, 0 parts of persons, 0 files" in capsys.readouterr().out
