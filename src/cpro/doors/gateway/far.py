"""The leg to Centrifugo: asks for the upgrade (or for a stream), then carries bytes."""

from collections.abc import Callable
from typing import Final, cast

from cpro._fast.http1 import ResponseParser, build_status
from cpro.doors.gateway.heads import relay_response, split_head
from cpro.doors.gateway.legs import Tap, Timer
from cpro.errors import ProtocolError
from cpro.http.dial import BaseTransport, Leg, Transport

HEAD_LIMIT_BYTES: Final = 64 * 1024
BODY_LIMIT_BYTES: Final = 1024 * 1024
ANSWER_WAIT_S: Final = 30.0
"""Longer than Centrifugo takes to begin what is accepted, or for any other answer from its first to its last byte."""
SWITCHING: Final = b"101"
_STATUS: Final = slice(len("HTTP/1.1 "), len("HTTP/1.1 200"))


class FarLeg(Leg):
    """A protocol as asyncio's transports call it. Owned by its tap; `close` may come before the connection is made."""

    def __init__(self, tap: Tap, request: bytes, accepted: bytes = SWITCHING) -> None:
        """`request` with its body, if any; `accepted` is the status after which bytes are carried, empty for none."""
        self._tap = tap
        self._request = request
        self._is_head = request.startswith(b"HEAD ")
        self._accepted = accepted
        self._transport: Transport | None = None
        self._received = b""
        self._is_upgraded = False
        self._answer: ResponseParser | None = None
        self._is_closed = False
        self._timer: Timer | None = None

    def give_up_later(self, call_later: Callable[[float, Callable[[], object]], Timer]) -> None:
        """Don't wait for ever until it is answered."""
        self._timer = call_later(ANSWER_WAIT_S, self._on_late)

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        if self._is_closed:  # the client has gone meanwhile
            self._transport.abort()
            return
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        if self._is_upgraded:
            self._tap.on_far_data(data)
        elif self._answer is not None:
            self._read_answer(data)
        else:
            self._read_head(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop_timer()
        if not self._is_closed:
            self._is_closed = True
            self._tap.on_far_lost()

    def pause_writing(self) -> None:
        self._tap.on_far_full(full=True)

    def resume_writing(self) -> None:
        self._tap.on_far_full(full=False)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._is_closed:
            self._transport.write(data)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written has left; the tap hears nothing more."""
        self._is_closed = True
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        self.close()
        self._tap.on_not_upgraded(build_status(504, False))

    def _read_head(self, data: bytes) -> None:
        self._received += data
        head, rest = split_head(self._received)
        if not head:
            if len(self._received) > HEAD_LIMIT_BYTES:
                self._give_up()
            return
        if self._accepted and head[_STATUS] == self._accepted:
            self._is_upgraded, self._received = True, b""
            self._stop_timer()
            self._tap.on_upgraded(head, rest)
            return
        self._answer = ResponseParser(HEAD_LIMIT_BYTES, BODY_LIMIT_BYTES)
        self._answer.expect(self._is_head)
        received, self._received = self._received, b""
        self._read_answer(received)

    def _read_answer(self, data: bytes) -> None:
        assert self._answer is not None, "a head was read"  # noqa: S101
        try:
            self._answer.feed(data)
            response = self._answer.next_response()
        except ProtocolError:
            self._give_up()
            return
        if response is not None:
            self.close()
            self._tap.on_not_upgraded(relay_response(response, is_head=self._is_head))

    def _give_up(self) -> None:
        """It doesn't speak HTTP."""
        self.close()
        self._tap.on_far_lost()
