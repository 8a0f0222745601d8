"""The configurations and recipes of sft/: each can be meant as it stands, and says what it takes before it starts."""

import re

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, Qwen3Config
from trl import ModelConfig

from alignxplore.command import run
from alignxplore.sft import training
from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.memory import memory_of
from tests import ROOT

# hidden size, layers, intermediate size, heads, heads of keys, tied embeddings
SHAPES = {
    "Qwen/Qwen3-0.6B": (1024, 28, 3072, 16, 8, True),
    "Qwen/Qwen3-1.7B": (2048, 28, 6144, 16, 8, True),
    "Qwen/Qwen3-4B": (2560, 36, 9728, 32, 8, True),
    "Qwen/Qwen3-8B": (4096, 36, 12288, 32, 8, False),
}
RECIPES = sorted(path.name for path in (ROOT / "sft/recipes").glob("*.yaml"))
GB = {"lora": 24, "qlora": 24, "full": 80}


def shape(name: str) -> Qwen3Config:
    hidden, layers, inner, heads, keys, tied = SHAPES[name]
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "vocab_size": 151936}
    return Qwen3Config(
        num_attention_heads=heads, num_key_value_heads=keys, head_dim=128, tie_word_embeddings=tied, **sizes
    )


def settings(name: str) -> dict:
    return yaml.safe_load((ROOT / "sft/recipes" / name).read_text())


def processes_of(name: str) -> int:
    return {"one_node": 8, "eight_nodes": 64}.get(name.removesuffix(".yaml").split("8b_")[-1], 1)


@pytest.fixture
def check(tokenizer, rows_file, tmp_path, monkeypatch, capsys):
    """`check(recipe)` → what --check says of it, with a model of the right shape that has no weights."""
    monkeypatch.setattr(training, "is_bitsandbytes_available", lambda: True)
    monkeypatch.chdir(ROOT / "sft")

    def of(name: str, processes: int = 1) -> str:
        folder = tmp_path / "model"
        shape(settings(name)["model_name_or_path"]).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        words = ["--config", f"recipes/{name}", "--model_name_or_path", folder, "--train_data", rows_file, "--check"]
        words += ["--effective_batch_size", max(8, processes), "--out", tmp_path / "out"]  # the rows here are eighty
        words += ["--processes", processes]
        run(training.sft, (DataArguments, TrainArguments, ModelConfig), None, [str(word) for word in words])
        return capsys.readouterr().out

    return of


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_rows_steps_memory_and_time_before_it_starts(check, name):
    output, own = check(name), settings(name)
    assert re.search(r"8 rows a step, packed = \d passes of at most [\d,]+ tokens x 1 process", output)
    assert f"10 steps an epoch, {own.get('max_steps', 40):,} in all" in output
    assert re.search(
        r"memory of a GPU, by arithmetic: [\d.]+ GB = [\d.]+ weights \+ .* for a pass of [\d,]+ tokens", output
    )
    assert re.search(r"time, by arithmetic: [\d.e+]+ FLOP, [\d.]+ hours at 40% of 1 H100", output)
    assert "checkpoints every 30 minutes, on SIGTERM" in output


@pytest.mark.parametrize("name", RECIPES)
def test_a_check_without_a_gpu_tells_the_memory_that_the_readme_does(check, name):
    processes = processes_of(name)
    output = check(name, processes)
    memory = re.search(r"memory of a GPU, by arithmetic: ([\d.]+) GB", output)[1]
    readme = re.search(rf"`{name}`.*?\| (\d+) GB \|", (ROOT / "sft/recipes/README.md").read_text())[1]
    assert round(float(memory)) == int(readme) and f"at 40% of {processes} H100" in output
    assert f"there is no GPU here: reckoned for {processes} process(es) of a GPU each, with packed rows" in output
    assert "computes in bf16" in output


