"""Wires a worker's gateway: the door, what it dials, the limits it asks."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from cpro.config.model import Settings
from cpro.config.tls import client_context, resolve_pem, server_context
from cpro.doors.claims import Claim, Record
from cpro.doors.gateway.door import SHUTDOWN, GatewayDoor, GatewayRules
from cpro.doors.gateway.lanes import build_lanes
from cpro.doors.gateway.tokens import Tokens
from cpro.doors.seal import Seal
from cpro.http.dial import Dialer
from cpro.http.server import Server
from cpro.limits.errors import ErrorLimit
from cpro.limits.gate import Gate
from cpro.limits.rules import rpc_namespace
from cpro.operation import Operation, Reply, Verdict
from cpro.run.orders import Orders

DIAL_TIMEOUT_S = 5.0
DRAIN_STEP_S = 0.05


class GatewayHouse:
    """The gateway of one worker. Made inside the event loop."""

    def __init__(self, orders: Orders, gate: Gate, recorder: Callable[[str], Record], claims: Sequence[Claim]) -> None:
        self._gate = gate
        self._recorder = recorder
        self._claims = claims
        self._started = orders.started
        self._loop = loop = asyncio.get_running_loop()
        gateway = orders.started.gateway
        is_https = any(url.startswith("https:") for url in gateway.centrifugo)
        self._dialer = Dialer(
            loop,
            gateway.centrifugo,
            timeout_s=DIAL_TIMEOUT_S,
            tls=client_context(gateway.centrifugo_tls) if is_https else None,
            server_hostname=gateway.centrifugo_tls.server_name or None,
        )
        self._door = GatewayDoor(self._dialer.dial, loop.call_later)
        self._server = Server(
            self._door,
            max_body_bytes=orders.started.max_body_size,
            tls=server_context(gateway.tls) if gateway.tls.enabled else None,
        )

    async def listen(self, listener: socket.socket) -> None:
        """Accept clients."""
        await self._server.listen(listener)

    def configure(self, settings: Settings, seal: Seal) -> None:
        """Put settings in force from the next command on."""
        methods = frozenset(method for claim in self._claims if claim.event == "rpc" for method in claim.methods)
        namespaces = frozenset(name for claim in self._claims if claim.event == "rpc" for name in claim.namespaces)

        def is_claimed(method: str) -> bool:
            return method in methods or rpc_namespace(method, settings.rpc) in namespaces

        lanes, tentative_connect = build_lanes(self._gate.charge, self._gate.wait, self._record_of, {})
        errors = ErrorLimit(settings.client.rate_limit.client_error)
        rules = GatewayRules(
            lanes=lanes,
            tentative_connect=tentative_connect,
            own_methods=frozenset(),
            is_claimed=is_claimed if methods or namespaces else _nobodys,
            observer=None,
            tokens=Tokens(settings.gateway.token, resolve_pem),
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
        await self._dialer.close()
        for tap in list(self._door.taps):
            tap.end()

    def _record_of(self, kind: str) -> Callable[[Operation, Verdict, Reply, int], object]:
        record = self._recorder(kind)

        def count(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
            record(verdict, duration_ns)

        return count


def _nobodys(method: str) -> bool:
    return False
