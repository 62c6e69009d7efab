from typing import Final, final

from cpro._fast.http1_message import Message, MessageParser

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2

@final
class Request(Message):
    """A complete request: a view over the bytes it came in."""

    @property
    def is_post(self) -> bool: ...
    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes:
        """The request target as received."""

    @property
    def path(self) -> bytes:
        """The path alone: no scheme, authority or query; `*` for OPTIONS *, empty for CONNECT."""

    @property
    def query(self) -> bytes:
        """What follows the first `?`, or nothing."""

@final
class RequestParser(MessageParser):
    """Requests of one connection, in order. A parser that has raised is dead."""

    def feed(self, data: bytes) -> None:
        """Takes input; keeps a reference to it where nothing else is waiting."""

    def next_request(self) -> Request | None:
        """The next complete request, or None; raises ProtocolError (400, 413, 417, 431).

        Take requests until None before feeding again: what is left over is copied by the next feed.
        """

    def take_continue(self) -> bool:
        """True once for a head (taken in by next_request) whose sender waits for `100 Continue` with the body."""

    @property
    def state(self) -> int:
        """IDLE (no byte of a next request seen), HEAD or BODY."""

    def take_rest(self) -> bytes:
        """The input behind the last request, for whoever speaks another protocol from here on."""

    @property
    def buffered_bytes(self) -> int:
        """Input held that is not yet part of a taken request."""

@final
class Response(Message):
    """A complete response."""

    @property
    def status(self) -> int: ...

@final
class ResponseParser(MessageParser):
    """Responses of one connection, one at a time; every fault is ProtocolError(502) and ends the connection."""

    started: bool
    """Whether any byte came since `expect`."""

    def expect(self, is_head: bool = False) -> None:
        """Gets ready for the response to the next request; raises if the last one is unfinished or had excess."""

    def feed(self, data: bytes) -> None:
        """Takes input; bytes behind a complete response are dropped and noted in `has_excess`."""

    def next_response(self) -> Response | None:
        """The response once complete; interim ones (1xx) are skipped."""

    def feed_eof(self) -> Response | None:
        """The peer has closed: the response that this completes, None if none had begun; raises if it is cut off."""

    @property
    def has_excess(self) -> bool:
        """Whether bytes came that belong to no response of ours: close the connection."""

def build_forward(request: Request, head_prefix: bytes, drop: tuple[bytes, ...]) -> bytes:
    """The request for the application: head_prefix, its end-to-end headers verbatim, Content-Length, body.

    head_prefix is a request line and headers, each with CRLF; drop are lower-case names of headers to leave out.
    """

def build_reply(
    body: bytes, keep_alive: bool = True, content_type: bytes = b"application/json", extra: bytes = b""
) -> bytes:
    """A 200 reply; extra is header lines, each ending in CRLF."""

def build_status(
    status: int, keep_alive: bool = True, extra: bytes = b"", body: bytes = b"", content_type: bytes = b""
) -> bytes:
    """Any reply; extra is header lines, each ending in CRLF. A body says its content_type."""
