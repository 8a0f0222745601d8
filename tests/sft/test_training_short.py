"""Runs of sft.py of three steps, in this process: what they are refused, keep and say."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import ModelConfig, SFTTrainer

from alignxplore.records import read_jsonl
from alignxplore.sft import training
from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.run_folder import COMPLETE, RunError, RunFolder
from alignxplore.sft.samples import Samples
from alignxplore.sft.tokenised_set import load_prepared, prepare, row_lengths
from alignxplore.sft.trainer import Trainer
from alignxplore.sft.training import check, make_trainer, train
from tests import ROOT

PLAIN, ZERO3 = {"zero_stage": None, "processes": 1}, {"zero_stage": 3, "processes": 2}


def tiny_run(folder, rows_file, model_folder, model: dict | None = None, eval_data=None, **options) -> None:
    options |= {"max_steps": 3, "report_to": "none", "disable_tqdm": True, "keep_optimizer": True}
    options = {"max_length": 256} | options
    args = TrainArguments(output_dir=str(folder), effective_batch_size=4, gradient_checkpointing=False, **options)
    train(
        DataArguments(train_data=str(rows_file), eval_data=eval_data and str(eval_data)),
        args,
        ModelConfig(model_name_or_path=str(model_folder), **model or {}),
    )


def test_a_run_that_deepspeed_has_saved_does_not_start_its_optimizer_anew(rows_file, model_folder, tmp_path):
    saving = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    tiny_run(tmp_path, rows_file, model_folder, **saving)
    (tmp_path / "summary.json").unlink()  # as if it had been killed
    mark = tmp_path / "checkpoint-3" / COMPLETE
    sizes = json.loads(mark.read_text()).pop("sizes")
    assert json.loads(mark.read_text()) == PLAIN | {"sizes": sizes}
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        path = tmp_path / "checkpoint-3" / name
        content = path.read_bytes()
        path.write_bytes(b"")
        with pytest.raises(RunError, match=f"checkpoint-3/{name}: damaged .*; delete checkpoint-3: the run goes on"):
            tiny_run(tmp_path, rows_file, model_folder, **saving)
        path.write_bytes(content)
    mark.write_text(json.dumps(ZERO3))
    with pytest.raises(RunError, match="checkpoint-3: saved with ZeRO stage 3 on 2"):
        tiny_run(tmp_path, rows_file, model_folder, **saving)


def test_a_run_killed_after_its_last_step_is_saved_and_trains_no_other(rows_file, model_folder, tmp_path):
    saving = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    tiny_run(tmp_path, rows_file, model_folder, **saving)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("summary.json", "model.safetensors"):
        (tmp_path / name).unlink()
    tiny_run(tmp_path, rows_file, model_folder, **saving)
    result = RunFolder(tmp_path).summary()["result"]
    assert (result["steps"], result["resumed_from"]) == (3, "checkpoint-3")
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert [row["step"] for _, row in read_jsonl(tmp_path / "log.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("packing", [False, True])
def test_a_run_on_the_shorter_rows_of_a_set_writes_nothing_into_it(
    rows_file, model_folder, tokenizer, tmp_path, packing
):
    """And its losses are those of a set that holds no longer rows."""
    prepare([str(rows_file)], tokenizer, tmp_path / "all", 256)
    stored, _ = load_prepared(tmp_path / "all", tokenizer)
    limit = sorted(row_lengths(stored))[len(stored) // 2]
    prepare([str(rows_file)], tokenizer, tmp_path / "short", limit)
    listing = sorted(path.name for path in (tmp_path / "all").iterdir())
    losses = {}
    for name in ("all", "short"):
        data, more_options = tmp_path / name, {"max_length": limit, "packing": packing}
        tiny_run(tmp_path / f"{name}_run", data, model_folder, eval_data=data, logging_steps=1, **more_options)
        rows = read_jsonl(tmp_path / f"{name}_run" / "log.jsonl")
        losses[name] = [row.get("loss", row.get("eval_loss")) for _, row in rows]
    assert losses["all"] == losses["short"] and len(losses["all"]) == 4, (
        "of three steps and the rows that are held out"
    )
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == listing


def test_a_loss_that_is_no_number_ends_the_run_and_names_what_is_sound(rows_file, model_folder, tmp_path, monkeypatch):
    saving = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 1}
    step = SFTTrainer.training_step

    def diverges(self, *arguments, **named):
        return step(self, *arguments, **named) * (math.nan if self.state.global_step == 2 else 1)

    monkeypatch.setattr(SFTTrainer, "training_step", diverges)
    with pytest.raises(RunError, match=r"after step 2: the loss is nan, .*checkpoint-2 is the last that is sound"):
        tiny_run(tmp_path, rows_file, model_folder, **saving)
    assert RunFolder(tmp_path).last_complete().name == "checkpoint-2"
    assert RunFolder(tmp_path).summary() is None and not (tmp_path / "model.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved(rows_file, model_folder, tmp_path, monkeypatch):
    step = SFTTrainer.training_step

    def diverges(self, model, *arguments, **named):
        loss = step(self, model, *arguments, **named)
        next(iter(model.parameters())).grad.fill_(math.nan)  # the loss itself was one
        return loss

    monkeypatch.setattr(SFTTrainer, "training_step", diverges)
    with pytest.raises(RunError, match=r"after step 1: weights are no numbers .*no checkpoint was saved"):
        tiny_run(tmp_path, rows_file, model_folder, save_strategy="steps", save_steps=1, logging_steps=1)
    assert not list(tmp_path.glob("checkpoint-*/model.safetensors"))


def test_one_process_that_sees_several_gpus_is_refused(rows_file, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainArguments, "n_gpu", 4)
    with pytest.raises(
        RunError,
        match="one process sees 4 GPUs; start one process a GPU with sft.sh, or show it one: CUDA_VISIBLE_DEVICES",
    ):
        tiny_run(tmp_path, rows_file, model_folder)


def test_a_run_without_a_model_says_how_one_is_named(rows_file, tmp_path):
    args = TrainArguments(output_dir=str(tmp_path), effective_batch_size=4, report_to="none")
    for start in (check, train):
        with pytest.raises(RunError, match="no model is named; give --model_name_or_path"):
            start(DataArguments(train_data=str(rows_file)), args, ModelConfig())


def test_coarse_weights_without_copies_of_their_own_are_refused(rows_file, model_folder, tmp_path):
    coarse = {"model_init_kwargs": {"dtype": "bfloat16"}}
    with pytest.raises(
        RunError,
        match="weights in torch.bfloat16 are too coarse .* add --deepspeed configs/zero3.json, or --dtype float32",
    ):
        tiny_run(tmp_path / "all", rows_file, model_folder, **coarse)
    tiny_run(
        tmp_path / "adapter",
        rows_file,
        model_folder,
        {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]},
        **coarse,
    )


@pytest.mark.parametrize("model", [{}, {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}])
def test_what_is_passed_on_names_no_folder_of_this_machine(model, rows_file, model_folder, tmp_path, monkeypatch):
    """The model and its checkpoints, as they are uploaded: settings of the run and an adapter's base among them."""
    cards = []

    def push(trainer: Trainer, *_: object, **__: object) -> None:
        cards.append((tmp_path / "README.md").read_text())
        trainer.save_model(_internal_call=True)  # as transformers does before it uploads

    monkeypatch.setattr(Trainer, "init_hf_repo", lambda *_, **__: None)
    monkeypatch.setattr(Trainer, "push_to_hub", push)
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "push_to_hub": True}
    tiny_run(tmp_path, rows_file, model_folder, model, **saving)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"README.md", "run.json", "summary.json", "adapter_config.json" if model else "config.json"} <= {
        path.name for path in paths
    }
    assert cards == [(tmp_path / "README.md").read_text()]
    places = [str(place).encode() for place in (tmp_path, rows_file.parent, model_folder, ROOT)]
    assert not [path for path in paths if any(place in path.read_bytes() for place in places)]
    assert not [path for path in paths if path.name == "training_args.bin"]


