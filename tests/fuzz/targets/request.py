"""Requests: the same however cut, the same as the oracle, and what we take means the same to h11 and httptools."""

from cpro._fast.http1 import RequestParser
from cpro.errors import ProtocolError
from tests.fuzz import opinions
from tests.fuzz.cuts import bytewise, cut
from tests.fuzz.opinions import Said, plain
from tests.fuzz.tolerances import H11, HTTPTOOLS, Message, agree
from tests.oracle.http1 import Seen, as_seen, drive, read_requests


def run(data: bytes) -> None:
    cuts = cut(data)
    expected = read_requests(cuts.stream, *cuts.limits)
    assert drive([cuts.stream], *cuts.limits) == expected
    assert drive(cuts.pieces, *cuts.limits) == expected
    taken = take_bytewise(cuts.stream, cuts.limits)
    assert [seen for _, seen in taken] == expected.seen
    if opinions.h11:
        for raw, seen in taken:
            ask_others(raw, seen)


def take_bytewise(stream: bytes, limits: tuple[int, int]) -> list[tuple[bytes, Seen]]:
    """Requests with the bytes that each consists of."""
    parser = RequestParser(*limits)
    taken, start = [], 0
    try:
        for at, byte in enumerate(bytewise(stream), 1):
            parser.feed(byte)
            if (request := parser.next_request()) is not None:
                taken.append((stream[start:at], as_seen(request)))
                start = at
    except ProtocolError:
        pass
    return taken


def ask_others(raw: bytes, seen: Seen) -> None:
    raw = raw.removeprefix(b"\r\n")  # RFC 9112 section 2.2: one empty line is skipped; h11 refuses it
    message = Message(raw, Said((seen.method, seen.target), plain(seen.headers), seen.body), seen.minor_version)
    agree(message, opinions.request_of_h11(raw), H11)
    agree(message, opinions.request_of_httptools(raw), HTTPTOOLS)
