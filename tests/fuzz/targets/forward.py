"""Forwarded requests: one request to us and to h11, with the end-to-end headers and the body, and nothing dropped."""

from cpro._fast.http1 import IDLE, RequestParser, build_forward
from cpro.doors.upstream import DROPPED_HEADERS
from cpro.errors import ProtocolError
from tests.fuzz import opinions
from tests.fuzz.cuts import cut
from tests.fuzz.targets.request import ask_others
from tests.oracle.http1 import Seen, as_seen, values

PREFIX = b"POST /app/publish HTTP/1.1\r\nHost: app:3000\r\n"
DROPS = (DROPPED_HEADERS, (), (b"x",), (*DROPPED_HEADERS, b"cookie", b"x", b"x"))
HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"proxy-authenticate", b"proxy-authorization"),  # for the next hop only, RFC 9110 section 11.7
    *(b"host", b"expect", b"content-length"),  # ours to write or to answer
}


def run(data: bytes) -> None:
    cuts = cut(data)
    parser = RequestParser(*cuts.limits)
    try:
        for piece in cuts.pieces:
            parser.feed(piece)
            while (request := parser.next_request()) is not None:
                forward(request, DROPS[cuts.flags & 3])
    except ProtocolError:
        pass


def forward(request, drop: tuple[bytes, ...]) -> None:
    before = as_seen(request)
    out = build_forward(request, PREFIX, drop)
    assert as_seen(request) == before
    after = only_request_in(out)
    named = {option.strip(b" \t").lower() for v in values(before.headers, b"connection") for option in v.split(b",")}
    gone = HOP_BY_HOP | named | set(drop)
    kept = [(name, value) for name, value in before.headers if name.lower() not in gone]
    length = b"%d" % len(before.body)
    assert after.headers == [(b"Host", b"app:3000"), *kept, (b"Content-Length", length)]
    assert (after.method, after.target, after.body) == (b"POST", b"/app/publish", before.body)
    if opinions.h11:
        ask_others(out, after)


def only_request_in(data: bytes) -> Seen:
    parser = RequestParser(1 << 20, 1 << 20)
    parser.feed(data)
    request = parser.next_request()
    assert request is not None
    assert parser.next_request() is None
    assert parser.state == IDLE
    return as_seen(request)
