"""When a request that keeps failing is given up, and when an endpoint is: `endpoint.py` asks again until then.

Each request has a patience of its own, from its first failure on. Beside it, an outage is counted for all requests of
an endpoint: otherwise those that wait in the queue would begin their patience one after another, and a server that has
gone would be noticed hours later.
"""

import time

import tenacity

from alignxplore.serving.http_answers import Retry


class Outage:
    """How long a server has answered nobody: from the first failure since its last answer.

    Args:
        patience: seconds after which nothing is known any more; a failure so long after the one before begins another
            outage.
    """

    def __init__(self, patience: float):
        self._patience = patience
        self._first: float | None = None
        self._last = 0.0

    def lengthen(self) -> float:
        """A request has failed; returns the seconds that this outage has lasted."""
        now = time.monotonic()
        if self._first is None or now - self._last > self._patience:
            self._first = now
        self._last = now
        return now - self._first

    def end(self) -> None:
        """The server has answered somebody."""
        self._first = None


class OutOfPatience:
    """One request's: true once `patience` seconds have passed since its first failure, or would have after the wait
    that is due. So it is once they have passed since the outage began, but only where nobody is there at all, or at
    the second failure: a server that reads this request badly, or slowly, may answer others.

    A refusal for now (HTTP 429) is an answer: no outage.
    """

    def __init__(self, patience: float, outage: Outage):
        self._patience, self._outage = patience, outage
        self._first: float | None = None

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        seconds = state.seconds_since_start or 0.0
        if self._first is None:
            self._first = seconds
        age, error = seconds - self._first, failure_of(state)
        if error.kind.startswith("http_4"):
            self._outage.end()
        else:
            outage = self._outage.lengthen()
            if error.nobody_there or state.attempt_number > 1:
                age = max(age, outage)
        return age + state.upcoming_sleep >= self._patience


def failure_of(state: tenacity.RetryCallState) -> Retry:
    """What the attempt failed with; nothing else is tried again."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Retry)
    return error
