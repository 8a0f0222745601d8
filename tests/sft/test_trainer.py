"""The trainer of sft.py: rows of a step, the proof of the labels, its log, packs."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, TrainerControl, TrainerState
from trl import ModelConfig

from alignxplore.sft.configuration import TrainArguments
from alignxplore.sft.plan import plan_passes
from alignxplore.sft.run_folder import RunFolder
from alignxplore.sft.speed import Work
from alignxplore.sft.tokenised_set import load_prepared, prepare, row_lengths
from alignxplore.sft.trainer import LabelError, PackError, Progress, Trainer, check_labels, generation_prompt
from alignxplore.sft.training import make_trainer, resolve

OPENING, END = [8, 9], 2  # tokens that open the assistant's turn; the end of turn


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


def test_a_data_seed_of_zero_is_a_seed(rows_file, model_folder, tmp_path):
    orders = {}
    for seed in (None, 0, 42):
        args = TrainArguments(output_dir=str(tmp_path), report_to="none", data_seed=seed)  # seed is 42
        asking = SimpleNamespace(args=args, train_dataset=None, state=None, steps_per_epoch=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alignxplore.sft.trainer.row_lengths", lambda rows: [5] * 64)
            orders[seed] = Trainer._get_train_sampler(asking).seed
    assert orders == {None: 42, 0: 0, 42: 42}


def test_seconds_of_an_interrupted_run_go_on_where_it_stopped(tmp_path):
    run, state = RunFolder(tmp_path), TrainerState(global_step=5, max_steps=9)
    run.log({"step": 5, "loss": 1.0, "seconds": 100.0})
    progress = Progress(run, Work(tokens=1.0, flop=1.0))
    progress.on_train_begin(None, state, TrainerControl())
    state.global_step = 9
    progress.on_log(None, state, TrainerControl(), {"loss": 0.5, "learning_rate": 0.0})
    assert 100.0 <= run.seconds() < 160.0 and len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("mode", ["plain", "one row a batch", "packed"])
def test_loss_falls_on_completions_only_in_the_batches_of_every_mode(rows, rows_file, model_folder, tmp_path, mode):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, manifest = load_prepared(tmp_path / "set", tokenizer)
    batch = 1 if mode == "one row a batch" else 4
    args = TrainArguments(
        output_dir=str(tmp_path / "out"),
        effective_batch_size=batch,
        per_device_train_batch_size=batch,
        packing=mode == "packed",
        max_length=256,
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        gradient_checkpointing=False,
    )
    plan_passes(args, row_lengths(stored))
    run = RunFolder(tmp_path / "out")
    trainer = Trainer(run=run, model=str(model_folder), args=args, train_dataset=stored, processing_class=tokenizer)
    documents, texts = 0, []
    for collated in trainer.get_train_dataloader():
        documents += check_labels(collated, generation_prompt(tokenizer), tokenizer.eos_token_id)
        for labels in collated["labels"].tolist():
            texts.append(tokenizer.decode([label for label in labels if label != -100]))
    expected = {row["completion"][0]["content"] for row in rows}
    parts = {text for chunk in texts for text in chunk.removesuffix("<|im_end|>\n").split("<|im_end|>\n")}
    assert documents == sum(chunk.count("<|im_end|>\n") for chunk in texts) and parts <= expected
    assert manifest["rows"] - documents < batch, "only what is less than a step may be left out"


@pytest.fixture
def packing_trainer(model_folder, rows_file, tmp_path) -> Trainer:
    """The trainer as sft.py makes it: eight rows a step, packed."""
    sizes = {"max_length": 256, "effective_batch_size": 8, "packed_tokens": 512}
    args = TrainArguments(output_dir=str(tmp_path / "out"), packing=True, report_to="none", **sizes)
    model = ModelConfig(model_name_or_path=str(model_folder))
    tokenizer = resolve(args, model)
    prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, manifest = load_prepared(tmp_path / "set", tokenizer)
    plan_passes(args, row_lengths(stored))
    return make_trainer(args, model, RunFolder(tmp_path / "out"), tokenizer, stored, None, manifest)


def test_a_pass_of_packs_holds_its_tokens_and_a_step_its_rows(packing_trainer):
    passes = packing_trainer.args.gradient_accumulation_steps
    batches = list(packing_trainer.get_train_dataloader())
    assert passes > 1 and len(batches) == 10 * passes
    for batch in batches:
        assert batch["input_ids"].shape[0] == 1 and batch["input_ids"].numel() <= 512 and "attention_mask" not in batch
    rows = [int((batch["position_ids"] == 0).sum()) for batch in batches]
    assert all(sum(rows[step : step + passes]) == 8 for step in range(0, len(rows), passes))


def test_packs_whose_rows_see_each_other_are_refused(packing_trainer, monkeypatch):
    packing_trainer.args.max_steps = 1
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda positions: None)
    with pytest.raises(PackError, match="rows of a pack see each other .* take --packing out"):
        packing_trainer.train()
    monkeypatch.undo()
    packing_trainer.train()


def test_documents_of_a_pack_do_not_see_each_other(packing_trainer):
    """In the forward pass of a training step."""
    trainer, tokenizer = packing_trainer, packing_trainer.processing_class
    batch = next(iter(trainer.get_train_dataloader()))
    starts = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
    assert len(starts) > 2 and check_labels(batch, generation_prompt(tokenizer), tokenizer.eos_token_id) == len(starts)
    policy, ids, labels = trainer.model.eval(), batch["input_ids"], batch["labels"][0]
    with torch.inference_mode():
        together = trainer.compute_loss(policy, dict(batch))
        apart = [
            torch.nn.functional.cross_entropy(
                policy(input_ids=ids[:, start:end]).logits[0, :-1], labels[start + 1 : end]
            )
            * (labels[start:end] != -100).sum()
            for start, end in zip(starts, [*starts[1:], len(labels)])
        ]
    assert together.item() == pytest.approx(sum(apart).item() / (labels != -100).sum().item(), abs=1e-5)
