"""Tests of judges run twice: as vLLM 0.27 on CPUs is asked, for letters by their ids, and as vLLM 0.24 on GPUs is, for
the twenty most probable tokens and a choice."""

import pytest

from alignxplore.judging.next_token import MOST_PROBABLE
from alignxplore.judging.token_reader import TokenReader

TWICE = ("test_letters", "test_ranking", "test_yes_no", "test_torn_replies")
BY_ID = {
    "test_the_way_of_asking_is_found_out_once",
    "test_extreme_probabilities_neither_overflow_nor_become_ties",
}


def pytest_generate_tests(metafunc):
    """Tests with a `path` of their own choose their server."""
    asks = {"fake_server", "lettered"} & set(metafunc.fixturenames) and "path" not in metafunc.fixturenames
    if asks and metafunc.module.__name__.endswith(TWICE) and metafunc.function.__name__ not in BY_ID:
        metafunc.fixturenames.append("older_server")
        metafunc.parametrize("older_server", [False, True], ids=["", "top 20"], indirect=True)


@pytest.fixture
def older_server(request, monkeypatch):
    """With True: no server reads ids."""

    async def probe(self, messages, again=True):
        await self._chat.try_out(messages, MOST_PROBABLE, again)
        return False

    if request.param:
        monkeypatch.setattr(TokenReader, "_probe", probe)
