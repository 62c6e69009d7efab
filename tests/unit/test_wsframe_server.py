"""The server's side of a tapped connection: what passes, what is told of, where frames may be inserted."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.wsframe import BINARY, CLOSE, NO_STATUS, PING, PONG, TEXT, build_close, build_frame
from cpro._fast.wsscan import ServerScan

LIMIT = 1000
PUB = b'{"push":{"channel":"news","pub":{"data":{"id":1},"offset":7}}}'
MERE_PUSHES = [
    PUB,
    b'{"push":{"channel":"a\\"b,\\u0041","pub":{"data":1}}}',
    b'{"push":{"id":12,"pub":{"data":1}}}',
    b'{"push":{"pub":{"data":1}}}',
    b'{"push":{"channel":"c","join":{"info":{"user":"u","client":"c"}}}}',
    b'{"push":{"channel":"c","leave":{"info":{"user":"u","client":"c"}}}}',
    b'{"push":{"message":{"data":1}}}',
    PUB + b"\n" + PUB,
    PUB + b"\n",
]
TELLING = [
    b"{}",
    b'{"id":1,"publish":{}}',
    b'{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"x"}}}',
    b'{"push":{"disconnect":{"code":3000,"reason":"x"}}}',
    b'{"push":{"channel":"c","subscribe":{}}}',
    b'{"push":{"channel":"c"}}',
    b'{"push":{"channel":"c',
    b'{"push":{"id":1x,"pub":{}}}',
    b'{"push":{"publication":{}}}',
    b'{ "push":{"channel":"c","pub":{}}}',
    PUB + b'\n{"id":1,"publish":{}}\n' + PUB,
    PUB + b"\n{}",
    b"\n" + PUB,
]
MERE_PROTOBUF = [
    bytes.fromhex("0a" + "2208" + "120163" + "2203" + "22016a"),
    bytes.fromhex("09" + "2207" + "080c" + "2203" + "22016a"),
    bytes.fromhex("0a" + "2208" + "120163" + "2a03" + "22016a"),
    bytes.fromhex("0a" + "2208" + "120163" + "2203" + "22016a") * 3,
]
TELLING_PROTOBUF = [
    b"\x00",
    bytes.fromhex("04" + "0801" + "4200"),
    bytes.fromhex("07" + "2205" + "120163" + "3a00"),
    bytes.fromhex("0a" + "2208" + "120163" + "2203" + "22016a") + b"\x00",
    bytes.fromhex("0a" + "2208" + "120163"),
    bytes.fromhex("0c" + "2208" + "120163" + "2203" + "22016a" + "0801"),
    b"\xff",
]


def passing(protobuf: bool = False, **options) -> ServerScan:
    return ServerScan(protobuf, LIMIT, holds=False, **options)


@pytest.mark.parametrize("payload", MERE_PUSHES)
def test_mere_pushes_pass_untold(payload):
    frame = build_frame(TEXT, payload)
    scan = passing()
    assert scan.feed(frame * 3) is None
    assert scan.boundary == len(frame) * 3
    assert [scan.feed(frame[i : i + 1]) for i in range(len(frame))] == [None] * len(frame)


@pytest.mark.parametrize("payload", TELLING)
def test_anything_else_is_told(payload):
    frame, push = build_frame(TEXT, payload), build_frame(TEXT, PUB)
    scan = passing()
    (event,) = scan.feed(push + frame + push)
    assert (event.opcode, event.payload, event.end, event.raw) == (TEXT, payload, len(push + frame), None)
    events = [event for i in range(len(frame)) for event in scan.feed(frame[i : i + 1]) or ()]
    assert [(event.payload, event.end) for event in events] == [(payload, 1)]


@pytest.mark.parametrize("payload", MERE_PROTOBUF)
def test_mere_pushes_in_protobuf(payload):
    assert passing(protobuf=True).feed(build_frame(BINARY, payload)) is None


@pytest.mark.parametrize("payload", TELLING_PROTOBUF)
def test_anything_else_in_protobuf(payload):
    (event,) = passing(protobuf=True).feed(build_frame(BINARY, payload))
    assert (event.opcode, event.payload) == (BINARY, payload)


def test_boundaries_lie_between_messages_only():
    whole, ping = build_frame(TEXT, PUB), build_frame(PING, b"p")
    first, last = build_frame(TEXT, b"{", fin=False), build_frame(0, b"}")
    scan = passing()
    cases = [
        (b"", 0),
        (whole + whole[:5], len(whole)),
        (whole[5:9], -1),
        (whole[9:], len(whole) - 9),
        (first, 0),
        (ping, -1),
        (last[:2], -1),
        (last[2:] + ping + whole[:1], 1 + len(ping)),
        (whole[1:] + first, len(whole) - 1),
    ]
    for data, boundary in cases:
        scan.feed(data)
        assert scan.boundary == boundary, data
        assert scan.is_between_messages == (boundary == len(data))


def test_control_frames_are_told():
    scan = passing()
    closing = build_close(3501, b"bad request")
    events = scan.feed(build_frame(PING, b"p") + build_frame(PONG, b"q") + closing)
    assert [(e.opcode, e.payload, e.code, e.reason) for e in events] == [
        (PING, b"p", 0, b""),
        (CLOSE, closing[2:], 3501, b"bad request"),
    ]
    assert passing().feed(build_close(NO_STATUS))[0].code == NO_STATUS


def test_fragments_are_told_as_one_message():
    scan = passing()
    stream = build_frame(TEXT, b'{"id":1', fin=False) + build_frame(PING, b"") + build_frame(0, b',"publish":{}}')
    ping, message = scan.feed(stream)
    assert (ping.opcode, message.payload, message.end) == (PING, b'{"id":1,"publish":{}}', len(stream))


def test_compressed_messages_are_always_told():
    frame = build_frame(TEXT, PUB, compressed=True)
    (event,) = passing(allow_compressed=True).feed(frame)
    assert event.compressed
    scan = passing()
    assert scan.feed(frame) is None
    assert scan.fault == "reserved bit set"


FAULTS = {
    "unknown opcode": b"\x83\x00",
    "masked frame": b"\x81\x80\0\0\0\0",
    "reserved bit set": b"\xa1\x00",
    "control frame that is long or fragmented": b"\x09\x00",
    "continuation of nothing": b"\x80\x00",
    "message within a message": b"\x01\x00\x81\x00",
    "message is too long": b"\x81\x7f" + ((1 << 63) + 1).to_bytes(8),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("holds", [False, True])
def test_a_server_that_breaks_the_rules(fault, holds):
    scan = ServerScan(False, LIMIT, holds=holds)
    (event,) = scan.feed(build_frame(TEXT, b"{}") + FAULTS[fault])
    assert event.payload == b"{}"
    assert scan.fault == fault
    assert scan.feed(build_frame(TEXT, b"{}")) is None


def test_of_a_longer_message_the_beginning_is_told():
    line = b'{"id":7,"history":{"publications":[' + b"1," * LIMIT + b"1]}}"
    frame = build_frame(TEXT, line)
    for pieces in ([frame], [frame[:50], frame[50:]], [frame[i : i + 1] for i in range(len(frame))]):
        scan = passing()
        events = [event for piece in pieces for event in scan.feed(piece) or ()]
        assert [event.payload for event in events] == [line[:LIMIT]]
        assert (scan.fault, scan.is_between_messages) == ("", True)
    push = build_frame(TEXT, PUB[:-2] + b" " * LIMIT + b"}}")
    assert passing().feed(push) is None


def test_a_longer_message_cannot_be_held():
    scan = ServerScan(False, LIMIT)
    assert scan.feed(build_frame(TEXT, b"a" * LIMIT))[0].payload == b"a" * LIMIT
    assert scan.feed(build_frame(TEXT, b"a" * (LIMIT + 1))) is None
    assert scan.fault == "message is too long"


def test_a_length_of_64_bits_is_too_long():
    scan = passing()
    assert scan.feed(b"\x81\x7f" + b"\xff" * 8) is None
    assert scan.fault == "message is too long"


def test_held_frames_are_handed_over_whole():
    connect, push, pong = build_frame(TEXT, b'{"id":1,"connect":{}}'), build_frame(TEXT, PUB), build_frame(PONG, b"")
    scan = ServerScan(False, LIMIT)
    assert scan.holds
    events = scan.feed(connect + push + pong + push[:7])
    assert [(e.raw, e.end) for e in events] == [
        (connect, len(connect)),
        (push, len(connect + push)),
        (pong, len(connect + push + pong)),
    ]
    assert scan.release() == push[:7]
    assert not scan.holds
    assert scan.feed(push[7:]) is None
    assert scan.release() == b""


def fragmented(first: bytes, second: bytes, third: bytes, ping: bytes) -> bytes:
    pieces = (TEXT, first, False), (PING, ping, True), (0, second, False), (0, third, True)
    return b"".join(build_frame(opcode, payload, fin=fin) for opcode, payload, fin in pieces)


payloads = st.one_of(st.sampled_from(MERE_PUSHES), st.sampled_from(TELLING), st.binary(max_size=200))
frames = st.one_of(
    st.builds(build_frame, st.sampled_from([TEXT, TEXT, BINARY]), payloads),
    st.builds(build_frame, st.sampled_from([PING, PONG]), st.binary(max_size=9)),
    st.builds(fragmented, payloads, payloads, payloads, st.binary(max_size=9)),
)
streams = st.tuples(st.lists(frames, max_size=6), st.binary(max_size=5)).map(lambda both: b"".join(both[0]) + both[1])


def scan_in(pieces, holds: bool, release_after: int) -> tuple:
    """What was told, what a door has written, where in the stream it could have inserted, and the fault."""
    scan = ServerScan(False, LIMIT, holds=holds)
    told, written, fed = [], b"", 0
    boundaries = set()
    for number, piece in enumerate(pieces):
        was_holding = scan.holds
        events = scan.feed(piece) or []
        told += [(e.opcode, e.payload, e.code, e.reason, e.compressed, fed + e.end) for e in events]
        if was_holding:
            written += b"".join(e.raw for e in events)
        else:
            written += piece
        if scan.boundary >= 0 and not scan.fault:
            boundaries.add(fed + scan.boundary)
        fed += len(piece)
        if number == release_after:
            written += scan.release()
    written += scan.release()
    return told, written, scan.fault, max(boundaries, default=0)


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.integers(0, 600), max_size=5), st.booleans())
def test_cutting_makes_no_difference(stream, cuts, holds):
    whole = scan_in([stream], holds, -1)
    cuts = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    for pieces in ([stream[a:b] for a, b in pairwise(cuts)], [stream[i : i + 1] for i in range(len(stream))]):
        told, written, fault, last = scan_in(pieces, holds, -1)
        assert (told, fault) == (whole[0], whole[2])
        if not fault:
            assert sorted(written) == sorted(stream)
            assert last == whole[3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(build_frame, st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=90)), max_size=5),
       st.lists(st.integers(0, 500), max_size=5), st.integers(0, 5))  # fmt: skip
def test_releasing_at_any_time_loses_nothing(whole_frames, cuts, release_after):
    stream = b"".join(whole_frames)
    cuts = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    _, written, fault, last = scan_in([stream[a:b] for a, b in pairwise(cuts)], True, release_after)
    assert (written, fault, last) == (stream, "", len(stream))
