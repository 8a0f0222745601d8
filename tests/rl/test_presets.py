"""Each preset of the launch script, composed by Hydra and validated by verl's own checks, without any GPU."""

import json
import os
import subprocess

import pytest

from tests import ROOT

SCRIPT = ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"
OWN = (
    "OUT",
    "MODEL",
    "TRAIN",
    "VAL",
    "JUDGES",
    "STEPS",
    "BATCH",
    "MINI_BATCH",
    "PRESET",
    "CREDIT",
    "STAGES",
    "ROLLOUTS",
    "SEED",
    "DEVICE",
    "LR",
)


def launch(*arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in OWN}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment | variables, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """The configuration that the script starts a run with: the script is given a Python that only prints its
    arguments."""
    hydra = pytest.importorskip("hydra")
    pytest.importorskip("verl")
    stub = tmp_path_factory.mktemp("bin") / "python"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def one(*arguments, **variables):
        done = launch(*arguments, PYTHON=str(stub), CHECK="1", OUT="outputs/rl", **variables)
        assert done.returncode == 0, done.stderr
        words = done.stdout.splitlines()
        assert words[:2] == ["-m", "alignxplore.rl.train"]
        folder, name = words[words.index("--config-path") + 1], words[words.index("--config-name") + 1]
        with hydra.initialize_config_dir(folder, version_base=None):
            return hydra.compose(name, words[words.index("--config-name") + 2 :])

    return one


def sizes(config):
    from alignxplore.rl.checks import prepare

    return prepare(config)


def test_paper_makes_the_published_updates(compose):
    found = sizes(compose())
    assert found["users_per_step"] == 1024 and found["rows_per_user"] == 8 and found["gpus"] == 64
    assert found["rows_per_update"] == 2048 and found["updates_per_step"] == 4
    assert found["credit"] == "paper" and found["stages"] == 2


def test_paper_settings_as_composed(compose):
    config = compose()
    rollout, actor, stream = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.streaming
    assert (stream.rollouts, stream.discount, stream.judge_orders) == (4, 0.9, "per_rollout")
    assert (config.data.max_prompt_length, config.data.max_response_length, rollout.max_model_len) == (
        8192,
        4096,
        12288,
    )
    assert actor.optim.lr == 1e-6 and actor.use_kl_loss is False and actor.entropy_coeff == 0
    assert config.algorithm.adv_estimator == "grpo" and config.algorithm.use_kl_in_reward is False
    assert (rollout.temperature, rollout.top_p, rollout.top_k, rollout.tensor_model_parallel_size) == (1.0, 1.0, -1, 2)
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node, config.trainer.device) == (8, 8, "cuda")
    assert (config.trainer.total_epochs, config.trainer.total_training_steps, config.trainer.save_freq) == (
        1,
        None,
        30,
    )
    assert (
        actor.strategy == "fsdp2"
        and config.data.truncation == "error"
        and config.actor_rollout_ref.model.use_remove_padding
    )


def test_what_may_not_change_is_found_in_the_composed_settings(compose):
    from alignxplore.rl.same_run import fixed_settings

    found, other = (
        fixed_settings(compose(JUDGES="a=http://x/v1")),
        fixed_settings(compose(JUDGES="a=http://y/v1", STEPS="9", SAVE_EVERY="7")),
    )
    assert found == other and found["streaming.judges"] == ["a"] and found["algorithm.adv_estimator"] == "grpo"
    assert (
        found["actor_rollout_ref.actor.optim.lr"] == 1e-6
        and found["actor_rollout_ref.actor.policy_loss.loss_mode"] == "vanilla"
    )
    assert all(
        value is not None
        for name, value in found.items()
        if name.startswith(("data.", "actor_rollout_ref.rollout.val_kwargs."))
    )


@pytest.mark.parametrize(("preset", "gpus"), [("node", 8), ("gpu", 1), ("tiny", 1)])
def test_smaller_presets(compose, preset, gpus):
    found = sizes(compose(PRESET=preset))
    assert found["gpus"] == gpus and found["rows_per_step"] == found["rows_per_update"] * found["updates_per_step"]


def test_one_node_keeps_the_size_of_an_update(compose):
    assert sizes(compose(PRESET="node"))["rows_per_update"] == 2048


