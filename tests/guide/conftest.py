"""What several tests of the texts share."""

import pytest

from alignxplore.guide.commands import Runnable, helps, runnables


@pytest.fixture(scope="session")
def helps_of() -> dict[Runnable, list[str]]:
    """All that can be run → its help, and that of each of its commands. Collected once: that takes seconds."""
    return {one: helps(one) for one in runnables()}
