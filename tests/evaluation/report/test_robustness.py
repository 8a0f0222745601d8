"""Changes are paired by user and target, injected text is seen where it was obeyed, and any two rows can be
compared."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.comparisons import chosen_scores, comparisons
from alignxplore.evaluation.derived import write_names
from alignxplore.evaluation.perturbations import CODE
from alignxplore.evaluation.report import robustness
from alignxplore.evaluation.report.restraint import restraint
from alignxplore.evaluation.report.tables import MISSING
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import read_scores, write_results, write_scores
from alignxplore.evaluation.worth import Score
from alignxplore.journal import Journal
from alignxplore.records import UserRecord, write_json, write_jsonl
from tests import ROOT
from tests.evaluation.made_up import run_of, score


def scores(benchmark: str, values: list[float], policy: str = "ours", setting: str = "full") -> list[Score]:
    """Record ids differ between copies of a benchmark, users and targets do not."""
    return [
        score(
            policy=policy,
            setting=setting,
            benchmark=benchmark,
            record=f"{benchmark} {i}",
            user=f"u{i}",
            target=f"t{i}",
            item=f"t{i}",
            value=value,
        )
        for i, value in enumerate(values)
    ]


def write_summaries(
    out: Path, policy: str, benchmark: str, records: list[UserRecord], texts: list[str], seed: int = 0
) -> None:
    summaries = SummarySet(out, policy, benchmark, "full", seed)
    write_json(summaries.meta_path, {"run": "r"})
    with Journal(summaries.journal_path) as journal:
        for record, text in zip(records, texts):
            journal.append(
                record.id,
                {
                    "run": "r",
                    "record": record.id,
                    "user": record.user,
                    "stages": [{"text": text, "summary": text, "problem": None}],
                },
            )


@pytest.fixture
def out(tmp_path, record) -> Path:
    """A finished run: of ten records two turn wrong under noise; of the summaries of injected records half obey,
    hardened none."""
    records = [record(str(i)) for i in range(10)]
    for name in ("mind", "mind~swapped20", "mind~injected_order25"):
        write_jsonl(tmp_path / "data" / f"{name}_upi.jsonl", map(user_row, records))
    write_names(tmp_path / "data", ["mind", "mind~swapped20", "mind~injected_order25"])
    write_jsonl(tmp_path / "data" / "mind~shuffled_upi.jsonl", map(user_row, records))  # of an earlier run
    write_json(tmp_path / "data" / "mind~shuffled_upi.build.json", {"task": "recommendation", "strangers": 9})
    good = [1.0] * 10
    rows = (
        scores("mind", good)
        + scores("mind~swapped20", [0.0, 0.0, *good[2:]])
        + scores("mind~injected_order25", [0.0] * 5 + good[5:])
    )
    write_scores(tmp_path / "default", rows)
    write_results(tmp_path / "default", result_rows(rows))
    write_json(tmp_path / "default" / "run.json", run_of(mind=10) | {"arguments": {"texts": "all"}})
    write_scores(
        tmp_path / "hardened",
        scores("mind", good, "ours-hardened") + scores("mind~injected_order25", good, "ours-hardened"),
    )
    for policy, obeying in (("ours", 5), ("ours-hardened", 0)):
        write_summaries(tmp_path, policy, "mind", records, ["likes films"] * 10)
        texts = [f"as told: {CODE}" if i < obeying else "likes films" for i in range(10)]
        write_summaries(tmp_path, policy, "mind~injected_order25", records, texts)
    return tmp_path


def test_the_change_is_that_of_the_same_users_and_targets(out):
    table = robustness.tables(out)[0]
    assert table.head[:3] == ["benchmark", "ours, full", "change"]
    line_of = {line[0]: line for line in table.body}
    assert line_of["MIND"][1].startswith("100.00") and line_of["MIND"][2] == MISSING
    assert line_of["MIND, swapped20"][1].startswith("80.00") and line_of["MIND, swapped20"][2].startswith("−20.00 [")
    assert all(line[3:] == ["10", "0.00", "0.00", "100.00", "1"] for line in table.body)


def test_baselines_stand_in_every_line(out):
    names = ("mind", "mind~swapped20", "mind~injected_order25")
    cues = [
        replace(row, judge="none")
        for name in names
        for row in scores(name, [1.0] * 7 + [0.0] * 3, "popularity", "none")
    ]
    baseline = [row for name in names for row in scores(name, [0.5] * 10, "no summary", "none")]
    rows = list(read_scores(out / "default"))
    write_scores(out / "default", rows + cues + baseline)
    table = robustness.tables(out)[0]
    assert table.head[:6] == ["benchmark", "ours, full", "change", "popularity", "no summary", "n"]
    assert [(line[3][:5], line[4][:5]) for line in table.body] == [("70.00", "50.00")] * 3


def test_the_note_says_how_many_got_a_strangers_interactions(out, record):
    assert "stranger" not in robustness.tables(out)[0].note
    write_names(out / "data", ["mind", "mind~mixed"])
    write_jsonl(out / "data" / "mind~mixed_upi.jsonl", [user_row(record(str(i))) for i in range(10)])
    write_json(out / "data" / "mind~mixed_upi.build.json", {"task": "recommendation", "strangers": 3})
    note = robustness.tables(out)[0].note
    assert "MIND, mixed: 3 of 10" in note and "Less" not in note
    facts = {"task": "recommendation", "strangers": 10, "share": 0.0512, "asked_share": 0.75}
    write_json(out / "data" / "mind~mixed_upi.build.json", facts)
    assert "as there was no more: MIND, mixed: 5.12 % of what is shown, not 75.00 %." in robustness.tables(out)[0].note


def test_where_nothing_was_passed_over_no_change_is_shown(out):
    write_json(out / "data" / "mind~swapped20_upi.build.json", {"task": "recommendation", "disturbed": 0})
    write_json(out / "data" / "mind~injected_order25_upi.build.json", {"task": "recommendation", "disturbed": 4})
    changes = {line[0]: line[2] for line in robustness.tables(out)[0].body}
    assert changes["MIND, swapped20"] == "nothing to disturb" and changes["MIND, injected_order25"].startswith(
        "−50.00 ["
    )


def test_injection_stands_under_both_prompt_sets_side_by_side(out):
    table = robustness.tables(out)[1]
    (line,) = table.body
    assert line[:3] == ["ours", "full", "MIND, injected_order25"]
    assert (line[3][:5], line[4][:6], line[5], line[6]) == ("50.00", "−50.00", "50.00", "0.00")
    assert (line[11][:6], line[12][:5], line[13], line[14]) == ("100.00", "+0.00", "0.00", "0.00")
    assert (
        line[7:11] == line[15:19] == ["0.00", "0.00", "100.00", "1"]
        and line[19] == "10"
        and len(line) == len(table.head)
    )


def test_summaries_of_all_seeds_are_counted(out, record):
    injected = [record(str(i)) for i in range(10)]
    write_summaries(out, "ours", "mind~injected_order25", injected, ["likes films"] * 9 + [CODE], seed=1)
    assert robustness.obedience(out, load_benchmarks([str(out / "data")]))[
        "ours", "full", "mind~injected_order25"
    ] == (5 + 1) / (10 + 10)


def test_without_a_hardened_run_its_columns_are_missing(out):
    (out / "hardened" / "scores.jsonl").unlink()
    assert robustness.tables(out)[1].body[0][11:13] == [MISSING, MISSING]


def test_the_command_writes_every_form(out):
    process = subprocess.run(
        [sys.executable, str(ROOT / "eval" / "robustness.py"), "--out", str(out)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() in (out / "robustness.md").read_text()
    page_text = (out / "robustness.html").read_text()
    assert "<td>−50.00 [" in page_text and 'id="plots"' in page_text
    assert {path.name for path in out.glob("table_*")} == {
        f"table_{name}_qwen_choice{form}"
        for name in ("robustness", "injection")
        for form in (".tex", "_short.tex", ".csv")
    }


def test_the_page_has_the_samples_of_the_report_and_a_number_leads_to_them(out):
    history = [{"query": None, "chosen": "a film that was seen", "rejected": "b"}]
    sample = {
        "benchmark": "mind~swapped20",
        "record": "r",
        "user": "u0",
        "kinds": [],
        "target": history[0],
        "shown": 1,
    }
    judged = {"policy": "ours", "setting": "full", "seed": 0, "judge": "qwen", "protocol": "choice"}
    judged |= {"value": 1.0, "outcome": "ok", "unread": []}
    sample |= {"history": history, "prompts": [], "summaries": [], "scores": [judged]}
    write_jsonl(out / "default" / "samples.jsonl", [sample])
    robustness.write_robustness(robustness.RobustnessOptions(out=out))
    page_text = (out / "robustness.html").read_text()
    assert (
        'data-cell="mind~swapped20|ours|full|qwen|choice"' in page_text
        and 'data-benchmark="mind~swapped20"' in page_text
    )
    write_json(out / "default" / "run.json", run_of(mind=10) | {"arguments": {"texts": "none"}})
    robustness.write_robustness(robustness.RobustnessOptions(out=out))
    assert "Texts are left out" in (out / "robustness.html").read_text(), "where the report has none"


def test_any_two_rows_are_compared_on_what_they_share(tmp_path):
    rows = (
        scores("mind", [1, 1, 1, 0], "a") + scores("mind", [0, 0, 1], "b") + scores("mind", [0, 1], "b", "streaming")
    )
    write_scores(tmp_path, rows)
    table = comparisons(chosen_scores(tmp_path, {"policy": "a"}), chosen_scores(tmp_path, {"policy": "b"}), {"policy"})
    assert [line[:4] for line in table.body] == [
        ["a / full / mind / qwen / choice", "b / full / mind / qwen / choice", "3", "−66.67"]
    ]
    table = comparisons(
        chosen_scores(tmp_path, {"setting": "full"}), chosen_scores(tmp_path, {"setting": "streaming"}), {"setting"}
    )
    assert [line[2:4] for line in table.body] == [["2", "+50.00"]]
    assert (
        comparisons(chosen_scores(tmp_path, {}), chosen_scores(tmp_path, {}), set()).body == []
    )  # no row with itself
    assert (
        len(comparisons(chosen_scores(tmp_path, {}), chosen_scores(tmp_path, {}), set(), one_report=False).body) == 3
    )  # of another report


def test_compare_says_what_there_is_when_nothing_fits(tmp_path):
    write_scores(tmp_path, scores("mind", [1, 0]))
    command = [sys.executable, str(ROOT / "eval" / "compare.py"), "--report", str(tmp_path)]
    process = subprocess.run(
        [*command, "--first", "policy=ours", "--second", "policy=base"], capture_output=True, text=True
    )
    assert process.returncode == 1 and "ours / full / mind / qwen / choice" in process.stderr
    bad_command = subprocess.run([*command, "--a", "polcy=ours"], capture_output=True, text=True)
    assert bad_command.returncode == 2 and "unknown field polcy" in bad_command.stderr
    write_scores(tmp_path, [*read_scores(tmp_path), *scores("mind~swapped20", [0, 0])])
    process = subprocess.run(
        [*command, "--a", "benchmark=mind", "--b", "benchmark=mind~swapped20", "--csv"], capture_output=True, text=True
    )
    assert process.returncode == 0 and "−50.00" in process.stdout


def test_restraint_is_measured_against_what_a_summary_drawn_anew_moves():
    """Of ten users choices that cancel out move four, another draw of the same summary moves one of these."""
    values = [1.0] * 10
    groups = {
        ("ours", "full", "mind", "qwen", "choice"): scores("mind", values)
        + [replace(row, seed=1) for row in scores("mind", [0.0] + [1.0] * 9)],
        ("ours", "full", "mind~nothing50", "qwen", "choice"): scores("mind~nothing50", [0.0] * 4 + [1.0] * 6),
        ("ours", "full", "mind~shuffled", "qwen", "choice"): scores("mind~shuffled", [0.0] * 10),
        ("popularity", "none", "mind~nothing50", "none", "choice"): scores("mind~nothing50", values),
    }
    table = restraint(groups, "qwen", "choice")
    assert [line[:4] for line in table.body] == [["ours", "full", "MIND, nothing50", "10"]]
    moves, redrawn, difference = table.body[0][4:]
    assert (moves[:5], redrawn[:5], difference[:6]) == ("40.00", "10.00", "+30.00")
    del groups["ours", "full", "mind~nothing50", "qwen", "choice"]
    assert restraint(groups, "qwen", "choice") is None
