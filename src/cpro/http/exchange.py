"""An exchange: one request of ours and the one outcome its sender gets."""

import enum
from collections.abc import Callable
from typing import Protocol

from cpro._fast.http1 import Request, Response
from cpro.http.endpoints import Endpoint


class Failure(enum.Enum):
    """Why there is no response."""

    REFUSED = "refused"  # no connection could be made; nothing was sent
    TIMED_OUT = "timed_out"
    RESET = "reset"  # the connection died after the request may have reached the peer
    BROKEN = "broken"  # the peer broke HTTP, or its reply is too large
    CLOSED = "closed"  # the client shuts down


Outcome = Response | Failure


class Holder(Protocol):
    """Whoever an exchange is with: the pool while it waits, the connection while it is carried."""

    def withdraw(self, exchange: "Exchange") -> None:
        """Forget the exchange; a connection that carries it is closed."""


class Exchange:
    """Made by the client for each send, held by one holder at a time, gone when its outcome is told."""

    __slots__ = ("deadline_s", "endpoint", "holder", "may_repeat", "on_done", "refused_by", "repeated", "request")

    def __init__(
        self,
        request: Request,
        on_done: Callable[[Outcome], object],
        endpoint: Endpoint,
        may_repeat: bool,
        deadline_s: float,
    ) -> None:
        self.request = request
        self.on_done = on_done
        self.endpoint = endpoint
        self.may_repeat = may_repeat
        self.deadline_s = deadline_s  # in the loop's time
        self.repeated = False  # sent a second time: only on a fresh connection
        self.refused_by: tuple[Endpoint, ...] = ()
        self.holder: Holder | None = None
