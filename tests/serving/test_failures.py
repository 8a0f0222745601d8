"""What a journal says of a unit without an answer."""

import pytest

from alignxplore.history import HistoryError
from alignxplore.journal import REFUSED, TOO_LONG, TRANSPORT_ERROR
from alignxplore.judging.judgement import Judgement
from alignxplore.serving.failures import UNANSWERED, RequestError, TransportError, failed
from alignxplore.serving.http_answers import Retry


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (TransportError("gone"), TRANSPORT_ERROR, "gone"),
        (Retry("HTTP 429", 3.0), TRANSPORT_ERROR, "HTTP 429"),
        (RequestError(400, "no such field"), REFUSED, "HTTP 400: no such field"),
        (HistoryError("an empty history has no stages"), TOO_LONG, "an empty history has no stages"),
    ],
)
def test_each_error_has_its_status_and_says_why(error, status, text):
    assert isinstance(error, UNANSWERED)
    assert failed(error) == {"status": status, "error": text}
    assert Judgement(**failed(error)) == Judgement(status, error=text)


@pytest.mark.parametrize("kind", [TransportError, HistoryError])
def test_no_more_than_the_first_300_characters_are_kept(kind):
    assert failed(kind("a" * 300 + "b"))["error"] == "a" * 300
