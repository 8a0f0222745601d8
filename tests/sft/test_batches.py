"""The rows of a step: whole steps, the same ones in packs, the longest first."""

import random

import pytest
from datasets import Dataset

from alignxplore.sft.batches import Packs, PackSampler, StepSampler, packed, passes_needed
from alignxplore.sft.run_folder import RunError


def sampler(rows: int = 103, batch: int = 16, seed: int = 1, epoch: int = 0, **more) -> StepSampler:
    lengths = [random.Random(i).randint(5, 500) for i in range(rows)]
    kind = PackSampler if "passes" in more else StepSampler
    return kind(lengths, batch, seed, epoch=lambda: epoch, **more)


def test_an_epoch_is_whole_steps_of_different_rows_sorted_by_length_within_a_step():
    order = list(sampler())
    assert len(order) == len(sampler()) == 96 == len(set(order))
    steps = [order[i : i + 16] for i in range(0, 96, 16)]
    assert all(step == sorted(step, key=lambda row: (sampler().lengths[row], row)) for step in steps)
    assert list(sampler()) == order != list(sampler(seed=2))
    assert set(list(sampler(epoch=1))[:16]) != set(order[:16]), "each epoch has a permutation of its own"


def test_fewer_rows_than_a_step_is_an_error():
    with pytest.raises(RunError, match="10 rows are fewer than one optimizer step"):
        sampler(rows=10)


@pytest.mark.parametrize("more", [{}, {"passes": 2, "processes": 3}], ids=["rows", "packs"])
def test_the_longest_rows_come_first_once_and_no_row_changes_its_step(more):
    by_length, by_draw = sampler(longest_first=True, **more), sampler()
    steps = [set(rows) for rows in by_draw.steps(0)]
    assert sorted(map(sorted, by_length.steps(0))) == sorted(map(sorted, steps))
    assert [set(rows) for rows in by_length.steps(1)] == [set(rows) for rows in by_draw.steps(1)]
    first, second, *rest = by_length.steps(0)
    assert max(map(by_length.lengths.__getitem__, first)) == max(by_length.lengths[row] for row in by_draw)
    assert by_length.tokens(second) == max(map(by_length.tokens, [second, *rest]))
    assert [set(rows) for rows in rest] == [rows for rows in steps if rows not in (set(first), set(second))]
    if not more:
        assert list(by_length)[:16] == sorted(first, key=lambda row: (by_length.lengths[row], row), reverse=True)


def test_packs_hold_the_rows_of_the_same_steps_and_about_the_same_number_of_tokens():
    plain, packs = sampler(rows=512, batch=64), sampler(rows=512, batch=64, passes=3, processes=4)
    pack_list = list(packs)
    assert len(pack_list) == len(packs) == 512 // 64 * 12
    for number, rows in enumerate(plain.steps(0)):
        of_a_step = pack_list[12 * number : 12 * number + 12]
        assert sorted(row for pack in of_a_step for row in pack) == sorted(rows)
        tokens = [sum(packs.lengths[row] for row in pack) for pack in of_a_step]
        assert tokens == sorted(tokens, reverse=True) and tokens[0] - tokens[-1] < 0.1 * tokens[0]


def test_no_pack_is_empty_and_a_row_is_never_cut():
    assert sorted(map(len, packed(range(4), [500, 1, 1, 1], 4))) == [1, 1, 1, 1]
    rows = Dataset.from_dict({"input_ids": [[1, 2], [3], [4, 5, 6]], "labels": [[-100, 2], [3], [-100, 5, 6]]})
    assert Packs(rows)[(2, 0)] == {
        "input_ids": [4, 5, 6, 1, 2],
        "labels": [-100, 5, 6, -100, 2],
        "seq_lengths": [3, 2],
    }


@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("tokens", [500, 1000, 4000])
def test_passes_are_the_fewest_that_hold_every_step_of_the_run(processes, tokens):
    order, steps = sampler(rows=512, batch=64), 20  # two and a half epochs
    passes = passes_needed(order, steps, processes, tokens)

    def fits(passes: int) -> bool:
        return all(
            sum(order.lengths[row] for row in pack) <= tokens
            for step in [rows for epoch in range(3) for rows in order.steps(epoch)][:steps]
            for pack in packed(step, order.lengths, passes * processes)
        )

    assert fits(passes) and not (passes > 1 and fits(passes - 1))


def test_a_row_that_no_pass_holds_is_an_error():
    with pytest.raises(RunError, match=r"packed_tokens 100 is less than the longest row \(\d+ tokens\); raise it"):
        passes_needed(sampler(), 6, 1, 100)
