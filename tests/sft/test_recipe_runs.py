"""The LoRA recipe, trained on a CPU with a tiny model; its adapter is merged, served by vLLM and evaluated."""

import json

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.judging.letters import find_letters
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.sft.adapters import merge
from tests import ROOT

pytestmark = pytest.mark.slow


async def test_the_lora_recipe_is_trained_merged_and_evaluated(
    run_script, model_folder, rows_file, fake_server, tokenizer, tmp_path
):
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    recipe = ["--config", "recipes/lora_qwen3_4b.yaml", "--model_name_or_path", model_folder]
    smaller = ["--train_data", rows_file, "--max_length", 256, "--effective_batch_size", 8, "--max_steps", 20]
    script = ["bash", "sft.sh", *recipe, *smaller, "--out", adapter]
    run_script(["bash", "-c", f'cd {ROOT}/sft && exec "$@"', "-", *script], NPROC="1")
    losses = [json.loads(line)["loss"] for line in (adapter / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.02, "a frozen random model learns little"
    settings = json.loads((adapter / "run.json").read_text())["peft"]
    assert (settings["lora_r"], settings["lora_alpha"]) == (32, 64)
    merge(adapter, merged)

    letters = find_letters(tokenizer).tokens
    entries = [{"token": f"token_id:{token}", "logprob": log} for token, log in zip(letters, (-0.1, -2.4))]
    letter = {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}
    file, out = tmp_path / "own_upi.jsonl", str(tmp_path / "out")
    choices = [Interaction(f"film {i}", f"other film {i}", "which film?") for i in range(9)]
    write_jsonl(file, (user_row(UserRecord(f"u{n}", tuple(choices[: 6 + n]), choices[8])) for n in range(3)))
    window = {"max_model_len": 2048, "max_tokens": 64, "serve_arguments": "--dtype float32"}
    await generate(
        GenerationArguments(model=[f"lora={merged}"], data=[f"own={file}"], out=out, settings=["full"], **window)
    )
    assert len(SummarySet(tmp_path / "out", "lora", "own", "full", 0).by_record()) == 3
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    async with fake_server(lambda body: {"choices": [letter]}, max_model_len=16384) as server:
        judge = f"reader={server.url}#{tmp_path / 'tokenizer'}"
        rows = await evaluate(EvaluationArguments(judge=[judge], data=[f"own={file}"], out=out, cues=[]))
    (row,) = (row for row in rows if (row.policy, row.setting) == ("lora", "full"))
    assert (row.n, row.values["coverage"]) == (3, 1.0)
