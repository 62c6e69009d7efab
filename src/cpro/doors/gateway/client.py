"""The leg to a client, as far as it is the same whatever the connection carries: back-pressure, and its end."""

from collections.abc import Callable
from typing import Protocol

from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.legs import STALL_S, Closing, Timer
from cpro.http.dial import Leg


class Owner(Protocol):
    """What it asks of its door."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


class ClientLeg(Leg):
    """A protocol as asyncio's transports call it, and owner of the leg to Centrifugo.

    `_owner` is None once both have ended, `_transport` once it is lost."""

    far: FarLeg | None
    _owner: Owner | None
    _transport: Closing | None
    _stalled: Timer | None = None

    def end(self) -> None:
        """Close both legs as they are; once."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.end()

    def pause_writing(self) -> None:
        if self.far is not None:
            self.far.pause_reading()
        if self._owner is not None:
            self._stalled = self._owner.call_later(STALL_S, self._give_up)

    def resume_writing(self) -> None:
        if self.far is not None:
            self.far.resume_reading()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _give_up(self) -> None:
        """The client reads no more; then it can't be told so either."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self.end()
