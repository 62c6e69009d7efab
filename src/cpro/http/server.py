"""Bytes to requests and answers to bytes: the protocol behind every listening socket of cpro.

A connection serves one request at a time, so answers leave in the order of the requests; what is pipelined behind
waits in the parser. Idle connections stay open (Centrifugo never closes its own, and never repeats a POST): only a
request that has begun and doesn't arrive is given up (RFC 9112 section 9.5).
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from cpro._fast.http1 import IDLE, Request, RequestParser, build_reply, build_status
from cpro._fast.http1 import HEAD as IN_HEAD
from cpro.clock import boot_ns
from cpro.errors import ProtocolError

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 64 * 1024
PIPELINED_LIMIT_BYTES = 64 * 1024
"""How much may wait behind a request in progress before the socket is no longer read."""
HEAD_TIMEOUT_S = 10.0
BODY_STALL_S = 10.0
WRITE_STALL_S = 60.0
LINGER_S = 2.0
"""How long a connection that broke the protocol is still drained, so that its answer isn't lost to a reset."""
DRAIN_IDLE_S = 0.5
"""How long an idle connection may still bring a request after the stop began (it may be on its way)."""
SWEEP_S = 1.0

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STAYS_OPEN = b"Connection: keep-alive\r\n"
"""Said to HTTP/1.0 clients only: the others expect it (RFC 9112 section 9.3)."""


class Answer(Protocol):
    """What a handler gives back. A status other than 200 is sent without its body."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...


Handler = Callable[[Request, "Connection", int], Answer | None]
"""Takes a request, the connection it came by and the time (`clock.boot_ns`). Answers at once, or returns None
and later calls `connection.answer` exactly once."""


class Server:
    """One door's listening sockets and their connections. Owned by a worker."""

    def __init__(self, handler: Handler, *, max_body_bytes: int, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.max_body_bytes = max_body_bytes
        self.draining = False
        self.connections: set[Connection] = set()
        self.overdue: dict[Connection, float] = {}
        """Connections that owe us something, with the loop time at which we give up."""
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Accept on a socket that is bound already; it is closed with the server."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), sock=listener, ssl=self._tls, backlog=1024)
        self._servers.append(server)
        if self._sweeper is None:
            self._sweep()

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, timeout_s: float) -> None:
        """Finish what is in flight, telling peers to close, then close everything."""
        self.stop_accepting()
        self.draining = True
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_s
        idle_until = loop.time() + min(DRAIN_IDLE_S, timeout_s)
        while self.connections and loop.time() < give_up:
            if loop.time() >= idle_until:
                for connection in [c for c in self.connections if c.is_idle]:
                    connection.close()
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, deadline in list(self.overdue.items()):
            if now >= deadline:
                connection.abort()
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)


class Connection(asyncio.Protocol):
    """One accepted connection, owned by its transport; forgotten by the server when that is lost."""

    __slots__ = (
        "_busy",
        "_closing",
        "_eof",
        "_loop",
        "_parser",
        "_paused",
        "_reading",
        "_request",
        "_server",
        "_transport",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = RequestParser(HEAD_LIMIT_BYTES, server.max_body_bytes)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._request: Request | None = None
        self._busy = False  # a request waits for its answer
        self._paused = False  # the peer doesn't read what we wrote
        self._reading = True
        self._closing = False  # nothing more is served; what arrives is thrown away
        self._eof = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is here."""
        return not self._busy and self._parser.state == IDLE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._server.connections.discard(self)
        self._server.overdue.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._parser.feed(data)
        if self._busy or self._paused:
            self._hold_back()
        else:
            self._serve()

    def eof_received(self) -> bool:
        """A peer that has said everything still gets its answers."""
        self._eof = True
        return self._busy or self._paused

    def pause_writing(self) -> None:
        self._paused = True
        self._server.overdue[self] = self._loop.time() + WRITE_STALL_S

    def resume_writing(self) -> None:
        self._paused = False
        if self._closing:
            self._server.overdue[self] = self._loop.time() + LINGER_S
            return
        self._server.overdue.pop(self, None)
        if not self._busy:
            self._serve()

    def answer(self, answer: Answer) -> None:
        """Send the answer that the handler owed. A peer that has gone is no error."""
        self._busy = False
        if self._closing or self._request is None:
            return
        self._write(self._request, answer)
        if not self._closing and not self._paused:
            self._serve()

    def close(self) -> None:
        """Close once everything written has left."""
        self._closing = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def _serve(self) -> None:
        """Answer all requests that are complete, until one has to wait or the peer stops reading."""
        now_ns = boot_ns()
        try:
            while (request := self._parser.next_request()) is not None:
                self._request = request
                self._busy = True
                answer = self._server.handler(request, self, now_ns)
                if answer is None:
                    self._hold_back()
                    return
                self._busy = False
                self._write(request, answer)
                if self._closing or self._paused:
                    return
        except ProtocolError as error:
            self._refuse(error.status)
            return
        except Exception:  # a bug of ours must not take the other connections along
            log.exception("request failed")
            self._refuse(500)
            return
        self._request = None
        self._await_more()

    def _await_more(self) -> None:
        if self._eof:
            self.close()
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        overdue = self._server.overdue
        state = self._parser.state
        if state == IDLE:
            if self in overdue:
                del overdue[self]
            return
        if self._parser.take_continue():
            self._transport.write(CONTINUE)
        now = self._loop.time()
        if state != IN_HEAD:
            overdue[self] = now + BODY_STALL_S
        elif self not in overdue:
            overdue[self] = now + HEAD_TIMEOUT_S

    def _hold_back(self) -> None:
        """Nobody is timed for our own slowness; what piles up meanwhile is bounded."""
        if not self._paused:
            self._server.overdue.pop(self, None)
        if self._reading and self._parser.buffered_bytes > PIPELINED_LIMIT_BYTES:
            self._reading = False
            self._transport.pause_reading()

    def _write(self, request: Request, answer: Answer) -> None:
        keep_alive = request.keep_alive and not self._server.draining
        extra = STAYS_OPEN if keep_alive and request.minor_version == 0 else b""
        if answer.status == 200:
            self._transport.write(build_reply(answer.body, keep_alive, answer.content_type, extra))
        else:
            self._transport.write(build_status(answer.status, keep_alive, extra))
        if not keep_alive:
            self._linger()

    def _refuse(self, status: int) -> None:
        self._transport.write(build_status(status, False))
        self._linger()

    def _linger(self) -> None:
        """Close so that the peer can still read our last answer: a reset would throw it away."""
        self._closing = True
        self._server.overdue[self] = self._loop.time() + (WRITE_STALL_S if self._paused else LINGER_S)
        if self._eof or not self._transport.can_write_eof():
            self._transport.close()
        else:
            if not self._reading:
                self._transport.resume_reading()
            self._transport.write_eof()
