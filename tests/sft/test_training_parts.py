"""The parts of sft.py that need no training run: rows of a step, proof of the labels, effective batch, run folder."""

import json
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState
from trl import ModelConfig

from alignxplore.environment import git_commit, recorded_versions
from alignxplore.records import read_jsonl
from alignxplore.serving.fingerprints import model_identity
from alignxplore.sft.configuration import DataArguments, TrainArguments, run_settings, split_batch
from alignxplore.sft.run_folder import COMPLETE, RunError, RunFolder, model_card
from alignxplore.sft.tokenised_set import load_prepared, prepare
from alignxplore.sft.trainer import LabelError, Progress, StepSampler, Trainer, check_labels, generation_prompt
from alignxplore.sft.training import make_trainer, train

OPENING, END = [8, 9], 2  # tokens that open the assistant's turn; the end of turn
PLAIN, ZERO3 = {"zero_stage": None, "processes": 1}, {"zero_stage": 3, "processes": 2}


def sampler(rows: int = 103, batch: int = 16, seed: int = 1, epoch: int = 0) -> StepSampler:
    lengths = [random.Random(i).randint(5, 500) for i in range(rows)]
    return StepSampler(lengths, batch, seed, epoch=lambda: epoch)


def test_an_epoch_is_whole_steps_of_different_rows_sorted_by_length_within_a_step():
    order = list(sampler())
    assert len(order) == len(sampler()) == 96 == len(set(order))
    steps = [order[i : i + 16] for i in range(0, 96, 16)]
    assert all(step == sorted(step, key=lambda row: (sampler().lengths[row], row)) for step in steps)
    assert list(sampler()) == order != list(sampler(seed=2))
    assert set(list(sampler(epoch=1))[:16]) != set(order[:16]), "each epoch has a permutation of its own"


def test_fewer_rows_than_a_step_is_an_error():
    with pytest.raises(RunError, match="10 rows are fewer than one optimizer step"):
        sampler(rows=10)


def padded(*documents: tuple[list[int], list[int]]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in documents)
    return {
        "input_ids": torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in documents]),
        "labels": torch.tensor([labels + [-100] * (width - len(ids)) for ids, labels in documents]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in documents]),
    }


def packed(*documents: tuple[list[int], list[int]]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[i for ids, _ in documents for i in ids]]),
        "labels": torch.tensor([[i for _, labels in documents for i in labels]]),
        "position_ids": torch.tensor([[i for ids, _ in documents for i in range(len(ids))]]),
    }


IDS = [5, 6, 8, 9, 20, 21, END, 10]
GOOD = (IDS, [-100] * 4 + IDS[4:])
LONG = ([5, 5, 5, *IDS], [-100] * 7 + IDS[4:])


@pytest.mark.parametrize("collate", [padded, packed])
def test_right_labels_pass_and_every_kind_of_wrong_ones_is_caught(collate):
    assert check_labels(collate(GOOD, LONG), OPENING, END) == 2
    wrong = {
        "trained from the beginning": (IDS, IDS),
        "beginning of the assistant's turn": (IDS, [-100] * 5 + IDS[5:]),
        "trains nothing": (IDS, [-100] * 8),
        "masked ones within": (IDS, [-100] * 4 + [20, -100, END, 10]),
        "own next tokens": (IDS, [-100] * 4 + [20, 22, END, 10]),
        "end of turn": (IDS[:-2], [-100] * 4 + IDS[4:-2]),
    }
    for message, document in wrong.items():
        with pytest.raises(LabelError, match=message):
            check_labels(collate(LONG, document), OPENING, END)


def test_trained_padding_is_caught():
    batch = padded(GOOD, LONG)
    batch["labels"][0, -1] = 0
    with pytest.raises(LabelError, match="trains padding"):
        check_labels(batch, OPENING, END)


@pytest.mark.parametrize(
    "processes, most, micro", [(1, 16, 16), (2, 16, 16), (4, 64, 16), (1, 48, 32), (64, 8, 1), (8, 3, 2)]
)
def test_the_effective_batch_does_not_change_with_the_processes(processes, most, micro):
    rows, accumulated = split_batch(64, processes, most)
    assert rows == micro and processes * rows * accumulated == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 4}, "set effective_batch_size"),
        ({"effective_batch_size": 3}, "cannot be split over 2 processes"),
        ({"save_strategy": "steps", "save_steps": 15}, "multiple of logging_steps"),
        ({"save_total_limit": 1}, "use 2 or more"),
    ],
)
def test_settings_that_would_lose_work_or_change_the_training_are_refused(monkeypatch, tmp_path, options, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=message):
        TrainArguments(output_dir=str(tmp_path), **options)


