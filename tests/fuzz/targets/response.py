"""Responses: the same however cut, and what we take means the same to h11 and httptools as clients."""

from typing import NamedTuple

from cpro._fast.http1 import ResponseParser
from cpro.errors import ProtocolError
from tests.fuzz import opinions
from tests.fuzz.cuts import bytewise, cut
from tests.fuzz.opinions import Said, plain
from tests.fuzz.tolerances import H11, HTTPTOOLS, Message, agree, has_framed_interim

IS_HEAD, CLOSES = 1, 2
"""Flags: the response is to HEAD; the peer closes behind the stream."""


class Outcome(NamedTuple):
    said: Said | None
    minor_version: int = 1
    keep_alive: bool = True
    is_excess: bool = False
    fault: int = 0


def run(data: bytes) -> None:
    cuts = cut(data)
    outcome, size = read(bytewise(cuts.stream), cuts.limits, cuts.flags)
    assert read([cuts.stream], cuts.limits, cuts.flags)[0] == outcome
    assert read(cuts.pieces, cuts.limits, cuts.flags)[0] == outcome
    assert outcome.fault in (0, 502)
    if outcome.said is not None and opinions.h11:
        ask_others(cuts.stream[: size or None], outcome, is_head=bool(cuts.flags & IS_HEAD), ends_by_closing=not size)


def read(pieces: list[bytes], limits: tuple[int, int], flags: int) -> tuple[Outcome, int]:
    """The outcome, and how much was fed until the response was complete; 0 when only closing completed it."""
    parser = ResponseParser(*limits)
    parser.expect(bool(flags & IS_HEAD))
    response, fed, size = None, 0, 0
    try:
        for piece in pieces:
            parser.feed(piece)
            fed += len(piece)
            if (taken := parser.next_response()) is not None:
                response, size = taken, fed
        if flags & CLOSES:
            response = parser.feed_eof() or response
    except ProtocolError as fault:
        assert response is None
        return Outcome(None, fault=fault.status), 0
    if response is None:
        return Outcome(None, is_excess=parser.has_excess), 0
    said = Said(response.status, plain(response.headers()), response.body)
    return Outcome(said, response.minor_version, response.keep_alive, parser.has_excess), size


def ask_others(raw: bytes, outcome: Outcome, *, is_head: bool, ends_by_closing: bool) -> None:
    message = Message(raw, outcome.said, outcome.minor_version)
    agree(message, opinions.response_of_h11(raw, is_head=is_head, ends_by_closing=ends_by_closing), H11)
    if not is_head and not has_framed_interim(raw):
        agree(message, opinions.response_of_httptools(raw, ends_by_closing=ends_by_closing), HTTPTOOLS)
