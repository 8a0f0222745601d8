"""Summaries that go on, and what stands beside them: `--check`, and the files of `eval/export.py`."""

import asyncio
import json

import duckdb
import pyarrow.parquet as pq
import pytest

from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.export import ExportOptions, export
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.rows import write_scores
from alignxplore.records import write_json
from tests import ROOT
from tests.evaluation.made_up import run_of
from tests.evaluation.test_updates import current, films, new, policy, run, set_of  # noqa: F401  # fixtures


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


@pytest.fixture
def exported(run):  # noqa: F811
    """A finished run with results; `exported()` → summaries.parquet, exported anew."""
    write_scores(run.out, [])
    write_json(run.out / "run.json", run_of(world_films=5) | {"commit": "c", "versions": {}})
    (run.out / "report.md").write_text("# Results\n\nthe table\n")

    def rows() -> dict[str, dict]:
        export(ExportOptions(out=run.out))
        return {row["user"]: row for row in pq.read_table(run.out / "hub" / "summaries.parquet").to_pylist()}

    return rows


def test_what_was_exported_goes_with_what_is_forgotten(run, exported, tmp_path, capsys):  # noqa: F811
    assert len(exported()) == 5
    text_of = {row["user"]: row["stages"][-1]["summary"] for row in set_of(run.out).by_record().values()}
    table = run.out / "tables" / "main" / "hub"
    table.parent.mkdir(parents=True)
    (run.out / "hub").rename(table)
    exported()
    file = tmp_path / "forget.jsonl"
    file.write_text('{"userid": "u9"}\n')
    run(forget=str(file))
    assert (table / "summaries.parquet").exists(), "nothing of it stood anywhere"
    file.write_text('{"userid": "u1"}\n')
    run(forget=str(file))
    hubs = [path for folder in (run.out / "hub", table) for path in folder.glob("*")]
    assert not any(text_of["u1"].encode() in path.read_bytes() for path in hubs) and not hubs
    assert "export.py writes them again" in capsys.readouterr().out
    assert set(exported()) == {"u0", "u2", "u3", "u4"}


def standing_by_statement(out) -> dict[str, str]:
    """What the last statement of eval/README.md that reads summaries takes from this run."""
    readme = (ROOT / "eval/README.md").read_text()
    statement = next(part for part in readme.split("```") if "current.jsonl" in part and "COPY" in part)
    query = statement.rpartition("COPY (")[2].rpartition(") TO")[0]
    query = query.replace("../outputs/all/shards/*", str(out)).replace("own.full", "world_films.streaming")
    return dict(duckdb.sql(query).fetchall())


def test_the_summary_that_stands_is_exported(run, exported, tmp_path):  # noqa: F811
    before = exported()
    run(data=new(tmp_path, u1=films("Heat"), stranger=films("Ran")))
    after, stands = exported(), current(run.out)
    assert after["u1"]["summary"] == stands["u1"]["summary"] != before["u1"]["summary"]
    assert [stage["summary"] for stage in after["u1"]["stages"]][-1] == stands["u1"]["summary"]
    assert after["u1"]["record"] == before["u1"]["record"] and len(after["u1"]["stages"]) == 3
    assert after["u1"]["updated"].startswith("2") and before["u1"]["updated"] is None
    assert after["stranger"]["summary"] == stands["stranger"]["summary"] and after["stranger"]["record"] is None
    assert {user: row for user, row in after.items() if user[0] == "u" and user != "u1"} == {
        user: row for user, row in before.items() if user != "u1"
    }
    assert standing_by_statement(run.out) == {user: row["summary"] for user, row in after.items()}
    file = tmp_path / "forget.jsonl"
    file.write_text(json.dumps({"userid": "u2", "chosen": "film u2 5"}) + "\n")
    run(forget=str(file))
    last = exported()
    assert last.get("u2", {"summary": None})["summary"] == current(run.out).get("u2", {"summary": None})["summary"]
