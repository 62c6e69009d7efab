"""The gateway's HTTP side: which request is relayed how. One per worker; a `http.server.Handler`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qs
from uuid import uuid4

from cpro._fast.crowd import REFUSED, Crowd
from cpro._fast.http1 import Request
from cpro.clock import boot_ns
from cpro.config.model import Gateway
from cpro.doors.gateway.books import Books
from cpro.doors.gateway.heads import FORWARDED_FOR, OURS, REAL_IP, relay_request
from cpro.doors.gateway.peers import Peer, Peers, counted_as
from cpro.doors.gateway.session import Observer, Session
from cpro.doors.gateway.tokens import Claim, Tokens
from cpro.doors.gateway.websocket import Timer, WebSocketTap
from cpro.doors.joined import HEADER, read_mark, seal_connection
from cpro.doors.seal import Seal
from cpro.http.dial import Leg
from cpro.http.server import Connection
from cpro.logs import Occasional
from cpro.operation import Reply, status_reply
from cpro.pipeline import Lane

log = logging.getLogger(__name__)

NOT_FOUND = status_reply(404)
SERVICE_UNAVAILABLE = status_reply(503)
WEBSOCKET: Final = b"/connection/websocket"
PROTOBUF: Final = b"centrifuge-protobuf"
JSON: Final = b"centrifuge-json"
MOST_SERVER_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Longest message of Centrifugo's that is looked into; its own queue holds less."""
UPGRADE: Final = frozenset({b"upgrade", b"sec-websocket-extensions"})
SHUTDOWN: Final = (3001, "shutdown")


class Dial(Protocol):
    """`http.dial.Dialer.dial`."""

    def __call__(self, leg: Leg, on_refused: Callable[[], object], /) -> None: ...


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

    def add(self, change: int) -> None:
        """So many more here."""


class GatewayDoor:
    """Takes what clients of Centrifugo send over HTTP."""

    def __init__(
        self,
        dial: Dial,
        call_later: Callable[[float, Callable[[], object]], Timer],
        connections: Connections,
        crowd: Crowd,
    ) -> None:
        """`crowd` counts the connections of the node."""
        self._connections = connections
        self._crowd = crowd
        self._dial = dial
        self.call_later = call_later
        self.taps: dict[WebSocketTap, int] = {}
        """What is open, with its place in the crowd."""
        self.books = Books()
        self._most = self._most_per_address = 0
        self.max_message_bytes = 0
        self.max_server_message_bytes = MOST_SERVER_MESSAGE_BYTES
        self.is_stopping = False
        self._occasional = Occasional(log)
        self._rules: GatewayRules

    def configure(self, gateway: Gateway, rules: GatewayRules) -> None:
        """Put settings in force from the next request (limits: from the next command) on."""
        self.max_message_bytes = gateway.message_size_limit
        self._peers = Peers(gateway.trusted_proxies)
        self._user_header = gateway.user_id_http_header.lower().encode()
        self._most, self._most_per_address = gateway.max_connections, gateway.max_connections_per_ip
        self._rules = rules

    def is_proxy(self, address: str) -> bool:
        """Whether connections from an address begin with a header of the PROXY protocol: a trusted proxy's do, and all
        at a Unix socket, which whoever owns it has opened to proxies only."""
        return not address or self._peers.trusts(address)

    def __call__(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        if request.path == WEBSOCKET:
            return self._open_websocket(request, connection)
        return NOT_FOUND

    def rules(self) -> GatewayRules:
        """Those in force."""
        return self._rules

    def report(self, what: str) -> None:
        self._occasional.warning("centrifugo", "Centrifugo broke the protocol", fault=what)

    def on_tap_closed(self, tap: WebSocketTap) -> None:
        self._crowd.leave(self.taps.pop(tap))
        self._connections.add(-1)

    def _enter(self, address: str) -> int:
        """Count a connection in: its place; REFUSED when the node has enough, in all or from that address."""
        return self._crowd.enter(counted_as(address), self._most, self._most_per_address)

    # -- WebSocket

    def _open_websocket(self, request: Request, connection: Connection) -> Reply | None:
        if self.is_stopping:
            return SERVICE_UNAVAILABLE
        peer = self._peers.find(request, connection.peer)
        place = self._enter(peer.address)
        if place == REFUSED:
            return SERVICE_UNAVAILABLE
        self._connections.add(1)
        transport, rest = connection.detach()
        name = uuid4().hex
        tap = WebSocketTap(self, transport, self._head(request, peer, name), protobuf=_is_protobuf(request))
        tap.session = Session(
            tap,
            self.rules,
            boot_ns,
            connection=name,
            about=self.books.about(request, "websocket"),
            protobuf=tap.protobuf,
            address=peer.address,
            header_user=self._header_user(request, peer),
        )
        self.taps[tap] = place
        transport.set_protocol(tap)
        if rest:
            tap.data_received(rest)
        self._dial(tap.far, tap.on_far_lost)
        return None

    def _head(self, request: Request, peer: Peer, name: str) -> bytes:
        """The request as Centrifugo gets it."""
        drop = OURS | UPGRADE
        if self._user_header and not peer.is_trusted:
            drop |= {self._user_header}
        add = [
            (b"Connection", b"Upgrade"),
            (b"Upgrade", request.header(b"upgrade") or b"websocket"),
            (HEADER, seal_connection(self._rules.seal, name)),
        ]
        if peer.address:
            add += [(FORWARDED_FOR, peer.forwarded_for.encode()), (REAL_IP, peer.address.encode())]
        return relay_request(request, drop=drop, add=add)

    def _header_user(self, request: Request, peer: Peer) -> str:
        if not self._user_header or not peer.is_trusted:
            return ""
        return (request.header(self._user_header) or b"").decode(errors="replace")


def _is_protobuf(request: Request) -> bool:
    """As Centrifugo decides: the query first, then the first subprotocol that it knows."""
    query = parse_qs(request.query.decode("latin-1"))
    if "protobuf" in (query.get("format", [""])[0], query.get("cf_protocol", [""])[0]):
        return True
    offered = b",".join(value for name, value in request.headers() if name.lower() == b"sec-websocket-protocol")
    known = (one.strip() for one in offered.split(b","))
    return next((one for one in known if one in (JSON, PROTOBUF)), JSON) == PROTOBUF
