"""Each preset of the launch script, composed by Hydra and validated by verl's own checks, without any GPU."""

import json
import os
import re
import subprocess
from dataclasses import asdict

import pytest

from tests import ROOT

SCRIPT = ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"
OWN = (
    "OUT",
    "MODEL",
    "TRAIN",
    "VAL",
    "JUDGES",
    "VAL_JUDGES",
    "STEPS",
    "EPOCHS",
    "BATCH",
    "MINI_BATCH",
    "PRESET",
    "CREDIT",
    "STAGES",
    "ROLLOUTS",
    "TARGETS",
    "SEED",
    "DEVICE",
    "MODE",
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
    from alignxplore.rl.settings import register_defaults

    register_defaults()
    before = os.environ.get("ROOT")
    os.environ["ROOT"] = str(ROOT)  # as the script exports it
    stub = tmp_path_factory.mktemp("bin") / "python"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)

    def one(*arguments, **variables):
        variables = {"JUDGES": "judge=http://127.0.0.1:8000/v1"} | variables
        process = launch(*arguments, PYTHON=str(stub), OUT="outputs/rl", **variables)
        assert process.returncode == 0, process.stderr
        words = process.stdout.splitlines()
        assert words[:2] == ["-m", "alignxplore.rl.train"]
        folder, name = words[words.index("--config-path") + 1], words[words.index("--config-name") + 1]
        with hydra.initialize_config_dir(folder, version_base=None):
            return hydra.compose(name, words[words.index("--config-name") + 2 :])

    yield one
    os.environ.pop("ROOT") if before is None else os.environ.update(ROOT=before)


def sizes(config):
    from alignxplore.rl.checks import prepare

    return prepare(config)


def hyper_parameters(config):
    """What a preset decides, by the names that the documents use."""
    rollout, actor, data = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.data
    values = sizes(config)
    return {
        "rows a step, an update, updates": (
            values["rows_per_step"],
            values["rows_per_update"],
            values["updates_per_step"],
        ),
        "learning rate": actor.optim.lr,
        "prompt, response, window": (data.max_prompt_length, data.max_response_length, rollout.max_model_len),
        "nodes, GPUs, TP": (config.trainer.nnodes, config.trainer.n_gpus_per_node, rollout.tensor_model_parallel_size),
        "device, dtype": (config.trainer.device, rollout.dtype),
        "judge orders": config.streaming.judge_orders,
        "epochs, steps": (config.trainer.total_epochs, config.trainer.total_training_steps),
        "save, test": (config.trainer.save_freq, config.trainer.test_freq),
        "memory, tokens, sequences": (
            rollout.gpu_memory_utilization,
            actor.ppo_max_token_len_per_gpu,
            rollout.max_num_seqs,
        ),
        "workers": rollout.agent.num_workers,
    }


PAPER = {
    "rows a step, an update, updates": (8192, 2048, 4),
    "learning rate": 1e-6,
    "prompt, response, window": (8192, 4096, 12288),
    "nodes, GPUs, TP": (8, 8, 2),
    "device, dtype": ("cuda", "bfloat16"),
    "judge orders": "per_rollout",
    "epochs, steps": (1, None),
    "save, test": (10, 30),
    "memory, tokens, sequences": (0.6, 24576, 256),
    "workers": 8,
}
NODE = PAPER | {
    "rows a step, an update, updates": (2048, 2048, 1),
    "nodes, GPUs, TP": (1, 8, 2),
    "judge orders": "both",
}
GPU = NODE | {
    "rows a step, an update, updates": (512, 512, 1),
    "prompt, response, window": (4096, 2048, 6144),
    "nodes, GPUs, TP": (1, 1, 1),
    "memory, tokens, sequences": (0.5, 12288, 256),
    "workers": 2,
}
SOLO = GPU | {
    "rows a step, an update, updates": (256, 256, 1),
    "prompt, response, window": (3072, 1024, 4096),
    "memory, tokens, sequences": (0.3, 4096, 128),
}
TINY = {
    "rows a step, an update, updates": (128, 128, 1),
    "learning rate": 3e-4,
    "prompt, response, window": (768, 128, 896),
    "nodes, GPUs, TP": (1, 1, 1),
    "device, dtype": ("cpu", "float32"),
    "judge orders": "both",
    "epochs, steps": (1, 40),
    "save, test": (20, 20),
    "memory, tokens, sequences": (0.6, 8192, 64),
    "workers": 1,
}


