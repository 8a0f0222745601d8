"""synthesize.sh: which node runs which step, with how many processes."""

import os
import subprocess

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, write_jsonl
from tests import ROOT
from tests.shell import Recorder, values


@pytest.fixture
def commands(tmp_path):
    """`commands(VARIABLE=value)` → the commands that a node would run, in order, after a look at all options."""
    recorder = Recorder(tmp_path)

    def run(**variables: str) -> list[list[str]]:
        recorder.run("sft/synthesize.sh", "--max_tokens", "9", DATA="users.jsonl", OUT="out", **variables)
        look, *others = recorder.commands
        assert look[-3:] == ["--max_tokens", "9", "--check"] and look[0].endswith("synthesize.py")
        assert "--scores" not in look, "nobody is scored yet"
        return others

    return run


def test_users_of_whom_none_can_give_rows_are_refused_before_a_model_is_trained(tmp_path):
    users = [user_row(UserRecord(f"u{n}", (Interaction("a", "b"),) * 3, Interaction("a", "b"))) for n in range(3)]
    write_jsonl(tmp_path / "users.jsonl", users)
    result = subprocess.run(
        ["bash", str(ROOT / "sft/synthesize.sh")],
        env=os.environ | {"DATA": str(tmp_path / "users.jsonl"), "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1 and "none of 3 users can give SFT rows" in result.stderr and not result.stdout
    assert not (tmp_path / "out").exists()


def launched(command: list[str]) -> list[str]:
    return command[: next(i for i, word in enumerate(command) if word.endswith(".py"))]


def test_all_nodes_train_and_only_the_first_does_the_rest(commands):
    nodes = {"NNODES": "2", "MASTER_ADDR": "first", "NPROC": "4"}
    prepared, trained, scored, synthesised = commands(NODE_RANK="0", **nodes)
    node = [
        "-m",
        "alignxplore.torchrun",
        "--nnodes",
        "2",
        "--node_rank",
        "0",
        "--master_addr",
        "first",
        "--master_port",
    ]
    assert launched(prepared) == [*node, "29501", "--nproc_per_node", "1"]
    assert launched(trained) == [*node, "29500", "--nproc_per_node", "4"]
    assert launched(scored) == ["-m", "alignxplore.torchrun", "--standalone", "--nproc_per_node", "4"]
    assert launched(synthesised) == [] and synthesised[-2:] == ["--max_tokens", "9"]
    assert values(trained, "--train_data") == ["out/signal_set"] == values(prepared, "--output")
    assert values(scored, "--model") == ["out/signal_model"] == values(trained, "--output_dir")
    assert values(synthesised, "--scores") == [f"{values(scored, '--output')[0]}/scores.jsonl"]
    for other, first in zip(commands(NODE_RANK="1", **nodes), (prepared, trained), strict=True):
        first[first.index("--node_rank") + 1] = "1"
        assert other == first
    assert launched(commands(NODE_RANK="0", NNODES="1", NPROC="4")[0]) == []


def test_a_query_for_choices_without_one_reaches_every_step_that_reads_users(commands):
    prepared, trained, *more_commands = commands(NPROC="1", DEFAULT_QUERY="What next?")
    assert all(values(command, "--default_query") == ["What next?"] for command in (prepared, *more_commands))
    assert "--default_query" not in trained


def test_streams_are_cut_to_what_the_signal_model_trains_on(commands, tmp_path):
    """Longer ones would be left out of its training whole."""
    config = tmp_path / "signal.yaml"
    config.write_text("seed: 1\nmax_length: 2048   # tokens\n")
    prepared, _, scored, _ = commands(NPROC="1", SIGNAL_CONFIG=str(config))
    assert values(prepared, "--max_length") == ["2048"] == values(scored, "--max_length")
    prepared, *_ = commands(NPROC="1")
    assert values(prepared, "--max_length") == ["8192"], "that of the published settings"
    config.write_text("seed: 1\n")
    assert not any("--max_length" in command for command in commands(NPROC="1", SIGNAL_CONFIG=str(config)))
