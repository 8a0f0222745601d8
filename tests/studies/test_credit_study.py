"""The study of credits: what its tables say of made-up runs whose numbers are known."""

import json
import subprocess
import sys

import pytest

from alignxplore.evaluation.rows import write_scores
from tests import ROOT
from tests.evaluation.made_up import score


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two seeds of `paper` and `tree`, 40 users: tree is right for all of them, paper for half in one seed and none in
    the other."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "eval").mkdir()
    runs = ["paper.1", "paper.2", "tree.1", "tree.2"]
    for run in runs:
        (folder / run).mkdir()
        steps = [
            {"step": s, "stage1/reward": 0.5, "stage2/reward": 0.6, "generated_tokens": 1000 + s, "training/rows": 128}
            for s in (1, 2)
        ]
        (folder / run / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in [{"step": 0, "val/reward": 0.5}, *steps])
        )
    values = {
        "sft": lambda i: 0.0,
        "paper.1": lambda i: i % 2,
        "paper.2": lambda i: 0.0,
        "tree.1": lambda i: 1.0,
        "tree.2": lambda i: 1.0,
    }
    scores = [
        score(
            policy=policy,
            judge="j",
            setting=setting,
            record=f"r{i}",
            user=f"u{i}",
            target=f"t{i}",
            item=f"t{i}",
            value=None if (policy, i) == ("tree.1", 39) else float(value(i)),
        )
        for policy, value in values.items()
        for i in range(40)
        for setting in ("full", "streaming")
    ]
    write_scores(folder / "eval", scores)
    (folder / "eval" / "results.json").write_text('[{"policy": "sft"}]')
    (folder / "eval" / "report.md").write_text("# Results\n\nall of it\n")
    process = subprocess.run(
        [sys.executable, str(ROOT / "studies/plot_credit.py"), "--study", str(folder), "--runs", *runs],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return folder


def test_accuracy_is_of_the_seeds_mean_on_the_users_that_all_have(study):
    row_of = {row["credit"]: row for row in json.loads((study / "results.json").read_text())["credits"]}
    assert all(row["n"] == 39 for row in row_of.values())  # one judgement of tree.1 failed
    assert row_of["paper"]["seeds"] == [pytest.approx(19 / 39), 0.0] and row_of["paper"]["accuracy"] == pytest.approx(
        19 / 78
    )
    assert (
        row_of["tree"]["accuracy"] == 1.0
        and row_of["tree"]["minus_paper"] == pytest.approx(1 - 19 / 78)
        and row_of["tree"]["p_value"] < 0.01
    )
    assert "minus_paper" not in row_of["sft"] and "minus_paper" not in row_of["paper"]


def test_the_budget_of_each_run_is_reported(study):
    budgets = json.loads((study / "results.json").read_text())["budgets"]
    assert [(b["credit"], b["seed"]) for b in budgets] == [("paper", 1), ("paper", 2), ("tree", 1), ("tree", 2)]
    assert all((b["steps"], b["tokens"], b["rows"]) == (2, 2003, 256) for b in budgets)


def test_the_report_says_what_differs_and_the_picture_is_there(study):
    text = (study / "report.md").read_text()
    assert "| tree | 2 | 2 | 256 | 2,003, 2,003 | 2,003 | +0.0 % |" in text
    assert "different from `paper`: tree (j), of 1 comparisons" in text and "# Each run\n\nall of it" in text
    assert (study / "credit.png").read_bytes().startswith(b"\x89PNG")
