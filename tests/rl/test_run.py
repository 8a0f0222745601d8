"""Real tiny runs of the launch script: verl, Ray, FSDP2 and vLLM on a CPU. Only the judge behind HTTP is a stand-in."""

import json

import psutil
import pytest

pytestmark = pytest.mark.slow
PROBABILITIES = "training/rollout_probs_diff_max"


def metrics(out):
    return {row["step"]: row for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())}


def leftovers(out):
    """Processes that still carry this run's output folder in their command line or environment."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.pid != psutil.Process().pid and any(str(out) in part for part in process.info["cmdline"] or []):
                found.append(process.info["cmdline"])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_run_trains_validates_exports_stops_and_continues(launch, start_judge, tmp_path):
    out, judge = tmp_path / "run", start_judge()
    done = launch(out, judge)
    assert done.returncode == 0, done.stdout
    assert "step 3/3" in done.stdout and "finished after" in done.stdout
    found = metrics(out)
    assert sorted(found) == [0, 1, 2, 3]
    for step in (1, 2, 3):
        assert 0 <= found[step][PROBABILITIES] <= 1e-4 and found[step]["training/rows"] == 32
        assert {"stage1/reward", "stage2/reward", "stage1/drawn_bonus", "stage2/confidence/judge", "stage1/judge_seconds"} <= set(found[step])
    assert found[1]["actor/grad_norm"] > 0 and 0 < found[1]["stage1/reward"] < 1
    assert "val/reward" in found[0] and "val/stage2/reward" in found[2] and "val/reward" in found[3]
    assert {row["step"] for row in map(json.loads, (out / "samples.jsonl").read_text().splitlines())} == {0, 2, 3}
    assert not leftovers(out)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out / "model"), AutoTokenizer.from_pretrained(out / "model")
    assert model.dtype == torch.float32 and model.generate(**tokenizer("tea", return_tensors="pt"), max_new_tokens=3).shape[1] > 1

    again = launch(out, judge)
    assert again.returncode == 0 and "already finished" in again.stdout
    refused = launch(out, judge, LR="5e-4")
    assert refused.returncode == 1 and "optim.lr" in refused.stdout and "choose another OUT" in refused.stdout

    longer = launch(out, judge, STEPS="4")
    assert longer.returncode == 0 and "continuing after step 3 of 4" in longer.stdout, longer.stdout
    assert sorted(metrics(out)) == [0, 1, 2, 3, 4] and metrics(out)[2] == found[2]


def test_lost_weights_are_caught_at_the_learning_rate_really_used(launch, start_judge, tmp_path):
    out = tmp_path / "run"
    extension = "++actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=broken_sync.BrokenWorker"
    done = launch(out, start_judge(), extension, "trainer.val_before_train=false", LR="3e-4", TEST_EVERY="-1")
    assert done.returncode == 3, done.stdout
    assert f"{PROBABILITIES} is" in done.stdout and "does not hold the weights" in done.stdout
    assert not (out / "model").exists() and 1 in metrics(out)