@pytest.mark.parametrize(
    ("preset", "expected"), [("paper", PAPER), ("node", NODE), ("gpu", GPU), ("solo", SOLO), ("tiny", TINY)]
)
def test_the_numbers_of_each_preset(compose, preset, expected):
    """Those of `paper` are the published ones (verl/README.md says where each stands)."""
    assert hyper_parameters(compose(PRESET=preset)) == expected


def test_asynchronous_training_has_a_preset_s_sizes_and_twice_its_users_in_writing(compose):
    for preset in ("paper", "node", "gpu", "solo"):
        alone, behind = (sizes(compose(PRESET=preset, MODE=mode)) for mode in ("sync", "async"))
        users = alone["users_per_step"]
        assert alone["users_written_at_once"] == users
        assert behind == alone | {"users_written_at_once": 2 * users}, preset


@pytest.mark.parametrize("preset", ["paper", "node", "gpu", "tiny"])
def test_what_every_preset_has_of_the_published_run(compose, preset):
    config = compose(PRESET=preset)
    rollout, actor, stream = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.streaming
    assert (stream.credit, stream.stages, stream.rollouts, stream.discount) == ("paper", 2, 4, 0.9)
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, -1)
    assert config.algorithm.adv_estimator == "grpo" and not config.algorithm.use_kl_in_reward
    assert not actor.use_kl_loss and actor.entropy_coeff == 0
    assert actor.strategy == "fsdp2" and config.data.truncation == "error"
    assert config.actor_rollout_ref.model.use_remove_padding == (preset != "tiny")


@pytest.mark.parametrize(("preset", "model"), [("gpu", "Qwen/Qwen3-1.7B"), ("solo", "Qwen/Qwen3-0.6B")])
def test_the_presets_of_one_gpu_name_their_model(compose, preset, model):
    assert compose(PRESET=preset).actor_rollout_ref.model.path == model


def test_the_memory_of_each_preset_is_that_of_the_readme(compose):
    """Billions of parameters; GB of states (while vLLM writes, and in training), activations, logits; vLLM's share and
    its cache, kB a token."""
    from alignxplore.rl.memory import memory

    rows = {
        "paper": (8.19, 1.54, 2.05, 7.25, [14.9, 29.9], 0.6, 73.7),
        "node": (8.19, 12.29, 16.38, 7.25, [14.9, 29.9], 0.6, 73.7),
        "gpu": (1.72, 20.65, 27.53, 1.41, [7.5, 14.9], 0.5, 114.7),
        "solo": (0.6, 7.15, 9.54, 0.23, [2.5, 5.0], 0.3, 114.7),
    }
    for preset, row in rows.items():
        figures = memory(compose(PRESET=preset))
        vllm = figures["vllm"]
        parts = [figures[part] for part in ("states_while_writing", "states", "activations", "logits")]
        assert (round(figures["parameters"] / 1e9, 2), *parts, vllm["share"], vllm["cache_kb_a_token"]) == row, preset


def test_policy_and_judge_fit_on_one_gpu_of_40_gb(compose):
    """The judge's share stands in the preset's own words; what is left must hold the trainer, and the policy's vLLM
    beside its states."""
    from alignxplore.rl.memory import memory

    figures, text = memory(compose(PRESET="solo")), (ROOT / "verl/config/preset/solo.yaml").read_text()
    judge = float(re.search(r"--gpu-memory-utilization (\S+)", text)[1])
    writing = 40 * (judge + figures["vllm"]["share"]) + figures["states_while_writing"]
    training = 40 * judge + figures["states"] + figures["activations"] + figures["logits"][1]
    assert max(writing, training) < 36, "some GB for CUDA itself, three times"
    assert 40 * judge - 2 * 1.72 - 1 > 5, "the judge's weights, and a cache"


