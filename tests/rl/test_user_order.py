"""Which users a step trains on, whichever trainer: the same again in every run, and after any resume."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

pytest.importorskip("verl")

from alignxplore.rl import trainer as module  # noqa: E402
from alignxplore.rl.step_records import ChainRecord  # noqa: E402
from alignxplore.rl.trainer import AsyncStreamingTrainer, StreamingTrainer  # noqa: E402
from tests.rl.test_trainer import record, trainer  # noqa: E402, F401


@pytest.mark.parametrize("kind", [StreamingTrainer, AsyncStreamingTrainer])
def test_users_come_in_the_same_order_again_and_after_any_resume(tmp_path, monkeypatch, kind):
    """Through verl's own sampler and loader, whatever is being written when a checkpoint is made; three steps make an
    epoch, so that the third and sixth resume are at its end."""
    import pyarrow
    import pyarrow.parquet
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    from alignxplore.rl.dataset import StreamingDataset

    item = {"query": None, "chosen": "a", "rejected": "b"}
    table = pyarrow.Table.from_pylist(
        [{"user": f"u{i}", "history": [item] * 3, "positions": [1, 2]} for i in range(12)]
    )
    pyarrow.parquet.write_table(table, tmp_path / "users.parquet")
    data = OmegaConf.create({"shuffle": True, "seed": 7, "sampler": None, "train_batch_size": 4})
    sent = []
    monkeypatch.setattr(
        module.PPOTrainer,
        "_submit_batch_to_rollout",
        lambda self, batch: sent.append([row.data["user"] for row in batch.get("extra_info")]),
    )

    def steps(first, last, state=None, seed=7, amid=False):
        """Users of each step, and the place in the data after the last one; `amid`: saved when the next had begun."""
        users = StreamingDataset(str(tmp_path / "users.parquet"))
        sampler = create_rl_sampler(OmegaConf.merge(data, {"seed": seed}), users)
        runner = kind.__new__(kind)
        runner.train_dataloader_it, runner.config = None, OmegaConf.create({"data": data})
        runner.train_dataloader = StatefulDataLoader(
            users, batch_size=4, drop_last=True, collate_fn=collate_fn, sampler=sampler
        )
        if state:
            runner.train_dataloader.load_state_dict(state)
        runner._places, runner._batch_step, runner.total_training_steps = {}, first - 1, 8
        batches, sent[:] = [], []
        for runner.global_steps in range(first, last + 1 + amid):
            if runner.global_steps == first:
                runner.on_train_begin()
            runner._add_batch_to_generate()
            if runner.global_steps <= last:
                batches.append(sent.pop(0))
        torch.save(runner._place_after(last), tmp_path / "data.pt")
        return batches, torch.load(tmp_path / "data.pt", weights_only=False)

    order, _ = steps(1, 8)
    assert steps(1, 8)[0] == order and steps(1, 8, seed=8)[0] != order and not sent, "nobody is written for nothing"
    assert sorted(sum(order[:3], [])) == sorted(f"u{i}" for i in range(12)) and order[:3] != order[3:6]
    for cut in range(1, 8):
        for amid in (False, True):
            first, state = steps(1, cut, amid=amid)
            assert first + steps(cut + 1, 8, state)[0] == order, f"resumed after step {cut}"


def test_an_asynchronous_step_is_told_of_its_own_users(trainer):  # noqa: F811
    """Records of those who are ready before their turn wait for it."""
    trainer.lag, early = 1, [ChainRecord("u", step, None, 0, record().groups, 1.0) for step in (4, 5, 5)]
    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: (early, {}))
    trainer._collect()
    assert [r.step for r in trainer._records] == [4] and [r.step for r in trainer._ahead] == [5, 5]
    trainer.global_steps = 6
    trainer.agent_loop_manager = SimpleNamespace(drain=lambda: ([], {}))
    trainer._collect()
    assert [r.step for r in trainer._records] == [5, 5] and not trainer._ahead
