"""Real tiny runs of the launch script: verl, Ray, FSDP2 and vLLM on a CPU. Only the judge behind HTTP is a stand-in.

One run, of three stages with credit `centered`, is killed at the end of an epoch while its judge misbehaves, and
finished by the same command under the same judge; a second judge, as faulty, only validates. Another run, with a judge
order for each rollout, goes on one rank and on two, until it is asked to stop or one of its rollout engines loses its
weights. A third makes four updates a step. Two steps make an epoch (conftest.py). What the steps came to is committed
in golden.json (tests/golden.py).
The quick start (tests/quickstart/) trains two stages with credit `paper` under judges that are asked in both orders.
"""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.golden import check_golden

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).with_name("golden.json")
PROBABILITIES = "training/rollout_probs_diff_max"
# A third of the answers is faulty; one that hangs is asked for again soon.
FAULTS = ("streaming.judge_timeout=2", "streaming.val_targets=2")


def metrics(out):
    text = (out / "metrics.jsonl").read_text()  # of a run at work: its last row may be there in part
    return {row["step"]: row for row in map(json.loads, text[: text.rfind("\n") + 1].splitlines())}


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
    commands = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.pid != psutil.Process().pid and any(str(out) in part for part in process.info["cmdline"] or []):
                commands.append(process.info["cmdline"])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return commands


def running(processes):
    """Those that have not ended; one that nobody waited for has."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def golden(run, rows, stages):
    """Compare rewards, lengths, loss and gradient of these steps with the committed ones."""
    names = ["generated_tokens", "actor/pg_loss", "actor/grad_norm"]
    names += [f"stage{k}/{name}" for k in range(1, stages + 1) for name in ("reward", "tokens", "bad_format")]
    check_golden(GOLDEN, run, {name: [row[name] for row in rows] for name in names})


@pytest.fixture
def three(rows):
    """Variables of a run of three stages: a step has 4 users x 3 stages x 4 summaries."""
    return {
        "STAGES": "3",
        "CREDIT": "centered",
        "TRAIN": str(rows / "three/train.parquet"),
        "VAL": str(rows / "three/val.parquet"),
    }


def kill_at_the_end_of_an_epoch(process, folder, judge):
    """Let its judge misbehave once the run trains, and kill it after its first checkpoint; nothing of it may stay."""
    wait_until(lambda: (folder / "log" / "train.log").exists(), process)  # the judge has passed its check
    judge("faults")
    wait_until(lambda: checkpointed(folder) == 2, process)
    started = psutil.Process(process.pid).children(recursive=True)  # Ray, its agents and workers, the rollout engine
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert not (folder / "model").exists()
    deadline = time.monotonic() + 30
    while survivors := running(started):
        assert time.monotonic() < deadline, survivors
        time.sleep(0.2)


def check_steps_under_faults(rows):
    """Rows of steps whose judge misbehaved: asked again, nothing lost."""
    kinds = ("http_429", "http_500", "not_json", "timeout", "unusable")
    repeated = {kind for step in (1, 2) for kind in rows[step] if kind.startswith("repeated/")}
    assert repeated >= {f"repeated/judge/{kind}" for kind in kinds}
    for row in rows.values():
        assert (row["lost_share"], row["training/rows"]) == (0, 48)
        assert row["stage2/baselines_failed"] == 0 < row["stage2/baseline"] < 1
        assert 0 <= row[PROBABILITIES] <= 1e-4 and row["actor/grad_norm"] > 0
        assert {"stage1/drawn_bonus", "stage2/drawn_bonus", "stage3/confidence/judge", "stage1/judge_seconds"} <= set(
            row
        )
        assert "stage3/drawn_bonus" not in row
    assert rows[1]["repeated_requests"] >= 8


def check_held_out(folder, metrics_of):
    """Both judges are one and asked alike, so they agree; rows of a step that was done before the kill are kept."""
    for step in (2, 3):
        row = metrics_of[step]
        for measure in ("reward", "reward_low", "reward_high"):
            assert row[f"val/{measure}"] == pytest.approx(row[f"val/other/{measure}"], abs=1e-9), (step, measure)
        assert row["val/other/coverage"] == 1 and row["val/other/n"] == 12 and row["val/persons"] == 4
        assert row["val/reward_low"] < row["val/reward"] < row["val/reward_high"] and "val/reward_change" not in row
        assert "stage1/confidence/judge" in row and "stage1/confidence/other" not in row
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2] * 4 + [3] * 4 and all(len(row["stages"]) == 3 for row in rows)
    choices = [{len(of_judge) for row in rows for of_judge in row["stages"][k]["by_judge"].values()} for k in range(3)]
    assert choices == [{2}, {2}, {1}], "as far as the rows go"


def check_model(folder):
    """It loads, in the dtype of the rollouts, and writes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.generate(**tokenizer("tea", return_tensors="pt"), max_new_tokens=3).shape[1] > 1