def test_a_run_shorter_than_a_log_interval_ends_with_its_loss_and_card(rows_file, model_folder, tmp_path, capsys):
    tiny_run(tmp_path, rows_file, model_folder, logging_steps=10)
    (line,) = (json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines())
    result = RunFolder(tmp_path).summary()["result"]
    assert (
        result == {"steps": 3, "last_loss": line["loss"], "seconds": line["seconds"], "resumed_from": None}
        and line["step"] == 3
    )
    assert line["tokens_per_second"] > 0 and "mfu" not in line, "of a CPU nobody says what it could do"
    assert f"3 steps, last logged loss {line['loss']:.4f}" in (tmp_path / "README.md").read_text()
    tiny_run(tmp_path, rows_file, model_folder, logging_steps=10)
    assert "this run is finished" in capsys.readouterr().out


def test_an_upload_has_the_card_and_a_run_that_could_not_upload_is_not_finished(
    rows_file, model_folder, tmp_path, monkeypatch
):
    uploads, broken = [], True
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda *_, **__: None)

    def push(trainer: Trainer, *_: object, **__: object) -> None:
        folder = Path(trainer.args.output_dir)
        uploads.append((folder / "README.md").is_file() and (folder / "model.safetensors").is_file())
        if broken:
            raise OSError("no route to the Hub")

    monkeypatch.setattr(Trainer, "push_to_hub", push)
    with pytest.raises(OSError, match="no route"):
        tiny_run(tmp_path, rows_file, model_folder, push_to_hub=True)
    assert not (tmp_path / "summary.json").exists()
    broken = False
    tiny_run(tmp_path, rows_file, model_folder, push_to_hub=True)
    assert (tmp_path / "summary.json").is_file() and uploads == [True, True]


