"""The HTTP transports' part of the door: opens streams, and takes the posts that belong to them."""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec

from cpro._fast.emulation import build_emulation
from cpro._fast.http1 import Request
from cpro.doors.gateway.desk import MALFORMED, TAKEN, TOO_LARGE, Desk, cors_of
from cpro.doors.gateway.emulation import OCTETS
from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.legs import Timer
from cpro.doors.gateway.opening import Opening
from cpro.doors.gateway.passage import Passage
from cpro.doors.gateway.poster import Hear
from cpro.doors.gateway.stream import StreamTap
from cpro.doors.gateway.ways import Way
from cpro.http.dial import Transport
from cpro.http.endpoints import Origin
from cpro.http.server import Connection
from cpro.operation import Reply

ENVELOPE_BYTES: Final = 512
"""Of a post to Centrifugo, beside its data."""
JSON: Final = b"application/json"


class Door(Protocol):
    """What this part asks of the whole."""

    max_message_bytes: int
    max_server_message_bytes: int

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...

    def dial(
        self, leg: FarLeg, on_refused: Callable[[], object], on_chosen: Callable[[Origin], object] | None = None, /
    ) -> None: ...

    def open_stream(
        self, request: Request, connection: Connection, way: Way, make: Callable[[Transport, Opening], StreamTap]
    ) -> Reply | StreamTap:
        """Make a tap with a session, counted in; a Reply where there is no room for it."""

    def head(
        self, opening: Opening, add: tuple[tuple[bytes, bytes], ...], target: bytes = b"", version: bytes = b"1.1"
    ) -> bytes: ...

    def opening(self, request: Request, connection: Connection) -> Opening: ...

    def on_tap_closed(self, tap: StreamTap) -> None: ...

    def report(self, what: str) -> None: ...


class Centrifugo(Protocol):
    """`Poster`."""

    def to_centrifugo(self, origin: Origin, body: bytes, content_type: bytes, hear: Hear) -> None: ...


class Streams:
    """Owner of the worker's streams towards `StreamTap`; the door keeps them."""

    def __init__(self, door: Door, desk: Desk, centrifugo: Centrifugo) -> None:
        self._door = door
        self._desk = desk
        self._centrifugo = centrifugo
        self._passages: set[Passage] = set()
        self.call_later = door.call_later
        self.report = door.report
        self.seal_node = desk.seal_node

    @property
    def max_server_message_bytes(self) -> int:
        return self._door.max_server_message_bytes

    # -- requests

    def take_post(self, request: Request, connection: Connection) -> Reply | None:
        """Of `/emulation`."""
        return self._desk.take(request, connection) if request.is_post else self.relay(request, connection)

    def open(self, request: Request, connection: Connection, way: Way) -> Reply | None:
        """Of a transport's path."""
        if len(request.body) > self._door.max_message_bytes:
            return Reply(b"", status=TOO_LARGE, extra=cors_of(request))
        try:
            said = way.said(request)
        except ValueError:
            return Reply(b"", status=MALFORMED, extra=cors_of(request))
        if said is None:
            return self.relay(request, connection)
        opened = self._door.open_stream(request, connection, way, partial(self._make, way))
        if isinstance(opened, Reply):
            return opened
        opened.start(said)
        return None

    def relay(self, request: Request, connection: Connection) -> Reply | None:
        """Have Centrifugo answer: what asks whether one may ask, or asks by another method."""
        length = b"%d" % len(request.body)
        add = ((b"Content-Length", length),) if request.body else ()
        target = b"%b?%b" % (request.path, request.query) if request.query else request.path
        head = self._door.head(self._door.opening(request, connection), (*add, (b"Connection", b"close")), target)
        transport, _ = connection.detach()
        passage = Passage(self, transport, head + request.body)
        self._passages.add(passage)
        transport.set_protocol(passage)
        self._door.dial(passage.far, passage.on_far_lost)
        return None

    def on_passed(self, passage: Passage) -> None:
        self._passages.discard(passage)

    def _make(self, way: Way, transport: Transport, opening: Opening) -> StreamTap:
        request = opening.request
        protobuf = way.is_protobuf(request)
        return StreamTap(
            self,
            transport,
            way.framing(protobuf=protobuf),
            way.dialect(protobuf=protobuf),
            partial(self._build_request, way, opening),
            is_chunked=request.minor_version > 0,
            cors=cors_of(request),
            most_post_bytes=self._door.max_message_bytes - ENVELOPE_BYTES,
        )

    def _build_request(self, way: Way, opening: Opening, asked: bytes) -> bytes:
        target = way.target(opening.request, asked)
        add = () if target else ((b"Content-Length", b"%d" % len(asked)),)
        head = self._door.head(opening, add, target, b"1.0")
        return head if target else head + asked

    # -- what streams ask of their owner

    def dial_for(self, stream: StreamTap, leg: FarLeg) -> None:
        def on_chosen(origin: Origin) -> None:
            stream.origin = origin

        self._door.dial(leg, stream.on_far_lost, on_chosen)

    def on_session(self, stream: StreamTap) -> None:
        self._desk.add(stream.names[0], stream)

    def post(self, stream: StreamTap, data: bytes, on_done: Callable[[bool], object]) -> None:
        """Anything but a success means that commands are lost, or that the session is."""
        session, node = (name.encode() for name in stream.names)
        if stream.protobuf:
            body, kind = build_emulation(node, session, data), OCTETS
        else:
            quoted = (msgspec.json.encode(name) for name in stream.names)
            body, kind = b'{"session":%b,"node":%b,"data":%b}' % (*quoted, data), JSON
        self._centrifugo.to_centrifugo(stream.origin, body, kind, lambda status: on_done(status == TAKEN))

    def on_tap_closed(self, tap: StreamTap) -> None:
        self._desk.discard(tap.names[0], tap)
        self._door.on_tap_closed(tap)
