"""Real training runs of sft.py in processes of their own: modes agree and kills lose nothing."""

import json
import os
import random
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignxplore.serving.models import ModelSpec
from alignxplore.sft.adapters import merge
from alignxplore.sft.run_folder import COMPLETE, RunFolder
from tests import ROOT
from tests.golden import check_golden

pytestmark = pytest.mark.slow
STEPS = 12
GOLDEN = Path(__file__).with_name("golden.json")
ZERO2, ZERO3 = (ROOT / f"sft/configs/zero{stage}.json" for stage in (2, 3))


@pytest.fixture(scope="session")
def options(model_folder, rows_file) -> list:
    return [
        *("--config", ROOT / "sft/configs/tiny.yaml", "--model_name_or_path", model_folder, "--train_data", rows_file),
        *("--max_steps", STEPS, "--logging_steps", 1, "--save_steps", 5, "--effective_batch_size", 8),
        *(
            "--per_device_train_batch_size",
            4,
            "--save_total_limit",
            3,
            "--gradient_checkpointing",
            "true",
        ),  # as at full size
    ]


def curve(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="session")
def train(run_script, options, tmp_path_factory):
    """`train(name, *extra, processes=1)` → output folder; a name is trained once a session."""
    base = tmp_path_factory.mktemp("runs")

    def run(name: str, *extra, processes: int = 1) -> Path:
        if not (base / name / "summary.json").exists():
            script = ["bash", ROOT / "sft/sft.sh", *options, "--out", base / name, *extra]
            run_script(script, NPROC=str(processes))
        return base / name

    return run


def test_one_process_comes_to_the_golden_losses(train):
    check_golden(GOLDEN, "one process", {"loss": curve(train("plain"))})


@pytest.mark.parametrize(
    ("name", "extra"), [("ddp", []), ("zero2", ["--deepspeed", ZERO2]), ("zero3", ["--deepspeed", ZERO3])]
)
def test_two_processes_train_the_same_as_one(train, name, extra):
    alone, together = curve(train("plain")), curve(train(name, *extra, processes=2))
    assert alone == pytest.approx(together, rel=0, abs=1e-5)
    assert alone[-1] < alone[0] - 0.5
    weights = [load_file(train(run) / "model.safetensors") for run in ("plain", name)]
    assert weights[0].keys() == weights[1].keys() and "lm_head.weight" in weights[0]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-4) for key in weights[0])


@pytest.mark.parametrize(("name", "extra", "processes"), [("plain", [], 1), ("zero3", ["--deepspeed", ZERO3], 2)])
def test_killed_at_a_random_step_and_in_a_save_the_curve_is_that_of_an_undisturbed_run(
    train, run_script, options, tmp_path, name, extra, processes
):
    undisturbed = train(name, *extra, processes=processes)
    launch = (
        [sys.executable]
        if processes == 1
        else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
    )
    command = [*launch, Path(__file__).with_name("killed_sft.py"), *options, "--output_dir", tmp_path, *extra]
    moment = random.randint(6, 9)
    print(f"killed at step {moment}")  # shown with whatever fails below
    assert run_script(command, expect=None, KILL_AT=str(moment)).returncode != 0
    assert RunFolder(tmp_path).last_complete().name == "checkpoint-5"
    assert run_script(command, expect=None, KILL_IN_SAVE="10").returncode != 0
    assert (tmp_path / "checkpoint-10").is_dir() and not (tmp_path / "checkpoint-10" / COMPLETE).exists()
    if processes > 1:
        alone = run_script([sys.executable, command[len(launch)], *options, "--output_dir", tmp_path], expect=1)
        assert "saved with ZeRO stage 3 on 2 process(es), and cannot be resumed without DeepSpeed on 1" in alone.stderr
        assert "Traceback" not in alone.stderr
    process = run_script(command, expect=None, KILL_IN_FINAL_SAVE="1")
    assert (
        process.returncode != 0
        and "resuming from checkpoint-5 (deleted, torn by a kill: checkpoint-10)" in process.stdout
    )
    process = run_script(command)
    assert (
        f"resuming from checkpoint-{STEPS}" in process.stdout
        and RunFolder(tmp_path).summary()["result"]["steps"] == STEPS
    )
    assert curve(tmp_path) == pytest.approx(curve(undisturbed), rel=0, abs=1e-6)
    weights, expected = load_file(tmp_path / "model.safetensors"), load_file(undisturbed / "model.safetensors")
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    again = run_script(command)
    assert "this run is finished" in again.stdout
    other = run_script([*command, "--learning_rate", "5e-4"], expect=None)
    assert other.returncode != 0 and "other settings (learning_rate 0.002 → 0.0005)" in other.stderr + other.stdout


