"""Processes that torchrun tells to end have the time that TORCH_ELASTIC_SHUTDOWN_TIMEOUT names."""

import signal
from dataclasses import dataclass, field

import pytest

from alignxplore import torchrun


@dataclass
class Processes:
    """What the agent of torch 2.11 asks of the processes that it started; `seconds`: given to them, each time."""

    seconds: list[float] = field(default_factory=list)

    def close(self, death_sig=None, timeout=30):
        self.seconds.append(timeout)


@pytest.fixture
def agent(monkeypatch):
    """One of torch, with such processes; its own way to end them is that of torch 2.11."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    def shutdown(self, death_sig=signal.SIGTERM):
        self._pcontext.close(death_sig)

    monkeypatch.setattr(LocalElasticAgent, "_shutdown", shutdown)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    agent = object.__new__(LocalElasticAgent)
    agent._pcontext = Processes()
    return agent


def test_an_old_torchrun_waits_as_long_as_it_is_told(agent, monkeypatch):
    from torch.distributed.launcher import api

    monkeypatch.setattr(api, "LaunchConfig", type("LaunchConfig", (), {}))  # of torch 2.11, without a time
    torchrun.give_time()
    agent._pcontext.close()  # as it does by itself where one of them has failed
    agent._shutdown()
    agent._shutdown(signal.SIGINT)
    assert agent._pcontext.seconds == [30, 600, 600]


def test_a_new_torchrun_is_left_as_it_is(agent):
    before = type(agent)._shutdown
    torchrun.give_time()
    assert type(agent)._shutdown is before
