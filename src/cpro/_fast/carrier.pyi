from asyncio import BaseTransport, Protocol
from collections.abc import Sized
from typing import Protocol as Structural
from typing import final

from cpro._fast.exchange import Exchange, Exchanges

MAX_HEAD_BYTES: int
MAX_IDLE_S: float
KEEP_ALIVE_MARGIN_S: float
PEEK_AFTER_S: float

class Health(Structural):
    """How an origin does."""

    failures: int
    """In a row."""

    def on_answer(self) -> None:
        """Any answer came. Called only when `failures` isn't zero."""

class Depot:
    """Where the connections of one origin wait for work. To be extended by what a carrier tells its pool:

    * `on_free(carrier)`: it can carry another exchange, and must not be idle as the depot stands;
    * `on_failure(exchange, failure, was_stale)`: "BROKEN" or "RESET"; stale is a reused connection that died before any
      byte of the reply;
    * `on_lost(carrier)`.
    """

    health: Health
    sweep_at_s: float
    """When the first idle connection is closed, in the loop's time."""
    closing: bool
    """Nothing may be idle."""

    def __init__(self, exchanges: Exchanges, waiting: Sized) -> None: ...
    @property
    def exchanges(self) -> Exchanges: ...
    @property
    def idle(self) -> list[Carrier]:
        """The youngest last, which is used first."""
    @property
    def waiting(self) -> Sized:
        """Exchanges that a free connection goes to before it may be idle."""
    def carry(self, exchange: Exchange, now_s: float) -> bool:
        """Write the request on an idle connection; False when there is none. Drops those that are past their time."""

@final
class Carrier(Protocol):
    is_fresh: bool
    """Came straight from the dial: has carried nothing yet, has not been idle."""

    reuse_until_s: float
    """In the loop's time."""

    def __init__(
        self, depot: Depot, max_reply_bytes: int, drop_names: tuple[bytes, ...], max_idle_s: float = ...
    ) -> None: ...
    @property
    def idle_since_s(self) -> float: ...
    def carry(self, exchange: Exchange) -> None:
        """Write the request; what comes of it is told later."""
    def is_open(self) -> bool: ...
    def withdraw(self, exchange: Exchange) -> None:
        """The exchange is over for its sender; a late reply must not meet the next one."""
    def drop(self) -> None:
        """Close it at once; `on_lost` follows."""
    def connection_made(self, transport: BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
