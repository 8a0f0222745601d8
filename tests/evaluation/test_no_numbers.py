"""Weights that are no numbers, in a real model: named before anything is served or started; and behind a real server,
which cannot be looked into, by what comes back."""

import math
import sys

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, write_jsonl
from tests import ROOT
from tests.conftest import serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A Qwen3 with one weight that is no number."""
    import torch

    from alignxplore.world.tiny import make_model

    path = tmp_path_factory.mktemp("model") / "lost"
    model = make_model(tokenizer, seed=1, hidden=64, layers=2)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = math.nan
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """What NAME=TARGET says of a real vLLM that serves it."""
    with serve(str(folder), log_path=tmp_path_factory.mktemp("log") / "vllm.log") as url:
        yield f"{url}#{folder}"


@pytest.fixture
def users(tmp_path):
    history = tuple(Interaction(f"film {i}", f"other {i}", "which?") for i in range(6))
    records = [UserRecord(f"u{n}", history, Interaction(f"good film {n}", "a bad one", "which?")) for n in range(6)]
    write_jsonl(tmp_path / "world_films_upi.jsonl", map(user_row, records))
    return tmp_path / "world_films_upi.jsonl"


def ended(run_script, command, users, out, expect):
    """What a command said."""
    process = run_script([sys.executable, *command, "--data", users, "--out", out], expect)
    return process.stdout + process.stderr


def test_a_policy_and_a_judge_are_named_before_they_are_served(folder, users, run_script, tmp_path):
    write, judge = ["eval/gen_preference.py", "--model", folder], ["eval/evaluate.py", "--judge", folder]
    for command in (write, judge):
        output = ended(run_script, command, users, tmp_path / "out", 1)
        assert (
            f"{folder / 'model.safetensors'} holds values that are no numbers" in output and "Traceback" not in output
        )
        assert "model.layers.1.mlp.down_proj.weight" in output
    assert not list(tmp_path.rglob("*.log")), "nothing was served"


def test_a_start_of_rl_too(folder, run_script, tmp_path):
    script = ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"
    paths = {"MODEL": str(folder), "OUT": str(tmp_path / "out"), "JUDGES": "j=http://127.0.0.1:9/v1"}
    rows = [
        {"uid": f"u{n}", "history": [{"query": None, "chosen": f"a {i}", "rejected": "b"} for i in range(7)]}
        for n in range(9)
    ]
    write_jsonl(tmp_path / "rl.jsonl", [row | {"mid_position": 3} for row in rows])
    prepare = [
        sys.executable,
        "verl/examples/data_preprocess/upi_streaming_dataset.py",
        "--data",
        tmp_path / "rl.jsonl",
    ]
    run_script([*prepare, "--out", tmp_path / "t.parquet", "--val-out", tmp_path / "v.parquet", "--val-users", 2])
    paths |= {"PRESET": "tiny", "TRAIN": str(tmp_path / "t.parquet"), "VAL": str(tmp_path / "v.parquet")}
    process = run_script(["bash", script], 1, **paths, BATCH="4", MINI_BATCH="4")
    output = process.stdout + process.stderr
    assert "cannot start: " in output and "holds values that are no numbers" in output and "Traceback" not in output, (
        output
    )
    assert "starting Ray" not in output and not (tmp_path / "out/log").exists()


def test_behind_a_server_a_policy_is_told_by_its_bad_format(url, users, run_script, tmp_path):
    out = tmp_path / "out"
    command = ["eval/gen_preference.py", "--model", f"far={url}", "--settings", "full", "--max_tokens", 32]
    output = ended(run_script, command, users, out, 0)
    assert (
        "6 of 6 summaries are in bad format (100 %)" in output
        and "look at" in output
        and "the model's weights" in output
    )
    assert "'!!!!!!!!" in output and "Traceback" not in output, output


def test_and_a_judge_is_refused(url, users, run_script, tmp_path):
    command = ["eval/evaluate.py", "--judge", f"far={url}", "--concurrency", 4]
    output = ended(run_script, command, users, tmp_path / "out", 1)
    last = output.strip().splitlines()[-1]
    assert "far" in last and "no numbers" in last and "Traceback" not in output, output
