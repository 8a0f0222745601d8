"""A report is made of files alone, and says where the benchmarks are from."""

import base64
import csv
import gzip
import json
import re
from collections.abc import Callable

import pytest

from alignxplore.datasets import PUBLISHED
from alignxplore.datasets.sidecars import sha256
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import write_results, write_scores
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import run_of, scores


def test_where_a_benchmark_file_is_from(tmp_path):
    hub_file = (
        tmp_path / f"datasets--{PUBLISHED.replace('/', '--')}" / "snapshots" / "0a1b" / "data" / "mind_upi.jsonl"
    )
    for path in (hub_file, tmp_path / "mind_upi.jsonl"):
        write_jsonl(path, [{}])
    assert writing.built_how(hub_file) == {"built": None, "hub": f"{PUBLISHED}@0a1b"}
    assert writing.built_how(tmp_path / "mind_upi.jsonl") == {"built": None, "hub": None}


def test_a_manifest_of_another_file_is_said(tmp_path, caplog):
    path = tmp_path / "mind_upi.jsonl"
    for text in ("{}\n", "{}\n{}\n"):
        path.write_text(text)
        write_json(tmp_path / "mind_upi.build.json", {"sha256": sha256(path), "protocol": "published"})
        assert writing.from_where(path) == {"sha256": sha256(path)} | writing.built_how(path) and not caplog.messages
    path.write_text("{}\n")
    assert writing.from_where(path)["sha256"] == sha256(path)
    assert f"{path}: not the file that mind_upi.build.json tells of" in caplog.text


def test_a_report_is_written_from_files_alone(tmp_path):
    rows = [
        row for policy in ("base", "ours") for name in ("mind", "student_phd") for row in scores(policy, name, 20, 0.6)
    ]
    rows += scores("longer", "mind", 20, 0.5, setting="none", judge="none")
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    run = run_of(mind=20, student_phd=20)
    run["benchmarks"]["mind"]["target_in_history"] = 3
    write_json(tmp_path / "run.json", run)
    first_tables = writing.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert first_tables in text and "published: AlignXplore+" in first_tables and "longer" in first_tables
    assert (
        "could be copied: mind 3 of 20." in text
        and "Paired comparisons" in text
        and "Every number" in text
        and "Commit unknown" in text
    )
    tables = {path.stem for path in tmp_path.glob("table_*.tex")}
    assert {"table_main_qwen_paper", "table_mind_paper", "table_details_paper", "table_paired_paper"} <= tables
    assert tables == {path.stem + form for path in tmp_path.glob("table_*.csv") for form in ("", "_short")}
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(json.loads((tmp_path / "results.json").read_text())) == 5


@pytest.mark.parametrize("choice", ["all", "none", None])
def test_a_page_that_is_written_again_has_texts_only_where_evaluate_left_them_in(tmp_path, choice):
    """faithfulness.py and report.py without --texts; a folder of an earlier version does not say what was chosen."""
    rows, secret = scores("ours", "mind", 20, 0.6), "Likes secret films."
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(mind=20) | ({"arguments": {"texts": choice}} if choice else {}))
    stage = {"summary": secret, "problem": None, "dropped": 0}
    summary = {"policy": "ours", "setting": "full", "seed": 0, "error": None, "stages": [stage]}
    about = {"benchmark": "mind", "record": "r0", "user": "u0", "kinds": [], "prompts": [], "shown": 0}
    write_jsonl(
        tmp_path / "samples.jsonl", [about | {"target": {}, "history": [], "scores": [], "summaries": [summary]}]
    )

    def has_texts(write: Callable[[], object]) -> bool:
        write()
        packed = re.search(r'<script type="application/gzip".*>(.*)</script>', (tmp_path / "report.html").read_text())
        return secret in gzip.decompress(base64.b64decode(packed[1])).decode()

    assert has_texts(lambda: writing.write(tmp_path)) == (choice != "none")
    assert has_texts(lambda: writing.write_report(writing.ReportOptions(out=tmp_path))) == (choice != "none")
    for chosen in ("all", "none"):  # what is said here wins
        options = writing.ReportOptions(out=tmp_path, texts=chosen)
        assert has_texts(lambda options=options: writing.write_report(options)) == (chosen == "all")


def test_cross_task_rows_stand_beside_what_was_published_and_are_not_compared(tmp_path):
    rows = [row for name in ("a~to~b", "b~to~a") for row in scores("ours", name, 20, 0.6)]
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / "run.json", run_of(**{"a~to~b": 20, "b~to~a": 20}))
    first_tables = writing.write(tmp_path)
    assert "a → b (n = 20)" in first_tables and "are not public" in first_tables
    assert (
        "| AlignXplore+ | 74.90 | 51.10 | 63.00 |" in first_tables
        and "| TALLRec | 49.90 | 49.80 | 49.85 |" in first_tables
    )
