"""samples.jsonl: whose rows are shown, and what is known of each."""

import base64
import gzip
import json
from dataclasses import replace

import pytest

from alignxplore.evaluation.benchmarks import Benchmark, SummarySet
from alignxplore.evaluation.report import page, samples
from alignxplore.evaluation.worth import Score
from alignxplore.prompts import PromptSet
from alignxplore.records import write_json, write_jsonl
from tests.evaluation.made_up import score

PROMPTS = PromptSet("default")
CUE = score(policy="longer", setting="none", judge="none")
OURS = score(policy="rl")


@pytest.fixture
def benchmark(record, tmp_path) -> Benchmark:
    records = tuple(record(str(i)) for i in range(samples.SAMPLES + 100))
    return Benchmark("mind", "recommendation", records, tmp_path / "mind_upi.jsonl")


def test_a_sample_is_the_smallest_ids_whatever_the_results(benchmark):
    scores = [replace(CUE, record=r.id) for r in benchmark.records]
    rows = samples.sample_rows([benchmark], [], scores, PROMPTS)
    assert [row["record"] for row in rows] == sorted(r.id for r in benchmark.records)[: samples.SAMPLES]
    assert len(rows) >= 200
    assert all(row["shown"] == 4 == len(row["history"]) and row["scores"][0]["value"] == 1.0 for row in rows)


@pytest.mark.parametrize(
    ("kind", "score_fields"),
    [
        ("bad format", [{"value": 0.5, "outcome": "bad_format"}]),
        ("answer not read", [{"value": 0.5, "outcome": "parse_failure", "unread": ("Hm.",)}]),
        ("missing", [{"value": None, "outcome": "missing"}]),
        ("wrong", [{"value": 0.0, "outcome": "ok"}]),
        ("flips with the order", [{"value": 0.5, "outcome": "ok", "p": 0.5, "flips": (True,)}]),
        ("policies disagree", [{"value": 1.0, "outcome": "ok"}, {"value": 0.0, "outcome": "ok", "policy": "sft"}]),
    ],
)
def test_beside_it_are_some_of_each_kind(benchmark, kind, score_fields):
    last = sorted(r.id for r in benchmark.records)[-samples.OF_EACH_KIND - 5 :]
    scores = [replace(OURS, **fields, record=r) for r in last for fields in score_fields]
    rows = samples.sample_rows([benchmark], [], scores, PROMPTS)
    assert [row["record"] for row in rows[samples.SAMPLES :]] == last[: samples.OF_EACH_KIND]
    assert all(kind in row["kinds"] and len(row["scores"]) == len(score_fields) for row in rows[samples.SAMPLES :])
    assert all(row["kinds"] == [] for row in rows[: samples.SAMPLES])


def test_another_user_s_summary_and_a_cue_are_of_no_kind(benchmark):
    wrong = {"value": 0.0, "record": benchmark.records[0].id}
    assert samples.kinds_of([replace(CUE, **wrong), replace(OURS, **wrong, policy="other user's (rl)")]) == {}


@pytest.fixture
def run_files(benchmark, tmp_path) -> tuple[SummarySet, list[Score]]:
    """A streaming run of one record: the first stage is bad format and could not be shown the oldest interaction."""
    summaries = SummarySet(tmp_path, "rl", "mind", "streaming", 0)
    summaries.journal_path.parent.mkdir(parents=True)
    bad = {"text": "no end", "reasoning": "", "summary": "", "problem": "not exactly one think block", "dropped": 1}
    good = {"text": "<think>r</think>s", "reasoning": "r", "summary": "Likes sport.", "problem": None, "dropped": 0}
    row = {"id": "1", "status": "ok", "user": "u", "record": benchmark.records[0].id, "run": "x", "error": None}
    row["stages"] = [bad, good]
    write_jsonl(summaries.journal_path, [row])
    meta = {"prompt_set": "default", "prompt_hash": PROMPTS.hash("infer"), "sampling": {"form": "think"}, "run": "x"}
    write_json(summaries.meta_path, meta)
    return summaries, [replace(OURS, setting="streaming", record=benchmark.records[0].id)]


