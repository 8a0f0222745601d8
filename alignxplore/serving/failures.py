"""How a request can fail for good: no usable reply, a refusal, or nothing that fits; and what a journal says of it."""

import re
from typing import TypedDict

from alignxplore.errors import UserError
from alignxplore.history import HistoryError
from alignxplore.journal import REFUSED, TOO_LONG, TRANSPORT_ERROR

# How servers word a refusal that no repeat can mend. Every other one lies with the run and not with the prompt.
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum (model |allowed )?length|(input|prompt) is too long",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(?!HTTP 40[123]:).*number of tokens", re.IGNORECASE | re.DOTALL)  # a quota may be one, too


class TransportError(UserError):
    """No usable reply in the time given; says nothing about the model. Such a unit is asked again by the next run."""


class RequestError(UserError):
    """The server understood the request and refused it (a prompt over its window, an unknown field, no credit): not
    repeated in this run."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)  # both, so that the error survives pickling (Ray)
        self.status = status

    def __str__(self) -> str:
        return "HTTP {}: {}".format(*self.args)


UNANSWERED = (TransportError, RequestError, HistoryError)
_MOST_CHARACTERS = 300  # of an error in a journal


class Failed(TypedDict):
    """The two fields of an outcome, and of its journal row, that say why there is no answer."""

    status: str
    error: str


def failed(error: TransportError | RequestError | HistoryError) -> Failed:
    """What an outcome says of one of the errors of `UNANSWERED`, to be given on by name:
    `Judgement(**failed(error))`."""
    if isinstance(error, TransportError):
        status = TRANSPORT_ERROR
    elif isinstance(error, RequestError):
        status = REFUSED
    else:
        status = TOO_LONG
    return {"status": status, "error": str(error)[:_MOST_CHARACTERS]}


def is_about_length(refusal: str) -> bool:
    """Whether a RequestError, as text, says that the prompt is too long. A server that was busy may say the same, of
    tokens a minute: this is no question to put to a TransportError."""
    return _TOO_LONG.search(refusal) is not None or _TOKENS.match(refusal) is not None