def test_killed_under_a_judge_that_misbehaves_the_same_command_finishes_with_the_golden_values(
    launch, judge, tmp_path, three
):
    folder, three = tmp_path / "run", three | {"VAL_JUDGES": f"other={judge('words')}"}
    process = launch.start(folder, judge("words"), *FAULTS, "trainer.val_before_train=false", **three)
    kill_at_the_end_of_an_epoch(process, folder, judge)
    before = metrics(folder)
    assert {1, 2} <= set(before)
    started = (folder / "log" / "train.log").stat().st_size
    process = launch.start(folder, judge("words"), *FAULTS, **three)
    wait_until(lambda: (folder / "log" / "train.log").stat().st_size > started, process)
    judge("faults")
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert "continuing after step 2 of 3" in output and "step 3/3" in output and "finished after" in output
    rows = metrics(folder)
    assert sorted(rows) == [1, 2, 3] and all(rows[step] == before[step] for step in (1, 2))
    check_steps_under_faults(rows)
    assert rows[3]["repeated_requests"] >= 8
    golden("three stages, killed and continued", [rows[step] for step in (1, 2, 3)], 3)
    assert "val/stage3/reward" in rows[2] and "val/reward" in rows[3]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [2] * 4 + [3] * 4
    assert len({row["user"] for row in samples}) == 4 and all(len(row["stages"]) == 3 for row in samples)
    check_held_out(folder, rows)
    best = json.loads((folder / "best" / "validation.json").read_text())
    assert best["reward"] == max(row["val/reward"] for row in rows.values() if "val/reward" in row)
    assert (folder / "best" / "config.json").exists() and not leftovers(folder)
    check_model(folder / "model")


ALIKE = {"JUDGE_ORDERS": "per_rollout", "TEST_EVERY": "-1"}  # 4 users x 2 stages x 4 summaries


def two_ranks(launch, judge, out):
    """Run until one of the two rollout engines loses the weights of step 2; the metrics of what was done."""
    extension = "++actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls=tests.rl.broken_sync.BrokenWorker"
    group = "+streaming.tolerance.float32.group=1e-4"  # in bfloat16 a run is compared by group
    ranks = {"GPUS": "2", "BROKEN_SYNC": str(out.parent / "broken")}
    process = launch(out, judge("older"), extension, group, "trainer.val_before_train=false", **ranks, **ALIKE)
    assert process.returncode == 3, process.stdout
    assert f"{PROBABILITIES} is" in process.stdout and "does not hold the weights" in process.stdout
    rows = metrics(out)
    assert sorted(rows) == [1, 2] and all(row[PROBABILITIES] <= 1e-4 for row in rows.values())
    for row in rows.values():
        assert row["training/rollout_probs_diff_groups_above"] == 0
        assert row["training/rows"] == 32 and row["lost_share"] == 0
    actor = out / "checkpoints" / "global_step_2" / "actor"
    parts = {path.name for path in actor.glob("model_world_size_*")}
    assert parts == {f"model_world_size_2_rank_{rank}.pt" for rank in (0, 1)}
    assert list((actor / "huggingface").glob("*.safetensors")) and not (out / "model").exists()
    return rows


