"""Accepts connections that proxies open for others: who the client is stands before everything else, even before TLS.

The header is taken from the socket byte for byte as far as it goes and no further (recv(2), MSG_PEEK), so that TLS or
HTTP begin with the first byte behind it. A proxy that doesn't finish its header is given up like a head of HTTP.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from cpro.errors import ProtocolError
from cpro.http.proxy_header import ProxyHeader
from cpro.logs import Occasional

log = logging.getLogger(__name__)

PEEK_BYTES: Final = 4096
ACCEPTS_AT_A_TIME: Final = 64
NO_FILES_WAIT_S: Final = 1.0
"""How long nothing is accepted when this process has no file left, as asyncio's servers do."""

IsProxy = Callable[[str], bool]
"""Whether connections from an address begin with a header; it is empty at a Unix socket."""
Serve = Callable[[socket.socket, str | None], Awaitable[object]]
"""Takes a connection and its client's address; None: whoever has connected."""


class ProxiedListener:
    """One listening socket, from `start` to `close`."""

    def __init__(self, listener: socket.socket, is_proxy: IsProxy, serve: Serve, header_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._is_proxy = is_proxy
        self._serve = serve
        self._header_timeout_s = header_timeout_s
        self._waiting: set[_Waiting] = set()
        self._served: set[asyncio.Future[object]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._occasional = Occasional(log)

    def start(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._loop.add_reader(self._listener, self._on_acceptable)

    def close(self) -> None:
        """Accept no more, and give up those that have not said whose they are. Calling it twice is harmless."""
        if self._listener.fileno() < 0:
            return
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for waiting in list(self._waiting):
            waiting.give_up()

    def _on_acceptable(self) -> None:
        for _ in range(ACCEPTS_AT_A_TIME):
            try:
                connection, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._occasional.warning("accept", "can't accept connections", error=str(error))
                self._loop.remove_reader(self._listener)
                self._rest = self._loop.call_later(NO_FILES_WAIT_S, self._resume)
                return
            connection.setblocking(False)
            if self._is_proxy(name[0] if isinstance(name, tuple) else ""):
                self._waiting.add(_Waiting(self._loop, connection, self._on_header, self._header_timeout_s))
            else:
                self._hand_on(connection, None)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._on_acceptable)

    def _on_header(self, waiting: "_Waiting", header: ProxyHeader | None, fault: str) -> None:
        self._waiting.discard(waiting)
        if fault:
            self._occasional.warning("header", "a trusted proxy sent no header", fault=fault)
        if header is None:
            waiting.connection.close()
        else:
            self._hand_on(waiting.connection, header.address)

    def _hand_on(self, connection: socket.socket, address: str | None) -> None:
        served = asyncio.ensure_future(self._serve(connection, address))
        self._served.add(served)
        served.add_done_callback(self._served.discard)


class _Waiting:
    """A connection whose header is still to come."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_header: "Callable[[_Waiting, ProxyHeader | None, str], None]",
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self._loop = loop
        self._on_header = on_header
        self._header = ProxyHeader()
        self._timer = loop.call_later(timeout_s, self.give_up)
        loop.add_reader(connection, self._on_readable)

    def give_up(self) -> None:
        self._end(None)

    def _on_readable(self) -> None:
        try:
            data = self.connection.recv(PEEK_BYTES, socket.MSG_PEEK)
            taken = self._header.feed(data)
            self.connection.recv(taken)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(None)
        except ProtocolError as error:
            self._end(None, error.reason)
        else:
            if self._header.is_complete:
                self._end(self._header)
            elif not data:
                self._end(None)

    def _end(self, header: ProxyHeader | None, fault: str = "") -> None:
        self._timer.cancel()
        self._loop.remove_reader(self.connection)
        self._on_header(self, header, fault)
