"""From raw behaviour to a trained policy and to RL rows in one go: every script that comes before RL, for real, on
forty users."""

import asyncio
import json
import sys

import pyarrow.parquet as pq
import pytest
from aiohttp.test_utils import TestServer

from alignxplore.records import write_jsonl
from alignxplore.world.long_users import long_users
from alignxplore.world.oracle import make_app
from tests import ROOT

USERS = 40


@pytest.mark.slow
async def test_behaviour_becomes_a_policy_and_rl_rows(fake_server, careful_judge, model_folder, run_script, tmp_path):
    users, signal, out, python = (
        tmp_path / "users.jsonl",
        tmp_path / "signal.jsonl",
        tmp_path / "synthesis",
        sys.executable,
    )
    write_jsonl(users, long_users(1, USERS, 24))
    write_jsonl(signal, long_users(1, 2 * USERS, 24, "signal"))
    async with TestServer(make_app(0.1, 0.2)) as teacher, fake_server(careful_judge) as judge:
        # a random model foresees nothing, so that its threshold is what chance gives
        variables = {
            "DATA": str(users),
            "SIGNAL_DATA": str(signal),
            "OUT": str(out),
            "NPROC": "1",
            "SIGNAL_MODEL": str(model_folder),
            "SIGNAL_CONFIG": str(ROOT / "sft/configs/signal_tiny.yaml"),
            "TEACHER": f"teacher={teacher.make_url('/v1')}#{model_folder}",
            "JUDGE": f"judge={judge.url}#{model_folder}",
        }
        command = ["bash", ROOT / "sft/synthesize.sh", "--signal", 0.4, "--max_tokens", 256]
        await asyncio.to_thread(run_script, command, **variables)
    funnel = json.loads((out / "funnel.json").read_text())
    assert funnel["users"] == USERS and funnel["sft_rows"] == 2 * funnel["outcomes"]["done"] > 10
    foresight = json.loads((out / "signal_scores" / "foresight.json").read_text())
    assert (foresight["users"], foresight["choices"]) == (USERS, 24 * USERS)

    command = [python, ROOT / "sft/sft.py", "--config", ROOT / "sft/configs/tiny.yaml"]
    command += ["--model_name_or_path", model_folder, "--train_data", out / "sft.jsonl"]
    run_script([*command, "--out", tmp_path / "policy"])
    assert (
        json.loads((tmp_path / "policy" / "summary.json").read_text())
        and (tmp_path / "policy" / "model.safetensors").is_file()
    )

    weak = min((out / "signal_model").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    run_script(
        [
            python,
            ROOT / "sft/signal_model.py",
            "score",
            "--data",
            users,
            "--model",
            weak,
            "--output",
            tmp_path / "weak",
        ]
    )
    run_script([python, ROOT / "sft/select_rl.py", "--data", users, "--strong", out / "signal_scores/scores.jsonl",
                "--weak", tmp_path / "weak/scores.jsonl", "--output", tmp_path / "rl.jsonl", "--b", 0.4])  # fmt: skip
    to_parquet = ROOT / "verl/examples/data_preprocess/upi_streaming_dataset.py"
    run_script([python, to_parquet, "--data", tmp_path / "rl.jsonl", "--out", tmp_path / "rl.parquet"])
    rows, counts = (
        pq.read_table(tmp_path / "rl.parquet").to_pylist(),
        json.loads((tmp_path / "rl.counts.json").read_text()),
    )
    assert len(rows) == counts["rows"] > 10 and counts["rows"] + counts["too_few_targets"] == USERS
    histories = {row["userid"]: [*row["history"], row["target"]] for row in long_users(1, USERS, 24)}
    for row in rows:
        assert row["history"] == histories[row["user"]][: row["positions"][-1] + 1] and len(row["positions"]) == 2
