"""One connection to the application backend: carries one exchange at a time (no pipelining).

Made by a pool's dial, which owns it until `on_lost`. Whatever goes wrong, the transport is aborted rather than
closed: a graceful close waits for a peer that may never read again.
"""

import asyncio
import re
import select
from collections.abc import Callable
from typing import Protocol, cast

from cpro._fast.http1 import Response, ResponseParser, build_forward
from cpro.errors import ProtocolError
from cpro.http.exchange import Exchange, Failure

MAX_HEAD_BYTES = 65536
MAX_IDLE_S = 60.0
KEEP_ALIVE_MARGIN_S = 1.0  # how long before the peer's own limit an idle connection is no longer used
PEEK_AFTER_S = 0.5  # peers close idle connections after seconds: a busy one needn't be looked at

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class ConnectionOwner(Protocol):
    """What a connection tells its pool; each call comes after the connection's own state is settled."""

    def on_free(self, connection: "Connection") -> None: ...

    def on_reply(self, exchange: Exchange, response: Response) -> None: ...

    def on_failure(self, exchange: Exchange, failure: Failure, was_stale: bool) -> None: ...

    def on_lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """Free (`_exchange` is None) or carrying one exchange; after `drop` neither."""

    __slots__ = (
        "_drop",
        "_exchange",
        "_idle_s",
        "_keep_alive",
        "_loop",
        "_owner",
        "_parser",
        "_transport",
        "_write",
        "idle_since_s",
        "is_fresh",
        "reuse_until_s",
    )

    def __init__(
        self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop, max_reply_bytes: int, drop: tuple[bytes, ...]
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._drop = drop
        self._parser = ResponseParser(MAX_HEAD_BYTES, max_reply_bytes)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self.is_fresh = True  # came straight from the dial: has carried nothing yet, has not been idle
        self._keep_alive: bytes | None = None  # the Keep-Alive value `_idle_s` was read from
        self._idle_s = MAX_IDLE_S
        self.idle_since_s = loop.time()
        self.reuse_until_s = self.idle_since_s + MAX_IDLE_S

    # --- what the pool asks of it ---

    def carry(self, exchange: Exchange) -> None:
        """Write the request; the reply or the failure is told to the owner, later."""
        self._exchange = exchange
        exchange.holder = self
        self._parser.expect()
        self._write(build_forward(exchange.request, exchange.endpoint.head_prefix, self._drop))

    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_reusable(self, now_s: float) -> bool:
        """False when the peer has closed it, may be about to, or has sent something unasked."""
        if now_s >= self.reuse_until_s or not self.is_open():
            return False
        return now_s - self.idle_since_s < PEEK_AFTER_S or not self._has_unread_input()

    def withdraw(self, exchange: Exchange) -> None:
        """The exchange is over for its sender; a late reply must not meet the next one."""
        self._release()
        self.drop()

    def drop(self) -> None:
        """Close it at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    # --- what the loop tells it ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write: Callable[[bytes], None] = self._transport.write

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.drop()
            return
        parser = self._parser
        try:
            parser.feed(data)
            response = parser.next_response()
        except ProtocolError:
            self._fail(Failure.BROKEN)
            return
        if response is not None:
            self._complete(response)

    def eof_received(self) -> None:
        if self._exchange is None:
            self.drop()
            return
        try:
            response = self._parser.feed_eof()
        except ProtocolError:
            response = None
        if response is not None:
            self._complete(response)
        else:
            self._fail(Failure.RESET)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._fail(Failure.RESET)
        self._owner.on_lost(self)

    # --- endings ---

    def _complete(self, response: Response) -> None:
        exchange = self._release()
        if response.keep_alive and self._is_in_step():
            self.is_fresh = False
            self._note_keep_alive(response.header(b"keep-alive"))
            self.idle_since_s = self._loop.time()
            self.reuse_until_s = self.idle_since_s + self._idle_s
            self._owner.on_free(self)
        else:
            self.drop()
        self._owner.on_reply(exchange, response)

    def _fail(self, failure: Failure) -> None:
        was_stale = not self.is_fresh and failure is Failure.RESET and not self._parser.started
        exchange = self._release()
        self.drop()
        self._owner.on_failure(exchange, failure, was_stale)

    def _release(self) -> Exchange:
        exchange = cast(Exchange, self._exchange)
        self._exchange = None
        exchange.holder = None
        return exchange

    def _is_in_step(self) -> bool:
        """Whether the next reply will be the next request's: nothing read beyond this one, nothing left to write."""
        transport = cast(asyncio.Transport, self._transport)
        return not (self._parser.has_excess or transport.is_closing() or transport.get_write_buffer_size())

    def _note_keep_alive(self, value: bytes | None) -> None:
        if value == self._keep_alive:
            return
        self._keep_alive = value
        match = _KEEP_ALIVE_TIMEOUT.search(value) if value else None
        self._idle_s = min(MAX_IDLE_S, int(match[1]) - KEEP_ALIVE_MARGIN_S) if match else MAX_IDLE_S

    def _has_unread_input(self) -> bool:
        """Bytes or an end of stream that the kernel has and the loop has not read yet."""
        poll = select.poll()
        poll.register(cast(asyncio.Transport, self._transport).get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
