"""Whether a folder holds this run: finished, to be continued, or another one."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from omegaconf import OmegaConf

from alignxplore.prompts import SETS
from alignxplore.records import write_json
from alignxplore.rl import train as module
from alignxplore.rl.same_run import MAY_BE_MISSING, SHARING, STEPS, served_by_judges
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.same_run import OtherRun
from alignxplore.serving.endpoint import TransportError
from tests.rl.conftest import ITEM, SERVED, make_model, save_weights

# Settings of verl that earlier versions did not compare, each with another value than it has here.
ADDED = [
    ("actor_rollout_ref.model.override_config.attention_dropout", 0.5),
    ("actor_rollout_ref.model.custom_chat_template", "{{ messages }}"),
    ("actor_rollout_ref.actor.tau_pos", 2.0),
    ("actor_rollout_ref.actor.tau_neg", 9.0),
    ("actor_rollout_ref.actor.data_loader_seed", 9),
    ("actor_rollout_ref.actor.fsdp_config.model_dtype", "bf16"),
    ("actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype", "fp16"),
    ("actor_rollout_ref.ref.fsdp_config.model_dtype", "bf16"),
    ("actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype", "fp16"),
    ("actor_rollout_ref.rollout.dtype", "float16"),
    ("actor_rollout_ref.rollout.ignore_eos", True),
    ("actor_rollout_ref.rollout.quantization", "fp8"),
    ("data.gen_batch_size", 1),
    ("data.sampler.class_name", "Sampler"),
]


def same(config, out, served=SERVED):
    module.same_run(module.fixed_settings(config, config.trainer.total_training_steps) | served, out)


def test_a_finished_run_is_not_done_again(config, finished, served, capsys):
    assert module.run(config) == 0
    assert capsys.readouterr().out.strip().endswith("/out/model (3 steps)")
    served["error"] = TransportError("nobody there")
    assert module.run(config) == 0
    assert "already finished" in (output := capsys.readouterr().out) and "not every judge answers" in output


def test_the_same_files_by_relative_names_are_the_same_run(config, finished, served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config.data.train_files, config.data.val_files = "train.parquet", "val.parquet"
    assert module.run(config) == 0 and "already finished" in capsys.readouterr().out


def test_synchronous_and_asynchronous_training_are_two_runs(config, finished):
    """A run of before there was a choice was synchronous."""
    config.trainer.v1 = {"trainer_mode": "sync"}
    same(config, finished)
    config.trainer.v1.trainer_mode = "colocate_async"
    with pytest.raises(OtherRun, match="trainer.v1.trainer_mode"):
        same(config, finished)


@pytest.mark.parametrize("name", ["tokenizer_path", "hf_config_path"])
def test_another_tokenizer_or_configuration_is_another_run(config, finished, tmp_path, name):
    """By what their folder holds. Runs of before said nothing of the configuration."""
    folder = tmp_path / "other"
    make_model(folder)
    config.actor_rollout_ref.model[name] = str(folder)
    settings = module.fixed_settings(config, 3) | SERVED
    with pytest.raises(OtherRun, match=name):
        module.same_run(settings, finished)  # which had none
    write_json(finished / "run.json", settings)
    module.same_run(settings, finished)
    save_weights(folder, 9)
    with pytest.raises(OtherRun, match=name):
        module.same_run(module.fixed_settings(config, 3) | SERVED, finished)


def rewrite_model(folder):
    save_weights(folder / "sft", 1)


def rewrite_data(folder):
    rows = [{"user": f"u{i}", "history": [ITEM] * 4, "positions": [1, 2]} for i in range(8)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rewrite_model, r"actor_rollout_ref.model.path \(what it holds\)"),
        (rewrite_data, r"data.train_files \(what they hold\)"),
    ],
)
@pytest.mark.parametrize("steps", [3, 4])
def test_files_count_by_what_they_hold(config, finished, served, tmp_path, change, named, steps):
    """Neither is a finished run said to be one of other files, nor does it go on with them."""
    config.trainer.total_training_steps = steps
    change(tmp_path)
    with pytest.raises(OtherRun, match=rf"holds a run with other settings \({named} .* → .*choose another OUT"):
        module.run(config)


def test_the_same_files_elsewhere_are_the_same_run(config, finished, tmp_path):
    for name in ("sft", "train.parquet"):
        (tmp_path / name).rename(tmp_path / f"moved_{name}")
    config.actor_rollout_ref.model.path = str(tmp_path / "moved_sft")
    config.data.train_files = [str(tmp_path / "moved_train.parquet")]
    same(config, finished)


@pytest.mark.parametrize("steps", [3, 4])
def test_another_judge_under_the_same_name_is_refused(config, finished, served, steps):
    config.trainer.total_training_steps = steps
    served["streaming.judges (j: what is served)"] = "Qwen/Qwen3-32B"
    with pytest.raises(OtherRun, match=r"judges \(j: what is served\) 'Qwen/Qwen3-8B' → 'Qwen/Qwen3-32B'"):
        module.run(config)


async def test_a_judge_is_what_its_server_says_wherever_that_is(tmp_path):
    """Of a folder on this machine its weights, else the name."""
    make_model(tmp_path / "judge")
    fingerprints = []
    for root in (tmp_path / "judge", tmp_path / "judge", "Qwen/Qwen3-8B"):
        models = {"data": [{"id": "j", "root": str(root)}, {"id": "other", "root": "a/b"}]}
        app = web.Application()
        app.router.add_get("/v1/models", lambda _, models=models: web.json_response(models))
        async with TestServer(app) as server:
            named = f"j={server.make_url('/v1')}@j"
            settings = Streaming(judges=named, val_judges=named.replace("j", "k", 1), judge_tokenizer="/nowhere")
            fingerprints.append(await served_by_judges(settings, 1.0))
        (tmp_path / "judge" / "model.safetensors").write_bytes(b"other weights")
    first, trained, hub = fingerprints
    name = "streaming.judges (j: what is served)"
    assert hub == {name: "Qwen/Qwen3-8B", "streaming.val_judges (k: what is served)": "Qwen/Qwen3-8B"}
    assert first[name] != trained[name] and str(tmp_path) not in first[name]


async def test_a_judge_that_is_read_with_another_tokenizer_is_another(config, finished, tmp_path):
    """It gives other rewards. The same tokenizer elsewhere is the same, whether it is named or the server's own."""
    for name in ("judge", "moved", "other"):
        make_model(tmp_path / name)
    tokenizer = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {"a": 0, "b": 1}
    write_json(tmp_path / "other" / "tokenizer.json", tokenizer)
    app = web.Application()
    models = {"data": [{"id": "j", "root": str(tmp_path / "judge")}]}
    app.router.add_get("/v1/models", lambda _: web.json_response(models))
    async with TestServer(app) as server:
        specs = {"judges": f"j={server.make_url('/v1')}", "val_judges": f"k={server.make_url('/v1')}"}

        async def served(tokenizer):
            return await served_by_judges(Streaming(**specs, judge_tokenizer=tokenizer), 1.0)

        own = await served(None)
        assert len(own) == 4
        for named in (f"{tmp_path / 'moved'}", f"j={tmp_path / 'moved'}"):
            assert await served(named) == own
        write_json(finished / "run.json", module.fixed_settings(config, 3) | own)
        for block, judge in (("judges", "j"), ("val_judges", "k")):
            other = await served(f"{judge}={tmp_path / 'other'}")
            with pytest.raises(OtherRun, match=rf"streaming.{block} \({judge}: its tokenizer\) "):
                same(config, finished, other)
        old_run = {name: value for name, value in own.items() if "tokenizer" not in name}
        write_json(finished / "run.json", module.fixed_settings(config, 3) | old_run)
        same(config, finished, other)  # a run of before it was compared goes on


