"""What becomes of a request: a response, or why there is none."""

import enum

from cpro._fast.http1 import Response


class Failure(enum.Enum):
    """Why there is no response."""

    REFUSED = "refused"  # no connection could be made; nothing was sent
    TIMED_OUT = "timed_out"
    RESET = "reset"  # the connection died after the request may have reached the peer
    BROKEN = "broken"  # the peer broke HTTP, or its reply is too large
    CLOSED = "closed"  # the client shuts down


Outcome = Response | Failure
