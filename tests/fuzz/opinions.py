"""What h11 and httptools (llhttp) make of one message that our parser took: further opinions on what was said.

Each reader returns a `Said`, or a `Refusal` when the library does not take the message. Whether it may refuse is in
`tolerances`; what it may never do is to take the message and see something else, or another end.
"""

from collections.abc import Callable
from typing import NamedTuple

try:
    import h11
    import httptools
except ImportError:  # the `test` extra has both
    h11 = httptools = None

ROOM = 1 << 21
"""No limit of the library shall speak before ours."""


class Said(NamedTuple):
    start: tuple[bytes, bytes] | int
    """Method and target, or status."""
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Refusal(NamedTuple):
    reason: str


def plain(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers without what is no part of their meaning: case of names and coding, white space around values."""
    pairs = [(bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in headers]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in pairs]


# -- h11 -------------------------------------------------------------------------------------------------------


def request_of_h11(raw: bytes) -> Said | Refusal:
    """`raw` begins at the request line: h11 takes no empty line before it."""
    return _events_of_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=ROOM), raw, ends_by_closing=False)


def response_of_h11(raw: bytes, *, is_head: bool, ends_by_closing: bool) -> Said | Refusal:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=ROOM)
    connection.send(h11.Request(method="HEAD" if is_head else "GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    return _events_of_h11(connection, raw, ends_by_closing=ends_by_closing)


def _events_of_h11(connection, raw: bytes, *, ends_by_closing: bool) -> Said | Refusal:
    head, body = None, b""
    try:
        connection.receive_data(raw)
        if ends_by_closing:
            connection.receive_data(b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                raise AssertionError(f"h11 sees no end: {event} after {head}")
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                head = event
    except h11.RemoteProtocolError as error:
        return Refusal(str(error))
    assert connection.trailing_data[0] == b"", "h11 sees an earlier end"
    start = (head.method, head.target) if isinstance(head, h11.Request) else head.status_code
    return Said(start, plain(head.headers), body)


# -- httptools -------------------------------------------------------------------------------------------------


class _Listener:
    """Callbacks of httptools; headers end with the head, so trailers are left out."""

    def __init__(self) -> None:
        self.url, self.headers, self.body = b"", [], b""
        self.is_complete = self.has_head = False

    def on_message_begin(self) -> None:
        """A response behind an interim one begins afresh."""
        self.__init__()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


def request_of_httptools(raw: bytes) -> Said | Refusal:
    listener = _Listener()
    parser = httptools.HttpRequestParser(listener)
    return _feed_httptools(parser, listener, raw, lambda: (parser.get_method(), listener.url), ends_by_closing=False)


def response_of_httptools(raw: bytes, *, ends_by_closing: bool) -> Said | Refusal:
    """Not for responses to HEAD, which httptools cannot be told about."""
    listener = _Listener()
    parser = httptools.HttpResponseParser(listener)
    return _feed_httptools(parser, listener, raw, parser.get_status_code, ends_by_closing=ends_by_closing)


def _feed_httptools(
    parser, listener: _Listener, raw: bytes, start: Callable[[], object], *, ends_by_closing: bool
) -> Said | Refusal:
    try:
        parser.feed_data(raw)
        end = len(raw)
    except httptools.HttpParserUpgrade as upgrade:
        end = upgrade.args[0]
    except httptools.HttpParserError as error:
        return Refusal(str(error))
    assert end == len(raw), "httptools sees an earlier end"
    # httptools cannot be told that the peer has closed
    assert listener.is_complete != ends_by_closing, "httptools sees another end"
    return Said(start(), plain(listener.headers), listener.body)
