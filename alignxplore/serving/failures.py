"""How a request can fail for good: no usable reply, or a refusal."""

from alignxplore.errors import UserError


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
