"""Counts of takings before a moment, against counting them one by one."""

from hypothesis import given
from hypothesis import strategies as st

from alignxplore.datasets import takings
from alignxplore.datasets.takings import Others, Takings

MOMENTS = st.integers(-3, 12)


@given(
    events=st.lists(st.tuples(st.integers(0, 5), MOMENTS), max_size=60),
    own=st.dictionaries(st.integers(0, 5), MOMENTS, max_size=4),
    chunk=st.sampled_from([2, 6, 1 << 17]),
)
def test_counts_before_a_moment(events, own, chunk):
    whole = takings._CHUNK
    takings._CHUNK = chunk
    try:
        found = Takings(7, None)
        for item, time in [*events, *own.items()]:
            found.add(item, time)
        found.close()
    finally:
        takings._CHUNK = whole
    others = Others(found, own)
    for item in range(7):
        times = [time for taken, time in events if taken == item]
        assert others.count(item) == len(times) == found.counts[item] - (item in own)
        everybody = times + [own[item] for _ in range(item in own)]
        assert found.first(item) == min(everybody, default=(1 << 63) - 1)
        for moment in range(-4, 14):
            assert others.before(item, moment) == sum(time < moment for time in times)
