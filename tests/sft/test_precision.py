"""What rounding and the shape of passes may do to a run of sft.py: bf16, many passes a step, uneven chunks of the
head."""

import json
from pathlib import Path

import pytest
from trl import ModelConfig
from trl.trainer import sft_trainer

from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.training import train


@pytest.fixture
def losses(rows_file, model_folder, tmp_path):
    """`losses(name, **options)` → those of a few steps of 64 rows (where nothing else is said)."""

    def run(name: str, steps: int = 4, **options) -> list[float]:
        folder: Path = tmp_path / name
        more_options = {"effective_batch_size": 64, "per_device_train_batch_size": 64, "learning_rate": 2e-3} | options
        fixed = {"max_steps": steps, "max_length": 256, "logging_steps": 1, "report_to": "none", "disable_tqdm": True}
        args = TrainArguments(
            output_dir=str(folder), gradient_checkpointing=False, save_strategy="no", **fixed, **more_options
        )
        train(DataArguments(train_data=str(rows_file)), args, ModelConfig(model_name_or_path=str(model_folder)))
        return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]

    return run


def test_sixty_four_passes_a_step_are_one(losses):
    one, many = losses("one"), losses("many", per_device_train_batch_size=1)
    assert many == pytest.approx(one, rel=0, abs=2e-5) and one[-1] < one[0] - 0.3


@pytest.mark.parametrize("chunk", [7, 64])
def test_chunks_of_the_head_that_labels_do_not_fill_change_no_loss(losses, monkeypatch, chunk):
    """Passes of three rows have other numbers of trained tokens each, none of them a multiple of the chunk."""
    shape = {"effective_batch_size": 12, "per_device_train_batch_size": 3}
    expected = losses("whole", loss_type="nll", **shape)
    monkeypatch.setattr(sft_trainer, "_CHUNKED_LM_HEAD_CHUNK_SIZE", chunk)
    assert losses("chunks", loss_type="chunked_nll", **shape) == pytest.approx(expected, rel=0, abs=1e-5)


def test_bf16_stays_within_a_percent_of_32_bits(losses, monkeypatch):
    exact = losses("exact", steps=8)

    def use_cpu(args: TrainArguments) -> None:
        args.use_cpu, args.bf16 = True, True

    monkeypatch.setattr(TrainArguments, "_use_cpu", use_cpu)
    coarse = losses("coarse", steps=8)
    assert coarse == pytest.approx(exact, rel=0.01) and coarse != pytest.approx(exact, rel=1e-6)
