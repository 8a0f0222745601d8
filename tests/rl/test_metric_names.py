"""Metrics of RL are registered by their name, and a name that is taken is said."""

import copy

import pytest

from alignxplore.rl import metrics


def tokens(*_):
    return 42.0


def kl_to_before(*_):
    return 42.0


@pytest.mark.parametrize("register", [metrics.of_stage, metrics.of_returns])
def test_a_name_that_is_taken_is_refused(register):
    tables = [copy.copy(table) for table in (metrics.STAGE, metrics.TRAINING)]
    with pytest.raises(ValueError, match="there is a metric tokens already, in alignxplore.rl.metrics; give this one"):
        register(tokens)
    assert [metrics.STAGE, metrics.TRAINING] == tables


def test_a_new_name_is_registered_and_the_same_function_takes_its_own_place(monkeypatch):
    monkeypatch.setattr(metrics, "STEP", {})
    assert metrics.of_step(kl_to_before) is metrics.STEP["kl_to_before"] is kl_to_before
    again = type(tokens)(kl_to_before.__code__, globals(), "kl_to_before")  # its module read again
    metrics.of_step(again)
    assert metrics.STEP == {"kl_to_before": again}
