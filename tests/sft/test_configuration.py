"""The options of sft.py: the effective batch, what is refused, what makes a run another one."""

import dataclasses
import json
import re

import pytest
import torch
from accelerate.parallelism_config import ParallelismConfig
from trl import ModelConfig

from alignxplore.sft.configuration import (
    SETTINGS,
    UNSUPPORTED,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_PREFIXES,
    DataArguments,
    TrainArguments,
    run_settings,
    split_batch,
)
from alignxplore.sft.training import sft
from tests import ROOT


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


NAN, INFINITE = float("nan"), float("inf")
# Of each numeric option the values that no training can be meant with.
IMPOSSIBLE = {
    "effective_batch_size": (0, -4),
    "per_device_train_batch_size": (0, -1),
    "per_device_eval_batch_size": (0, -1),
    "max_length": (0, -1, None),
    "packed_tokens": (0, -1),
    "processes": (0, -1),
    "pad_to_multiple_of": (0, -1),
    "eval_new_tokens": (0, -1),
    "eval_samples": (-1,),
    "eval_accumulation_steps": (0, -1),
    "torch_empty_cache_steps": (0, -1),
    "dataloader_num_workers": (-1,),
    "dataloader_prefetch_factor": (0, -1),
    "ddp_bucket_cap_mb": (0, -1),
    "ddp_timeout": (0, -1),
    "num_train_epochs": (0, -1, NAN, INFINITE),
    "max_steps": (0, -2),
    "learning_rate": (0, -1e-5, NAN, INFINITE),
    "logging_steps": (0, -1, NAN),
    "save_steps": (0, -1, NAN),
    "eval_steps": (0, -1, NAN),
    "save_minutes": (0, -1, NAN, INFINITE),
    "eval_delay": (-1, NAN),
    "save_total_limit": (-1,),
    "warmup_steps": (-1, NAN),
    "warmup_ratio": (-1, NAN, 2),
    "weight_decay": (-1, NAN),
    "max_grad_norm": (-1, NAN),
    "adam_beta1": (-1, NAN, 1, 2),
    "adam_beta2": (-1, NAN, 1, 2),
    "adam_epsilon": (-1, NAN),
    "label_smoothing_factor": (-1, NAN, 2),
    "neftune_noise_alpha": (-1, NAN),
    "router_aux_loss_coef": (-1, NAN),
    "seed": (-1,),
    "data_seed": (-1,),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in IMPOSSIBLE.items() for value in values])
def test_a_number_that_cannot_be_meant_is_refused_with_the_options_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^--{name} "):
        TrainArguments(output_dir=str(tmp_path / "out"), **{"save_strategy": "no"} | {name: value})


def test_every_number_of_a_training_has_its_bounds():
    """A version of TRL with another number is looked at before it can be zero without a word."""
    numbers = {
        field.name
        for field in dataclasses.fields(TrainArguments)
        if re.search(r"\b(int|float)\b", str(field.type)) and "str" not in str(field.type)
    }
    elsewhere = {"gradient_accumulation_steps", "local_rank", "dataset_num_proc"}  # refused, set or unused here
    assert numbers - elsewhere == set(IMPOSSIBLE)


