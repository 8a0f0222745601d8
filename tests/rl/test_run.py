"""Real tiny runs of the launch script: verl, Ray, FSDP2 and vLLM on a CPU. Only the judge behind HTTP is a stand-in.

One run, of three stages with credit `centered`, is killed at the end of an epoch while its judge misbehaves, and
finished by the same command under the same judge; another, with credit `tree`, goes on two ranks, until one of its
rollout engines loses its weights. Two steps make an epoch (conftest.py). The quick start (tests/test_quickstart.py)
trains two stages with credit `paper`.
"""

import json
import signal
import time

import psutil
import pytest

pytestmark = pytest.mark.slow
PROBABILITIES = "training/rollout_probs_diff_max"
FAULTS = ("streaming.judge_timeout=2",)  # a third of the answers is faulty; one that hangs is asked for again soon


def metrics(out):
    return {row["step"]: row for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())}


def checkpointed(out):
    tracker = out / "checkpoints" / "latest_checkpointed_iteration.txt"
    return int(tracker.read_text() or 0) if tracker.exists() else 0


def wait_until(condition, process, limit=900):
    deadline = time.monotonic() + limit
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def leftovers(out):
    """Processes that still carry this run's output folder in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.pid != psutil.Process().pid and any(str(out) in part for part in process.info["cmdline"] or []):
                found.append(process.info["cmdline"])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def running(processes):
    """Those that have not ended; one that nobody waited for has."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def three(rows):
    """Variables of a run of three stages: a step has 4 users x 3 stages x 4 summaries."""
    return {
        "STAGES": "3",
        "CREDIT": "centered",
        "TRAIN": str(rows / "three/train.parquet"),
        "VAL": str(rows / "three/val.parquet"),
    }


def test_killed_at_the_end_of_an_epoch_under_a_judge_that_misbehaves(launch, judge, folder, three):
    process = launch.start(folder, judge("words"), *FAULTS, "trainer.val_before_train=false", **three)
    wait_until(lambda: (folder / "log" / "train.log").exists(), process)  # the judge has passed its check
    judge("faults")
    wait_until(lambda: checkpointed(folder) == 2, process)
    # Ray, its workers, the rollout engine; Ray's agents, which hold nothing, leave by themselves a minute later.
    started = [
        child for child in psutil.Process(process.pid).children(recursive=True) if not child.name().endswith("Agent")
    ]
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    found = metrics(folder)
    assert {1, 2} <= set(found) and not (folder / "model").exists()
    repeated = {kind for step in (1, 2) for kind in found[step] if kind.startswith("repeated/")}
    assert repeated >= {
        f"repeated/judge/{kind}" for kind in ("http_429", "http_500", "not_json", "timeout", "unusable")
    }
    assert (
        found[1]["lost_share"] == found[2]["lost_share"] == 0
        and found[1]["training/rows"] == 48
        and found[1]["repeated_requests"] >= 8
    )
    deadline = time.monotonic() + 30
    while left := running(started):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_the_same_command_does_the_planned_steps_and_leaves_a_model(launch, judge, folder, three):
    before = metrics(folder)
    started = (folder / "log" / "train.log").stat().st_size
    process = launch.start(folder, judge("words"), *FAULTS, **three)
    wait_until(lambda: (folder / "log" / "train.log").stat().st_size > started, process)
    judge("faults")
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    assert "continuing after step 2 of 3" in said and "step 3/3" in said and "finished after" in said
    found = metrics(folder)
    assert sorted(found) == [1, 2, 3] and all(found[step] == before[step] for step in (1, 2))
    for step in (1, 2, 3):
        assert 0 <= found[step][PROBABILITIES] <= 1e-4
        assert {
            "stage1/reward",
            "stage3/reward",
            "stage1/drawn_bonus",
            "stage2/drawn_bonus",
            "stage3/confidence/judge",
            "stage1/judge_seconds",
            "stage3/baselines_failed",
        } <= set(found[step]) and "stage3/drawn_bonus" not in found[step]
    assert 0 < found[3]["stage2/baseline"] < 1 and found[3]["stage2/baselines_failed"] == 0
    assert found[3]["training/rows"] == 48 and found[3]["repeated_requests"] >= 8 and found[3]["lost_share"] == 0
    assert found[1]["actor/grad_norm"] > 0 and 0 < found[1]["stage1/reward"] < 1
    assert "val/stage3/reward" in found[2] and "val/reward" in found[3]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [2] * 4 + [3] * 4
    assert len({row["user"] for row in samples}) == 4 and all(len(row["stages"]) == 3 for row in samples)
    assert not leftovers(folder)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        AutoTokenizer.from_pretrained(folder / "model"),
    )
    assert (
        model.dtype == torch.float32
        and model.generate(**tokenizer("tea", return_tensors="pt"), max_new_tokens=3).shape[1] > 1
    )
    best = json.loads((folder / "best" / "validation.json").read_text())
    assert best["reward"] == max(row["val/reward"] for row in found.values() if "val/reward" in row)
    assert (folder / "best" / "config.json").exists()


