"""WebSocket frames, from both sides: the same however cut, the client's the same as the oracle, nothing lost."""

from cpro._fast.wsscan import ServerScan
from tests.fuzz.cuts import bytewise, cut
from tests.oracle.wsframe import drive, read_frames

ALLOWS_COMPRESSED, PROTOBUF = 1, 2
"""Flags."""


def run(data: bytes) -> None:
    cuts = cut(data)
    compressed, limit = bool(cuts.flags & ALLOWS_COMPRESSED), cuts.limits[1]
    expected = read_frames(cuts.stream, limit, compressed)
    for pieces in ([cuts.stream], cuts.pieces, bytewise(cuts.stream)):
        assert drive(pieces, limit, compressed) == expected
    for holds in (False, True):
        outcomes = [scan(pieces, cuts, holds) for pieces in ([cuts.stream], cuts.pieces, bytewise(cuts.stream))]
        assert outcomes[0] == outcomes[1] == outcomes[2]


def scan(pieces: list[bytes], cuts, holds: bool) -> tuple:
    scan = ServerScan(bool(cuts.flags & PROTOBUF), cuts.limits[1], holds, bool(cuts.flags & ALLOWS_COMPRESSED))
    told, fed, written = [], 0, 0
    for piece in pieces:
        for event in scan.feed(piece) or ():
            told.append((event.opcode, event.payload, event.compressed, event.code, event.reason, fed + event.end))
            written += len(event.raw or b"")
        assert -1 <= scan.boundary <= len(piece)
        fed += len(piece)
    written += len(scan.release())
    if not scan.fault:
        assert written == (fed if holds else 0)
    return told, scan.fault, None if scan.fault else scan.is_between_messages