@pytest.mark.parametrize(
    "adapter", [{"lora_r": 0}, {"lora_alpha": -1}, {"lora_dropout": 2.0}, {"lora_dropout": float("nan")}]
)
def test_an_adapter_without_size_is_refused_before_anything_is_loaded(tmp_path, adapter):
    model, args = ModelConfig(model_name_or_path="x", use_peft=True, **adapter), TrainArguments(str(tmp_path / "out"))
    with pytest.raises(ValueError, match=f"^--{next(iter(adapter))} "):
        sft(DataArguments(), args, model)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="^--published_steps 0: at least 1"):
        DataArguments(published_steps=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_free": True}, "padding_free is not supported: .* take it out"),
        ({"auto_find_batch_size": True}, "would change the rows of a step; lower --per_device_train_batch_size"),
        ({"fsdp": "full_shard"}, "fsdp is not supported: .* use --deepspeed"),
        ({"hub_token": "hf_secret"}, "hub_token is not supported: .* HF_TOKEN"),
        ({"model_init_kwargs": {"token": "hf_secret"}}, "model_init_kwargs holds a token, .* HF_TOKEN"),
        ({"model_init_kwargs": '{"token": "hf_secret"}'}, "model_init_kwargs holds a token, .* HF_TOKEN"),
        ({"model_init_kwargs": "use_cache=false"}, "model_init_kwargs 'use_cache=false' is no JSON object; give one"),
        ({"enable_jit_checkpoint": True}, "processes would not agree on a step; SIGTERM saves without it"),
        ({"packing": True, "packing_strategy": "wrapped"}, "packing_strategy is not supported: whole rows are packed"),
        ({"parallelism_config": ParallelismConfig(sp_size=2)}, "would change the rows of a step; take it out"),
    ],
)
def test_what_would_change_the_batch_or_write_a_secret_is_refused_in_one_sentence(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as refused:
        TrainArguments(output_dir=str(tmp_path), **options)
    assert "hf_secret" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM_CONFIG"])
def test_what_the_launcher_switches_on_is_refused_too(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match="is not supported"):
        TrainArguments(output_dir=str(tmp_path))


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
    other = {
        **{"logging_steps": 5, "save_steps": 50, "dataloader_num_workers": 2, "per_device_train_batch_size": 2},
        **{"report_to": "none", "run_name": "x", "gradient_checkpointing": False, "eval_strategy": "steps"},
        **{"packing": True, "packed_tokens": 2048, "save_minutes": 5.0, "keep_optimizer": True},
        "logging_first_step": True,
    }
    assert settings_of(other) == settings_of()


# Every option of TRL's and transformers' that may change what is learnt; all others are without effect, or refused.
SHAPING = """
    num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps warmup_ratio
    optim optim_args optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm
    label_smoothing_factor neftune_noise_alpha average_tokens_across_devices loss_type router_aux_loss_coef
    bf16 fp16 tf32 use_liger_kernel liger_kernel_config use_cache full_determinism
    load_best_model_at_end metric_for_best_model greater_is_better
    seed data_seed ignore_data_skip train_sampling_strategy length_column_name effective_batch_size longest_first
    trust_remote_code chat_template_path dataset_text_field label_names max_length truncation_mode shuffle_dataset
    pad_to_multiple_of assistant_only_loss
"""


def test_every_option_of_trl_is_known_to_shape_a_run_or_not_to():
    """A version of TRL with another option is looked at before a run can be told from another one."""
    names = {field.name for field in dataclasses.fields(TrainArguments)}
    without = {name for name in names if name in WITHOUT_EFFECT or name.startswith(WITHOUT_EFFECT_PREFIXES)}
    refused = {*UNSUPPORTED, "packing_strategy"} & names
    assert not WITHOUT_EFFECT - names, "options that are gone"
    assert names - without - refused == set(SHAPING.split())
    assert set(SETTINGS) <= set(SHAPING.split())


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_of_many_passes_are_added_up_in_32_bits(stage):
    """DeepSpeed adds them in the model's own bits where nothing is said; 128 passes in bf16 would lose a percent."""
    from deepspeed.runtime.config import DtypeEnum

    config = json.loads((ROOT / f"sft/configs/zero{stage}.json").read_text())
    assert config["zero_optimization"]["stage"] == stage
    assert DtypeEnum(config["data_types"]["grad_accum_dtype"]).value is torch.float32
    gradients_GP = (torch.randn(128, 10_000, generator=torch.Generator().manual_seed(0)) + 0.5).bfloat16()
    coarse_P, fine_P = torch.zeros(10_000, dtype=torch.bfloat16), torch.zeros(10_000)
    for gradient_P in gradients_GP:
        coarse_P, fine_P = coarse_P + gradient_P, fine_P + gradient_P.float()
    assert (coarse_P.float() - fine_P).norm() > 0.01 * fine_P.norm()
