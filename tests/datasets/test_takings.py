"""Counts of takings before a moment, against counting them one by one."""

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.datasets import get, takings
from alignxplore.datasets.building import Job
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.takings import Others, OthersOfMany, Takings

MOMENTS = st.integers(-3, 12)
OWN = st.dictionaries(st.integers(0, 5), MOMENTS, max_size=4)


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Engine]:
    engine = Engine(Job(get("movielens"), tmp_path_factory.mktemp("raw")))
    yield engine
    engine.close()


@settings(deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 5), MOMENTS), max_size=60),
    own=st.lists(OWN, min_size=1, max_size=3).filter(any),
    block=st.sampled_from([1, 2, 5, 64]),
)
def test_counts_before_a_moment(engine, events, own, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(takings, "BLOCK", block)
        engine.run("CREATE OR REPLACE TABLE taken (item INTEGER, time BIGINT)")
        if rows := [*events, *(pair for one in own for pair in one.items())]:
            engine.insert("taken", {"item": [item for item, _ in rows], "time": [time for _, time in rows]})
        index = Takings(engine, "taken", 7)
        for copy in (index, pickle.loads(pickle.dumps(index))):
            for one in own:
                check(copy, rows, one)
        check_many(index, own)


def check(index, rows, own):
    crowd = Others(index, own)
    for item in range(7):
        everybody = [time for event_item, time in rows if event_item == item]
        assert index.counts[item] == len(everybody) == crowd.count(item) + (item in own)
        assert index.first[item] == min(everybody, default=(1 << 63) - 1)
        for moment in range(-4, 14):
            times = everybody.copy()
            times.remove(own[item]) if item in own else None
            assert crowd.before(item, moment) == sum(time < moment for time in times)


def check_many(index, own):
    """Many users' questions at once are answered as one after another."""
    events = [pair for one in own for pair in one.items()]
    items, times = np.array(events, np.int64).reshape(-1, 2).T
    many = OthersOfMany(index, np.cumsum([len(one) for one in own]), items, times)
    questions = [(user, item, moment) for user in range(len(own)) for item in range(7) for moment in range(-4, 14)]
    counts, before = many.counted(*np.array(questions).T)
    answers = [(Others(index, own[user]), item, moment) for user, item, moment in questions]
    assert counts.tolist() == [crowd.count(item) for crowd, item, _ in answers]
    assert before.tolist() == [crowd.before(item, moment) for crowd, item, moment in answers]
