"""The arithmetic of a step: what can be worked out by hand comes out, and each assumption moves what it should."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from alignxplore.environment import ROOT
from alignxplore.rl.step_model import Assumptions, Engine, a_step_behind, deal, passes, step, updates

ENGINE = Engine(slots=8, cache=1e6, weights=1.0, token=0.01, prompt=0.1)
PAPER = Assumptions(users=256)  # a quarter of the users: the same relations in less time


def written(engine: Engine, prompts: list, answers: list) -> tuple[float, float]:
    return engine.write(np.array(prompts), np.array(answers))


def test_one_answer_takes_its_prompt_and_a_step_for_each_token():
    seconds, tail = written(ENGINE, [[100]], [[[10]]])
    assert seconds == pytest.approx(100 * 0.1 + 10 * (1.0 + 0.01 * (100 + 5)))
    assert tail == 0


def test_answers_side_by_side_share_the_weights_and_a_group_its_prompt():
    seconds, tail = written(ENGINE, [[100]], [[[10, 20, 20, 20]]])
    first = 10 * (1 + 0.01 * (4 * 100 + 5 + 3 * 10))
    assert seconds == pytest.approx(100 * 0.1 + first + 10 * (1 + 0.01 * 3 * 110))
    assert tail == 0
    longest, tail = written(ENGINE, [[100]], [[[10, 10, 10, 50]]])
    assert tail == pytest.approx(40 * (1 + 0.01 * 125)) and longest > tail  # three of four slots stand empty


def test_the_second_stage_waits_for_the_drawn_answer_alone():
    free = replace(ENGINE, token=0.0, prompt=0.0)
    assert written(free, [[1, 1]], [[[10, 50], [10, 10]]])[0] == pytest.approx(50)  # beside the long one
    assert written(free, [[1, 1]], [[[50, 10], [10, 10]]])[0] == pytest.approx(60)  # after it


@pytest.mark.parametrize("narrow", [{"slots": 1}, {"cache": 25}])
def test_without_room_answers_are_written_one_after_the_other(narrow):
    engine = replace(ENGINE, token=0.0, prompt=0.0, **narrow)
    assert written(engine, [[10], [10]], [[[10]], [[10]]])[0] == pytest.approx(20)


def test_each_row_goes_to_one_rank_and_all_ranks_get_as_many():
    rows = np.random.default_rng(0).integers(1, 1000, 64)
    dealt = deal(rows, 8)
    assert sorted(row for rank in dealt for row in rank) == sorted(rows.tolist())
    assert {len(rank) for rank in dealt} == {8}
    assert max(map(sum, dealt)) < 1.02 * rows.sum() / 8


def test_passes_hold_no_more_than_their_tokens():
    tokens = passes([9, 8, 7, 3, 2, 1], 10)
    assert sum(tokens) == 30 and max(tokens) <= 10 and len(tokens) == 3


def test_an_update_holds_the_same_rows_for_any_number_of_ranks():
    def rows(ranks: int) -> list[list[int]]:
        return [sorted(row for rank in update for row in rank) for update in updates(PAPER, ranks)]

    assert rows(8) == rows(64) and [len(update) for update in rows(8)] == [512] * 4


def test_each_assumption_moves_what_it_should():
    plain = step(PAPER, 64, "sync")
    assert plain.total == pytest.approx(plain.write + plain.judge + plain.train + plain.serial)
    assert step(replace(PAPER, fsdp_size=8), 64, "sync").traffic < plain.traffic / 2
    assert step(replace(PAPER, balance="step"), 64, "sync").imbalance > 2 * plain.imbalance
    assert step(replace(PAPER, spread=1e-6), 64, "sync").tail < plain.tail
    assert step(replace(PAPER, judge_gpus=1), 64, "sync").judge > 0 == plain.judge
    assert step(PAPER, 64, "partial").write == pytest.approx(plain.write - plain.tail, rel=0.5)
    assert step(replace(PAPER, card="A100"), 64, "sync").train > 2 * plain.train


def test_who_trains_a_step_behind_waits_for_no_tail_but_for_every_stream():
    assert a_step_behind(144, 240) == 96, "the tail of the first hides behind the second"
    assert a_step_behind(58, 69) == 29, "each stream has the time of two steps, and no more"
    few = step(PAPER, 512, "sync"), step(PAPER, 512, "partial")  # so few users an engine that the longest is all
    assert few[1].write == pytest.approx(few[0].write / 2)


def test_a_policy_too_large_for_the_cards_is_said_to_be():
    assert step(PAPER, 1, "sync").reason == "weights, gradients and Adam take 131 GB a GPU"
    assert "longest row" in step(replace(PAPER, gpu_memory=0.21, tp=1), 64, "sync").reason
    assert step(replace(PAPER, model="Qwen3-1.7B"), 1, "separate").reason == "too few GPUs to part"


def test_the_command_prints_its_assumptions_and_refuses_what_cannot_be_meant():
    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "benchmarks/step_model.py", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    output = run("--gpus", "64", "--users", "64")
    assert output.returncode == 0 and '"step_model"' in output.stdout.splitlines()[-1]
    for name in ("writing_share", "H100 memory_speed", "driver"):
        assert name in output.stdout
    assert "one of A100, H100, H200" in run("--card", "H1").stderr
    assert "longest row" in run("--tokens_per_gpu", "100").stderr
    assert "metrics.jsonl" in run("--measured", "README.md").stderr


@pytest.mark.parametrize("preset", ["paper", "node", "gpu"])
def test_a_preset_s_seconds_are_those_of_the_options_that_its_page_names(preset):
    page = " ".join((ROOT / "verl/README.md").read_text(encoding="utf-8").split())
    (seconds,) = re.findall(rf"\| `{preset}` \|[^|]*\|[^|]*\|[^|]*\|[^|]*\| (\d+) s \|", page)
    options = {
        "paper": "",
        "node": re.findall(r"\(`node`: `([^`]*)`\)", page)[0],
        "gpu": re.findall(r"`gpu` has shorter ones: `([^`]*)`", page)[0],
    }[preset]
    command = [sys.executable, ROOT / "benchmarks/step_model.py", *options.split()]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert round(json.loads(output.stdout.splitlines()[-1])["ours"]) == int(seconds), output.stderr