def test_a_run_resumes_from_the_newest_whole_checkpoint_and_forgets_what_came_after_it(tmp_path):
    run = RunFolder(tmp_path)
    for step in (5, 10, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_text("weights")
    assert run.last_complete() is None
    for step in range(1, 18):
        run.log({"step": step, "loss": 1.0 / step})
    for step in (5, 10):
        run.mark_complete(step, PLAIN)
    (tmp_path / "log.jsonl").open("a").write('{"step": 18, "lo')  # a line torn by the kill
    assert run.last_complete().name == "checkpoint-10"
    assert run.clean() == ["checkpoint-15"] and not (tmp_path / "checkpoint-15").exists()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    assert (tmp_path / "checkpoint-5" / COMPLETE).exists()


@pytest.mark.parametrize(
    ("saved", "now", "said"),
    [
        (PLAIN, {"zero_stage": None, "processes": 8}, None),
        (ZERO3, ZERO3, None),
        (
            ZERO3,
            PLAIN,
            r"saved with ZeRO stage 3 on 2 process\(es\), and cannot be resumed without DeepSpeed on 1 process\(es\); give",
        ),
        (
            ZERO3,
            ZERO3 | {"processes": 4},
            r"ZeRO stage 3 on 2 .* ZeRO stage 3 on 4 process\(es\); give --deepspeed and the number of processes",
        ),
        (
            ZERO3,
            ZERO3 | {"zero_stage": 2},
            "ZeRO stage 3 on 2 .* ZeRO stage 2 on 2 .* as they were, or choose another --out",
        ),
        (PLAIN, ZERO3, "saved without DeepSpeed on 1 .* ZeRO stage 3 on 2"),
    ],
)
def test_what_zero_has_saved_is_resumed_with_the_same_stage_and_processes_only(tmp_path, saved, now, said):
    run = RunFolder(tmp_path)
    assert run.resumable(now) is None
    (tmp_path / "checkpoint-5").mkdir()
    assert run.resumable(now) is None, "it is not whole"
    run.mark_complete(5, saved)
    if said is None:
        assert run.resumable(now) == tmp_path / "checkpoint-5"
    else:
        with pytest.raises(RunError, match=f"checkpoint-5: .*{said}"):
            run.resumable(now)


def test_a_run_that_deepspeed_has_saved_does_not_start_its_optimizer_anew(rows_file, model_folder, tmp_path):
    saving = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    tiny_run(tmp_path, rows_file, model_folder, **saving)
    (tmp_path / "summary.json").unlink()  # as if it had been killed
    mark = tmp_path / "checkpoint-3" / COMPLETE
    assert json.loads(mark.read_text()) == PLAIN
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


def test_one_process_that_sees_several_gpus_is_refused(rows_file, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainArguments, "n_gpu", 4)
    with pytest.raises(
        RunError,
        match="one process sees 4 GPUs; start one process a GPU with sft.sh, or show it one: CUDA_VISIBLE_DEVICES",
    ):
        tiny_run(tmp_path, rows_file, model_folder)


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


def test_a_data_seed_of_zero_is_a_seed(rows_file, model_folder, tmp_path):
    orders = {}
    for seed in (None, 0, 42):
        args = TrainArguments(output_dir=str(tmp_path), report_to="none", data_seed=seed)  # seed is 42
        asking = SimpleNamespace(args=args, train_dataset=None, state=None, steps_per_epoch=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alignxplore.sft.trainer.row_lengths", lambda rows: [5] * 64)
            orders[seed] = Trainer._get_train_sampler(asking).seed
    assert orders == {None: 42, 0: 0, 42: 42}


def test_a_hub_model_is_told_by_its_commit(monkeypatch):
    monkeypatch.setattr(
        "alignxplore.serving.fingerprints.commit", lambda model, revision: {"main": "c0ffee"}.get(revision, revision)
    )
    assert (
        model_identity("some/model", None) == "some/model@c0ffee"
        and model_identity("some/model", "v1") == "some/model@v1"
    )


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    with pytest.raises(RunError, match=r"learning_rate 0.001 → 0.002\); choose another --out"):
        run.claim({"seed": 1, "learning_rate": 2e-3, "peft": None})


def test_a_rebuilt_model_in_the_same_folder_is_another_model(model_folder, tmp_path):
    copy = tmp_path / model_folder.name
    shutil.copytree(model_folder, copy)
    assert model_identity(str(copy), None) == model_identity(str(model_folder), None)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_identity(str(copy), None) != model_identity(str(model_folder), None)


def test_models_that_differ_after_their_beginning_only_are_two_models(tmp_path):
    for name, end in (("one", b"1"), ("two", b"2")):
        folder = tmp_path / name / "merged"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(3 << 20) + end)
    assert model_identity(str(tmp_path / "one" / "merged"), None) != model_identity(
        str(tmp_path / "two" / "merged"), None
    )


@pytest.fixture
def settings_of(model_folder, tmp_path):
    """`settings_of(training options, model options)` → the identity of such a run."""

    def settings(training: dict | None = None, model: dict | None = None) -> dict:
        args = TrainArguments(output_dir=str(tmp_path), model_init_kwargs={"dtype": "float32"}, **training or {})
        return run_settings(args, ModelConfig(model_name_or_path=str(model_folder), **model or {}), {"identity": {}})

    return settings


@pytest.mark.parametrize(
    ("training", "model"),
    [
        ({"adam_epsilon": 1e-6}, {}),
        ({"label_smoothing_factor": 0.1}, {}),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, {}),
        ({"neftune_noise_alpha": 5.0}, {}),
        ({"eos_token": "<|endoftext|>"}, {}),
        ({}, {"use_peft": True, "use_dora": True}),
        ({}, {"use_peft": True, "lora_modules_to_save": ["lm_head"]}),
    ],
)
def test_what_changes_the_training_changes_the_identity_of_a_run(settings_of, training, model):
    assert settings_of(training, model) != settings_of({}, {"use_peft": True} if model else {})


