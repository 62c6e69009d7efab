from asyncio import BaseTransport, Protocol
from collections.abc import Callable
from typing import Any, Literal
from typing import Protocol as Structural

from cpro._fast.http1 import Response

MAX_HEAD_BYTES: int
MAX_IDLE_S: float
KEEP_ALIVE_MARGIN_S: float
PEEK_AFTER_S: float

class Owner(Structural):
    """What a carrier tells its pool."""

    def on_free(self, carrier: Carrier) -> None: ...
    def on_reply(self, exchange: Any, response: Response) -> None: ...  # noqa: ANN401 -- the client's own type
    def on_failure(self, exchange: Any, failure: Literal["BROKEN", "RESET"], was_stale: bool) -> None:  # noqa: ANN401
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
    def carry(self, exchange: Any) -> None:  # noqa: ANN401
        """Write the request; the reply or the failure is told to the owner, later."""
    def is_open(self) -> bool: ...
    def is_reusable(self, now_s: float) -> bool:
        """False when the peer has closed it, may be about to, or has sent something unasked."""
    def withdraw(self, exchange: Any) -> None:  # noqa: ANN401
        """The exchange is over for its sender; a late reply must not meet the next one."""
    def drop(self) -> None:
        """Close it at once; `on_lost` follows."""
    def connection_made(self, transport: BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
