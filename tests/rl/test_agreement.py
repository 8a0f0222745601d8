"""That an update is made of what it should be: rows of the right weights, in an order nobody's speed decides; and the
wait for them."""

import math
import os
import random
import signal
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

pytest.importorskip("verl")

from verl.trainer.ppo.v1 import replay_buffer as verls  # noqa: E402

from alignxplore.prompts import parse_answer  # noqa: E402
from alignxplore.rl import streaming  # noqa: E402
from alignxplore.rl import trainer as module  # noqa: E402
from alignxplore.rl.agreement import (  # noqa: E402
    PROBABILITIES,
    check_groups,
    check_probabilities,
    check_versions,
    group_differences,
    summed_up,
    token_differences,
)
from alignxplore.rl.chain import Chain, Generation, Group, Prompt, Rollout  # noqa: E402
from alignxplore.rl.settings import RunStopped, Streaming, Tolerance  # noqa: E402


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (
            {"max": 2e-3, "mean": 1e-6},
            "max is 2.00e-03, allowed is 1e-04: the rollout engine does not hold the weights",
        ),
        ({"max": math.nan, "mean": 1e-6}, "max is nan: rollout and trainer probabilities could not be compared"),
        ({"mean": 1e-6}, "max is None"),
    ],
)
def test_probabilities_that_differ_or_were_not_compared(metrics, sentence):
    check_probabilities({PROBABILITIES + "max": 1e-5, PROBABILITIES + "mean": 1e-6}, Tolerance(max=1e-4))
    with pytest.raises(RunStopped, match=sentence):
        check_probabilities({PROBABILITIES + name: value for name, value in metrics.items()}, Tolerance(max=1e-4))


def differences(groups, bad):
    """Of `groups` groups of four rows of 100 tokens, whose probabilities differ by 0.008, but by 0.2 in the first
    `bad` groups."""
    import torch

    keys = [f"user{g}_s1_{i}_0" for g in range(groups) for i in range(4)]
    trainer_rows = [torch.full((100,), math.log(0.6)) for _ in keys]
    rollout_rows = [torch.full((100,), math.log(0.6 - (0.2 if i < 4 * bad else 0.008))) for i in range(len(keys))]
    tags = [{"versions": [(4, 100)]}] * len(keys) + [{"versions": [(4, 1)], "is_padding": True}]
    token_rows = token_differences(tags, [*trainer_rows, torch.zeros(1)], [*rollout_rows, torch.full((1,), -9.0)], 4)
    return group_differences([*keys, "user0_s1_9_0"], token_rows)


def test_only_tokens_of_the_newest_weights_are_compared():
    import torch

    tags = [{"versions": [(3, 2), (4, 1), (4, 2)]}, {"versions": [(3, 5)]}, {"versions": [(4, 5)]}]
    trainer = [torch.zeros(5)] * 3  # probability 1
    rollout = [torch.tensor([-9.0, -9.0, -0.1, -0.2, -0.3]), torch.full((5,), -9.0), torch.zeros(5)]
    token_rows = token_differences(tags, trainer, rollout, 4)
    assert [len(row) for row in token_rows] == [3, 0, 5]
    expected = [1 - math.exp(-0.1), 1 - math.exp(-0.2), 1 - math.exp(-0.3)]
    assert token_rows[0].tolist() == pytest.approx(expected, abs=1e-6)
    numbers = summed_up(token_rows)
    assert numbers[PROBABILITIES + "tokens"] == 8 and numbers[PROBABILITIES + "max"] == pytest.approx(expected[2])
    assert numbers[PROBABILITIES + "mean"] == pytest.approx(sum(expected) / 8)
    assert group_differences(["a_s1_0_0", "b_s1_0_0", "a_s1_1_0"], token_rows) == [pytest.approx(sum(expected) / 8)]
    assert summed_up(token_rows[1:2]) == {PROBABILITIES + "tokens": 0}, "nothing to compare is not agreement"