def test_where_and_how_a_run_is_computed_does_not_change_its_identity(settings_of, tmp_path):
    other = {"logging_steps": 5, "save_steps": 50, "dataloader_num_workers": 2, "per_device_train_batch_size": 2, "report_to": "none",
             "run_name": "x", "gradient_checkpointing": False, "eval_strategy": "steps", "logging_first_step": True}  # fmt: skip
    assert settings_of(other) == settings_of()


def tiny_run(folder, rows_file, model_folder, model: dict | None = None, **options) -> None:
    args = TrainArguments(output_dir=str(folder), max_steps=3, report_to="none", disable_tqdm=True, max_length=256, effective_batch_size=4,
                          gradient_checkpointing=False, **options)  # fmt: skip
    train(
        DataArguments(train_data=str(rows_file)),
        args,
        ModelConfig(model_name_or_path=str(model_folder), **model or {}),
    )


def test_a_run_shorter_than_a_log_interval_ends_with_its_loss_and_card(rows_file, model_folder, tmp_path, capsys):
    tiny_run(tmp_path, rows_file, model_folder, logging_steps=10)
    (line,) = (json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines())
    result = RunFolder(tmp_path).summary()["result"]
    assert (
        result == {"steps": 3, "last_loss": line["loss"], "seconds": line["seconds"], "resumed_from": None}
        and line["step"] == 3
    )
    assert f"3 steps, last logged loss {line['loss']:.4f}" in (tmp_path / "README.md").read_text()
    tiny_run(tmp_path, rows_file, model_folder, logging_steps=10)
    assert "this run is finished" in capsys.readouterr().out


def test_what_a_model_is_loaded_with_is_passed_on_or_refused(rows_file, model_folder, tmp_path):
    tiny_run(tmp_path / "passed", rows_file, model_folder, model_init_kwargs={"attention_dropout": 0.25})
    assert json.loads((tmp_path / "passed" / "run.json").read_text())["attention_dropout"] == 0.25
    assert json.loads((tmp_path / "passed" / "config.json").read_text())["attention_dropout"] == 0.25
    with pytest.raises(RunError, match="load_in_4bit and load_in_8bit are not supported"):
        tiny_run(tmp_path / "refused", rows_file, model_folder, {"load_in_4bit": True})