def test_what_may_not_change_is_found_in_the_composed_settings(compose, tmp_path):
    from alignxplore.rl.same_run import MAY_BE_MISSING, fixed_settings

    (tmp_path / "rows").touch()
    files = {"MODEL": str(tmp_path), "TRAIN": str(tmp_path / "rows"), "VAL": str(tmp_path / "rows")}
    own, other = (
        fixed_settings(compose(JUDGES="a=http://x/v1", **files), 40),
        fixed_settings(compose(JUDGES="a=http://y/v1", STEPS="9", SAVE_EVERY="7", **files), 9),
    )
    assert own == other and own["streaming.judges"] == ["a"] and own["algorithm.adv_estimator"] == "grpo"
    assert (
        own["actor_rollout_ref.actor.optim.lr"] == 1e-6
        and own["actor_rollout_ref.actor.policy_loss.loss_mode"] == "vanilla"
    )
    assert all(
        value is not None
        for name, value in own.items()
        if name.startswith(("data.", "actor_rollout_ref.rollout.val_kwargs.")) and name not in MAY_BE_MISSING
    )
    cosine = compose("actor_rollout_ref.actor.optim.lr_scheduler_type=cosine", JUDGES="a=http://x/v1", **files)
    assert fixed_settings(cosine, 40) != fixed_settings(cosine, 9)


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
        ({"BATCH": "24", "MINI_BATCH": "16"}, (), "no multiple"),
        ({}, ("actor_rollout_ref.rollout.temperature=0.6",), "full softmax"),
        (
            {"RESPONSE_LENGTH": "64"},
            ("actor_rollout_ref.rollout.response_length=32",),
            r"rollout.response_length=32 is not data.max_response_length=64; .*RESPONSE_LENGTH alone",
        ),
        (
            {},
            ("actor_rollout_ref.rollout.prompt_length=9999",),
            r"rollout.prompt_length=9999 is not data.max_prompt_length=.*PROMPT_LENGTH alone",
        ),
        ({"CREDIT": "best"}, (), "choose one of"),
        ({"CREDIT": "tree"}, (), "streaming.credit=tree: choose one of paper, centered"),
        ({}, ("+streaming.branches=2",), "streaming.branches is no setting"),
        ({"JUDGE_ORDERS": "two"}, (), "choose one of"),
        ({}, ("+streaming.lambda=0.9",), "is no setting"),
        ({"SAVE_EVERY": "-1"}, (), "SAVE_EVERY.*there must be one"),
        ({"SAVE_EVERY": "0"}, (), "SAVE_EVERY.*there must be one"),
        ({"SEED": "abc"}, (), r"streaming.seed=abc \(SEED\) is no whole number"),
        ({"PRESET": "node", "GPUS": "6"}, (), r"6 GPUs \(NNODES x GPUS\) must divide the 2048 rows"),
        ({"PRESET": "node", "GPUS": "1"}, (), "a multiple of .*tensor_model_parallel_size=2"),
        (
            {"PRESET": "node", "NNODES": "3", "GPUS": "8", "TP": "3", "BATCH": "192", "MINI_BATCH": "96"},
            (),
            r"=3 \(TP\): GPUS=8 of a node must be a multiple of it.*on parts of two nodes",
        ),
        ({"PRESET": "gpu", "DTYPE": "float32"}, (), "float32 is of the rollouts only, the trainer computes in bf16"),
        ({}, ("streaming.judge_concurrency=0",), "no question would ever be asked"),
        ({}, ("streaming.val_temperature=-0.5",), "val_temperature=-0.5 is no temperature"),
    ],
)
def test_contradictions_are_named(compose, variables, arguments, sentence):
    from alignxplore.rl.settings import SettingsError

    with pytest.raises(SettingsError, match=sentence):
        sizes(compose(*arguments, **{"PRESET": "tiny"} | variables))


@pytest.mark.parametrize("parts", ["4", "8"])
def test_an_engine_may_lie_on_two_whole_nodes(compose, parts):
    assert sizes(compose(PRESET="node", NNODES="2", GPUS="4", TP=parts))["gpus"] == 8


def test_held_out_users_are_decoded_as_in_eval_or_greedily(compose):
    for arguments, temperature, sampled in (((), 0.6, True), (("streaming.val_temperature=0",), 0, False)):
        config = compose(*arguments, PRESET="tiny")
        assert sizes(config)["val_temperature"] == temperature
        decoding = config.actor_rollout_ref.rollout.val_kwargs
        assert (decoding.temperature, decoding.do_sample) == (temperature, sampled)
        assert (decoding.top_p, decoding.top_k) == (0.95, 20)


def test_judges_that_only_validate_arrive_and_are_shown(compose):
    config = compose("streaming.shuffle_rewards=true", VAL_JUDGES="b=http://y:2/v1 c=http://z:3/v1")
    figures = sizes(config)
    assert config.streaming.val_judges == figures["val_judges"] == "b=http://y:2/v1 c=http://z:3/v1"
    assert config.streaming.judges == "judge=http://127.0.0.1:8000/v1" and figures["shuffle_rewards"] is True


