"""The file of a run is edited, grows, or is another one since: what was forgotten stays forgotten, and nobody starts
over unnoticed."""

import asyncio
import json
from dataclasses import asdict, replace

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.generation import generate, preview
from alignxplore.evaluation.updates import Updates
from alignxplore.records import UserRecord, read_jsonl, write_jsonl
from tests.evaluation.test_updates import current, films, new, policy, run, set_of  # noqa: F401  # fixtures

SECRET = "film u1 3"


@pytest.fixture
def write_again(policy, run, tmp_path):  # noqa: F811
    """`write_again()`: the run's own command, once more; its requests. `write_again.file` is its `--data`."""
    path = tmp_path / "world_films_upi.jsonl"

    def options(server_url: str, data=path, name="ours", settings=("streaming",)) -> GenerationArguments:
        model = [f"{name}={server_url}#{tmp_path / 'tokenizer'}"]
        return GenerationArguments(model=model, data=[str(data)], out=str(run.out), settings=list(settings))

    def again(**changes) -> list[dict]:
        async def ask() -> list[dict]:
            async with policy() as server:
                await generate(options(server.url, **changes))
                return server.bodies

        return asyncio.run(ask())

    again.file, again.options = path, options
    return again


def edit(path, change) -> None:
    """Each row of a data file as `change(row)` makes it; None: without it."""
    write_jsonl(path, [row for _, old in read_jsonl(path) if (row := change(old))])


def without_secret(row: dict) -> dict:
    return row | {"history": [x for x in row["history"] if x["chosen"] != SECRET]}


def forget(run, tmp_path, *lines: dict, **options) -> list[dict]:  # noqa: F811
    file = tmp_path / "forget.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run(forget=str(file), **options)


def users(out) -> set[str]:
    return {row["user"] for row in set_of(out).rows()}


def text_of(out) -> str:
    return "".join(path.read_text() for path in sorted(out.rglob("*.jsonl")))


def test_an_interaction_that_left_the_file_first_is_forgotten_too(run, write_again, tmp_path, capsys):  # noqa: F811
    summaries = {row["user"]: row["stages"][-1]["summary"] for row in set_of(run.out).rows()}
    edit(write_again.file, without_secret)
    forget(run, tmp_path, {"userid": "u1", "chosen": SECRET})
    output = capsys.readouterr().out
    assert "Nothing of it stands" not in output and "forgotten of 1 persons; of 1 statements" in output
    assert "the whole summary of 1 of these rows (u1)" in output
    assert summaries["u1"] not in text_of(run.out) and users(run.out) == {"u0", "u2", "u3", "u4"}
    assert all(text in text_of(run.out) for user, text in summaries.items() if user != "u1")
    bodies = write_again()
    assert len(bodies) == 2 and not any(SECRET in str(body["messages"]) for body in bodies)


@pytest.mark.parametrize("line", [{"userid": "u1"}, {"userid": "u1", "chosen": SECRET}])
def test_a_person_who_left_the_file_first_is_forgotten_and_counted(run, write_again, tmp_path, capsys, line):  # noqa: F811
    edit(write_again.file, lambda row: row if row["userid"] != "u1" else None)
    assert forget(run, tmp_path, line) == []
    output = capsys.readouterr().out
    assert "forgotten of 1 persons" in output and "Nothing of it stands" not in output
    assert users(run.out) == {"u0", "u2", "u3", "u4"} and '"u1"' not in text_of(run.out)


def test_a_whole_person_is_forgotten_where_the_file_has_gone(run, write_again, tmp_path):  # noqa: F811
    write_again.file.unlink()
    with pytest.raises(UserError, match="world_films_upi.jsonl.*put it there"):
        forget(run, tmp_path, {"userid": "u2", "chosen": "film u2 1"})
    assert forget(run, tmp_path, {"userid": "u1"}) == [] and "u1" not in users(run.out)


def test_what_another_file_of_the_same_name_showed_is_forgotten(run, write_again, record, tmp_path):  # noqa: F811
    """Only the last one was known, so what rests on the first was taken for nothing."""
    others = tmp_path / "later"
    others.mkdir()
    write_jsonl(others / "world_films_upi.jsonl", map(user_row, [record("u1", 9), record("v1")]))
    write_again(data=others / "world_films_upi.jsonl")
    edit(others / "world_films_upi.jsonl", without_secret)
    forget(run, tmp_path, {"userid": "u1", "chosen": SECRET}, {"userid": "u3", "chosen": "film u3 2"})
    assert users(run.out) == {"u0", "u2", "u4", "v1"}
    assert SECRET not in text_of(run.out) and "film u3 2" not in text_of(run.out)
    forget(run, tmp_path, {"source": "no such file.jsonl"})
    assert users(run.out) == {"u0", "u2", "u4", "v1"}


