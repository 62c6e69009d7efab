"""One door's listening sockets, and what watches over their connections.

Idle connections of Centrifugo's stay open (it never closes its own, and never repeats a POST): only a request that has
begun and doesn't arrive, or an answer that isn't read, is given up (RFC 9112 section 9.5).
"""

import asyncio
import logging
import math
import socket
import ssl
from typing import TYPE_CHECKING

from cpro._fast.connection import HEAD_TIMEOUT_S, Connection
from cpro.clock import boot_ns
from cpro.http.proxied import IsProxy, ProxiedListener

if TYPE_CHECKING:
    from cpro._fast.connection import Answer, Handler
    from cpro._fast.http1 import Request

__all__ = ["Connection", "Server"]

log = logging.getLogger(__name__)

BACKLOG = 1024
DRAIN_IDLE_S = 0.5
"""How long an idle connection may still bring a request after the stop began (it may be on its way)."""
DRAIN_POLL_S = 0.02
SWEEP_S = 1.0


class ProxiedConnection(Connection):
    """Opened by a proxy for somebody else."""

    def __init__(self, server: "Server", address: str) -> None:
        super().__init__(server)
        self._address = address

    @property
    def peer(self) -> str:
        return self._address


class Server:
    """Accepts connections for one handler. Owned by a worker."""

    clock = staticmethod(boot_ns)

    def __init__(
        self,
        handler: "Handler",
        *,
        max_body_bytes: int,
        tls: ssl.SSLContext | None = None,
        idle_limit_s: float = math.inf,
    ) -> None:
        """`idle_limit_s`: how long a connection may bring no request, for peers that aren't known to behave."""
        self.handler = handler if idle_limit_s == math.inf else self._noting(handler)
        self.max_body_bytes = max_body_bytes
        self.connections: set[Connection] = set()
        self._tls = tls
        self._servers: list[asyncio.Server | ProxiedListener] = []
        self._overdue: dict[Connection, float] = {}  # the loop time at which we give up
        self._idle_limit_s = idle_limit_s
        self._idle_since_s: dict[Connection, float] = {}
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    async def listen(self, listener: socket.socket) -> None:
        """Accept on a socket that is bound already; it is closed with the server."""
        server = await self._loop.create_server(
            lambda: Connection(self),
            sock=listener,
            ssl=self._tls,
            ssl_handshake_timeout=HEAD_TIMEOUT_S if self._tls else None,
            backlog=BACKLOG,
        )
        self._servers.append(server)

    def listen_for_proxies(self, listener: socket.socket, is_proxy: IsProxy) -> None:
        """The same where connections from proxies begin with a header of the PROXY protocol, before TLS."""
        proxied = ProxiedListener(listener, is_proxy, self._serve_proxied, HEAD_TIMEOUT_S)
        proxied.start(BACKLOG)
        self._servers.append(proxied)

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, finish what is in flight, telling peers to close, then close everything."""
        for server in self._servers:
            server.close()
        for connection in self.connections:
            connection.drain()
        began = self._loop.time()
        while self.connections and self._loop.time() - began < timeout_s:
            if self._loop.time() - began >= DRAIN_IDLE_S:
                for connection in [one for one in self.connections if one.is_idle]:
                    connection.close()
            await asyncio.sleep(DRAIN_POLL_S)
        for connection in list(self.connections):
            connection.abort()
        self._sweeper.cancel()

    async def _serve_proxied(self, accepted: socket.socket, address: str | None) -> None:
        connection = Connection(self) if address is None else ProxiedConnection(self, address)
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=HEAD_TIMEOUT_S if self._tls else None,
            )
        except OSError:  # the client left, or its TLS handshake failed: ssl.SSLError is one
            accepted.close()

    def watch(self, connection: Connection, limit_s: float) -> None:
        """Close `connection` unless it says within `limit_s` that all is well."""
        self._overdue[connection] = self._loop.time() + limit_s

    def unwatch(self, connection: Connection) -> None:
        """All is well with `connection`."""
        self._overdue.pop(connection, None)

    def report(self, bug: Exception) -> None:
        """A handler raised: its connection answers 500 and closes."""
        log.error("request failed", exc_info=bug)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection, deadline in list(self._overdue.items()):
            if now >= deadline:
                connection.abort()
        if self._idle_limit_s < math.inf:
            self.close_idle(now)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def close_idle(self, now_s: float) -> None:
        """Close those that were found without a request for too long, and have brought none in between; at a time of
        the loop."""
        before = self._idle_since_s
        self._idle_since_s = {one: before.get(one, now_s) for one in self.connections if one.is_idle}
        for connection, since_s in list(self._idle_since_s.items()):
            if now_s - since_s >= self._idle_limit_s:
                connection.close()

    def _noting(self, handler: "Handler") -> "Handler":
        """The same handler; whose request it gets is not idle."""

        def handle(request: "Request", connection: Connection, now_ns: int) -> "Answer | None":
            self._idle_since_s.pop(connection, None)
            return handler(request, connection, now_ns)

        return handle
