"""What the launcher decides before and after Ray: what cannot be trained, exit codes and their sentences."""

import contextlib
import json
import math
import re
import signal
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from omegaconf import OmegaConf
from transformers import AutoConfig

from alignxplore.prompts import SETS
from alignxplore.records import RecordError
from alignxplore.rl import train as module
from alignxplore.rl.memory import shape
from alignxplore.rl.reward import named_paths
from alignxplore.rl.settings import RunStopped, SettingsError
from alignxplore.serving.beforehand import ModelError
from alignxplore.serving.endpoint import TransportError
from tests.rl.conftest import ITEM, save_weights


def test_more_steps_or_a_missing_model_are_work_to_do(config, finished):
    assert module.finished(finished, 3) and not module.finished(finished, 4)
    (finished / "model" / "config.json").unlink()
    assert not module.finished(finished, 3)


def test_users_in_both_files_and_wrong_stages_are_named(config):
    config.data.val_files = config.data.train_files
    with pytest.raises(SettingsError, match="8 users are in training and validation data alike, e.g. 'u0'"):
        module.check_data(config, 2)
    with pytest.raises(SettingsError, match=r"rows with \[2\] stages, streaming.stages is 3"):
        module.check_data(config, 3)


@pytest.mark.parametrize(("variable", "name"), module.PATHS.items())
@pytest.mark.parametrize("value", ["", None])
def test_an_empty_path_is_refused_before_anything_is_looked_for(config, variable, name, value):
    """It would be the current folder."""
    OmegaConf.update(config, name, value)
    with pytest.raises(SettingsError, match=rf"^{re.escape(name + variable)} is empty; name a path, or leave it out"):
        module.run(config)


@pytest.mark.parametrize("wrong", ["MODEL", "TRAIN", "OUT", "STEPS"])
def test_a_check_looks_into_what_is_there(config, tmp_path, monkeypatch, wrong):
    config.streaming.check_only = True
    monkeypatch.setattr(module, "prepare", lambda config: {})
    monkeypatch.setattr(module, "memory", lambda config: 1.0)
    folder, file = tmp_path / "folder", tmp_path / "rows.jsonl"
    folder.mkdir(), file.write_text("{}")
    key, value, sentence = {
        "MODEL": ("actor_rollout_ref.model.path", folder, "no config.json"),
        "TRAIN": ("data.train_files", file, f"{file}: no Parquet file, .* make the file with upi_streaming_dataset"),
        "OUT": ("streaming.out", file, f"OUT={file} is a file"),
        "STEPS": ("trainer.total_training_steps", -3, r"=-3 \(STEPS\): at least 1"),
    }[wrong]
    OmegaConf.update(config, key, value if wrong == "STEPS" else str(value))
    with pytest.raises((SettingsError, ModelError, RecordError), match=sentence):
        module.run(config)


@pytest.mark.parametrize(
    ("settings", "planned"),
    [
        ({"total_training_steps": 3}, 3),
        ({"total_training_steps": None, "total_epochs": 2}, 8),  # of 8 users, 2 a step
    ],
)
def test_a_check_says_how_many_steps_are_planned(config, monkeypatch, capsys, settings, planned):
    config.streaming.check_only = True
    config.trainer.update(settings)
    monkeypatch.setattr(module, "prepare", lambda config: {"updates_per_step": 1})
    monkeypatch.setattr(module, "memory", lambda config: 1.0)
    assert module.run(config) == 0 and json.loads(capsys.readouterr().out)["steps"] == planned
    config.data.train_files = "/nowhere/train.parquet"
    assert module.run(config) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == settings["total_training_steps"], "nobody can tell yet"


