"""Heads of HTTP messages on their way through the gateway: what is relayed, added and taken out.

What identifies a client is the gateway's to say: copies that the client sends are taken out, and X-Forwarded-For is
extended by the address it connected from (RFC 9110 section 7.6, and what reverse proxies agree on).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from cpro._fast.http1 import Request, Response
from cpro.doors.joined import HEADER

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
    | {b"proxy-authorization", b"proxy-authenticate", b"content-length", b"expect"}
)
FORWARDED_FOR: Final = b"X-Forwarded-For"
REAL_IP: Final = b"X-Real-Ip"
NO_BODY: Final = frozenset({204, 304})
"""Statuses that never have one, nor its length (RFC 9110 section 8.6)."""
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
OURS: Final = frozenset({HEADER.lower(), FORWARDED_FOR.lower(), REAL_IP.lower()})


def split_head(received: bytes) -> tuple[bytes, bytes]:
    """The head with its empty line, and what follows; an empty head while it is incomplete."""
    end = received.find(b"\r\n\r\n")
    return (b"", received) if end < 0 else (received[: end + 4], received[end + 4 :])


def head_lines(head: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a whole head, without its first line."""
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    return [(name, value.strip()) for name, _, value in pairs]


def relay_request(
    request: Request,
    *,
    drop: frozenset[bytes],
    add: Iterable[tuple[bytes, bytes]],
    target: bytes = b"",
    version: bytes = b"1.1",
) -> bytes:
    """The head for Centrifugo: its end-to-end headers but those named in `drop` (lower case), and those of `add`.

    `target`, where it isn't the request's own."""
    lines = [b"%s %s HTTP/%s" % (request.method, target or request.target, version)]
    dropped = drop | HOP_BY_HOP
    lines += [b"%s: %s" % pair for pair in request.headers() if pair[0].lower() not in dropped]
    lines += [b"%s: %s" % pair for pair in add]
    return b"\r\n".join((*lines, b"", b""))


def relay_response(response: Response, *, is_head: bool = False) -> bytes:
    """An answer of Centrifugo's for the client, whose connection closes behind it."""
    status = response.status
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode()]
    lines += [b"%s: %s" % pair for pair in response.headers() if pair[0].lower() not in HOP_BY_HOP]
    if status not in NO_BODY:
        # the length of an answer to HEAD is that of the same to GET
        length = response.header(b"content-length") if is_head else b"%d" % len(response.body)
        lines += [b"Content-Length: " + length] if length is not None else []
    lines.append(b"Connection: close")
    return b"\r\n".join((*lines, b"", response.body))