def test_judges_that_watch_may_come_and_go_but_one_that_stays_is_the_same(config, finished):
    name = "streaming.val_judges (k: what is served)"
    same(config, finished, SERVED | {name: "a/b"})
    write_json(finished / "run.json", module.fixed_settings(config, 3) | SERVED | {name: "a/b"})
    same(config, finished)
    same(config, finished, SERVED | {name: "a/b"})
    with pytest.raises(OtherRun, match=r"val_judges \(k: what is served\) 'a/b' → 'a/c'"):
        same(config, finished, SERVED | {name: "a/c"})


def test_a_run_of_before_contents_were_written_down_is_refused_in_a_sentence(config, finished):
    path = finished / "run.json"
    path.write_text(json.dumps({"actor_rollout_ref.model.path": "/models/sft", "data.seed": 0}))
    with pytest.raises(OtherRun, match="of an earlier version.*Choose another OUT; or, .* delete .*run.json"):
        module.run(config)
    path.unlink()  # as the sentence says
    same(config, finished)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("actor_rollout_ref.actor.optim.lr", 5e-7),
        ("actor_rollout_ref.actor.optim.weight_decay", 0.1),
        ("actor_rollout_ref.actor.entropy_coeff", 0.01),
        ("actor_rollout_ref.actor.use_kl_loss", True),
        ("actor_rollout_ref.actor.clip_ratio_high", 0.3),
        ("algorithm.kl_ctrl.kl_coef", 0.1),
        ("data.train_batch_size", 4),
        ("data.train_max_samples", 4),
        ("streaming.credit", "centered"),
        ("streaming.judge_orders", "one"),
        ("streaming.thinking", False),
        ("streaming.judges", "j=http://a/v1 k=http://b/v1"),
        ("streaming.shuffle_rewards", True),
        ("streaming.targets", 4),
        ("streaming.val_targets", 4),
        *ADDED,
    ],
)
def test_another_run_in_the_same_folder_is_refused(config, finished, key, value):
    OmegaConf.update(config, key, value, force_add=True)
    block = next((name for name in MAY_BE_MISSING if key.startswith(f"{name}.")), key)  # compared as a whole
    with pytest.raises(OtherRun, match=rf"holds a run with other settings .*{block}.*→.*choose another OUT"):
        same(config, finished)


