"""The parts of sft.py that need no training run: rows of a step, proof of the labels, effective batch, run folder."""

import json
import random
import shutil

import pytest
import torch
from configuration import TrainArguments, split_batch
from prepare_dataset import load_prepared, prepare
from run_folder import COMPLETE, RunError, RunFolder, git_commit, model_card, model_identity, versions
from trainer import LabelError, StepSampler, Trainer, check_labels, generation_prompt
from trl import ModelConfig

from sft import make_trainer

OPENING, END = [8, 9], 2  # tokens that open the assistant's turn; the end of turn


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


@pytest.mark.parametrize("processes, most, micro", [(1, 16, 16), (2, 16, 16), (4, 64, 16), (1, 48, 32), (64, 8, 1), (8, 3, 2)])
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
        run.mark_complete(step)
    (tmp_path / "log.jsonl").open("a").write('{"step": 18, "lo')  # a line torn by the kill
    assert run.last_complete().name == "checkpoint-10"
    assert run.clean() == ["checkpoint-15"] and not (tmp_path / "checkpoint-15").exists()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    assert (tmp_path / "checkpoint-5" / COMPLETE).exists()


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    run.claim({"seed": 1, "learning_rate": 1e-3, "peft": None})
    with pytest.raises(RunError, match=r"learning_rate 0.001 → 0.002\); choose another --output_dir"):
        run.claim({"seed": 1, "learning_rate": 2e-3, "peft": None})


def test_a_rebuilt_model_in_the_same_folder_is_another_model(model_folder, tmp_path):
    copy = tmp_path / model_folder.name
    shutil.copytree(model_folder, copy)
    assert model_identity(str(copy), None) == model_identity(str(model_folder), None)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_identity(str(copy), None) != model_identity(str(model_folder), None)


def test_processes_that_do_not_know_of_each_other_are_refused(model_folder, rows_file, tokenizer, tmp_path, monkeypatch):
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, manifest = load_prepared(tmp_path / "set", tokenizer)
    args = TrainArguments(output_dir=str(tmp_path / "out"), report_to="none", completion_only_loss=True,
                          dataset_kwargs={"skip_prepare_dataset": True}, model_init_kwargs={"dtype": "float32"})  # fmt: skip
    model = ModelConfig(model_name_or_path=str(model_folder))
    pieces = (args, model, RunFolder(tmp_path / "out"), tokenizer, stored, None, manifest)
    assert make_trainer(*pieces).accelerator.num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # what torchrun says to each of two processes
    with pytest.raises(RunError, match=r"accelerate sees 1 process\(es\), the launcher started 2: they would train apart"):
        make_trainer(*pieces)


def test_documents_of_a_pack_do_not_see_each_other(model_folder, rows_file, tokenizer, tmp_path):
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, _ = load_prepared(tmp_path / "set", tokenizer)
    args = TrainArguments(output_dir=str(tmp_path / "out"), packing=True, max_length=256, effective_batch_size=2, per_device_train_batch_size=2,
                          report_to="none", completion_only_loss=True, dataset_kwargs={"skip_prepare_dataset": False},
                          model_init_kwargs={"dtype": "float32"})  # fmt: skip
    trainer = Trainer(run=RunFolder(tmp_path / "out"), model=str(model_folder), args=args, train_dataset=stored, processing_class=tokenizer)
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
    settings = {"model": "Qwen/Qwen3-8B@main", "learning_rate": 2e-5, "effective_batch_size": 1024, "max_length": 16384, "peft": None}
    result = {"steps": 264, "last_loss": 0.4321, "seconds": 100.0}
    card = model_card({"settings": settings, "data": data, "processes": 64, "result": result, "versions": versions(), "commit": git_commit()})
    for text in ("base_model: Qwen/Qwen3-8B\n", "1,234 rows", "56,789 tokens", "4,321 of them trained", "17 rows longer than 16384", "3 with control",
                 "| learning_rate | 2e-05 |", "| effective_batch_size | 1024 |", "264 steps", "loss 0.4321", "64 process", "f3c5f355cd63", "cccc",
                 "tttt", f"commit {git_commit()}", f"trl {versions()['trl']}"):  # fmt: skip
        assert text in card, text