def test_prompts_are_those_that_were_asked(benchmark, run_files):
    small = Benchmark("mind", "recommendation", benchmark.records[:1], benchmark.path)
    [row] = samples.sample_rows([small], [run_files[0]], run_files[1], PROMPTS)
    first, second = row["summaries"][0]["stages"]
    record = small.records[0]
    assert first["text"] == "no end" and "text" not in second
    slices = [record.history[:2], record.history[2:4]]
    for stage, prompt in ((first, PROMPTS.infer(slices[0][1:], "")), (second, PROMPTS.infer(slices[1], ""))):
        assert row["prompts"][stage["prompt"]].endswith(prompt[-1]["content"])
    question = PROMPTS.judge("Likes sport.", record.target.query, *record.target.items)
    assert row["prompts"][row["scores"][0]["prompt"]].endswith(question[-1]["content"])


def test_the_history_holds_what_a_published_fit_showed_of_its_end(benchmark, run_files):
    """Of six interactions the newer three: their first two thirds end with the fifth."""
    summaries, scores = run_files
    meta = json.loads(summaries.meta_path.read_text())
    write_json(summaries.meta_path, meta | {"fit": "published"})
    [row] = [json.loads(line) for line in summaries.journal_path.read_text().splitlines()]
    row["stages"][0]["dropped"] = 3
    write_jsonl(summaries.journal_path, [row])
    small = Benchmark("mind", "recommendation", benchmark.records[:1], benchmark.path)
    [sample] = samples.sample_rows([small], [summaries], scores, PROMPTS)
    assert sample["shown"] == 5 and [x["chosen"] for x in sample["history"]] == [
        x.chosen for x in small.records[0].history[:5]
    ]
    assert all("prompt" not in stage for stage in sample["summaries"][0]["stages"])


def test_a_prompt_of_other_templates_is_not_made_up(benchmark, run_files):
    meta = json.loads(run_files[0].meta_path.read_text())
    write_json(run_files[0].meta_path, meta | {"prompt_hash": "another"})
    small = Benchmark("mind", "recommendation", benchmark.records[:1], benchmark.path)
    [row] = samples.sample_rows([small], [run_files[0]], run_files[1], PROMPTS)
    assert all("prompt" not in stage for stage in row["summaries"][0]["stages"])


def test_the_middle_of_a_long_prompt_is_left_out_and_it_says_so():
    sample = samples.Sample("b", "r", "u", [], {}, 0, [])
    place = sample.prompt([{"role": "user", "content": "a" * 5000 + "b" * 5000}])
    text = sample.prompts[place]
    assert len(text) < samples.LONGEST_PROMPT + 100 and "2007 characters left out" in text
    assert sample.prompt([{"role": "user", "content": "a" * 5000 + "b" * 5000}]) == place, "once, however often"


def test_a_page_that_would_grow_too_large_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(page, "BUDGET", 3000)
    history = [{"chosen": f"{i} {'x y z'[i % 5]} {i**5}", "rejected": None, "query": None} for i in range(60)]
    sample = {"benchmark": "mind", "record": "r", "prompts": [str(i**7) for i in range(600)], "history": history}
    sample |= {"summaries": [{"stages": [{"prompt": 1, "summary": "s"}]}], "scores": [{"prompt": 2}], "shown": 60}
    [pack] = page.packs_of([sample])
    [packed_sample] = json.loads(gzip.decompress(base64.b64decode(pack.data)))
    assert len(pack.data) <= 3000 and packed_sample["prompts"] == [] and "prompt" not in packed_sample["scores"][0]
    assert pack.omissions == "Left out for size: prompts; samples.jsonl has them."
    monkeypatch.setattr(page, "BUDGET", 400)
    [pack] = page.packs_of([sample])
    [packed_sample] = json.loads(gzip.decompress(base64.b64decode(pack.data)))
    assert (
        packed_sample["history"] == history[-len(packed_sample["history"]) :]
        and f"newest {len(packed_sample['history'])} inter" in pack.omissions
    )
