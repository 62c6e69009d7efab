"""A request that opens nothing: it goes to Centrifugo as it is, and its answer comes back as it is."""

from typing import Protocol

from cpro._fast.http1 import build_status
from cpro.doors.gateway.far import FarLeg
from cpro.http.dial import Leg, Transport


class Owner(Protocol):
    """What a passage asks of its door."""

    def on_passed(self, passage: "Passage") -> None:
        """It is over."""


class Passage(Leg):
    """The client's leg, and owner of the other; both close behind the answer."""

    def __init__(self, owner: Owner, transport: Transport, request: bytes) -> None:
        self.far = FarLeg(self, request, accepted=b"")
        self._owner: Owner | None = owner
        self._transport: Transport | None = transport

    def data_received(self, data: bytes) -> None:
        """The answer says that the connection closes: what follows the request is never read."""

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.end()

    def on_upgraded(self, head: bytes, rest: bytes) -> None:
        raise AssertionError("no status is accepted for that")

    def on_far_data(self, data: bytes) -> None:
        raise AssertionError("the answer comes whole")

    def on_far_full(self, *, full: bool) -> None:
        """A request of bounded size."""

    def on_not_upgraded(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)
        self.end()

    def on_far_lost(self) -> None:
        self.on_not_upgraded(build_status(502, False))

    def end(self) -> None:
        """Close both legs; once."""
        owner, self._owner = self._owner, None
        if owner is None:
            return
        self.far.close()
        if self._transport is not None:
            self._transport.close()
        owner.on_passed(self)