@pytest.mark.parametrize("prompts", [3, 1], ids=["shared", "fewer than processes"])
def test_processes_write_the_samples_of_an_evaluation_together(train, rows_file, prompts):
    evaluations = ("--eval_data", rows_file, "--eval_strategy", "steps", "--eval_steps", 6, "--eval_new_tokens", 8)
    name, stage = f"{prompts} samples", ("--deepspeed", ZERO3)
    folder = train(name, *evaluations, "--eval_samples", prompts, *stage, processes=2)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["row"]) for row in rows] == [(step, row) for step in (6, 12) for row in range(prompts)]
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["samples"] for row in logged if "bad_format" in row] == [prompts] * 2
    losses = [row["loss"] for row in logged if "loss" in row]
    assert losses == pytest.approx(curve(train("plain")), rel=0, abs=1e-5), "the training goes on as without"


def test_lora_trains_the_adapter_only(train):
    folder = train("lora", "--use_peft", "--lora_r", 4, "--lora_target_modules", "all-linear")
    losses = curve(folder)
    assert (
        losses[-1] < losses[0]
        and (folder / "adapter_model.safetensors").is_file()
        and not (folder / "model.safetensors").exists()
    )
    assert "library_name: peft" in (folder / "README.md").read_text()


def test_an_adapter_of_the_same_seed_is_the_same(train):
    lora = ("--use_peft", "--lora_r", 4, "--lora_target_modules", "all-linear")
    first, again = (load_file(train(name, *lora) / "adapter_model.safetensors") for name in ("lora", "lora again"))
    assert all(torch.allclose(first[name], again[name], atol=1e-6) for name in first)


def test_a_merged_adapter_says_what_base_and_adapter_say(train, rows, model_folder, tmp_path):
    folder = train("lora", "--use_peft", "--lora_r", 4, "--lora_target_modules", "all-linear")
    merge(folder, tmp_path / "merged")
    assert (
        ModelSpec.parse(f"m={tmp_path / 'merged'}").identity
        and not (tmp_path / "merged" / "adapter_config.json").exists()
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = tokenizer.apply_chat_template(rows[0]["prompt"], return_tensors="pt", return_dict=False)
    full_model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    parts = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), folder)
    with torch.inference_mode():
        merged, apart, base = (
            model(ids).logits for model in (full_model, parts, AutoModelForCausalLM.from_pretrained(model_folder))
        )
    assert torch.allclose(merged, apart, atol=1e-5) and not torch.allclose(merged, base, atol=1e-3)
    with pytest.raises(FileExistsError, match="choose another --out"):
        merge(folder, tmp_path / "merged")


# Stand-ins for Slurm: the names of the nodes, and a step that starts its command once a node.
SCONTROL = "#!/bin/bash\nprintf '%s\\n' 127.0.0.1 elsewhere\n"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do SLURM_NODEID=$node "$@" & started+=($!); done
for step in "${started[@]}"; do wait "$step" || code=$?; done
exit ${code:-0}
"""


def test_a_slurm_job_on_two_nodes_trains_the_same_as_one_process(train, run_script, options, tmp_path):
    for name, text in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(ROOT / "sft"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "n[0-1]",
    }
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ENVIRONMENT": "/dev/null"}
    script = ["bash", ROOT / "sft/slurm_sft.sbatch", *options, "--output_dir", tmp_path / "out"]
    process = run_script(script, NPROC="1", **slurm, **paths)
    assert "2 nodes, first 127.0.0.1:" in process.stdout and "x 2 process(es)" in process.stdout
    assert curve(tmp_path / "out") == pytest.approx(curve(train("plain")), rel=0, abs=1e-5)
