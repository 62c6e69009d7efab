"""Where posts to `/emulation` come in and find the stream they are for: here, at another worker, at another node.

Only a node that the gateway has sealed leads anywhere. Every other is answered 404, as Centrifugo answers for nodes
that it doesn't know: nothing a client says is passed to an address of its choice, or to Centrifugo without a session.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from cpro._fast.http1 import Request
from cpro.doors.gateway.emulation import (
    OCTETS,
    PATH,
    Owner,
    Post,
    build_post,
    commands_of,
    owner_of,
    read_post,
    seal_owner,
)
from cpro.doors.gateway.poster import TIMED_OUT, Hear
from cpro.doors.seal import Seal
from cpro.http.server import Connection
from cpro.operation import Reply

ENVELOPE_BYTES: Final = 2048
"""How much longer a post may be than a message: our node is longer than Centrifugo's."""
MOST_PARKED: Final = 64
"""Posts of one stream that may wait for room."""
TAKEN, MALFORMED, UNKNOWN_NODE, TOO_LARGE, FAILED, BUSY = 204, 400, 404, 413, 500, 503


class Place(NamedTuple):
    """Where this worker is: see `emulation.Owner`."""

    service: str
    worker: int
    internal: str
    workers: Sequence[str]
    """Addresses (host:port) at which the service's workers hear each other, by number."""


class Stream(Protocol):
    """What posts are for."""

    @property
    def protobuf(self) -> bool: ...
    @property
    def is_full(self) -> bool: ...
    @property
    def parked(self) -> int:
        """How many posts wait."""

    def park(self, go_on: Callable[[], object]) -> None: ...
    def take(self, commands: bytes) -> None: ...


class Peers(Protocol):
    """`Poster`."""

    def to_peer(self, address: str, body: bytes, content_type: bytes, hear: Hear) -> None: ...


class Desk:
    """A worker's."""

    def __init__(self, place: Place, peers: Peers) -> None:
        self._place = place
        self._peers = peers
        self._streams: dict[str, Stream] = {}
        self._seals: tuple[Seal, ...] = ()
        self._most_bytes = 0

    def configure(self, seal: Seal, max_message_bytes: int) -> None:
        """Put settings in force; what the seal before this one has sealed stays good."""
        if not self._seals or self._seals[0] != seal:
            self._seals = (seal, *self._seals[:1])
        self._most_bytes = max_message_bytes + ENVELOPE_BYTES

    def seal_node(self, node: str) -> str:
        place = self._place
        return seal_owner(self._seals[0], Owner(place.service, str(place.worker), place.internal, node))

    def add(self, session: str, stream: Stream) -> None:
        self._streams[session] = stream

    def discard(self, session: str, stream: Stream) -> None:
        if self._streams.get(session) is stream:
            del self._streams[session]

    def take(self, request: Request, connection: Connection) -> Reply | None:
        """A client's post."""
        cors = cors_of(request)
        if len(request.body) > self._most_bytes:
            return Reply(b"", status=TOO_LARGE, extra=cors)
        try:
            post = read_post(request.body, protobuf=request.header(b"content-type") == OCTETS)
        except ValueError:
            return Reply(b"", status=MALFORMED, extra=cors)
        return self._route(post, connection, cors, may_go_on=True, may_leave=True)

    def take_from_node(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        """The handler of posts that other nodes pass on: they may go on to a worker here, and no further."""
        return self._take_from_peer(request, connection, may_go_on=True)

    def take_from_worker(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        """The handler of those that other workers pass on: they are for this one."""
        return self._take_from_peer(request, connection, may_go_on=False)

    def _take_from_peer(self, request: Request, connection: Connection, *, may_go_on: bool) -> Reply | None:
        if not request.is_post or request.path != PATH:
            return Reply(b"", status=UNKNOWN_NODE)
        try:
            post = read_post(request.body, protobuf=True)
        except ValueError:
            return Reply(b"", status=MALFORMED)
        return self._route(post, connection, b"", may_go_on=may_go_on, may_leave=False)

    def _route(
        self, post: Post, connection: Connection, cors: bytes, *, may_go_on: bool, may_leave: bool
    ) -> Reply | None:
        owner, place = owner_of(self._seals, post.node), self._place
        if owner is None:
            return Reply(b"", status=UNKNOWN_NODE, extra=cors)
        if owner.service == place.service and owner.worker == str(place.worker):
            return self._deliver(post, connection, cors)
        address = ""
        if owner.service != place.service:
            address = owner.internal if may_leave and owner.internal != place.internal else ""
        elif may_go_on and int(owner.worker) < len(place.workers):
            address = place.workers[int(owner.worker)]
        if not address:
            return Reply(b"", status=UNKNOWN_NODE, extra=cors)

        def hear(status: int) -> None:
            if status < 100:
                status = FAILED if status == TIMED_OUT else UNKNOWN_NODE
            connection.answer(Reply(b"", status=status, extra=cors))

        self._peers.to_peer(address, build_post(post), OCTETS, hear)
        return None

    def _deliver(self, post: Post, connection: Connection, cors: bytes) -> Reply | None:
        """To a stream of this worker; a session that isn't here is nobody's, and Centrifugo says nothing of that."""
        taken = Reply(b"", status=TAKEN, extra=cors)
        stream = self._streams.get(post.session)
        commands = None if stream is None else commands_of(post.data, protobuf=stream.protobuf)
        if stream is None or commands is None:
            return taken
        if not stream.is_full and not stream.parked:
            stream.take(commands)
            return taken
        if stream.parked >= MOST_PARKED:
            return Reply(b"", status=BUSY, extra=cors)
        stream.park(partial(_take_late, stream, commands, connection, taken))
        return None


def _take_late(stream: Stream, commands: bytes, connection: Connection, taken: Reply) -> None:
    stream.take(commands)
    connection.answer(taken)


def cors_of(request: Request) -> bytes:
    """Header lines by which a page may read an answer of ours. Whoever asks may: it says nothing of anybody's, only
    whether a post was taken, or a connect is one too many. What may be sent at all Centrifugo says, to the preflight.
    """
    origin = request.header(b"origin")
    if not origin:
        return b""
    return b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Origin: %b\r\n" % origin