def test_a_model_that_cannot_be_fetched_is_named(rows_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(ROOT / "sft")
    words = ["--config", "recipes/lora_qwen3_4b.yaml", "--train_data", rows_file, "--check", "--out", tmp_path / "out"]
    with pytest.raises(SystemExit, match="Qwen/Qwen3-4B: no config.json in the hub's cache.*HF_HUB_OFFLINE"):
        run(training.sft, (DataArguments, TrainArguments, ModelConfig), None, [str(word) for word in words])


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("full")])
def test_a_full_recipe_has_the_published_settings(name):
    published = yaml.safe_load((ROOT / "sft/configs/qwen3_8b.yaml").read_text())
    same = (
        "effective_batch_size published_steps num_train_epochs learning_rate lr_scheduler_type warmup_steps max_length"
    )
    own = settings(name)
    assert {key: own[key] for key in same.split()} == {key: published[key] for key in same.split()}
    assert (own["effective_batch_size"], own["learning_rate"], own["num_train_epochs"]) == (1024, 2e-5, 4)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_its_card_and_its_readme_says_how_much_it_takes(name):
    own = settings(name)
    keys = ("use_peft", "lora_r", "lora_target_modules", "load_in_4bit", "use_bnb_nested_quant")
    model = ModelConfig(model_name_or_path="x", **{key: own[key] for key in keys if key in own})
    stage = 2 if "deepspeed" in own else None
    memory = of_shape(own["model_name_or_path"], model, own["dtype"], stage, processes_of(name))
    total = memory(own.get("packed_tokens", own["max_length"])).total
    assert total < GB[name.split("_")[0]] - 2
    match = re.search(rf"`{name}`.*?\| (\d+) GB \|", (ROOT / "sft/recipes/README.md").read_text())
    assert int(match[1]) == round(total)


def of_shape(name: str, model: ModelConfig, dtype: str, stage: int | None, processes: int):
    """A function tokens of a pass → memory, of a model of that shape in bf16."""
    from types import SimpleNamespace

    from peft import get_peft_model
    from trl import get_peft_config

    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(shape(name))
        if model.use_peft:
            bare = get_peft_model(bare, get_peft_config(model))
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    args = SimpleNamespace(deepspeed_plugin=plugin, world_size=processes, bf16=True, gradient_checkpointing=True)
    args.model_init_kwargs = {"dtype": dtype}
    return lambda tokens: memory_of(bare, args, model, tokens)


@pytest.mark.parametrize(("dtype", "stage", "measured"), [("bfloat16", 2, 14.7), ("float32", None, 15.7)])
def test_the_arithmetic_of_memory_is_within_a_tenth_of_what_a_gpu_took(dtype, stage, measured):
    """Peaks of Qwen3-0.6B's shape on an H200, eight rows of 2,700 tokens a pass (sft/README.md)."""
    memory = of_shape("Qwen/Qwen3-0.6B", ModelConfig(model_name_or_path="x"), dtype, stage, 1)
    assert memory(8 * 2700).total * 1e9 / 2**30 == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("in_4_bits", [False, True])
def test_an_adapter_counts_with_four_bytes_a_weight_and_with_deepspeed_with_two(in_4_bits):
    adapter = {"use_peft": True, "lora_r": 32, "lora_target_modules": ["q_proj", "v_proj"]}
    model = ModelConfig(model_name_or_path="x", load_in_4bit=in_4_bits, **adapter)
    alone, zero = (of_shape("Qwen/Qwen3-0.6B", model, "bfloat16", stage, 1)(1).weights for stage in (None, 2))
    trained_weights = 28 * 32 * (1024 + 16 * 128 + 1024 + 8 * 128)  # of each layer and table: rank x (in + out)
    assert 1e9 * (alone - zero) == pytest.approx(2 * trained_weights)


def test_zero_shares_out_what_its_readme_says():
    """The table of stages in sft/README.md: GB that 8 and 64 GPUs hold, besides activations."""
    text = (ROOT / "sft/README.md").read_text()
    for stage in (1, 2, 3):
        match = re.search(rf"\| `configs/zero{stage}.json`[^|]*\| (\d+) GB \| (\d+) GB \|", text)
        for processes, gb in zip((8, 64), map(int, match.groups())):
            memory = of_shape("Qwen/Qwen3-8B", ModelConfig(model_name_or_path="x"), "bfloat16", stage, processes)(1)
            assert round(memory.total - memory.one_pass) == gb
