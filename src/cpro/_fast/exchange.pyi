from collections.abc import Callable
from typing import Any, Protocol, final

from cpro._fast.http1 import Request

class Holder(Protocol):
    """Whoever an exchange is with."""

    def withdraw(self, exchange: Exchange) -> None:
        """Forget the exchange; a connection that carries it is closed."""

@final
class Exchange:
    """One request of ours. Held by one holder at a time."""

    @property
    def request(self) -> Request: ...
    @property
    def on_done(self) -> Callable[[Any], object]: ...
    @property
    def route(self) -> Any: ...  # noqa: ANN401
    endpoint: Any
    """Where it goes; has a `head_prefix` for `http1.build_forward`."""
    @property
    def may_repeat(self) -> bool: ...
    @property
    def deadline_s(self) -> float:
        """In the loop's time."""
    repeated: bool
    """Sent a second time: only on a fresh connection."""
    refused_by: tuple[Any, ...]
    """Endpoints."""
    holder: Holder | None

class Exchanges:
    """Those of one client. To be extended by `watch`, `on_last` and `report`."""

    watched: bool
    """Whether `watch` was called, and its time hasn't come."""
    closing: bool
    """No new ones."""

    def __init__(self, loop_time: Callable[[], float], timeout_s: float) -> None: ...
    @property
    def owed(self) -> dict[Exchange, None]:
        """Oldest first: they all have the same timeout."""
    @property
    def loop_time(self) -> Callable[[], float]: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def in_flight(self) -> int: ...
    def tell(self, exchange: Exchange, outcome: object) -> None:
        """Tell the sender, unless it was told already."""