def test_nothing_is_reported_to_the_makers_of_trl(rows_file, model_folder, tmp_path, monkeypatch):
    reports = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **about: reports.append(about))
    tiny_run(tmp_path, rows_file, model_folder)
    assert not reports


def test_an_adapter_names_the_commit_that_it_was_trained_on(monkeypatch):
    monkeypatch.setattr(training, "commit", lambda model, revision: f"{model} at {revision}")
    args, hub = TrainArguments(output_dir="x"), ModelConfig(model_name_or_path="a/b", use_peft=True)
    args.model_init_kwargs = {"revision": "v1"}
    assert training.adapter_config(args, hub).revision == "a/b at v1"
    assert training.adapter_config(args, ModelConfig(model_name_or_path="a/b")) is None


def test_what_a_model_is_loaded_with_is_passed_on_or_refused(rows_file, model_folder, tmp_path):
    tiny_run(tmp_path / "passed", rows_file, model_folder, model_init_kwargs={"attention_dropout": 0.25})
    assert json.loads((tmp_path / "passed" / "run.json").read_text())["attention_dropout"] == 0.25
    assert json.loads((tmp_path / "passed" / "config.json").read_text())["attention_dropout"] == 0.25
    with pytest.raises(
        RunError, match="load_in_4bit of a model that is trained itself, are not supported; .* train an"
    ):
        tiny_run(tmp_path / "refused", rows_file, model_folder, {"load_in_4bit": True})
    with pytest.raises(RunError, match="load_in_4bit needs bitsandbytes"):
        tiny_run(tmp_path / "missing", rows_file, model_folder, {"load_in_4bit": True, "use_peft": True})
    with pytest.raises(RunError, match="use_liger_kernel needs liger-kernel"):
        tiny_run(tmp_path / "missing", rows_file, model_folder, use_liger_kernel=True)


def test_processes_that_do_not_know_of_each_other_are_refused(
    model_folder, rows_file, tokenizer, tmp_path, monkeypatch
):
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, manifest = load_prepared(tmp_path / "set", tokenizer)
    args = TrainArguments(
        output_dir=str(tmp_path / "out"),
        report_to="none",
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        model_init_kwargs={"dtype": "float32"},
    )
    model = ModelConfig(model_name_or_path=str(model_folder))
    pieces = (args, model, RunFolder(tmp_path / "out"), tokenizer, stored, None, manifest)
    assert make_trainer(*pieces).accelerator.num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # what torchrun says to each of two processes
    with pytest.raises(
        RunError, match=r"accelerate sees 1 process\(es\), the launcher started 2: they would train apart"
    ):
        make_trainer(*pieces)


def test_each_evaluation_writes_a_few_summaries_and_counts_bad_format(
    rows_file, model_folder, tmp_path, monkeypatch, capsys
):
    samples = {"eval_samples": 3, "eval_new_tokens": 8, "eval_strategy": "steps", "eval_steps": 1}
    texts = iter(["<think>\nx\n</think>\n\nfine", "unfinished", "<think>\ny\n</think>\n\nfine"] * 9)
    write = Samples._write
    monkeypatch.setattr(
        Samples, "_write", lambda self, prompts: [next(texts) for _ in write(self, prompts)]
    )  # it cannot write yet
    tiny_run(tmp_path / "with", rows_file, model_folder, logging_steps=1, eval_data=rows_file, **samples)
    rows = [row for _, row in read_jsonl(tmp_path / "with" / "samples.jsonl")]
    assert [(row["step"], row["row"]) for row in rows] == [(step, row) for step in (1, 2, 3) for row in range(3)]
    assert [row["problem"] is None for row in rows] == [True, False, True] * 3
    logged = [row for _, row in read_jsonl(tmp_path / "with" / "log.jsonl")]
    assert [row["bad_format"] for row in logged if "bad_format" in row] == [pytest.approx(1 / 3)] * 3
    assert len([row for row in logged if "eval_loss" in row]) == 3
    assert "bad format 33% of 3, e.g. '<think>" in capsys.readouterr().out
    tiny_run(tmp_path / "without", rows_file, model_folder, logging_steps=1)
    plain = [row["loss"] for _, row in read_jsonl(tmp_path / "without" / "log.jsonl")]
    assert [row["loss"] for row in logged if "loss" in row] == plain, "writing draws no number of the training's"


def test_a_run_that_is_refused_writes_down_no_settings(rows_file, model_folder, tmp_path):
    """The same folder then takes the command that the sentence asks for."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    for path in model_folder.iterdir():
        (tmp_path / "coarse").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "coarse")
    model.save_pretrained(tmp_path / "coarse")
    init = {"model_init_kwargs": {"dtype": "bfloat16"}}
    with pytest.raises(RunError, match="too coarse"):
        tiny_run(tmp_path / "out", rows_file, tmp_path / "coarse", **init)
    assert not (tmp_path / "out" / "run.json").exists()
    tiny_run(tmp_path / "out", rows_file, tmp_path / "coarse")
    assert (tmp_path / "out" / "summary.json").exists()
