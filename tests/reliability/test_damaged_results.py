"""Fuzzing of what evaluation and training leave behind, by the commands that show it: whatever a file holds, tables
and plots come out of it, or the file is refused by line or field."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.evaluation.comparisons import CompareOptions, compare_rows
from alignxplore.evaluation.costs import FILE as COSTS
from alignxplore.evaluation.costs import read_costs
from alignxplore.evaluation.evidence import FILE as EVIDENCE
from alignxplore.evaluation.evidence import read_evidence
from alignxplore.evaluation.report import faithfulness, page, plots, writing
from alignxplore.evaluation.report.files import RUN, SAMPLES, read_run, read_samples
from alignxplore.evaluation.report.stages import StagesOptions, draw_stages
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import RESULTS, SCORES, read_results, read_scores, write_results, write_scores
from alignxplore.records import write_json, write_jsonl
from alignxplore.rl.curves import CurvesOptions, draw_curves, read_runs, series
from tests.evaluation.made_up import run_of, scores
from tests.reliability.damage import DERANDOMIZED, damaged_bytes, damaged_lines, damaged_value, outcome

LINKS = {"supports": [0], "contradicts": []}
TOLD = {"text": "Likes a.", "start": 0, "end": 8, "links": LINKS, "true": None, "verdict": "supported"}
CELL = {"policy": "ours", "setting": "full", "benchmark": "mind", "seed": 0, "record": "0"}
EVIDENT = CELL | {"user": "u", "judge": "qwen"}
EVIDENT |= {"seen": [0, 1], "statements": [TOLD, TOLD | {"true": LINKS}], "strong": 1, "recalled": 1}
COST = CELL | {"prompt_tokens": 9, "tokens": 5, "reasoning_tokens": 3, "summary_tokens": 2, "words": 2, "seconds": 0.5}
COST |= {"cut": False, "problem": None, "gpu_seconds": None}
STAGE = {"summary": "Likes a.", "reasoning": "r", "problem": None, "dropped": 0, "prompt": 0}
ASKED = {"policy": "ours", "setting": "full", "seed": 0, "judge": "qwen", "protocol": "choice", "value": 1.0}
ASKED |= {"outcome": "ok", "p": 0.7, "orders": [[0.8, 0.6]], "unread": [], "prompt": 0}
PAIR = {"chosen": "a", "rejected": "b", "query": None}
SAMPLE = {"benchmark": "mind", "record": "0", "user": "u", "kinds": [], "target": PAIR, "shown": 1, "history": [PAIR]}
WRITTEN = {"policy": "ours", "setting": "full", "seed": 0, "error": None, "stages": [STAGE]}
SAMPLE |= {"prompts": ["asked"], "summaries": [WRITTEN], "scores": [ASKED]}
STEPS = [
    {"step": n, "stage1/reward": 0.5, "stage2/reward": 0.6, "stage1/bad_format": 0.1, "stage1/tokens": 20.0}
    | {"val/reward": 0.5, "val/reward_low": 0.4, "val/reward_high": 0.6, "val/persons": 8, "timing_s/step": 3.0}
    | {"timing_s/gen": 2.0, "lost_share": 0.0, "rollout_corr/k3_kl": 1e-6}
    for n in (1, 2, 3)
]


FEWER = settings(DERANDOMIZED, max_examples=-(-DERANDOMIZED.max_examples // 3))


@pytest.fixture
def report(tmp_path):
    """A folder as evaluate.py and faithfulness.py leave it, small."""
    rows = [row for policy in ("base", "ours") for row in scores(policy, "mind", 6, 0.6, protocol="choice")]
    write_scores(tmp_path, rows)
    write_results(tmp_path, result_rows(rows))
    write_json(tmp_path / RUN, run_of(mind=6))
    write_jsonl(tmp_path / COSTS, [COST, COST | {"record": "1", "reasoning_tokens": None, "problem": "none"}])
    write_jsonl(tmp_path / EVIDENCE, [EVIDENT])
    write_jsonl(tmp_path / SAMPLES, [SAMPLE, SAMPLE | {"record": "1"}])
    assert shown(tmp_path)
    return tmp_path, {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def shown(folder) -> str:
    """What report.py shows, without its pictures, which take seconds."""
    rows, scores, run = read_results(folder / RESULTS), list(read_scores(folder)), read_run(folder)
    tables = writing.all_tables(rows, scores, run, read_costs(folder))
    evidence, browsed = read_evidence(folder), read_samples(folder)
    faithfulness.link(browsed, evidence)
    page.packs_of(browsed, "none")
    texts = writing.csv_text(rows) + writing.origin(run) + writing.leakage(run) + writing.truncation(rows)
    return texts + str([tables, faithfulness.tables(evidence), page.packs_of(browsed)])


@FEWER
@given(data=st.data())
@pytest.mark.parametrize("name", [SCORES, RESULTS, RUN, COSTS, EVIDENCE, SAMPLES])
def test_what_report_shows(name, data, report):
    folder, contents = report
    path, whole = folder / name, contents[name]
    if path.suffix == ".jsonl":
        damaged = damaged_lines([json.loads(line) for line in whole.splitlines()])
    else:
        damaged = damaged_value(json.loads(whole)).map(lambda value: json.dumps(value).encode()) | damaged_bytes(whole)
    path.write_bytes(data.draw(damaged))
    outcome(lambda: shown(folder), path, whole=path.suffix == ".json")


@FEWER
@given(data=st.data())
def test_what_is_compared(data, report):
    folder, contents = report
    path, rows = folder / SCORES, [json.loads(line) for line in contents[SCORES].splitlines()]
    path.write_bytes(data.draw(damaged_lines(rows)))
    options = CompareOptions(report=folder, first=["policy=base"], second=["policy=ours"])
    outcome(lambda: compare_rows(options), path)


@settings(DERANDOMIZED, max_examples=3)  # pictures take seconds
@given(data=st.data())
def test_what_is_drawn(data, report):
    folder, contents = report
    path = folder / RESULTS
    path.write_bytes(json.dumps(data.draw(damaged_value(json.loads(contents[RESULTS])))).encode())
    for draw in (
        lambda: draw_stages(StagesOptions(results=path, out=folder)),
        lambda: plots.write_plots(plots.PlotsOptions(results=folder, out=folder)),
    ):
        outcome(draw, path, whole=True)


@DERANDOMIZED
@given(content=damaged_lines(STEPS))
def test_steps_of_rl(content, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    runs, _ = outcome(lambda: read_runs([f"a={path}"]), path)
    if runs is not None:
        assert all(series(runs["a"], name)[1] is not None for name in STEPS[0])


@settings(DERANDOMIZED, max_examples=3)
@given(content=damaged_lines(STEPS))
def test_curves_of_rl(content, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    outcome(lambda: draw_curves(CurvesOptions(run=[str(path)], out=tmp_path / "curves.png")), path)
