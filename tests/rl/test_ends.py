"""How a run ends for a reason: the last sound weights are saved first, nothing hides the reason, and who watches sees
it."""

import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import ray  # noqa: E402

from alignxplore.rl import trainer as module  # noqa: E402
from alignxplore.rl.agreement import PROBABILITIES  # noqa: E402
from alignxplore.rl.settings import RunStopped  # noqa: E402
from alignxplore.rl.streaming import VerlPolicy  # noqa: E402
from tests.rl.test_trainer import GOOD, end_step, record, rows, trainer  # noqa: E402, F401


def full_disk():
    raise OSError("no space left on device")


def written(monkeypatch, rows, apart, versions, groups=8):
    """A batch of `rows` rows of three tokens, whose log-probabilities in rollout and trainer differ by `apart`."""
    import torch

    keys = [f"u{i % groups}_s1_{i}_0" for i in range(rows)]
    columns = {"old_log_probs": torch.zeros(rows, 3), "rollout_log_probs": torch.full((rows, 3), apart)}
    monkeypatch.setattr(module.tq, "kv_batch_get", lambda **_: columns)
    monkeypatch.setattr(module.PPOTrainerSync, "_compute_old_log_prob", lambda self, batch, metrics: batch)
    return SimpleNamespace(keys=keys, tags=[{"versions": versions}] * rows, partition_id="train")


DIFFER = [(-2.0, [(4, 3)], "max is 8.6"), (math.nan, [(4, 3)], "max is nan"), (0.0, [(3, 3)], "max is None")]


@pytest.mark.parametrize(("apart", "versions", "problem"), DIFFER)
@pytest.mark.parametrize(("disk", "files"), [(None, "step 4"), (full_disk, "step 3")])
def test_probabilities_that_differ_end_the_run_with_a_checkpoint(
    trainer,  # noqa: F811
    monkeypatch,
    apart,
    versions,
    problem,
    disk,
    files,
):
    batch, verls = written(monkeypatch, 4, apart, versions), {PROBABILITIES + "max": 0.0, PROBABILITIES + "mean": 0.0}
    if disk:
        trainer.checkpoints.verl_saves = disk
    with pytest.raises(RunStopped, match=f"^step 5: {PROBABILITIES}{problem}.*; the last checkpoint is of {files}"):
        trainer._compute_old_log_prob(batch, verls)
    assert trainer.events == ([] if disk else ["saved 4 after rows []"])


def test_an_asynchronous_step_may_have_nothing_to_compare_but_not_many_in_a_row(trainer, monkeypatch):  # noqa: F811
    trainer.lag, old, new = 1, [(3, 3)], [(3, 1), (4, 2)]
    for versions in [old] * 20 + [new] + [old] * 20:
        trainer._compute_old_log_prob(written(monkeypatch, 4, 0.0, versions), {})
    with pytest.raises(RunStopped, match="could not be compared"):
        trainer._compute_old_log_prob(written(monkeypatch, 4, 0.0, old), {})
    assert trainer.events == ["saved 4 after rows []"]


def test_rows_of_old_weights_end_the_run_with_a_checkpoint(trainer):  # noqa: F811
    batch = SimpleNamespace(keys=["u_s1_0_0"], tags=[{"min_global_steps": 3, "max_global_steps": 4}])
    with pytest.raises(RunStopped, match=r"^step 5: rows were written with weights of steps \(3, 4\) and not of 4.*"):
        trainer._balance_batch(batch, {})
    assert trainer.events == ["saved 4 after rows []"]


def test_groups_of_one_engine_that_differ_end_the_run_with_a_checkpoint(trainer, monkeypatch):  # noqa: F811
    batch = written(monkeypatch, 32, -2.0, [(4, 3)])
    monkeypatch.setattr(module, "check_probabilities", lambda *_: None)
    trainer.tolerance.group = 0.05
    with pytest.raises(RunStopped, match="step 5: the mean difference.* in 8 of 8 groups.*checkpoint is of step 4"):
        trainer._compute_old_log_prob(batch, {})
    assert trainer.events == ["saved 4 after rows []"]


def test_a_full_disk_does_not_hide_why_a_step_was_lost(trainer):  # noqa: F811
    trainer.checkpoints.verl_saves = full_disk
    records = [record("transport_error", error="judge: HTTP 500")]
    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: (records, {}))
    with pytest.raises(RunStopped, match="step 5: 100 % of the rollouts were lost.* HTTP 500; the last .* of step 3"):
        trainer._collect()


def test_a_line_that_finds_no_room_names_its_file(trainer):  # noqa: F811
    (trainer.out / "log" / "progress.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device: '.*/log/progress.txt'"):
        trainer.say("they are up")


@pytest.fixture
def validated(trainer):  # noqa: F811
    """validated(step, validate) → what verl does at that step with held-out users whose streams end so."""

    def at(step, validate):
        trainer.global_steps = step
        trainer.val_dataset = [{"extra_info": {"user": "u"}}]
        trainer.agent_loop_manager = SimpleNamespace(validate=validate)
        metrics = trainer._validate()
        if step:
            end_step(trainer, GOOD | metrics)

    return at