def one_rank(launch, judge, out):
    """Run until it is asked to stop after step 2; the metrics of what was done."""
    sizes = {"STEPS": "400", "SAVE_EVERY": "400"}
    process = launch.start(out, judge("words"), "trainer.val_before_train=false", **sizes, **ALIKE)
    wait_until(lambda: (out / "metrics.jsonl").exists() and 2 in metrics(out), process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    rows = metrics(out)
    last = max(rows)
    assert process.returncode == 3, output
    assert f"step {last + 1}: asked to stop; the last checkpoint is of step {last}" in output
    assert checkpointed(out) == last and not (out / "model").exists() and not leftovers(out)
    used = yaml.safe_load((out / "config.yaml").read_text())
    assert used["streaming"]["judge_orders"] == "per_rollout" and used["data"]["train_batch_size"] == 4
    assert (
        used["trainer"]["default_local_dir"] == f"{out}/checkpoints" and "${" not in (out / "config.yaml").read_text()
    )
    return rows


def test_one_rank_and_two_come_to_the_golden_values_until_they_are_ended(launch, judge, tmp_path):
    """Each rollout has a seed of its own: it does not matter which engine writes it, nor in which order the update is
    added up. The judge of the two is asked for the most probable tokens, as vLLM on GPUs is, that of the one by id."""
    one = one_rank(launch, judge, tmp_path / "one")
    golden("two stages", [one[step] for step in (1, 2)], 2)
    two = two_ranks(launch, judge, tmp_path / "two")
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


# One user an update, four updates a step: the fourth is made at weights that the other three have moved.
UPDATES = {"MINI_BATCH": "1", "TEST_EVERY": "-1", "LR": "1e-3"}
OFTEN = "trainer.val_before_train=false"


def test_four_updates_a_step_clip_and_are_the_same_on_two_ranks_and_after_a_resume(launch, judge, tmp_path):
    """Adam follows the order and the make-up of the updates: with other rows in one of them the numbers part."""
    url = judge("words")
    for steps in ("1", "3"):  # the second goes on where the first ended
        process = launch(tmp_path / "one", url, OFTEN, STEPS=steps, **UPDATES)
        assert process.returncode == 0 and "8 summaries, 4 updates each" in process.stdout, process.stdout
    assert "continuing after step 1 of 3" in process.stdout
    process = launch(tmp_path / "two", url, OFTEN, STEPS="3", GPUS="2", **UPDATES)
    assert process.returncode == 0, process.stdout
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert sorted(one) == sorted(two) == [1, 2, 3]
    for step, row in one.items():
        assert row["actor/pg_clipfrac"] > 0.01 and row["actor/ppo_kl"] != 0, "the ratio has left 1"
        assert row["training/rows"] == 32 and row["training/slowest_rank"] == 1 <= two[step]["training/slowest_rank"]
        for name in ("stage1/reward", "stage2/reward", "generated_tokens", "actor/pg_loss", "actor/grad_norm"):
            assert row[name] == pytest.approx(two[step][name], rel=2e-3, abs=1e-5), (step, name)
        assert row["actor/pg_clipfrac"] == pytest.approx(two[step]["actor/pg_clipfrac"], rel=0.02)
    golden("four updates a step", [one[step] for step in (1, 2, 3)], 2)


def test_a_judge_that_does_not_judge_is_refused_before_anything_starts(launch, judge, tmp_path):
    process = launch(tmp_path / "run", judge("a"))
    assert (
        process.returncode == 1
        and "cannot start: judge judge gives the letter A a probability between 0.99" in process.stdout
    ), process.stdout
    assert not (tmp_path / "run" / "log").exists()
