"""A stream over HTTP between Centrifugo and a client (SSE, HTTP-stream, also unidirectional), with a session listening.

The request that opens it carries the connect. It goes to Centrifugo as HTTP/1.0, so that the answer is the plain
stream, without chunks; the client gets chunks, each with whole messages, so that replies of ours may stand anywhere
between. What the session lets pass later goes out in posts (`outbox`), since that is how the client sent it.
"""

from collections.abc import Callable
from typing import Final, Protocol

from cpro._fast.http1 import build_status
from cpro._fast.replies import Reply as Said
from cpro._fast.replies import build_connect, parse_replies
from cpro.doors.gateway.client import ClientLeg
from cpro.doors.gateway.dialects import Dialect
from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.framing import Framing
from cpro.doors.gateway.heads import HOP_BY_HOP, head_lines
from cpro.doors.gateway.legs import GONE, REFUSED_GRACE_S, Timer, close_soon
from cpro.doors.gateway.outbox import Outbox
from cpro.doors.gateway.session import Session
from cpro.http.dial import Transport
from cpro.http.endpoints import Origin

OK: Final = b"200"
EMPTY_LINE: Final = b"\r\n"


class Owner(Protocol):
    """What a stream asks of its door."""

    @property
    def max_server_message_bytes(self) -> int: ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...

    def dial_for(self, stream: "StreamTap", leg: FarLeg) -> None:
        """Connect `leg` to Centrifugo, and set `stream.origin`."""

    def seal_node(self, node: str) -> str:
        """What the client is told instead of Centrifugo's node."""

    def on_session(self, stream: "StreamTap") -> None:
        """Posts that name its `names[0]` are for `stream`."""

    def post(self, stream: "StreamTap", data: bytes, on_done: Callable[[bool], object]) -> None:
        """Send data to Centrifugo's `/emulation`."""

    def on_tap_closed(self, tap: "StreamTap") -> None: ...

    def report(self, what: str) -> None: ...


