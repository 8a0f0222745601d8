"""Processes that torchrun tells to end have the time that TORCH_ELASTIC_SHUTDOWN_TIMEOUT names."""

import dataclasses
import signal

import pytest

from alignxplore import torchrun


@pytest.fixture
def closing(monkeypatch):
    """The seconds that torchrun gave to each of the processes that it ended."""
    from torch.distributed.elastic.multiprocessing import api

    seconds = []

    def close(self, death_sig=None, timeout=30):
        seconds.append(timeout)

    monkeypatch.setattr(api.PContext, "close", close)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    return seconds


def end_processes():
    """As the agent of torch 2.11 does it, which names no time."""
    from torch.distributed.elastic.multiprocessing.api import PContext

    PContext.close(
        object.__new__(type("Processes", (PContext,), dict.fromkeys(PContext.__abstractmethods__))), signal.SIGTERM
    )


def test_an_old_torchrun_waits_as_long_as_it_is_told(closing, monkeypatch):
    from torch.distributed.launcher import api

    @dataclasses.dataclass
    class LaunchConfig:
        """Of torch 2.11, without a time."""

    end_processes()
    monkeypatch.setattr(api, "LaunchConfig", LaunchConfig)
    torchrun.give_time()
    end_processes()
    assert closing == [30, 600]


def test_a_new_torchrun_is_left_as_it_is(closing):
    from torch.distributed.elastic.multiprocessing.api import PContext

    before = PContext.close
    torchrun.give_time()
    assert PContext.close is before
