"""Counts of takings before a moment, against counting them one by one."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.datasets import get, takings
from alignxplore.datasets.building import Job
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.takings import Others, Takings

MOMENTS = st.integers(-3, 12)


@settings(deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 5), MOMENTS), max_size=60),
    own=st.dictionaries(st.integers(0, 5), MOMENTS, max_size=4),
    block=st.sampled_from([1, 2, 5, 64]),
)
def test_counts_before_a_moment(tmp_path_factory, events, own, block):
    with (
        pytest.MonkeyPatch.context() as patch,
        Engine(Job(get("movielens"), tmp_path_factory.mktemp("raw"))) as engine,
    ):
        patch.setattr(takings, "BLOCK", block)
        engine.run("CREATE TABLE taken (item INTEGER, time BIGINT)")
        if rows := [*events, *own.items()]:
            engine.insert("taken", {"item": [item for item, _ in rows], "time": [time for _, time in rows]})
        found = Takings(engine, "taken", 7)
        check(found, events, own)
        check(pickle.loads(pickle.dumps(found)), events, own)
        engine.close()


def check(found, events, own):
    others = Others(found, own)
    for item in range(7):
        times = [time for taken, time in events if taken == item]
        assert others.count(item) == len(times) == found.counts[item] - (item in own)
        everybody = times + [own[item] for _ in range(item in own)]
        assert found.first[item] == min(everybody, default=(1 << 63) - 1)
        for moment in range(-4, 14):
            assert others.before(item, moment) == sum(time < moment for time in times)