class StreamTap(ClientLeg):
    """The client's leg, and owner of the other: a protocol as asyncio's transports call it. Its door holds it."""

    def __init__(
        self,
        owner: Owner,
        transport: Transport,
        framing: Framing,
        dialect: Dialect,
        build_request: Callable[[bytes], bytes],
        *,
        is_chunked: bool,
        cors: bytes,
        most_post_bytes: int,
    ) -> None:
        """`build_request` makes the opening request to Centrifugo from what the client may ask. Whoever makes it sets
        `session`. `is_chunked`: the client speaks HTTP/1.1. `cors`: header lines for answers of our own."""
        self.session: Session
        self.origin: Origin
        """Where its Centrifugo is."""
        self.names = ("", "")
        """Session and node, in Centrifugo's words."""
        self._owner: Owner | None = owner
        self._transport: Transport | None = transport
        self._framing = framing
        self._dialect = dialect
        self._build_request: Callable[[bytes], bytes] | None = build_request
        self._is_chunked = is_chunked
        self._cors = cors
        self.far = None
        self._is_answered = False  # the head has gone out
        self._holds = True
        self._buffer = b""
        self._held: list[bytes] = []  # replies of Centrifugo's since the first, while that is being judged
        self._replies: list[bytes] = []  # and ours
        self._outbox = Outbox(
            self._post, self._on_room, self.end, protobuf=framing.protobuf, most_bytes=most_post_bytes
        )
        self._is_waiting = False  # the session wants no more
        self._parked: list[Callable[[], object]] = []
        self._is_closing = False
        self._said_last = (GONE, "")

    @property
    def protobuf(self) -> bool:
        return self._framing.protobuf

    def start(self, said: bytes) -> None:
        """Take what the opening request says."""
        self.session.on_message(self._dialect.commands(said))

    def take(self, commands: bytes) -> None:
        """Take what a post says."""
        self.session.on_message(commands)

    # -- the client's leg

    def data_received(self, data: bytes) -> None:
        """A client has nothing to say here any more."""

    # -- posts

    @property
    def is_full(self) -> bool:
        """Posts should wait."""
        return self._is_waiting or self._outbox.is_full

    def park(self, go_on: Callable[[], object]) -> None:
        """Have a post wait until there is room, or the stream has ended."""
        self._parked.append(go_on)

    @property
    def parked(self) -> int:
        return len(self._parked)

    def _on_room(self) -> None:
        while self._parked and (self._owner is None or not self.is_full):
            self._parked.pop(0)()

    def _post(self, data: bytes, on_done: Callable[[bool], object]) -> None:
        if self._owner is not None:
            self._owner.post(self, data, on_done)

    # -- what the session wants; see `session.Wire`

    def forward(self, payload: bytes) -> None:
        owner = self._owner
        if owner is None:
            return
        build_request, self._build_request = self._build_request, None  # it holds the client's request
        if build_request is None:
            self._outbox.put(payload)
            return
        self.far = FarLeg(self, build_request(self._dialect.request(payload)), accepted=OK)
        owner.dial_for(self, self.far)

    def answer(self, reply: bytes) -> None:
        if self.far is None:
            self._answer_alone(reply)
        elif self._holds:
            self._replies.append(self._framing.build(reply))
        else:
            self._write(self._framing.build(reply))

    def on_let_in(self, said: Said, data: bytes | None) -> None:
        owner = self._owner
        if owner is None or not self._held:
            return
        self.names = (said.session, said.node)
        node = None
        if not self._dialect.is_one_way:
            owner.on_session(self)
            node = owner.seal_node(said.node)
        content = self._held[-1]
        self._held[-1] = content[: said.start] + build_connect(said, node=node, data=data) + content[said.end :]

    def let_through(self) -> None:
        self._holds = False
        held, self._held = self._held, []
        replies, self._replies = self._replies, []
        self._write(b"".join([*(self._framing.build(self._dialect.content(part)) for part in held), *replies]))

    def refuse_connect(self, reply: bytes) -> None:
        content = self._dialect.refusal(reply)
        self._held.clear()
        if self.far is None:
            self._answer_alone(content)
            return
        self._write(self._framing.build(content))
        self._is_closing = True
        self.far.close()
        if self._owner is not None:
            self._owner.call_later(REFUSED_GRACE_S, self.end)

    def disconnect(self, code: int, reason: str) -> None:
        if self._is_closing:
            return
        self._said_last = (code, reason)
        if self._is_answered:
            self._write(self._framing.build(self._dialect.disconnect(code, reason)))
            self.end()
        else:
            self.on_not_upgraded(build_status(503, False))

    def hold(self) -> None:
        self._is_waiting = True

    def go_on(self) -> None:
        self._is_waiting = False
        self._on_room()

    def _answer_alone(self, content: bytes) -> None:
        """Nothing of the opening request may pass: this is all there is."""
        self._begin(b"Content-Type: %b\r\nCache-Control: no-store\r\n%b" % (self._framing.content_type, self._cors))
        self._write(self._framing.build(content))
        self.end()

    # -- Centrifugo's leg

    def on_upgraded(self, head: bytes, rest: bytes) -> None:
        """Centrifugo answers with a stream."""
        lines = (b"%s: %s\r\n" % line for line in head_lines(head) if line[0].lower() not in HOP_BY_HOP)
        self._begin(b"".join(lines))
        if rest:
            self.on_far_data(rest)

    def on_not_upgraded(self, answer: bytes) -> None:
        """Centrifugo has said something else instead, or can't be reached."""
        if self._transport is not None and not self._is_answered:
            self._transport.write(answer)
        self.end()

    def on_far_data(self, data: bytes) -> None:
        owner = self._owner
        if self._is_closing or owner is None:
            return
        buffer = self._buffer + data if self._buffer else data
        try:
            end = self._framing.cut(buffer)
        except ValueError:
            end = -1
        if end < 0 or len(buffer) - end > owner.max_server_message_bytes:
            owner.report("a message without end in a stream")
            self.end()
            return
        self._buffer = buffer[end:]
        if end:
            self._on_messages(buffer[:end])

    def on_far_full(self, *, full: bool) -> None:
        """Everything that is written there fits into one request."""

    def on_far_lost(self) -> None:
        """Centrifugo's leg is gone, or was never there; it may have said why."""
        if not self._is_answered:
            self.on_not_upgraded(build_status(502, False))
            return
        if self._holds:
            self.let_through()
        self.end()

    def _on_messages(self, whole: bytes) -> None:
        if whole.startswith(EMPTY_LINE):  # how an SSE stream begins
            self._write(EMPTY_LINE)
            whole = whole[len(EMPTY_LINE) :]
        content = self._framing.content(whole)
        if self._holds and content:
            content = self._dialect.replies(content)
            self._held.append(content)
            self._tell(content)
            return
        self._write(whole)
        if self._dialect.may_matter(content):
            self._tell(self._dialect.replies(content))

    def _tell(self, replies: bytes) -> None:
        for said in parse_replies(replies, self._framing.protobuf):
            if said.kind == "push_disconnect":
                self._said_last = (said.code, said.reason)
            self.session.on_said(said)

    # -- the end

    def end(self) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        self._is_closing = True
        if self._stalled is not None:
            self._stalled.cancel()
        if self.far is not None:
            self.far.close()
        if self._transport is not None:
            self._close_client(owner, self._transport)
        self.session.on_closed(*self._said_last)
        owner.on_tap_closed(self)
        self._on_room()

    def _close_client(self, owner: Owner, transport: Transport) -> None:
        if self._is_answered and self._is_chunked:
            transport.write(b"0\r\n\r\n")
        close_soon(transport, owner.call_later)

    # -- writing

    def _begin(self, headers: bytes) -> None:
        self._is_answered = True
        if self._transport is not None:
            coding = b"Transfer-Encoding: chunked\r\n" if self._is_chunked else b""
            self._transport.write(b"HTTP/1.1 200 OK\r\n%b%bConnection: close\r\n\r\n" % (headers, coding))

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