def test_a_check_names_the_keys_that_are_not_set(config, monkeypatch, capsys):
    config.streaming.check_only, config.streaming.judge_api_key_env = True, "KEY_OF_THE_JUDGE"
    monkeypatch.setattr(module, "prepare", lambda config: {})
    monkeypatch.setattr(module, "memory", lambda config: 1.0)
    sentence = "streaming.judge_api_key_env: the environment variable KEY_OF_THE_JUDGE is not set"
    assert module.run(config) == 0 and sentence in capsys.readouterr().err
    monkeypatch.setenv("KEY_OF_THE_JUDGE", "k")
    assert module.run(config) == 0 and sentence not in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named_before_anything_starts(config, tmp_path):
    config.actor_rollout_ref.model.path = str(tmp_path / "outputs" / "sft")
    with pytest.raises(SettingsError, match="MODEL=.*outputs/sft is no readable model"):
        module.run(config)


@pytest.mark.parametrize("text", ["[]", '"x"', "{", ""])
def test_memory_is_not_reckoned_by_a_damaged_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecordError, match=f"{tmp_path}/config.json: .*; copy or download it again"):
        shape(str(tmp_path))


def test_an_adapter_that_was_not_merged_is_named_with_the_remedy(config, tmp_path):
    (folder := tmp_path / "adapter").mkdir()
    (folder / "adapter_config.json").write_text("{}")
    config.actor_rollout_ref.model.path = str(folder)
    remedy = rf"merge_adapter\.py --adapter {folder} --out {folder}_merged"
    with pytest.raises(ModelError, match=rf"'{folder}' holds a LoRA adapter .*{remedy}"):
        module.run(config)


def test_rows_longer_than_the_models_window_and_heads_that_cannot_be_shared_are_named(config):
    """The engine would refuse them inside Ray."""
    model = AutoConfig.from_pretrained(config.actor_rollout_ref.model.path)
    config.data.max_response_length = model.max_position_embeddings - 64
    module.check_model(config)
    config.data.max_response_length += 1
    with pytest.raises(SettingsError, match=rf"reads {model.max_position_embeddings} tokens, and PROMPT_LENGTH=64 \+"):
        module.check_model(config)
    config.data.max_response_length = 8
    config.actor_rollout_ref.rollout.tensor_model_parallel_size = parts = model.num_attention_heads + 1
    with pytest.raises(SettingsError, match=f"has {parts - 1} attention heads, which TP={parts} does not divide"):
        module.check_model(config)


def test_a_gpu_without_flash_attention_is_refused_before_ray_unless_another_attention_is_asked_for(
    config, monkeypatch
):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    config.trainer.device = "cuda"
    with pytest.raises(
        SettingsError, match=r"FlashAttention, which cannot be loaded .*: pip install .* flash-attn==2.8.3.post2"
    ):
        module.run(config)
    config.actor_rollout_ref.model.override_config.attn_implementation = "sdpa"
    with pytest.raises(TransportError):  # of the judge, which comes after it
        module.run(config)


def test_paths_that_exist_are_absolute_whatever_they_were_named_by(config, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "out" / "model")
    config.actor_rollout_ref.model.path, config.data.train_files, config.data.val_files = (
        "link",
        "train.parquet",
        ["./val.parquet"],
    )
    config.streaming.judge_tokenizer = "j=link k=org/name"
    module.absolute_paths(config)
    assert config.actor_rollout_ref.model.path == str(tmp_path / "out" / "model") and config.data.train_files == str(
        tmp_path / "train.parquet"
    )
    assert config.data.val_files == [str(tmp_path / "val.parquet")] and config.streaming.prompts == str(
        SETS / "default"
    )
    assert config.streaming.judge_tokenizer == f"j={tmp_path / 'out' / 'model'}\nk=org/name"
    (tmp_path / "a folder").mkdir()
    config.streaming.judge_tokenizer = "j=a folder\nk=org/name"
    module.absolute_paths(config)
    assert named_paths(config.streaming.judge_tokenizer) == {"j": str(tmp_path / "a folder"), "k": "org/name"}