def raises(error):
    def validate(users, step):
        raise error

    return validate


ENDS = [
    (ray.exceptions.GetTimeoutError("late"), "it was not done after streaming.step_limit=3600 seconds"),
    (ray.exceptions.RayActorError(), "it came to no end: .*actor"),
]


@pytest.mark.parametrize(("error", "why"), ENDS)
def test_a_validation_without_an_end_loses_no_step(trainer, validated, error, why):  # noqa: F811
    trainer._save_checkpoint()
    with pytest.raises(RunStopped, match=f"validation at step 5: {why}.*; the last checkpoint is of step 5"):
        validated(5, raises(error))
    assert trainer.events == ["saved 5 after rows [5]"] and "val/reward" not in rows(trainer)[0]
    trainer.checkpoints.verl_saves = full_disk
    with pytest.raises(RunStopped, match=f"validation at step 6: {why}"):
        validated(6, raises(error))
    with pytest.raises(RunStopped, match=f"validation at step 0: {why}"):
        validated(0, raises(error))


def test_a_policy_that_does_not_know_the_form_is_not_trained(trainer, validated):  # noqa: F811
    def validate(summaries, status="bad_format"):
        return lambda users, step: [record(status) for _ in range(summaries // 4)]

    with pytest.raises(RunStopped, match="validation at step 0: all 500 summaries are in bad format.* SFT"):
        validated(0, validate(500))
    assert len((trainer.out / "samples.jsonl").read_text().splitlines()) == 4, "what they read like"
    trainer.validation.resume([], 0)
    validated(0, validate(496))  # too few to say so
    trainer.validation.resume([], 0)
    validated(0, lambda users, step: validate(500)(users, step) + [record()])
    validated(5, validate(500))  # it was not the first: in between some were good


async def test_members_of_a_group_go_to_one_server_and_the_next_step_may_choose_another():
    request_ids = []

    class Client:
        async def generate(self, request_id, prompt_ids, sampling_params):
            request_ids.append(request_id)
            return SimpleNamespace(token_ids=[1], log_probs=[0.0], extra_fields={}, stop_reason=None)

    tokenizer, prompt = SimpleNamespace(decode=lambda *_, **__: ""), SimpleNamespace(ids=[1, 2, 3])
    with ThreadPoolExecutor(1) as thread:
        for step in (1, 2):
            policy = VerlPolicy(Client(), tokenizer, None, {"max_tokens": 4}, 9, "think", step, thread)
            for seed in (7, 8):
                await policy.write(prompt, seed)
    assert request_ids[0] == request_ids[1] != request_ids[2] == request_ids[3]


def test_a_step_without_a_group_to_train_on_ends_the_run_with_its_reason(trainer, monkeypatch):  # noqa: F811
    def nothing(*_):
        raise RuntimeError("no materializable trajectories in the batch")

    monkeypatch.setattr(module.PPOTrainerSync, "_step_once", nothing, raising=False)
    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: ([record()], {}))
    trainer.settings.least_spread = 0.2
    with pytest.raises(RunStopped, match="step 5: no group is left .*least_spread=0.2, .*checkpoint is of step 4"):
        trainer._step_once({}, {}, 1)


async def test_an_interrupted_answer_is_gone_on_with_under_the_new_weights():
    """Each part is drawn with a seed of its own, and says which weights wrote it."""
    parts, calls = [([5, 6], 3, "aborted"), ([], 3, "aborted"), ([7], 4, "completed")], []

    class Client:
        async def generate(self, request_id, prompt_ids, sampling_params):
            calls.append((request_id, prompt_ids, sampling_params))
            ids, step, reason = parts[len(calls) - 1]
            logs = [-0.5] * len(ids) or None
            return SimpleNamespace(
                token_ids=ids, log_probs=logs, extra_fields={"global_steps": step}, stop_reason=reason
            )

    tokenizer, prompt = SimpleNamespace(decode=lambda ids, **_: str(ids)), SimpleNamespace(ids=[1, 2])
    with ThreadPoolExecutor(1) as thread:
        sampling = {"max_tokens": 9, "temperature": 1}
        policy = VerlPolicy(Client(), tokenizer, None, sampling, 9, "think", 1, thread)
        generation = await policy.write(prompt, 77)
    assert generation == ([5, 6, 7], [-0.5] * 3, "[5, 6, 7]", [(3, 2), (4, 1)])
    assert [ids for _, ids, _ in calls] == [[1, 2], [1, 2, 5, 6], [1, 2, 5, 6]]
    assert [sampling["max_tokens"] for _, _, sampling in calls] == [9, 7, 7]
    seeds = [sampling["seed"] for _, _, sampling in calls]
    assert seeds[0] == 77 != seeds[1] == seeds[2], "an old seed would repeat the draws of the beginning"
    assert len({request for request, _, _ in calls}) == 1, "where the prompt is cached"
