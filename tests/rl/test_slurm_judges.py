"""The Slurm template's judges, with the stand-ins of test_cluster_scripts.py: which are asked, and what the end of one
ends; and the address of the first node."""

import os
import signal

import pytest

from tests.rl.test_cluster_scripts import (  # noqa: F401  # fixture
    alive,
    gone,
    stage,
    submit,
    texts,
    wait_for_run,
)

WATCHED = {"JUDGE_MODELS": "a=org/A", "VAL_JUDGE_MODELS": "b=org/B"}


def ended(stage, model, **variables):  # noqa: F811
    """Exit code and output of a job one of whose judges is killed while the run is going on."""
    process = submit(stage, **WATCHED | variables)
    wait_for_run(stage)
    (judge,) = alive(stage, f"alignxplore.serving {model}")
    os.kill(int(judge), signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    return process.returncode, output


def test_a_lost_judge_that_only_validates_stops_nothing(stage):  # noqa: F811
    code, output = ended(stage, "org/B", RUN_TICKS="60")
    assert code == 0 and "saved" not in texts(stage), output
    assert output.count("judge b=org/B ended; the run goes on without it") == 1
    assert gone(stage, "rl.train") and gone(stage, "serving") and gone(stage, "ray start")


def test_beside_one_that_only_validates_a_lost_judge_of_the_reward_ends_the_job(stage):  # noqa: F811
    code, output = ended(stage, "org/A", RUN_TICKS="900")
    assert code == 1 and "a judge of the reward or a node of Ray ended" in output and "saved" in texts(stage)


def test_a_judge_that_only_validates_must_come_up(stage):  # noqa: F811
    process = submit(stage, **WATCHED | {"VAL_JUDGE_MODELS": "bad"})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "a step ended while waiting for" in output
    assert not alive(stage, "rl.train") and gone(stage, "serving")


@pytest.mark.parametrize(
    ("models", "nodes", "judges"),
    [
        ("", "n0 n1 n2", "mine=http://mine:8000/v1"),
        ("a=org/A", "n0 n1 n2 j0", "mine=http://mine:8000/v1 a=http://j0:8000/v1"),
    ],
)
def test_judges_that_run_elsewhere_give_the_reward_too(stage, models, nodes, judges):  # noqa: F811
    process = submit(stage, nodes, JUDGES="mine=http://mine:8000/v1", JUDGE_MODELS=models)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    run = next(text for text in texts(stage) if "alignxplore.rl.train" in text)
    assert f"streaming.judges='{judges}' " in run


def test_without_any_judge_the_published_one_gets_a_node(stage):  # noqa: F811
    process = submit(stage, "n0 n1 n2 j0", JUDGE_MODELS="")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and 'JUDGES="qwen3=http://j0:8000/v1"' in output, output


def test_a_first_node_without_an_address_is_named(stage, tmp_path):  # noqa: F811
    (tmp_path / "bin/getent").write_text("#!/bin/bash\nexit 2\n")
    output, _ = (process := submit(stage, HEAD_IP="")).communicate(timeout=30)
    assert process.returncode == 2 and "n0 has no IPv4 address here: set HEAD_IP" in output, output
    assert not stage.seen()
