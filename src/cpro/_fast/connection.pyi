from asyncio import BaseTransport, Protocol, Transport
from collections.abc import Callable
from typing import Protocol as Structural

from cpro._fast.http1 import Request

HEAD_LIMIT_BYTES: int
"""Longest request line with headers; more is 431."""
PIPELINED_LIMIT_BYTES: int
"""How much may wait behind a request in progress before the socket is no longer read."""
HEAD_TIMEOUT_S: float
"""Longest time a head may take from its first byte."""
BODY_STALL_S: float
"""Longest time without a byte of a body that has begun."""
WRITE_STALL_S: float
"""Longest time a peer may leave an answer unread."""
LINGER_S: float
"""How long a connection that is closing is still drained, so that its last answer isn't lost to a reset."""

class Answer(Structural):
    """What a handler gives back. `content_type` is left out where there is no body, but for a 200. `extra` are more
    header lines, each with CRLF, of any other status."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def extra(self) -> bytes: ...

Handler = Callable[[Request, "Connection", int], Answer | None]
"""Takes a request, the connection it came by and the time in ns (the server's clock, read once per read event).
Answers at once, or returns None and later calls `connection.answer` exactly once."""

class Owner(Structural):
    """What a connection asks of its server."""

    handler: Handler
    clock: Callable[[], int]
    max_body_bytes: int
    connections: set[Connection]

    def watch(self, connection: Connection, limit_s: float) -> None: ...
    def unwatch(self, connection: Connection) -> None: ...
    def report(self, bug: Exception) -> None: ...

class Connection(Protocol):
    def __init__(self, server: Owner) -> None: ...
    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is here."""
    @property
    def peer(self) -> str:
        """The address it came from; empty at a Unix socket."""
    def connection_made(self, transport: BaseTransport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def answer(self, answer: Answer) -> None:
        """Send the answer that the handler owed. A peer that has gone is no error."""
    def detach(self) -> tuple[Transport, bytes]:
        """Give the transport away, with what came behind the request in progress; the caller sets its protocol.

        For a handler that returns None and answers by itself.
        """
    def drain(self) -> None:
        """Let the next answer be the last: it says `Connection: close`."""
    def close(self) -> None:
        """Close once everything written has left."""
    def abort(self) -> None:
        """Close at once."""