def test_a_summary_has_one_target_as_published_or_as_many_as_are_asked_for(compose):
    from alignxplore.rl.settings import SettingsError

    assert sizes(compose())["targets"] == 1 and sizes(compose(PRESET="tiny", TARGETS="8"))["targets"] == 8
    with pytest.raises(SettingsError, match=r"streaming.targets=0 \(TARGETS\)"):
        sizes(compose(TARGETS="0"))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("TARGETS", "x", "whole number"), ("ROLLOUTS", "2.5", "whole number"), ("STAGES", "true", "whole number")]
    + [("SEED", "x", "whole number"), ("DISCOUNT", "high", "number"), ("POLL_SECONDS", "[1]", "number")],
)
def test_what_is_no_number_is_named(compose, name, value, kind):
    from alignxplore.rl.settings import SettingsError

    with pytest.raises(SettingsError, match=rf"streaming.{name.lower()}=.* \({name}\) is no {kind}"):
        sizes(compose(**{name: value}))


def test_steps_get_epochs_enough(compose):
    from alignxplore.rl.checks import planned_steps
    from alignxplore.rl.settings import SettingsError

    config = compose(PRESET="tiny", STEPS="40")
    assert planned_steps(config, 160) == 40 and config.trainer.total_epochs == 4
    assert planned_steps(compose(), 10_000) == 9  # one epoch of whole batches
    assert planned_steps(compose(PRESET="tiny", EPOCHS="3"), 160) == 30, "and not the 40 steps of the preset"
    assert planned_steps(compose(PRESET="tiny", EPOCHS="3", STEPS="5"), 160) == 5
    with pytest.raises(SettingsError, match="no batch"):
        planned_steps(compose(), 1000)


def test_modules_that_verl_is_to_import_are_so_beside_ours(tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$VERL_USE_EXTERNAL_MODULES"\n')
    stub.chmod(0o755)
    ours = "alignxplore.rl.cpu_platform"
    for theirs, names in (("", ours), ("mine.engine", f"{ours},mine.engine")):
        process = launch(PRESET="tiny", PYTHON=str(stub), VERL_USE_EXTERNAL_MODULES=theirs)
        assert process.stdout.strip() == names, process.stderr


def test_an_unknown_preset_and_help():
    assert "choose paper" in launch(PRESET="huge").stderr
    assert "choose cuda or cpu" in launch(DEVICE="gpu").stderr and "choose sync" in launch(MODE="fast").stderr
    page = launch("--help")
    assert page.returncode == 0 and "BATCH= " in page.stdout and "published script" in page.stdout


def test_each_default_stands_once_and_files_win_over_it_and_variables_over_files(compose, tmp_path):
    """Class, streaming.yaml, device, preset, variables, command line: each wins over those before it."""
    from alignxplore.rl.settings import Streaming

    assert re.findall(r"^(\w+)=\$\{\1:-[^}]", SCRIPT.read_text(), re.M) == ["PRESET", "PYTHON"]
    values, defaults = compose().streaming, asdict(Streaming())
    assert {name for name in defaults if name != "tolerance" and values[name] != defaults[name]} == {
        "judges",
        "judge_orders",
        "out",
    }
    assert values.tolerance.bfloat16.mean == defaults["tolerance"]["bfloat16"]["mean"]
    assert compose(PRESET="tiny").streaming.poll_seconds == 0.05, "the file"
    assert compose(PRESET="tiny", POLL_SECONDS="2").streaming.poll_seconds == 2, "the variable"
    assert compose("streaming.poll_seconds=3", PRESET="tiny", POLL_SECONDS="2").streaming.poll_seconds == 3


@pytest.mark.slow
def test_the_script_itself_checks_and_starts_nothing(tmp_path):
    process = launch(CHECK="1", OUT=str(tmp_path / "out"))
    assert process.returncode == 0, process.stderr[-2000:]
    facts = json.loads(process.stdout.strip().splitlines()[-1])
    assert facts["updates_per_step"] == 4 and facts["memory_gb"]["states"] == 2.05 and not (tmp_path / "out").exists()
    assert "actor_rollout_ref.model.lora_rank" in facts["would_refuse"] and "is not there yet" in process.stderr
    process = launch(CHECK="1", OUT=str(tmp_path / "out"), CREDIT="best")
    assert process.returncode == 1 and "choose one of" in process.stderr and "Traceback" not in process.stderr
    process = launch("no.such.key=1", CHECK="1", OUT=str(tmp_path / "out"))
    assert process.returncode == 1
    assert process.stderr.startswith("cannot start: Could not override 'no.such.key'"), process.stderr
    assert process.stderr.count("\n") == 1


def test_a_dtype_whose_probabilities_nothing_would_compare_is_refused(compose):
    from alignxplore.rl.settings import SettingsError

    with pytest.raises(SettingsError, match=r"rollout in float16 .* take one of float32, bfloat16"):
        sizes(compose(DTYPE="float16"))
    assert sizes(compose("+streaming.tolerance.float16.mean=0.02", DTYPE="float16"))
