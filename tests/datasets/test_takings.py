"""Counts of takings before a moment, against counting them one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.datasets import takings
from alignxplore.datasets.takings import Others, Takings

MOMENTS = st.integers(-3, 12)


@given(
    events=st.lists(st.tuples(st.integers(0, 5), MOMENTS), max_size=60),
    own=st.dictionaries(st.integers(0, 5), MOMENTS, max_size=4),
    block=st.sampled_from([1, 2, 5, 64]),
    held=st.sampled_from([2, 6, 1 << 12]),
)
def test_counts_before_a_moment(events, own, block, held):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("BLOCK", block), ("BUCKETS", 3), ("_HELD", held)):
            patch.setattr(takings, name, value)
        found = Takings(7, None)
        for item, time in [*events, *own.items()]:
            found.add(item, time)
        found.close()
        check(found, events, own)


def check(found, events, own):
    others = Others(found, own)
    for item in range(7):
        times = [time for taken, time in events if taken == item]
        assert others.count(item) == len(times) == found.counts[item] - (item in own)
        everybody = times + [own[item] for _ in range(item in own)]
        assert found.first(item) == min(everybody, default=(1 << 63) - 1)
        for moment in range(-4, 14):
            assert others.before(item, moment) == sum(time < moment for time in times)
