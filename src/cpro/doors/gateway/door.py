"""The gateway's HTTP side: which request is relayed how. One per worker; a `http.server.Handler`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qs
from uuid import uuid4

from cpro._fast.crowd import REFUSED, Crowd
from cpro._fast.http1 import Request
from cpro.addresses import customer_of
from cpro.clock import boot_ns
from cpro.config.model import Gateway
from cpro.doors.gateway import emulation
from cpro.doors.gateway.books import Books
from cpro.doors.gateway.deflate import Deflating, Inflating, negotiate
from cpro.doors.gateway.desk import Desk
from cpro.doors.gateway.dialects import read_connect
from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.heads import FORWARDED_FOR, OURS, REAL_IP, relay_request
from cpro.doors.gateway.legs import Timer
from cpro.doors.gateway.one_way import OneWayTap
from cpro.doors.gateway.opening import Opening
from cpro.doors.gateway.peers import Peer, Peers
from cpro.doors.gateway.session import Observer, Session
from cpro.doors.gateway.stream import StreamTap
from cpro.doors.gateway.streams import Centrifugo, Streams
from cpro.doors.gateway.tokens import Claim, Tokens
from cpro.doors.gateway.unknown import may_pass
from cpro.doors.gateway.ways import CONNECT, WAYS, Way, query_value, target_asking
from cpro.doors.gateway.websocket import ClientTransport, WebSocketTap
from cpro.doors.joined import HEADER, read_mark, seal_connection
from cpro.doors.seal import Seal
from cpro.http.dial import Leg, Transport
from cpro.http.endpoints import Origin
from cpro.http.server import Connection
from cpro.logs import Occasional
from cpro.operation import Reply, status_reply
from cpro.pipeline import Lane

log = logging.getLogger(__name__)

NOT_FOUND = status_reply(404)
BAD_REQUEST = status_reply(400)
SERVICE_UNAVAILABLE = status_reply(503)
WEBSOCKET: Final = b"/connection/websocket"
ONE_WAY_WEBSOCKET: Final = b"/connection/uni_websocket"
PROTOBUF: Final = b"centrifuge-protobuf"
JSON: Final = b"centrifuge-json"
MOST_SERVER_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Longest message of Centrifugo's that is looked into; its own queue holds less."""
UPGRADE: Final = frozenset({b"upgrade", b"sec-websocket-extensions"})
SHUTDOWN: Final = (3001, "shutdown")


class Dial(Protocol):
    """`http.dial.Dialer.dial`."""

    def __call__(
        self, leg: Leg, on_refused: Callable[[], object], on_chosen: Callable[[Origin], object] | None = None, /
    ) -> None: ...


Tap = WebSocketTap | StreamTap
"""A connection that is open."""
SomeTap = TypeVar("SomeTap", WebSocketTap, OneWayTap, StreamTap)


@dataclass(frozen=True)
class GatewayRules:
    """What holds for all sessions from the next command on; `session.Rules`."""

    lanes: Mapping[str, Lane]
    tentative_connect: Lane
    own_methods: frozenset[str]
    is_claimed: Callable[[str], bool]
    observer: Observer
    tokens: Tokens
    take_error: Callable[[list[int], int], bool]
    seal: Seal

    def claim(self, token: str) -> Claim | None:
        return self.tokens.read(token)

    def read_mark(self, connection: str, data: bytes) -> tuple[str, bytes] | None:
        return read_mark(self.seal, connection, data)


class Connections(Protocol):
    """The count of what is open, for the metrics."""

    def add(self, transport: str, change: int) -> None:
        """So many more of a transport here."""


