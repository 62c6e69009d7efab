"""A WebSocket between a client and Centrifugo, with a session listening in (RFC 6455).

Upgrade and its answer are relayed. After that, what Centrifugo sends goes to the client as the bytes it came in; the
session hears the messages that matter, and its own replies go between whole messages. What the client sends is taken
apart, and forwarded without what the session holds back. A leg that closes closes the other: the client's with the
code and reason that Centrifugo gave, or with no code at all where it gave none.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cpro._fast.http1 import build_status
from cpro._fast.replies import Reply as Said
from cpro._fast.replies import build_connect, parse_replies
from cpro._fast.wsframe import (
    BINARY,
    CLOSE,
    DROP,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    ClientFrames,
    Event,
    Masks,
    build_close,
    build_frame,
)
from cpro._fast.wsscan import ServerScan
from cpro.clock import boot_ns
from cpro.doors.gateway.client import ClientLeg
from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.legs import GONE, REFUSED_GRACE_S, Closing, Timer, close_soon
from cpro.doors.gateway.session import Session
from cpro.http.dial import BaseTransport

EARLY_LIMIT_BYTES: Final = 64 * 1024
"""What a client may send before it knows that the connection is upgraded."""
CLOSE_WAIT_S: Final = 5.0
"""How long a peer has for its part of the closing handshake; as long as Centrifugo waits."""


class ClientEvent(Protocol):
    """`wsframe.Event`, as far as it is asked of what a client sends."""

    @property
    def opcode(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def code(self) -> int: ...
    @property
    def reason(self) -> bytes: ...


class Frames(Protocol):
    """`wsframe.ClientFrames`, or what reads compressed messages, too."""

    def feed(self, data: bytes, /) -> Sequence[ClientEvent]: ...
    @property
    def fault_code(self) -> int: ...
    @property
    def fault_reason(self) -> bytes: ...


class ClientTransport(Closing, Protocol):
    """What a tap asks of the transport to its client."""

    def write(self, data: bytes, /) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Owner(Protocol):
    """What a tap asks of its door."""

    max_message_bytes: int
    max_server_message_bytes: int

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...

    def on_tap_closed(self, tap: "WebSocketTap") -> None:
        """Both legs are gone, or going with nothing left to say."""

    def report(self, what: str) -> None:
        """Centrifugo broke the protocol."""


class WebSocketTap(ClientLeg):
    """The client's leg, and owner of the other: a protocol as asyncio's transports call it.

    From `start` until both legs are lost the door holds it.
    """

    def __init__(
        self,
        owner: Owner,
        transport: ClientTransport,
        request_head: bytes,
        *,
        protobuf: bool,
        frames: Frames | None = None,
    ) -> None:
        """`request_head` asks Centrifugo for the upgrade; `frames` read the client. Whoever makes it sets `session`."""
        self.session: Session
        self.far: FarLeg = FarLeg(self, request_head)
        self._owner: Owner | None = owner
        self._transport: ClientTransport | None = transport
        self.protobuf = protobuf
        self._frames: Frames = frames or ClientFrames(owner.max_message_bytes)
        self._scan = ServerScan(protobuf, owner.max_server_message_bytes)
        self._masks = Masks(id(self) >> 4)
        self._opcode = BINARY if protobuf else TEXT
        self._early = b""
        self._held: list[bytes] = []  # what Centrifugo said up to now, until the reply to the connect has been judged
        self._judged: tuple[int, bytes] | None = None  # which of that is being looked at, and its payload
        self._replies: list[bytes] = []  # our frames that wait for the end of a message of Centrifugo's
        self._is_held_by_session = self._is_held_by_far = False  # nothing is read of the client while one of them is
        self._is_open = False  # the upgrade has been relayed
        self._is_closing = False
        self._said_last = (GONE, "")
        self._timer: Timer | None = None

    # -- the client's leg

    def connection_made(self, transport: BaseTransport) -> None:
        raise AssertionError("the connection was made before it became a tap's")

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            self._early += data
            if len(self._early) > EARLY_LIMIT_BYTES:
                self.end()
            return
        for event in self._frames.feed(data):
            self._on_client_event(event)
        if self._frames.fault_code and not self._is_closing:
            self._on_client_fault()

    def _on_client_event(self, event: ClientEvent) -> None:
        opcode = event.opcode
        if opcode in (TEXT, BINARY):
            self._opcode = opcode
            self._on_message(event.payload)
        elif opcode == CLOSE:
            self._note_end(event.code, event.reason.decode(errors="replace"))
            self.far.write(build_frame(CLOSE, event.payload, mask_key=self._masks.next()))
            self._finish_in(CLOSE_WAIT_S)
        else:
            if opcode == PONG:
                self.session.on_ponged(boot_ns())
            self.far.write(build_frame(opcode, event.payload, mask_key=self._masks.next()))

    def _on_message(self, payload: bytes) -> None:
        self.session.on_message(payload)

    def _on_client_fault(self) -> None:
        code = self._frames.fault_code
        if code == DROP:
            self.end()
        else:
            self._close_client(code, self._frames.fault_reason)

    # -- what the session wants; see `session.Wire`

    def forward(self, payload: bytes) -> None:
        self.far.write(build_frame(self._opcode, payload, mask_key=self._masks.next()))

    def answer(self, reply: bytes) -> None:
        frame = build_frame(BINARY if self.protobuf else TEXT, reply)
        if not self._scan.holds and not self._replies and self._scan.is_between_messages:
            self._write(frame)
        else:
            self._replies.append(frame)

    def on_let_in(self, said: Said, data: bytes | None) -> None:
        if data is None:
            return
        assert self._judged is not None, "it is held until it is judged"  # noqa: S101
        place, payload = self._judged
        replies = self._replies_of(payload)
        replies = replies[: said.start] + build_connect(said, data=data) + replies[said.end :]
        self._held[place] = build_frame(BINARY if self.protobuf else TEXT, self._payload_of(replies))

    def let_through(self) -> None:
        held, self._held, self._judged = self._held, [], None
        self._write(b"".join(held) + self._scan.release())
        if self._scan.is_between_messages:
            self._send_replies()

    def refuse_connect(self, reply: bytes) -> None:
        self._held.clear()
        self._write(build_frame(BINARY if self.protobuf else TEXT, reply))
        self._is_closing = True
        self.far.close()
        self._finish_in(REFUSED_GRACE_S)

    def disconnect(self, code: int, reason: str) -> None:
        self._close_client(code, reason.encode())

    def hold(self) -> None:
        self._hold(by_session=True, by_far=self._is_held_by_far)

    def go_on(self) -> None:
        self._hold(by_session=False, by_far=self._is_held_by_far)

    # -- Centrifugo's leg

    def on_upgraded(self, head: bytes, rest: bytes) -> None:
        """Centrifugo has upgraded its leg."""
        self._is_open = True
        self._write(head)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        if rest:
            self.on_far_data(rest)

    def on_not_upgraded(self, answer: bytes) -> None:
        """Centrifugo has said something else instead, or can't be reached."""
        self._write(answer)
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()

    def on_far_data(self, data: bytes) -> None:
        if self._is_closing:
            return
        scan = self._scan
        events = scan.feed(data)
        if scan.holds:
            self._hold_back(events or [])
        elif events is None and not self._replies:
            self._write(data)
        else:
            self._pass(data, events or [])
        if scan.fault:
            if self._owner is not None:
                self._owner.report(scan.fault)
            self.end()

    def on_far_lost(self) -> None:
        """Centrifugo's leg is gone; it may have said why."""
        if not self._is_open:
            self.on_not_upgraded(build_status(502, False))
        self.end()

    def _pass(self, data: bytes, events: list[Event]) -> None:
        """Write on what Centrifugo sent, with our replies where they may stand; then look at it."""
        boundary = self._scan.boundary
        if self._replies and boundary >= 0:
            self._write(data[:boundary])
            self._send_replies()
            self._write(data[boundary:])
        else:
            self._write(data)
        for event in events:
            self._on_far_event(event)

    def _hold_back(self, events: list[Event]) -> None:
        """The same while the reply to the connect is still to come, or being judged: looking at one message may let
        all of them through, and what there is of the next."""
        first = len(self._held)
        self._held += [event.raw or b"" for event in events]
        for place, event in enumerate(events, first):
            self._judged = (place, event.payload) if self._scan.holds else None
            self._on_far_event(event)

    def _on_far_event(self, event: Event) -> None:
        if event.opcode == CLOSE:
            self._on_far_close(event)
        elif event.opcode == PING:
            self.session.on_pinged()
        elif event.opcode in (TEXT, BINARY):
            self._hear(event.payload)

    def _hear(self, payload: bytes) -> None:
        for said in parse_replies(payload, self.protobuf):
            self.session.on_said(said)

    def _replies_of(self, payload: bytes) -> bytes:
        """What a message of Centrifugo's says, for `parse_replies`."""
        return payload

    def _payload_of(self, replies: bytes) -> bytes:
        """The same back."""
        return replies

    def _on_far_close(self, event: Event) -> None:
        """Its frame is written already (or held: then it is all the client gets)."""
        if self._scan.holds:
            self.let_through()
        self._note_end(event.code, event.payload[2:].decode(errors="replace"))
        self._finish_in(CLOSE_WAIT_S)

    # -- the end

    def _close_client(self, code: int, reason: bytes) -> None:
        """We end it: the client hears why, Centrifugo's leg just closes."""
        if self._is_closing:
            return
        self._note_end(code, reason.decode(errors="replace"))
        self._is_closing = True
        if not self._scan.is_between_messages:
            self.end()  # a frame of ours can't stand inside of Centrifugo's message
            return
        self._write(build_close(code, reason))
        self.far.close()
        self._finish_in(CLOSE_WAIT_S)

    def _note_end(self, code: int, reason: str) -> None:
        if self._said_last[0] == GONE:
            self._said_last = (GONE if code == NO_STATUS else code, reason)

    def _finish_in(self, delay_s: float) -> None:
        if self._timer is None and self._owner is not None:
            self._timer = self._owner.call_later(delay_s, self.end)

    def end(self) -> None:
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        self._is_closing = True
        self.far.close()
        owner, self._owner = self._owner, None
        if owner is not None:
            if self._transport is not None:
                close_soon(self._transport, owner.call_later)
            self.session.on_closed(*self._said_last)
            owner.on_tap_closed(self)

    # -- writing and reading

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _send_replies(self) -> None:
        replies, self._replies = self._replies, []
        self._write(b"".join(replies))

    def _hold(self, *, by_session: bool, by_far: bool) -> None:
        before = self._is_held_by_session or self._is_held_by_far
        self._is_held_by_session, self._is_held_by_far = by_session, by_far
        if self._transport is None or before == (by_session or by_far):
            return
        if before:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def on_far_full(self, *, full: bool) -> None:
        """Centrifugo doesn't read what we write, or reads again."""
        self._hold(by_session=self._is_held_by_session, by_far=full)