def test_the_home_folder_is_known_in_every_path_of_a_run(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("model", "two words"):
        (tmp_path / name).mkdir()
    config.actor_rollout_ref.model.path, config.data.train_files = "~/model", ["~/a.parquet", "~/b.parquet"]
    config.streaming.out, config.streaming.judge_tokenizer = "~/run", "j=~/two words"
    module.absolute_paths(config)
    assert config.actor_rollout_ref.model.path == f"{tmp_path}/model" and config.streaming.out == f"{tmp_path}/run"
    assert config.data.train_files == [f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet"]
    assert named_paths(config.streaming.judge_tokenizer) == {"j": f"{tmp_path}/two words"}
    assert named_paths("j=~/model k=~/two") == {"j": f"{tmp_path}/model", "k": f"{tmp_path}/two"}


def test_a_control_is_named_at_the_start(config, capsys):
    for shuffle in (False, True):
        config.streaming.shuffle_rewards = shuffle
        with contextlib.suppress(SettingsError, TransportError):
            module.run(config)
        assert ("is a control: each group's returns" in capsys.readouterr().err) == shuffle


@pytest.mark.parametrize(
    ("stages", "credit", "noted"), [(3, "paper", True), (2, "paper", False), (3, "centered", False)]
)
def test_paper_with_more_than_two_stages_is_noted_at_the_start(config, capsys, stages, credit, noted):
    config.streaming.stages, config.streaming.credit = stages, credit
    with contextlib.suppress(SettingsError, TransportError):
        module.run(config)
    assert ("always says 0.5" in capsys.readouterr().err) == noted


def test_steps_are_planned_for_the_users_that_are_trained_on(config):
    config.data.train_max_samples, config.data.val_max_samples = 5, 1
    train, held_out = module.check_data(config, 2)
    assert (len(train), len(held_out)) == (5, 1)
    config.trainer.total_training_steps = None
    assert module.planned_steps(config, len(train)) == 2


def test_validation_data_without_anybody_are_named(config, tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.parquet.read_table(tmp_path / "val.parquet").slice(0, 0), tmp_path / "val.parquet"
    )
    with pytest.raises(SettingsError, match="val.parquet holds no users to validate on"):
        module.check_data(config, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"streaming.judges": "j=judge-host:8000/v1"}, "write http://judge-host:8000/v1"),
        ({"streaming.judges": "j=org/model"}, "'org/model' is no address of a server"),
        ({"streaming.judge_api_key_env": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
        ({"data.train_files": "no_such.parquet"}, "no_such.parquet"),
    ],
)
def test_what_is_wrong_before_the_start_speaks_of_no_checkpoint(config, monkeypatch, capsys, changes, sentence):
    monkeypatch.setattr(module, "check_model", lambda config: None)
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(SystemExit, match="1"):
        module.main.__wrapped__(config)
    output = capsys.readouterr().err
    assert output.startswith("cannot start: ") and sentence in output and "checkpoint" not in output


def test_what_goes_wrong_in_training_says_how_to_go_on(config, served, monkeypatch, capsys):
    async def judges(*_):
        return {}

    def fails(*_):
        raise ValueError("no such tensor")

    sizes = {"users_per_step": 2, "rows_per_user": 8, "updates_per_step": 1}
    for name, stand_in in (
        ("check_model", lambda config: None),
        ("check_judges", judges),
        ("prepare", lambda config: sizes),
        ("train", fails),
    ):
        monkeypatch.setattr(module, name, stand_in)
    with pytest.raises(SystemExit, match="1"):
        module.main.__wrapped__(config)
    assert (
        "stopped: ValueError: no such tensor" in (output := capsys.readouterr().err)
        and "no checkpoint was saved: the same command starts from the beginning" in output
    )
    latest = Path(config.streaming.out) / "checkpoints" / "latest_checkpointed_iteration.txt"
    (latest.parent / "global_step_3").mkdir(parents=True)
    latest.write_text("3")
    with pytest.raises(SystemExit, match="1"):
        module.main.__wrapped__(config)
    assert "the same command continues after the last checkpoint" in capsys.readouterr().err


def test_without_utf8_nothing_starts(config, monkeypatch, capsys):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(SystemExit, match="1"):
        module.main.__wrapped__(config)
    assert "cannot start: files are read and written as ascii here" in capsys.readouterr().err


def test_a_start_whose_weights_are_no_numbers_is_named_before_ray(config, served):
    save_weights(Path(config.actor_rollout_ref.model.path), math.nan)
    with pytest.raises(ModelError, match="w in .*model.safetensors holds values that are no numbers"):
        module.run(config)


def test_rows_of_one_person_are_never_on_both_sides(config, tmp_path):
    for name, users in (("train", ["ann#1", "bob"]), ("val", ["ann#2"])):
        rows = [{"user": user, "history": [ITEM] * 3, "positions": [1, 2]} for user in users]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(SettingsError, match="1 users are in training and validation data alike, e.g. 'ann'"):
        module.check_data(config, 2)


def test_a_reason_to_stop_is_found_under_what_ray_wraps_it_in():
    pytest.importorskip("verl")
    from ray.exceptions import RayTaskError

    stopped = RayTaskError("run", "a traceback", RunStopped("10 % of the rollouts were lost")).as_instanceof_cause()
    assert module.reason(stopped, "out") == (3, "10 % of the rollouts were lost")
    crashed = RayTaskError(
        "run", "Traceback ...\nValueError: no such thing\n", ValueError("no such thing")
    ).as_instanceof_cause()
    assert module.reason(crashed, "out") == (1, "RayTaskError(ValueError): ValueError: no such thing")


def test_a_full_memory_is_said_in_a_sentence():
    """Ray says it in twenty lines, of which the last is about its environment variables."""
    from ray.exceptions import OutOfMemoryError, RayTaskError

    message = "4 worker(s) were killed due to the node running low on memory. Memory on the node was 22.4GB used / "
    full = OutOfMemoryError(f"{message}23.5GB limit (0.95)\nOOM kill reason: ...\nset RAY_memory_monitor_refresh_ms")
    for error in (full, RayTaskError("run", "a traceback", full).as_instanceof_cause()):
        code, sentence = module.reason(error, "out")
        assert code == 1 and "memory is full (22.4GB of 23.5GB)" in sentence and "RAY_" not in sentence
    assert "memory is full, and" in module.reason(OutOfMemoryError("in other words"), "out")[1]


def test_a_full_disk_is_said_with_its_file():
    from ray.exceptions import RayTaskError

    full = OSError(28, "No space left on device", "out/checkpoints/global_step_2")
    sentence = module.reason(RayTaskError("run", "a traceback", full).as_instanceof_cause(), "out")
    assert sentence == (1, f"{full}; what is done is kept: make space, and run the same command again")
    nameless = RayTaskError(
        "run", "Traceback ...\nOSError: [Errno 28] No space left on device", OSError(28, "No space")
    )
    assert module.reason(nameless.as_instanceof_cause(), "out")[1].endswith("look at the disks of out and of TMPDIR")


def test_the_first_sigterm_asks_for_an_end_in_order_and_the_second_ends(tmp_path, monkeypatch):
    alarms, progress = [], tmp_path / "progress.txt"
    monkeypatch.setattr(module.signal, "alarm", alarms.append)
    progress.write_text("lines of the run before\n")
    handle = module.stop_in_order(tmp_path, progress)
    (tmp_path / "stop").touch()  # somebody asked by hand: that is no signal
    with pytest.raises(SystemExit, match="143"):
        handle(signal.SIGTERM, None)  # nothing is trained yet
    assert not alarms
    progress.write_text("lines of the run before\nthey are up\n")
    handle(signal.SIGTERM, None)
    assert (tmp_path / "stop").exists() and alarms == [600]
    for number in (signal.SIGTERM, signal.SIGALRM):
        with pytest.raises(SystemExit, match="143"):
            handle(number, None)


def test_a_sigterm_that_cannot_ask_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module.signal, "alarm", lambda seconds: None)
    progress = tmp_path / "progress.txt"
    progress.touch()
    handle = module.stop_in_order(tmp_path / "gone", progress)
    progress.write_text("they are up\n")
    with pytest.raises(SystemExit, match="143"):
        handle(signal.SIGTERM, None)
    assert "FileNotFoundError" in capsys.readouterr().err
