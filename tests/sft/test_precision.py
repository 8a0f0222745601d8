"""What rounding and the shape of passes may do to a run of sft.py: bf16, many passes a step, uneven chunks of the
head."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel
from trl import ModelConfig
from trl.trainer import sft_trainer

from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.run_folder import RunError
from alignxplore.sft.trainer import Trainer
from alignxplore.sft.training import train


@pytest.fixture
def losses(rows_file, model_folder, tmp_path):
    """`losses(name, **options)` → those of a few steps of 64 rows (where nothing else is said)."""

    def run(name: str, steps: int = 4, adapter: dict | None = None, **options) -> list[float]:
        folder: Path = tmp_path / name
        more_options = {"effective_batch_size": 64, "per_device_train_batch_size": 64, "learning_rate": 2e-3} | options
        fixed = {"max_steps": steps, "max_length": 256, "logging_steps": 1, "report_to": "none", "disable_tqdm": True}
        args = TrainArguments(
            output_dir=str(folder), gradient_checkpointing=False, save_strategy="no", **fixed, **more_options
        )
        model = ModelConfig(model_name_or_path=str(model_folder), **adapter or {})
        train(DataArguments(train_data=str(rows_file), eval_data=str(rows_file)), args, model)
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [row["loss"] for row in rows if "loss" in row]

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


@pytest.fixture
def in_bf16(monkeypatch):
    """On a CPU as on a GPU: passes in bf16."""

    def use_cpu(args: TrainArguments) -> None:
        args.use_cpu, args.bf16 = True, True

    monkeypatch.setattr(TrainArguments, "_use_cpu", use_cpu)


def take_for_quantised(monkeypatch) -> None:
    """TRL takes a model for a quantised one; the others, who would ask bitsandbytes, take it as it is."""
    get_peft_model = sft_trainer.get_peft_model

    def get_plain(*arguments, **named):
        monkeypatch.delattr(PreTrainedModel, "is_loaded_in_4bit")  # TRL has looked
        return get_peft_model(*arguments, **named)

    monkeypatch.setattr(PreTrainedModel, "is_loaded_in_4bit", True, raising=False)
    monkeypatch.setattr(sft_trainer, "get_peft_model", get_plain)


ADAPTER = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "lora_modules_to_save": None}


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("whole", [None, ["lm_head"], ["embed_tokens"]])
def test_an_adapter_takes_its_steps_in_32_bits(losses, tmp_path, monkeypatch, in_bf16, capsys, quantised, whole):
    """TRL makes that of a quantised model coarse, and peft what it copies out of a model in bf16: small steps would
    leave most of their entries where they are."""
    if quantised:
        take_for_quantised(monkeypatch)
    dtypes: set[torch.dtype] = set()
    step = Trainer.training_step

    def training_step(self, model, *arguments, **named):
        dtypes.update(p.dtype for p in model.parameters() if p.requires_grad)
        return step(self, model, *arguments, **named)

    monkeypatch.setattr(Trainer, "training_step", training_step)
    options = {"model_init_kwargs": {"dtype": "bfloat16"}, "eval_strategy": "steps", "eval_steps": 2}
    losses("adapter", adapter=ADAPTER | {"lora_modules_to_save": whole}, **options)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert dtypes == {torch.float32} == {weight.dtype for weight in weights.values()}
    assert "trained parameters, torch.float32" in capsys.readouterr().out


def test_whole_layers_beside_an_adapter_are_not_trained_coarsely(losses):
    """Without passes in bf16 their 32-bit copies would not fit to the layers around them."""
    coarse = {"model_init_kwargs": {"dtype": "bfloat16"}}
    with pytest.raises(RunError, match="weights in torch.bfloat16 are too coarse .* --bf16 true"):
        losses("adapter", adapter=ADAPTER | {"lora_modules_to_save": ["embed_tokens"]}, **coarse)


def test_bf16_stays_within_a_percent_of_32_bits(losses, request):
    exact = losses("exact", steps=8)
    request.getfixturevalue("in_bf16")
    coarse = losses("coarse", steps=8)
    assert coarse == pytest.approx(exact, rel=0.01) and coarse != pytest.approx(exact, rel=1e-6)