def test_one_bad_engine_of_32_is_seen_though_the_mean_over_all_is_within_its_limit():
    means = differences(512, 16)
    assert (
        len(means) == 512
        and means[0] == pytest.approx(0.2, abs=1e-4)
        and means[-1] == pytest.approx(0.008, abs=1e-4)
        and sum(means) / 512 < 0.02
    )
    with pytest.raises(
        RunStopped, match=r"above 0.05 in 16 of 512 groups, the largest is 2.00e-01: one of the rollout engines"
    ):
        check_groups(means, 0.05, {})
    check_groups(differences(512, 2), 0.05, metrics := {})
    assert metrics == {PROBABILITIES + "groups_above": 2 / 512}
    check_groups(differences(16, 1), 0.05, {})  # one group alone is no engine


@pytest.mark.parametrize("versions", [(3, 4), (4, 5), (3, 3), (None, None)])
def test_rows_of_other_weights_than_the_last_steps_stop_the_run(versions):
    good = {"min_global_steps": 4, "max_global_steps": 4}
    check_versions([good] * 3, 5)
    with pytest.raises(RunStopped, match="^rows were written with weights of steps .* and not of 4"):
        check_versions([good, dict(zip(good, versions))], 5)


@pytest.mark.parametrize(("versions", "fits"), [((3, 4), True), ((3, 3), True), ((2, 4), False), ((4, 5), False)])
def test_an_asynchronous_step_takes_rows_of_two_steps_weights(versions, fits):
    tags = [{"min_global_steps": versions[0], "max_global_steps": versions[1]}]
    if fits:
        check_versions(tags, 5, lag=1)
        return
    with pytest.raises(RunStopped, match="and not of 3 to 4"):
        check_versions(tags, 5, lag=1)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A trainer at step 5 on two ranks, whose updates are of 2 users x 8 rows; verl's own constructor is left out, its
    buffer is real."""
    buffer = verls.ReplayBuffer("sync", {}, None, "drop", {}, poll_interval=0.01)

    def begin(self, config):
        self.config, self.replay_buffer = config, buffer

    monkeypatch.setattr(module.PPOTrainerSync, "__init__", begin)
    config = OmegaConf.create(
        {
            "trainer": {"critic_warmup": 0, "default_local_dir": str(tmp_path), "max_actor_ckpt_to_keep": 2},
            "actor_rollout_ref": {"rollout": {"n": 8, "dtype": "bfloat16"}, "actor": {"ppo_mini_batch_size": 2}},
            "streaming": {
                "judges": "j=http://x/v1",
                "out": str(tmp_path),
                "poll_seconds": 0.01,
                "tolerance": {"bfloat16": {"mean": 0.02}},
            },
        }
    )
    made = module.StreamingTrainer(config)
    made.use_critic, made.global_steps, made.tokenizer = False, 5, SimpleNamespace(eos_token_id=0)
    made.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": [0, 1]})
    made._step_began, made.saved, made.metrics = time.monotonic(), [], {}
    made._places = {5: {"at": "user 7"}}
    made.checkpoints.save_before_this_step = lambda: made.saved.append((made.global_steps, made._place_after(4)))
    return made


async def updates(made, arrivals, step, monkeypatch, behind=1):
    """The rows of each update on each rank, after verl has put the batch together from rows that came in the order of
    `arrivals`; they were written with weights that are `behind` steps old."""
    partition = {}

    async def put(keys, fields, tags, partition_id):
        partition.update(zip(keys, tags))

    monkeypatch.setattr(streaming.tq, "async_kv_batch_put", put)
    monkeypatch.setattr(verls.tq, "kv_clear", lambda **_: None)
    worker = SimpleNamespace(settings=Streaming(judges="j=http://x/v1"))
    for user in arrivals:
        rng, chain = random.Random(user), Chain(user)
        for stage in range(2):
            group = Group(stage, None, Prompt([1] * rng.randint(3, 9), 0))
            for _ in range(4):
                ids = [2] * rng.randint(1, 30)
                generation = Generation(ids, [-1.0] * len(ids), "", [(step - behind, len(ids))])
                group.rollouts.append(Rollout(generation, parse_answer(""), 0.0, 1.0, total=0.5))
            chain.groups.append(group)
        await streaming.StreamingWorker._publish(worker, chain, f"uid-{user}-{random.random()}", step)
    made.global_steps = step
    batch = made.replay_buffer._materialize_batch("train", {key.split("_")[0] for key in partition}, partition)
    batch = made._balance_batch(batch, made.metrics)
    rows = [f"{key.split('-')[1]}_{key.partition('_')[2]}" for key in batch.keys]
    ranks = max(made.actor_rollout_wg._dispatch_info["actor"]) + 1
    each, part = len(rows) // ranks, 16 // ranks
    return [[rows[r * each + i : r * each + i + part] for r in range(ranks)] for i in range(0, each, part)]


async def test_which_update_a_row_enters_does_not_depend_on_who_ended_first(made, monkeypatch):
    users = [f"u{i}" for i in range(8)]
    there, back = await updates(made, users, 5, monkeypatch), await updates(made, users[::-1], 5, monkeypatch)
    assert there == back and there != await updates(made, users, 6, monkeypatch)
    assert not {row.split("_")[0] for row in there[0][0]} <= {"u0", "u1"}


async def test_an_update_holds_the_same_rows_on_any_number_of_ranks(made, monkeypatch):
    users, shares_of_ranks, slowest = [f"u{i}" for i in range(8)], [], []
    for ranks in (1, 2, 4):
        made.actor_rollout_wg._dispatch_info["actor"] = list(range(ranks))
        shares = await updates(made, users, 5, monkeypatch)
        assert all(len({len(part) for part in update}) == 1 and len(update) == ranks for update in shares)
        shares_of_ranks.append([{row for part in update for row in part} for update in shares])
        slowest.append(made.metrics["training/slowest_rank"])
    assert (
        shares_of_ranks[0] == shares_of_ranks[1] == shares_of_ranks[2]
        and [len(update) for update in shares_of_ranks[0]] == [16] * 4
    )
    assert slowest[0] == 1 and max(slowest) < 1.1


async def test_a_batch_of_rows_with_older_weights_is_not_trained_on(made, monkeypatch):
    with pytest.raises(RunStopped, match="step 5: rows were written with weights of steps .3, 3. and not of 4"):
        await updates(made, ["u0", "u1"], 5, monkeypatch, behind=2)
    assert made.saved == [(5, {"at": "user 7"})], "first saved, then complained: the weights are sound"


def running(monkeypatch):
    monkeypatch.setattr(
        verls.tq, "kv_list", lambda: {"train": {"uid": {"is_prompt": True, "status": "running", "global_steps": 5}}}
    )


def test_a_step_whose_users_are_never_done_ends_the_run(made, monkeypatch):
    running(monkeypatch)
    made.settings.step_limit = 0.1
    with pytest.raises(RunStopped, match="step 5: its rollouts were not there after streaming.step_limit=0 seconds"):
        made.replay_buffer.sample(5, "train", 1)
    assert made.saved == [(5, {"at": "user 7"})]


def test_a_process_that_ends_amid_a_step_ends_the_run_whether_or_not_a_checkpoint_can_be_saved(made, monkeypatch):
    def fails():
        raise OSError("disk full")

    running(monkeypatch)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    answers = iter([None, None, "a process that ran users' streams ended: killed"])
    made.agent_loop_manager = SimpleNamespace(fault=lambda: next(answers))
    made.checkpoints.save_before_this_step = fails
    with pytest.raises(RunStopped, match="step 5: a process that ran users' streams ended: killed"):
        made.replay_buffer.sample(5, "train", 1)


@pytest.mark.slow
def test_an_actor_that_was_killed_is_found():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        manager = streaming.StreamingManager.__new__(streaming.StreamingManager)
        manager.actors = streaming.start_actors(
            OmegaConf.create({"actor_rollout_ref": {"rollout": {"agent": {"num_workers": 2}}}})
        )
        ray.get([actor.ping.remote() for actor in manager.actors], timeout=120)
        assert manager.fault() is None
        os.kill(ray.get(manager.actors[1].__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (fault := manager.fault()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert fault.startswith("a process that ran users' streams ended: ")
    finally:
        ray.shutdown()
