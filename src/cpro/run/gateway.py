"""Wires a worker's gateway: the door, what it dials, the limits it asks."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from cpro._fast.counters import Counters
from cpro._fast.crowd import CrowdFile
from cpro.config.model import Rpc, Settings
from cpro.config.tls import client_context, resolve_pem, server_context
from cpro.doors.claims import Claim, Record, Tell
from cpro.doors.gateway.books import tells_of
from cpro.doors.gateway.desk import Desk, Place
from cpro.doors.gateway.door import SHUTDOWN, GatewayDoor, GatewayRules
from cpro.doors.gateway.lanes import build_lanes
from cpro.doors.gateway.poster import CONNECT_TIMEOUT_S, MAX_IDLE_S, MOST_REPLY_BYTES, TIMEOUT_S, Poster
from cpro.doors.gateway.tokens import Tokens
from cpro.doors.rows import Recording
from cpro.doors.seal import Seal
from cpro.doors.telling import Interest, telling
from cpro.http.client import HttpClient
from cpro.http.dial import Dialer
from cpro.http.server import Server
from cpro.limits.errors import ErrorLimit
from cpro.limits.gate import Gate
from cpro.limits.rules import rpc_namespace
from cpro.operation import INTERNAL_ERROR
from cpro.run.jwks import Jwks
from cpro.run.orders import Orders
from cpro.run.status import UserStatus

DIAL_TIMEOUT_S = 5.0
IDLE_S = 30.0
"""How long a client may hold a connection without a request on it, as long as with Centrifugo."""
DRAIN_STEP_S = 0.05
ONLINE_EVERY_S = 30.0
"""How often users of open connections are said to be online; it has to be once a minute."""
STEPS_AT_A_TIME = 100


class ConnectionCount:
    """How many connections of each transport this worker has open, in slots of its counters."""

    def __init__(self, counters: Counters, slots: Mapping[str, int]) -> None:
        self._counters = counters
        self._slots = slots
        self._open = dict.fromkeys(slots, 0)
        for slot in slots.values():
            counters.set(slot, 0)  # whatever a worker of this number had that died

    def add(self, transport: str, change: int) -> None:
        self._open[transport] += change
        self._counters.set(self._slots[transport], self._open[transport])


class GatewayHouse:
    """The gateway of one worker. Made inside the event loop."""

    def __init__(
        self,
        orders: Orders,
        gate: Gate,
        recorder: Callable[[str], Record],
        claims: Sequence[Claim],
        observe: Tell | None,
        connections: ConnectionCount,
    ) -> None:
        self._gate = gate
        self._recorder = recorder
        self._claims = claims
        self._observe = observe
        self._loop = loop = asyncio.get_running_loop()
        gateway = orders.started.gateway
        is_https = any(url.startswith("https:") for url in gateway.centrifugo)
        tls = client_context(gateway.centrifugo_tls) if is_https else None
        server_name = gateway.centrifugo_tls.server_name or None
        self._dialer = Dialer(
            loop,
            gateway.centrifugo,
            timeout_s=DIAL_TIMEOUT_S,
            tls=tls,
            server_hostname=server_name,
        )
        self._jwks = Jwks()
        self._is_proxied = gateway.proxy_protocol
        self._rounds: list[asyncio.Task[None]] = []
        crowd = CrowdFile.attach(orders.crowd_path).block(orders.number)
        self._client = HttpClient(
            loop,
            timeout_s=TIMEOUT_S,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            max_reply_bytes=MOST_REPLY_BYTES,
            tls=tls,
            server_hostname=server_name,
            max_idle_s=MAX_IDLE_S,
        )
        poster = Poster(self._client)
        desk = Desk(Place(orders.service, orders.number, gateway.internal_address, orders.peers), poster)
        most_bytes = orders.started.max_body_size + gateway.message_size_limit
        self._desks = [Server(take, max_body_bytes=most_bytes) for take in (desk.take_from_node, desk.take_from_worker)]
        self._door = GatewayDoor(self._dialer.dial, loop.call_later, connections, crowd, desk, poster)
        self._server = Server(
            self._door,
            max_body_bytes=orders.started.max_body_size,
            tls=server_context(gateway.tls) if gateway.tls.enabled else None,
            idle_limit_s=IDLE_S,
        )

    async def listen(self, listener: socket.socket) -> None:
        """Accept clients."""
        if self._is_proxied:
            self._server.listen_for_proxies(listener, self._door.is_proxy)
        else:
            await self._server.listen(listener)

    async def listen_to_peers(self, internal: socket.socket | None, peer: socket.socket | None) -> None:
        """Accept posts that other nodes and workers pass on, where there are such."""
        for desk, listener in zip(self._desks, (internal, peer), strict=True):
            if listener is not None:
                await desk.listen(listener)

    def configure(self, settings: Settings, seal: Seal, recording: Recording | None, status: UserStatus) -> None:
        """Put settings in force from the next command on."""
        record_of = partial(self._record_of, recording, status.interests)
        lanes, tentative_connect = build_lanes(self._gate.charge, self._gate.wait, record_of, status.own)
        see = status.sight.see if status.sight is not None else None
        self._door.books.configure(recording, see)
        self._keep_books(settings.gateway.snapshot_interval.seconds if recording is not None else 0.0)
        find_key = self._jwks.configure(settings.gateway.token.jwks_public_endpoint)
        errors = ErrorLimit(settings.client.rate_limit.client_error)
        rules = GatewayRules(
            lanes=lanes,
            tentative_connect=tentative_connect,
            own_methods=frozenset(status.own),
            is_claimed=_claimed_by(self._claims, settings.rpc),
            observer=self._door.books,
            tokens=Tokens(settings.gateway.token, resolve_pem, find_key),
            take_error=errors.take,
            seal=seal,
        )
        self._door.configure(settings.gateway, rules)

    async def drain(self, timeout_s: float) -> None:
        """Send every client away, spread over the time there is, so that they don't all come to others at once."""
        self._door.is_stopping = True
        taps = list(self._door.taps)
        per_step = max(1, round(len(taps) * DRAIN_STEP_S / max(timeout_s, DRAIN_STEP_S)))
        while taps:
            for tap in taps[:per_step]:
                tap.disconnect(*SHUTDOWN)
            del taps[:per_step]
            await asyncio.sleep(DRAIN_STEP_S if taps else 0)
        await self._server.drain(0.0)
        for desk in self._desks:
            await desk.drain(0.0)
        await self._dialer.close()
        await self._jwks.close()
        await self._client.close(0.0)
        for task in self._rounds:
            task.cancel()
        for tap in list(self._door.taps):
            tap.end()

    def _record_of(self, recording: Recording | None, interests: Sequence[Interest], kind: str) -> Tell:
        told = [tell for interest in interests for tell in interest(kind)]
        told += tells_of(kind, recording)
        if self._observe is not None:
            told.append(self._observe)
        return telling(self._recorder(kind), INTERNAL_ERROR, tuple(told))

    def _keep_books(self, snapshot_every_s: float) -> None:
        """Run what goes round all sessions; 0: no snapshots."""
        for task in self._rounds:
            task.cancel()
        books = self._door.books
        self._rounds = [self._loop.create_task(_go_round(books.keep_online, ONLINE_EVERY_S))]
        if snapshot_every_s:
            self._rounds.append(self._loop.create_task(_go_round(books.snapshot, snapshot_every_s)))


async def _go_round(steps: Callable[[], Iterable[None]], every_s: float) -> None:
    """Take all steps every so often, a few at a time."""
    while True:
        await asyncio.sleep(every_s)
        for number, _ in enumerate(steps()):
            if number % STEPS_AT_A_TIME == 0:
                await asyncio.sleep(0)


def _claimed_by(claims: Sequence[Claim], names: Rpc) -> Callable[[str], bool]:
    """Whether an RPC method is a plugin's: by its name, by its namespace, or because all are."""
    own = [claim for claim in claims if claim.event == "rpc"]
    methods = frozenset(method for claim in own for method in claim.methods)
    namespaces = frozenset(name for claim in own for name in claim.namespaces)
    if any(not claim.methods and not claim.namespaces for claim in own):
        return lambda method: True
    if not own:
        return lambda method: False
    return lambda method: method in methods or rpc_namespace(method, names) in namespaces
