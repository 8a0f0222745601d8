"""Uniform draws for many users at once: what is drawn, how often, and that nobody's depend on who else is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.datasets.drawing import Sampler


def draw(sampler, seeds, items_of_users):
    """What is drawn for each user's items, user by user."""
    ends = np.cumsum([len(items) for items in items_of_users])
    drawn = sampler.draw_all(np.array(seeds, np.uint64), ends, np.concatenate(items_of_users).astype(np.int64))
    return [part.tolist() for part in np.split(drawn, ends[:-1])]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_nothing_that_was_taken_nothing_twice_and_nothing_missed(data):
    size = data.draw(st.integers(1, 12))
    twin = [data.draw(st.integers(0, item)) for item in range(size)]
    twin = [next(first for first in range(size) if twin[first] == one) for one in twin]
    pool = data.draw(st.lists(st.sampled_from(range(size)), unique=True))
    items_of_users = data.draw(
        st.lists(st.lists(st.sampled_from(range(size)), min_size=1, unique_by=lambda x: twin[x]), min_size=1)
    )
    seeds = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(items_of_users), max_size=len(items_of_users)))
    sampler = Sampler(pool, twin)
    together = draw(sampler, seeds, items_of_users)
    for seed, items, drawn in zip(seeds, items_of_users, together, strict=True):
        assert draw(sampler, [seed], [items]) == [drawn]
        texts = [twin[item] for item in drawn if item >= 0]
        free = {twin[item] for item in pool} - {twin[item] for item in items}
        assert set(drawn) <= {*pool, -1} and len(set(texts)) == len(texts) == min(len(items), len(free))
        assert set(texts) <= free


@pytest.mark.parametrize("size, own, users", [(50, 5, 20_000), (8, 5, 4_000)])
def test_each_free_item_has_the_same_chance_at_each_place(size, own, users):
    """Chi-square at each place of a user's items, in a large pool and in one where many draws meet what is taken."""
    free = size - own
    drawn = np.array(draw(Sampler(range(size), range(size)), range(users), [list(range(own))] * users))
    for place in range(own):
        draws = drawn[:, place][drawn[:, place] >= 0]
        counts = np.bincount(draws, minlength=size)[own:]
        expected = len(draws) / free
        assert ((counts - expected) ** 2 / expected).sum() < free + 6 * np.sqrt(2 * free)
    if free >= own:  # one place does not tell of the next
        together = np.histogram2d(drawn[:, 0], drawn[:, 1], bins=np.arange(size + 1))[0][own:, own:]
        apart = together[~np.eye(free, dtype=bool)]
        assert ((apart - apart.mean()) ** 2 / apart.mean()).sum() < len(apart) + 6 * np.sqrt(2 * len(apart))


def test_draws_are_the_same_for_ever():
    """On any machine and in any version: they make benchmarks."""
    assert draw(Sampler(range(1000), range(1000)), [1, 2**63], [[1, 2, 3], [4]]) == [[894, 863, 354], [210]]