TREE = {
    "CREDIT": "tree",
    "BRANCHES": "2",
    "TEST_EVERY": "-1",
}  # 4 users x 4 summaries, each well-formed one continued by two


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks") / "two"


def test_two_ranks_train_until_one_of_their_rollout_engines_loses_its_weights(launch, judge, two_ranks):
    out = two_ranks
    extension = "++actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=tests.rl.broken_sync.BrokenWorker"
    group = "+streaming.tolerance.float32.group=1e-4"  # in bfloat16 a run is compared by group
    done = launch(
        out,
        judge("words"),
        extension,
        group,
        "trainer.val_before_train=false",
        GPUS="2",
        BROKEN_SYNC=str(out.parent / "broken"),
        **TREE,
    )
    assert done.returncode == 3, done.stdout
    assert f"{PROBABILITIES} is" in done.stdout and "does not hold the weights" in done.stdout
    found = metrics(out)
    assert sorted(found) == [1, 2] and all(row[PROBABILITIES] <= 1e-4 for row in found.values())
    for row in found.values():
        assert row["training/rollout_probs_diff_groups_above"] == 0
        assert row["training/rows"] == 16 + 2 * round(16 * (1 - row["stage1/bad_format"])) and row["lost_share"] == 0
    actor = out / "checkpoints" / "global_step_2" / "actor"
    assert {path.name for path in actor.glob("model_world_size_*")} == {
        f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)
    }
    assert list((actor / "huggingface").glob("*.safetensors")) and not (out / "model").exists()


def test_one_rank_does_what_two_ranks_do_until_it_is_asked_to_stop(launch, judge, tmp_path, two_ranks):
    """Each rollout has a seed of its own: it does not matter which engine writes it, nor in which order the update is
    added up."""
    if not (two_ranks / "metrics.jsonl").exists():
        pytest.skip("the test of two ranks was not run before it")
    out = tmp_path / "run"
    process = launch.start(
        out, judge("words"), "trainer.val_before_train=false", STEPS="400", SAVE_EVERY="400", **TREE
    )
    wait_until(lambda: (out / "metrics.jsonl").exists() and 2 in metrics(out), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    one, two = metrics(out), metrics(two_ranks)
    assert (
        process.returncode == 3
        and f"step {max(one) + 1}: asked to stop; the last checkpoint is of step {max(one)}" in said
    ), said
    assert checkpointed(out) == max(one) and not (out / "model").exists() and not leftovers(out)
    for step in (1, 2):
        for name in (
            "stage1/reward",
            "stage2/reward",
            "generated_tokens",
            "actor/pg_loss",
            "actor/grad_norm",
            "critic/advantages/max",
        ):
            assert one[step][name] == pytest.approx(two[step][name], rel=1e-3, abs=1e-5), (step, name)


def test_a_judge_that_does_not_judge_is_refused_before_anything_starts(launch, judge, tmp_path):
    done = launch(tmp_path / "run", judge("a"))
    assert (
        done.returncode == 1
        and "cannot start: judge judge gives the letter A a probability between 0.99" in done.stdout
    ), done.stdout
    assert not (tmp_path / "run" / "log").exists()
