"""Summaries and scores as Parquet with a data card: every row, no text where none may be, nothing of this machine."""

import json

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation import export as exporting
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.export import ExportOptions, export
from alignxplore.evaluation.rows import write_scores
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import run_of, score

SECRET = "Likes sport."


@pytest.fixture
def results(tmp_path):
    out = tmp_path / "eval"
    summaries = SummarySet(out, "rl", "mind", "full", 0)
    stage = {"text": SECRET, "reasoning": "because", "summary": SECRET, "problem": None, "dropped": 1, "tokens": 7}
    row = {"record": "r1", "user": "7#2", "run": "now", "status": "ok", "error": None, "stages": [stage]}
    failure = {"record": "r2", "user": "8", "run": "now", "status": "transport_error", "error": None, "stages": []}
    summaries.journal_path.parent.mkdir(parents=True)
    write_jsonl(summaries.journal_path, [row, row | {"run": "earlier"}, failure])
    write_json(
        summaries.meta_path, {"run": "now", "identity": "abc", "prompt_hash": "h", "served_model": str(tmp_path)}
    )
    key = {"policy": "rl", "setting": "full", "benchmark": "mind", "judge": "q", "protocol": "choice", "seed": 0}
    right_score = score(**key, record="r1", user="7#2", p=0.7, orders=((0.8, None), (0.6, None)))
    write_scores(out, [right_score, score(**key, record="r2", user="8", outcome="missing", value=None)])
    run = run_of(mind=2) | {"commit": "c0ffee", "versions": {"torch": "2"}}
    write_json(out / "run.json", run | {"arguments": {"out": str(tmp_path)}})
    (out / "report.md").write_text("# Results\n\nthe table\n")
    return out


def read(out, name):
    from datasets import load_dataset

    return load_dataset(str(out / "hub"), name, split="train", cache_dir=str(out / "cache")).to_list()


def test_every_row_is_there_and_the_card_is_one_the_hub_can_load(results):
    assert "2 summaries, 2 scores" in export(ExportOptions(out=results))
    first, failure = read(results, "summaries")
    assert (first["summary"], first["person"], first["model"], first["stages"][0]["tokens"]) == (SECRET, "7", "abc", 7)
    assert failure["summary"] is None and failure["problem"] == "transport_error"
    first_score, failed_score = read(results, "scores")
    assert (first_score["p_chosen_first"], first_score["p_chosen_second"]) == ([0.8, 0.6], [None, None])
    assert failed_score["value"] is None and failed_score["p_chosen_first"] == []
    card = (results / "hub" / "README.md").read_text()
    assert "the table" in card and "c0ffee" in card and str(results.parent) not in card
    assert [path.name for path in (results / "hub").glob("*.part")] == []


def test_without_texts_there_is_none(results):
    export(ExportOptions(out=results, texts="none"))
    assert SECRET not in json.dumps(read(results, "summaries")) and "because" not in json.dumps(
        read(results, "summaries")
    )
    assert "Texts are left out" in (results / "hub" / "README.md").read_text()


@pytest.mark.parametrize(("own_choice", "is_there"), [(None, False), ("none", False), ("all", True)])
def test_the_choice_of_the_evaluation_holds_unless_another_one_is_given(results, own_choice, is_there):
    run = json.loads((results / "run.json").read_text())
    write_json(results / "run.json", run | {"arguments": {"texts": "none"}})
    export(ExportOptions(out=results, texts=own_choice))
    assert (SECRET in json.dumps(read(results, "summaries"))) == is_there
    assert ("Texts are left out" in (results / "hub" / "README.md").read_text()) != is_there


def test_nothing_is_uploaded_unasked_and_what_is_asked_for_is_private(results, monkeypatch):
    calls = []

    class Hub:
        def create_repo(self, name, **options):
            calls.append((name, options["repo_type"], options["private"]))

        def upload_folder(self, **options):
            calls.append((options["repo_id"], options["folder_path"]))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    export(ExportOptions(out=results))
    assert calls == []
    export(ExportOptions(out=results, push="me/mine"))
    assert calls == [("me/mine", "dataset", True), ("me/mine", results / "hub")]


def test_a_folder_without_scores_is_named(tmp_path):
    with pytest.raises(UserError, match="run eval/evaluate.py first"):
        export(ExportOptions(out=tmp_path))


def test_a_file_that_was_begun_is_never_read_as_whole(results, monkeypatch):
    export(ExportOptions(out=results))
    monkeypatch.setattr(exporting, "score_row", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(ExportOptions(out=results))
    assert len(read(results, "scores")) == 2, "what was there is still whole"


def test_results_that_stand_in_a_folder_of_their_own_are_exported_too(results, tmp_path):
    table = results / "tables" / "main"
    table.mkdir(parents=True)
    for name in ("scores.jsonl", "run.json", "report.md"):
        (results / name).rename(table / name)
    with pytest.raises(UserError, match=rf"eval holds no scores.jsonl; --report {table}"):
        export(ExportOptions(out=results))
    with pytest.raises(UserError, match="main holds no summaries; give the folder that gen_preference.py wrote"):
        export(ExportOptions(out=table))
    assert f"{table}/hub: 2 summaries, 2 scores" in export(ExportOptions(out=results, report=table))