def test_how_attention_is_computed_is_the_machines_choice(config, finished):
    config.actor_rollout_ref.model.override_config = {"attn_implementation": "sdpa"}
    same(config, finished)


def before_they_were_compared(out):
    """Make the run one of a version that did not write these down."""
    values = json.loads((out / "run.json").read_text())
    assert {*MAY_BE_MISSING} - {STEPS} <= {*values}
    write_json(out / "run.json", {name: value for name, value in values.items() if name not in MAY_BE_MISSING})


@pytest.mark.parametrize(("key", "value"), ADDED)
def test_a_run_of_before_something_was_compared_goes_on_with_the_same_command(config, finished, key, value):
    OmegaConf.update(config, key, value, force_add=True)
    before_they_were_compared(finished)
    same(config, finished)
    config.actor_rollout_ref.actor.optim.lr = 5e-7
    with pytest.raises(OtherRun, match=r"settings \(actor_rollout_ref.actor.optim.lr 1e-06 → 5e-07\)"):
        same(config, finished)


@pytest.mark.parametrize(
    ("schedule", "follows"),
    [
        ({}, False),
        ({"lr_scheduler_type": "constant", "lr_warmup_steps": -1, "lr_warmup_steps_ratio": 0.0}, False),
        ({"lr_warmup_steps": 10, "lr_warmup_steps_ratio": 0.5}, False),
        ({"lr_scheduler_type": "cosine"}, True),
        ({"warmup_style": "cosine"}, True),  # verl's older name, which wins
        ({"lr_warmup_steps": -1, "lr_warmup_steps_ratio": 0.5}, True),
        ({"lr_warmup_steps": None, "lr_warmup_steps_ratio": 0.5}, True),
    ],
)
def test_more_steps_are_another_run_only_where_the_learning_rate_follows_them(config, finished, schedule, follows):
    config.actor_rollout_ref.actor.optim.update(schedule)
    write_json(finished / "run.json", module.fixed_settings(config, 3) | SERVED)
    same(config, finished)
    config.trainer.total_training_steps = 9
    if not follows:
        return same(config, finished)
    with pytest.raises(OtherRun, match=r"trainer.total_training_steps \(the learning rate follows it\) 3 → 9"):
        module.run(config)
    write_json(finished / "run.json", {k: v for k, v in module.fixed_settings(config, 3).items() if k != STEPS})
    same(config, finished)  # of a version that did not write it down


