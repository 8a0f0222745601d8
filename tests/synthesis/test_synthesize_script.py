"""synthesize.sh: which node runs which step, with how many processes."""

import pytest

from tests import ROOT

SCRIPT = ROOT / "sft/synthesize.sh"
PYTHON = """#!/bin/bash
echo "$@" >>"$COMMANDS"
"""


@pytest.fixture
def commands(run_script, tmp_path):
    """`commands(VARIABLE=value)` → the commands that a node would run, in order."""
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)

    def run(**variables: str) -> list[str]:
        log = tmp_path / "commands"
        log.unlink(missing_ok=True)
        paths = {
            "PYTHON": str(tmp_path / "python"),
            "COMMANDS": str(log),
            "OUT": str(tmp_path / "out"),
            "DATA": "users.jsonl",
        }
        run_script(["bash", SCRIPT, "--max_tokens", "9"], **paths, **variables)
        return [line.replace(f"{SCRIPT.parent}/", "") for line in log.read_text().splitlines()]

    return run


def test_all_nodes_train_and_only_the_first_does_the_rest(commands):
    nodes = {"NNODES": "2", "MASTER_ADDR": "first", "NPROC": "4"}
    prepared, trained, scored, synthesised = commands(NODE_RANK="0", **nodes)
    assert (
        "--master_addr first --master_port 29501 --nproc_per_node 1 signal_model.py prepare --data users.jsonl"
        in prepared
    )
    assert synthesised.startswith("synthesize.py --data users.jsonl")
    assert "--nnodes 2 --node_rank 0 --master_addr first" in trained and "--nproc_per_node 4 sft.py" in trained
    assert scored.startswith(
        "-m torch.distributed.run --standalone --nproc_per_node 4 signal_model.py score --data users.jsonl"
    )
    assert synthesised.endswith("--max_tokens 9")
    assert commands(NODE_RANK="1", **nodes) == [
        command.replace("--node_rank 0", "--node_rank 1") for command in (prepared, trained)
    ]
    assert commands(NODE_RANK="0", NNODES="1", NPROC="4")[0].startswith("signal_model.py prepare --data users.jsonl")


def test_a_query_for_choices_without_one_reaches_every_step_that_reads_users(commands):
    prepared, trained, *others = commands(NPROC="1", DEFAULT_QUERY="What next?")
    assert (
        all("--default_query What next?" in command for command in (prepared, *others))
        and "default_query" not in trained
    )