class GatewayDoor:
    """Takes what clients of Centrifugo send over HTTP."""

    def __init__(
        self,
        dial: Dial,
        call_later: Callable[[float, Callable[[], object]], Timer],
        connections: Connections,
        crowd: Crowd,
        desk: Desk,
        centrifugo: Centrifugo,
    ) -> None:
        """`crowd` counts the connections of the node; `desk` and `centrifugo` are for posts of streams."""
        self._connections = connections
        self._crowd = crowd
        self._dial = dial
        self.call_later = call_later
        self.taps: dict[Tap, int] = {}
        """What is open, with its place in the crowd."""
        self.books = Books()
        self._most = self._most_per_address = 0
        self.max_message_bytes = 0
        self.max_server_message_bytes = MOST_SERVER_MESSAGE_BYTES
        self.is_stopping = False
        self._occasional = Occasional(log)
        self._rules: GatewayRules
        self._desk = desk
        self._streams = Streams(self, desk, centrifugo)

    def configure(self, gateway: Gateway, rules: GatewayRules) -> None:
        """Put settings in force from the next request (limits: from the next command) on."""
        self.max_message_bytes = gateway.message_size_limit
        self._peers = Peers(gateway.trusted_proxies)
        self._user_header = gateway.user_id_http_header.lower().encode()
        self._compresses = gateway.compression
        self._passes_unknown = gateway.pass_unknown
        self._most, self._most_per_address = gateway.max_connections, gateway.max_connections_per_ip
        self._rules = rules
        self._desk.configure(rules.seal, gateway.message_size_limit)

    def is_proxy(self, address: str) -> bool:
        """Whether connections from an address begin with a header of the PROXY protocol: a trusted proxy's do, and all
        at a Unix socket, which whoever owns it has opened to proxies only."""
        return not address or self._peers.trusts(address)

    def __call__(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        if request.path == WEBSOCKET:
            return self._open_websocket(request, connection)
        if request.path == ONE_WAY_WEBSOCKET:
            return self._open_one_way(request, connection)
        if request.path == emulation.PATH:
            return self._streams.take_post(request, connection)
        way = WAYS.get(request.path)
        if way is not None:
            return self._streams.open(request, connection, way)
        return self._pass_unknown(request, connection) if self._passes_unknown else NOT_FOUND

    def _pass_unknown(self, request: Request, connection: Connection) -> Reply | None:
        if not may_pass(request):
            return NOT_FOUND
        return SERVICE_UNAVAILABLE if self.is_stopping else self._streams.relay(request, connection)

    def rules(self) -> GatewayRules:
        """Those in force."""
        return self._rules

    def report(self, what: str) -> None:
        self._occasional.warning("centrifugo", "Centrifugo broke the protocol", fault=what)

    def on_tap_closed(self, tap: Tap) -> None:
        self._crowd.leave(self.taps.pop(tap))
        self._connections.add(tap.session.about.transport, -1)

    # -- opening connections

    def dial(
        self, leg: FarLeg, on_refused: Callable[[], object], on_chosen: Callable[[Origin], object] | None = None
    ) -> None:
        """Connect a leg to Centrifugo, which has only so long to answer its request."""
        leg.give_up_later(self.call_later)
        self._dial(leg, on_refused, on_chosen)

    def opening(self, request: Request, connection: Connection) -> Opening:
        """Who asks, whatever for."""
        return Opening(request, self._peers.find(request, connection.peer), uuid4().hex)

    def _open(
        self,
        request: Request,
        connection: Connection,
        transport_name: str,
        make: Callable[[Transport, Opening], SomeTap],
    ) -> tuple[SomeTap, bytes] | None:
        """A new tap with its session, and what the client has sent behind the request; None where there is no room."""
        if self.is_stopping:
            return None
        opening = self.opening(request, connection)
        place = self._crowd.enter(customer_of(opening.peer.address).encode(), self._most, self._most_per_address)
        if place == REFUSED:
            return None
        self._connections.add(transport_name, 1)
        transport, rest = connection.detach()
        tap = make(transport, opening)
        tap.session = self._session(tap, opening, transport_name)
        self.taps[tap] = place
        transport.set_protocol(tap)
        return tap, rest

    def _session(self, tap: Tap, opening: Opening, transport_name: str) -> Session:
        return Session(
            tap,
            self.rules,
            boot_ns,
            connection=opening.name,
            about=self.books.about(opening.request, transport_name),
            protobuf=tap.protobuf,
            address=opening.peer.address,
            header_user=self._header_user(opening.request, opening.peer),
        )

    def open_stream(
        self, request: Request, connection: Connection, way: Way, make: Callable[[Transport, Opening], StreamTap]
    ) -> Reply | StreamTap:
        """A new stream; a Reply where there is no room."""
        opened = self._open(request, connection, way.name, make)
        return SERVICE_UNAVAILABLE if opened is None else opened[0]

    def _open_websocket(self, request: Request, connection: Connection) -> Reply | None:
        opened = self._open(request, connection, "websocket", self._make_websocket)
        if opened is None:
            return SERVICE_UNAVAILABLE
        tap, rest = opened
        if rest:
            tap.data_received(rest)
        self.dial(tap.far, tap.on_far_lost)
        return None

    def _make_websocket(self, transport: Transport, opening: Opening) -> WebSocketTap:
        request = opening.request
        frames, to_client = self._compression(request, transport)
        head = self.head(opening, _upgrade(request))
        return WebSocketTap(self, to_client, head, protobuf=_is_protobuf(request), frames=frames)

    def _compression(self, request: Request, transport: Transport) -> tuple[Inflating | None, ClientTransport]:
        """What reads a client's frames, and what is written to, where it speaks of compression and may."""
        agreed = negotiate(_all_of(request, b"sec-websocket-extensions")) if self._compresses else None
        if agreed is None:
            return None, transport
        return Inflating(self.max_message_bytes), Deflating(transport, agreed, self.max_server_message_bytes)

    def _open_one_way(self, request: Request, connection: Connection) -> Reply | None:
        asked = query_value(request.query, CONNECT)
        try:
            asked = read_connect(asked) if asked else b""
        except ValueError:
            return BAD_REQUEST
        opened = self._open(request, connection, "uni_websocket", partial(self._make_one_way, asked))
        if opened is None:
            return SERVICE_UNAVAILABLE
        tap, rest = opened
        if rest:
            tap.data_received(rest)
        tap.start(asked, lambda: self.dial(tap.far, tap.on_far_lost))
        return None

    def _make_one_way(self, asked: bytes, transport: Transport, opening: Opening) -> OneWayTap:
        target = target_asking(opening.request, asked) if asked else b""
        head = self.head(opening, _upgrade(opening.request), target)
        frames, to_client = self._compression(opening.request, transport)
        return OneWayTap(self, to_client, head, protobuf=False, frames=frames)

    def head(
        self, opening: Opening, add: tuple[tuple[bytes, bytes], ...], target: bytes = b"", version: bytes = b"1.1"
    ) -> bytes:
        """A request as Centrifugo gets it, without its body."""
        request, peer, name = opening
        drop = OURS | UPGRADE
        if self._user_header and not peer.is_trusted:
            drop |= {self._user_header}
        ours = [*add, (HEADER, seal_connection(self._rules.seal, name))]
        if peer.address:
            ours += [(FORWARDED_FOR, peer.forwarded_for.encode()), (REAL_IP, peer.address.encode())]
        return relay_request(request, drop=drop, add=ours, target=target, version=version)

    def _header_user(self, request: Request, peer: Peer) -> str:
        if not self._user_header or not peer.is_trusted:
            return ""
        return (request.header(self._user_header) or b"").decode(errors="replace")


def _upgrade(request: Request) -> tuple[tuple[bytes, bytes], ...]:
    return (b"Connection", b"Upgrade"), (b"Upgrade", request.header(b"upgrade") or b"websocket")


def _is_protobuf(request: Request) -> bool:
    """As Centrifugo decides: the query first, then the first subprotocol that it knows."""
    query = parse_qs(request.query.decode("latin-1"))
    if "protobuf" in (query.get("format", [""])[0], query.get("cf_protocol", [""])[0]):
        return True
    known = (one.strip() for one in _all_of(request, b"sec-websocket-protocol").split(b","))
    return next((one for one in known if one in (JSON, PROTOBUF)), JSON) == PROTOBUF


def _all_of(request: Request, wanted: bytes) -> bytes:
    """The list that all headers of this lower-case name make together (RFC 9110 section 5.3)."""
    return b",".join(value for name, value in request.headers() if name.lower() == wanted)
