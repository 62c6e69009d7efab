"""Answers of the server API in Centrifugo's envelope: `{"result": …}`, or `{"error": …}` with status 200.

In transport mode, asked for by a header, an error is its bare object with an HTTP status that says the same.
"""

from typing import Any, Final

import msgspec

from cpro._fast.http1 import Request
from cpro.operation import Reply

ERROR_MODE_HEADER: Final = b"x-centrifugo-error-mode"


class ApiError(msgspec.Struct, frozen=True):
    """An error as the API spells it; unlike the client protocol's it has no `temporary`."""

    code: int
    message: str


INTERNAL_ERROR: Final = ApiError(100, "internal server error")
NOT_FOUND: Final = ApiError(104, "not found")
BAD_REQUEST: Final = ApiError(107, "bad request")
NOT_AVAILABLE: Final = ApiError(108, "not available")

_STATUSES: Final = {100: 500, 104: 404, 107: 400, 108: 400}


def error_answer(error: ApiError, *, in_transport: bool) -> Reply:
    """An error as the request's mode wants it."""
    if in_transport:
        return Reply(msgspec.json.encode(error), error=error.code, status=_STATUSES[error.code])
    return Reply(msgspec.json.encode({"error": error}), error=error.code)


def result_answer(result: Any) -> Reply:  # noqa: ANN401 -- whatever JSON can carry
    """A result."""
    return Reply(msgspec.json.encode({"result": result}))


def wants_transport(request: Request) -> bool:
    """Whether the request asks for errors in transport mode."""
    return (request.header(ERROR_MODE_HEADER) or b"").lower() == b"transport"