def test_the_steps_of_a_rate_that_follows_them_are_those_of_the_epochs_where_none_are_set(config, finished, served):
    config.actor_rollout_ref.actor.optim.lr_scheduler_type = "cosine"
    config.trainer.total_training_steps, config.trainer.total_epochs = None, 2  # of 8 users, 2 a step
    write_json(finished / "run.json", module.fixed_settings(config, 8) | SERVED)
    (finished / "finished.json").write_text(json.dumps({"steps": 8}))
    assert module.run(config) == 0
    config.trainer.total_epochs = 3
    with pytest.raises(OtherRun, match="8 → 12"):
        module.run(config)


def test_prompts_count_by_their_templates_and_not_by_their_folder(config, finished, tmp_path):
    shutil.copytree(SETS / "default", tmp_path / "mine")
    config.streaming.prompts = str(tmp_path / "mine")
    same(config, finished)
    with (tmp_path / "mine" / "judge.jinja").open("a") as template:
        template.write("Be quick.")
    with pytest.raises(OtherRun, match=r"streaming.prompts \(judge.jinja\) "):
        same(config, finished)


def test_steps_addresses_and_frequencies_may_change(config, finished):
    config.trainer.total_training_steps, config.streaming.judges = 9, "j=http://elsewhere/v1"
    config.streaming.val_judges = "k=http://b/v1"  # whoever watches changes nothing
    same(config, finished)


def test_states_that_other_gpus_share_are_another_run(config, finished):
    """Each reads its own part of a checkpoint: verl would end inside Ray, at "different meshes"."""
    share = config.actor_rollout_ref.actor.fsdp_config
    for size in (-1, 2, 8):  # all of both
        share.fsdp_size = size
        same(config, finished)
    share.fsdp_size = 1
    with pytest.raises(OtherRun, match=r"fsdp_config\.fsdp_size \(.*; -1: all\) -1 → 1\); choose another OUT"):
        same(config, finished)
    config.trainer.nnodes, share.fsdp_size = 2, -1
    same(config, finished)
    values = json.loads((finished / "run.json").read_text())
    del values[SHARING]  # as a run of before it was compared
    write_json(finished / "run.json", values)
    share.fsdp_size = 1
    same(config, finished)


def checkpoint(out, gpus):
    """What the trainer leaves of step 2, by name."""
    actor = out / "checkpoints" / "global_step_2" / "actor"
    actor.mkdir(parents=True)
    for rank in range(gpus):
        (actor / f"model_world_size_{gpus}_rank_{rank}.pt").touch()
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("2")


def test_a_checkpoint_of_another_number_of_gpus_is_refused_before_ray(config, tmp_path):
    checkpoint(tmp_path / "out", 4)
    with pytest.raises(
        SettingsError,
        match="global_step_2/actor was written by 4 GPUs, this run has 2 .*: continue it with as many as before",
    ):
        module.run(config)
    config.trainer.nnodes = 2
    with pytest.raises(TransportError):
        module.run(config)