def test_tree_counts_trunk_and_branches(compose):
    assert sizes(compose(PRESET="tiny", CREDIT="tree", BRANCHES="2"))["rows_per_user"] == 12


def test_hydra_arguments_win_over_variables(compose):
    assert compose("actor_rollout_ref.actor.optim.lr=5e-7", LR="1e-6").actor_rollout_ref.actor.optim.lr == 5e-7


def test_values_with_equals_signs_and_spaces_arrive_whole(compose):
    config = compose(
        JUDGES="a=http://x:1/v1 b=http://y:2/v1", TRAIN="dir with=odd/name.parquet", JUDGE_TOKENIZER="a=p b=q"
    )
    assert (
        config.streaming.judges == "a=http://x:1/v1 b=http://y:2/v1" and config.streaming.judge_tokenizer == "a=p b=q"
    )
    assert config.data.train_files == "dir with=odd/name.parquet"


@pytest.mark.parametrize(
    ("variables", "arguments", "sentence"),
    [
        ({"STAGES": "3", "CREDIT": "tree", "BRANCHES": "2"}, (), "tree needs streaming.stages=2"),
        ({"BATCH": "24", "MINI_BATCH": "16"}, (), "no multiple"),
        ({}, ("actor_rollout_ref.rollout.temperature=0.6",), "full softmax"),
        ({"CREDIT": "best"}, (), "choose one of"),
        ({"JUDGE_ORDERS": "two"}, (), "choose one of"),
        ({}, ("+streaming.lambda=0.9",), "is no setting"),
        ({"SAVE_EVERY": "-1"}, (), "SAVE_EVERY.*there must be one"),
        ({"SAVE_EVERY": "0"}, (), "SAVE_EVERY.*there must be one"),
        ({"SEED": "abc"}, (), r"streaming.seed=abc \(SEED\) is no whole number"),
        ({"PRESET": "node", "GPUS": "6"}, (), r"6 GPUs \(NNODES x GPUS\) must divide the 2048 rows"),
        ({"PRESET": "node", "GPUS": "1"}, (), "a multiple of .*tensor_model_parallel_size=2"),
        ({"PRESET": "gpu", "DTYPE": "float32"}, (), "float32 is of the rollouts only, the trainer computes in bf16"),
        ({"BRANCHES": "2"}, (), "BRANCHES.* is for streaming.credit=tree only, this is paper"),
        ({}, ("streaming.judge_concurrency=0",), "no question would ever be asked"),
    ],
)
def test_contradictions_are_named(compose, variables, arguments, sentence):
    from alignxplore.rl.settings import SettingsError

    with pytest.raises(SettingsError, match=sentence):
        sizes(compose(*arguments, **{"PRESET": "tiny"} | variables))


def test_steps_get_epochs_enough(compose):
    from alignxplore.rl.checks import planned_steps
    from alignxplore.rl.settings import SettingsError

    config = compose(PRESET="tiny", STEPS="40")
    assert planned_steps(config, 160) == 40 and config.trainer.total_epochs == 4
    assert planned_steps(compose(), 10_000) == 9  # one epoch of whole batches
    with pytest.raises(SettingsError, match="no batch"):
        planned_steps(compose(), 1000)


def test_an_unknown_preset_and_help():
    assert "choose paper" in launch(PRESET="huge").stderr
    page = launch("--help")
    assert page.returncode == 0 and "BATCH=1024" in page.stdout and "published script" in page.stdout


@pytest.mark.slow
def test_the_script_itself_checks_and_starts_nothing(tmp_path):
    done = launch(CHECK="1", OUT=str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        json.loads(done.stdout.strip().splitlines()[-1])["updates_per_step"] == 4 and not (tmp_path / "out").exists()
    )
    done = launch(CHECK="1", OUT=str(tmp_path / "out"), CREDIT="best")
    assert done.returncode == 1 and "choose one of" in done.stderr and "Traceback" not in done.stderr


def test_a_dtype_whose_probabilities_nothing_would_compare_is_refused(compose):
    from alignxplore.rl.settings import SettingsError

    with pytest.raises(SettingsError, match=r"rollout in float16 .* take one of float32, bfloat16"):
        sizes(compose(DTYPE="float16"))
    assert sizes(compose("+streaming.tolerance.float16.mean=0.02", DTYPE="float16"))
