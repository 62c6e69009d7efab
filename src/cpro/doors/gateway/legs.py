"""What the two legs of a connection have in common, and what the one to Centrifugo tells the client's."""

from collections.abc import Callable
from typing import Final, Protocol

STALL_S: Final = 10.0
"""How long a client may leave unread what its connection doesn't take any more. Centrifugo gives up sooner, but nobody
hears of that while nothing is read of its leg."""
REFUSED_GRACE_S: Final = 1.0
"""How long a client that was refused may take to read so before its connection ends."""
GONE: Final = 3000
"""Centrifugo's code for a connection that ended without a code; never sent."""
UNREAD_WAIT_S: Final = 5.0
"""How long it may take to read what it was sent last."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class Closing(Protocol):
    """A transport, as far as it is closed."""

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...


def close_soon(transport: Closing, call_later: Callable[[float, Callable[[], object]], object]) -> None:
    """Close behind what has been written, but don't wait for ever until that is read."""
    transport.close()
    if transport.get_write_buffer_size():
        call_later(UNREAD_WAIT_S, transport.abort)


class Tap(Protocol):
    """What Centrifugo's leg tells the client's."""

    def on_upgraded(self, head: bytes, rest: bytes) -> None: ...

    def on_not_upgraded(self, answer: bytes) -> None: ...

    def on_far_data(self, data: bytes) -> None: ...

    def on_far_full(self, *, full: bool) -> None: ...

    def on_far_lost(self) -> None: ...