def test_seconds_of_an_interrupted_run_go_on_where_it_stopped(tmp_path):
    run, state = RunFolder(tmp_path), TrainerState(global_step=5, max_steps=9)
    run.log({"step": 5, "loss": 1.0, "seconds": 100.0})
    progress = Progress(run, 1.0)
    progress.on_train_begin(None, state, TrainerControl())
    state.global_step = 9
    progress.on_log(None, state, TrainerControl(), {"loss": 0.5, "learning_rate": 0.0})
    assert 100.0 <= run.seconds() < 160.0 and len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_processes_that_do_not_know_of_each_other_are_refused(
    model_folder, rows_file, tokenizer, tmp_path, monkeypatch
):
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, manifest = load_prepared(tmp_path / "set", tokenizer)
    args = TrainArguments(output_dir=str(tmp_path / "out"), report_to="none", completion_only_loss=True,
                          dataset_kwargs={"skip_prepare_dataset": True}, model_init_kwargs={"dtype": "float32"})  # fmt: skip
    model = ModelConfig(model_name_or_path=str(model_folder))
    pieces = (args, model, RunFolder(tmp_path / "out"), tokenizer, stored, None, manifest)
    assert make_trainer(*pieces).accelerator.num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # what torchrun says to each of two processes
    with pytest.raises(
        RunError, match=r"accelerate sees 1 process\(es\), the launcher started 2: they would train apart"
    ):
        make_trainer(*pieces)


def test_documents_of_a_pack_do_not_see_each_other(model_folder, rows_file, tokenizer, tmp_path):
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, _ = load_prepared(tmp_path / "set", tokenizer)
    args = TrainArguments(output_dir=str(tmp_path / "out"), packing=True, max_length=256, effective_batch_size=2, per_device_train_batch_size=2,
                          report_to="none", completion_only_loss=True, dataset_kwargs={"skip_prepare_dataset": False},
                          model_init_kwargs={"dtype": "float32"})  # fmt: skip
    trainer = Trainer(
        run=RunFolder(tmp_path / "out"),
        model=str(model_folder),
        args=args,
        train_dataset=stored,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    assert len(starts) > 2 and check_labels(batch, generation_prompt(tokenizer), tokenizer.eos_token_id) == len(starts)
    model = trainer.model.eval()
    apart = []
    with torch.inference_mode():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        for start, end in zip(starts, [*starts[1:], batch["input_ids"].shape[1]]):
            apart.append(model(input_ids=batch["input_ids"][:, start:end], use_cache=False).logits[0])
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


def test_the_model_card_says_what_was_trained_on_what_and_how():
    data = {"rows": 1234, "tokens": 56789, "trained_tokens": 4321, "dropped_too_long": 17, "dropped_control_token": 3,
            "prompt_templates": {"f3c5f355cd63": 1234}, "identity": {"chat_template": "c" * 16, "tokenizer": "t" * 16}}  # fmt: skip
    settings = {
        "model": "Qwen/Qwen3-8B@main",
        "learning_rate": 2e-5,
        "effective_batch_size": 1024,
        "max_length": 16384,
        "peft": None,
    }
    result = {"steps": 264, "last_loss": 0.4321, "seconds": 100.0}
    card = model_card(
        {
            "settings": settings,
            "data": data,
            "processes": 64,
            "result": result,
            "versions": recorded_versions(),
            "commit": git_commit(),
        }
    )
    for text in ("base_model: Qwen/Qwen3-8B\n", "1,234 rows", "56,789 tokens", "4,321 of them trained", "17 rows longer than 16384", "3 with control",
                 "| learning_rate | 2e-05 |", "| effective_batch_size | 1024 |", "264 steps", "loss 0.4321", "64 process", "f3c5f355cd63", "cccc",
                 "tttt", f"commit {git_commit()}", f"trl {recorded_versions()['trl']}"):  # fmt: skip
        assert text in card, text
    assert "end of turn" in card
    data["identity"]["letters"] = [5, 6]
    card = model_card(
        {
            "settings": settings,
            "data": data,
            "processes": 64,
            "result": result,
            "versions": recorded_versions(),
            "commit": None,
        }
    )
    assert "4,321 of them trained: the letters." in card and "end of turn" not in card
