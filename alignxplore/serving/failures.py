"""How a request can fail for good: no usable reply, or a refusal."""

import re

from alignxplore.errors import UserError

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


def is_about_length(refusal: str) -> bool:
    """Whether a RequestError, as text, says that the prompt is too long. A server that was busy may say the same, of
    tokens a minute: this is no question to put to a TransportError."""
    return _TOO_LONG.search(refusal) is not None or _TOKENS.match(refusal) is not None
