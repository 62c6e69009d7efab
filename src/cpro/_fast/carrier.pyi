from asyncio import BaseTransport, Protocol
from collections.abc import Callable
from typing import Any, Literal
from typing import Protocol as Structural

from cpro._fast.http1 import Request, Response

MAX_HEAD_BYTES: int
MAX_IDLE_S: float
KEEP_ALIVE_MARGIN_S: float
PEEK_AFTER_S: float

class Holder(Structural):
    """Whoever an exchange is with."""

    def withdraw(self, exchange: Exchange) -> None:
        """Forget the exchange; a connection that carries it is closed."""

class Exchange:
    """One request of ours. Held by one holder at a time."""

    @property
    def request(self) -> Request: ...
    @property
    def on_done(self) -> Callable[[Any], object]: ...
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

    def __init__(
        self, request: Request, on_done: Callable[[Any], object], endpoint: object, may_repeat: bool, deadline_s: float
    ) -> None: ...

class Owner(Structural):
    """What a carrier tells its pool."""

    def on_reply(self, carrier: Carrier, is_free: bool, exchange: Exchange, response: Response) -> None:
        """`is_free`: the carrier can carry another exchange."""
    def on_failure(self, exchange: Exchange, failure: Literal["BROKEN", "RESET"], was_stale: bool) -> None:
        """`was_stale`: a reused connection that died before any byte of the reply."""
    def on_lost(self, carrier: Carrier) -> None: ...

class Carrier(Protocol):
    is_fresh: bool
    """Came straight from the dial: has carried nothing yet, has not been idle."""

    reuse_until_s: float
    """In the loop's time."""

    def __init__(
        self, owner: Owner, loop_time: Callable[[], float], max_reply_bytes: int, drop_names: tuple[bytes, ...]
    ) -> None: ...
    @property
    def idle_since_s(self) -> float: ...
    def carry(self, exchange: Exchange) -> None:
        """Write the request; the reply or the failure is told to the owner, later."""
    def is_open(self) -> bool: ...
    def is_reusable(self, now_s: float) -> bool:
        """False when the peer has closed it, may be about to, or has sent something unasked."""
    def withdraw(self, exchange: Exchange) -> None:
        """The exchange is over for its sender; a late reply must not meet the next one."""
    def drop(self) -> None:
        """Close it at once; `on_lost` follows."""
    def connection_made(self, transport: BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