def grown(record: UserRecord, *names: str, moved=False) -> UserRecord:
    additions = tuple(replace(record.history[0], chosen=name, rejected=f"not {name}") for name in names)
    history = (*record.history, *([record.target] if moved else []), *additions)
    return replace(record, history=history, target=additions[-1] if moved else record.target)


@pytest.mark.parametrize("moved", [False, True])
def test_a_history_that_grew_in_its_file_gives_its_rest(run, write_again, record, tmp_path, moved):  # noqa: F811
    """Also where the old target is a part of the history by now."""
    records = [grown(record(f"u{i}"), "Heat", "Ran", moved=moved) if i == 1 else record(f"u{i}") for i in range(5)]
    write_jsonl(write_again.file, map(user_row, records))
    before = {row["user"]: row["stages"][-1]["summary"] for row in set_of(run.out).rows()}["u1"]
    [body] = run(data=[f"world_films={write_again.file}"])
    prompt = body["messages"][-1]["content"]
    assert before in prompt and "Heat" in prompt and SECRET not in prompt
    assert (current(run.out)["u1"]["version"], current(run.out)["u1"]["slices"]) == (3, 3)
    stream = [row for _, row in read_jsonl(Updates(set_of(run.out)).streams_path) if row["user"] == "u1"][-1]
    assert stream["key"] == [record("u1").id, "streaming"]


def test_a_person_whose_row_is_another_one_is_not_started_over(run, write_again, tmp_path):  # noqa: F811
    edit(write_again.file, without_secret)
    new_data = new(tmp_path, u0=films("Heat"), u1=films("Ran"))
    for _ in range(2):
        with pytest.raises(UserError, match="u1 .*world_films_upi.jsonl.*back as it was.*another file.*--forget"):
            run(data=new_data)
    assert "Heat" not in text_of(run.out) and "Ran" not in text_of(run.out)
    edit(write_again.file, lambda row: row if row["userid"] != "u1" else None)
    with pytest.raises(UserError, match="u1 "):
        run(data=new_data)
    bodies = forget(run, tmp_path, {"userid": "u1"}, data=new_data)
    assert len(bodies) == 2 and current(run.out)["u1"]["version"] == 1


def test_what_was_forgotten_is_not_written_again_from_the_file(run, write_again, tmp_path, caplog):  # noqa: F811
    forget(run, tmp_path, {"userid": "u1", "chosen": SECRET}, {"userid": "u2"})
    caplog.clear()
    caplog.set_level("INFO")
    for name in ("ours", "theirs"):
        bodies = write_again(name=name)
        assert not any(SECRET in str(body) or "film u2" in str(body) for body in bodies), name
        assert "2 persons are left out" in caplog.text
    assert users(run.out) == {"u0", "u3", "u4"} and len(bodies) == 6
    text = preview(write_again.options("http://127.0.0.1:9/v1"))
    assert "2 persons are left out" in text and "To write: 0 summaries" in text
    write_jsonl(write_again.file, [without_secret(row) for _, row in read_jsonl(write_again.file)])
    assert len(write_again()) == 2 and users(run.out) == {"u0", "u1", "u3", "u4"}, "without it, the file is read again"


def test_a_grown_file_with_what_was_forgotten_is_not_written_either(run, write_again, record, tmp_path):  # noqa: F811
    forget(run, tmp_path, {"userid": "u1", "chosen": SECRET})
    write_jsonl(write_again.file, map(user_row, [grown(record(f"u{i}"), "Heat") for i in range(5)]))
    bodies = write_again()
    assert len(bodies) == 8 and not any(SECRET in str(body) for body in bodies)


@pytest.mark.parametrize("film", [SECRET, "film u1 1", "no such film"])
def test_a_second_forgetting_takes_what_was_written_again(run, write_again, tmp_path, capsys, film):  # noqa: F811
    """As an older version wrote it: the summary of the whole row, beside a stream that was cut from."""
    journal = set_of(run.out).journal_path
    old_text = journal.read_text()
    forget(run, tmp_path, {"userid": "u1", "chosen": SECRET})
    journal.write_text(old_text)
    capsys.readouterr()
    forget(run, tmp_path, {"userid": "u1", "chosen": film})
    assert "forgotten of 1 persons" in capsys.readouterr().out and "u1" not in users(run.out)


def test_what_rests_on_nothing_of_it_stays(run, write_again, record, tmp_path, capsys):  # noqa: F811
    """Also after the file has grown, and after updates."""
    run(data=new(tmp_path, u3=films("Heat")))
    write_jsonl(write_again.file, map(user_row, [grown(record(f"u{i}"), "Ran") for i in range(5)]))
    edit(write_again.file, lambda row: row | {"target": asdict(replace(record("u3").target, query="other"))})
    before = text_of(run.out / "summaries")
    forget(run, tmp_path, {"userid": "u3", "chosen": "Ran"}, {"source": "unknown.jsonl"})
    assert "Nothing of it stands" in capsys.readouterr().out and text_of(run.out / "summaries") == before
