"""Frames from clients, by RFC 6455 and by Centrifugo's own reading of it; and frames that we write."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.wsframe import (
    BINARY,
    CLOSE,
    DROP,
    NO_STATUS,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    ClientFrames,
    Masks,
    build_close,
    build_frame,
)
from tests.oracle.wsframe import drive, read_frames

LIMIT = 300
KEY = 0x37FA213D


def masked(opcode: int, payload: bytes = b"", **options) -> bytes:
    return build_frame(opcode, payload, mask_key=KEY, **options)


def head(first: int, second: int, extra: bytes = b"") -> bytes:
    return bytes([first, second]) + extra


def seen(events) -> list[tuple]:
    return [(e.opcode, e.payload, e.compressed, e.code, e.reason) for e in events]


def read(pieces, limit: int = LIMIT, allow_compressed: bool = False) -> tuple[list[tuple], int, bytes]:
    frames = ClientFrames(limit, allow_compressed)
    events = [event for piece in pieces for event in seen(frames.feed(piece))]
    return events, frames.fault_code, frames.fault_reason


def test_masked_hello_of_the_rfc():
    assert build_frame(TEXT, b"Hello", mask_key=KEY) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert build_frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert read([bytes.fromhex("818537fa213d7f9f4d5158")]) == ([(TEXT, b"Hello", False, 0, b"")], 0, b"")


def test_fragmented_hello_of_the_rfc():
    assert build_frame(TEXT, b"Hel", fin=False) + build_frame(0, b"lo") == bytes.fromhex("010348656c80026c6f")


GOOD = {
    "empty": ([masked(TEXT)], [(TEXT, b"")]),
    "binary": ([masked(BINARY, b"\x00\xff")], [(BINARY, b"\x00\xff")]),
    "not UTF-8": ([masked(TEXT, b"\xff\xfe")], [(TEXT, b"\xff\xfe")]),
    "125 bytes": ([masked(TEXT, b"a" * 125)], [(TEXT, b"a" * 125)]),
    "126 bytes": ([masked(TEXT, b"a" * 126)], [(TEXT, b"a" * 126)]),
    "at the limit": ([masked(TEXT, b"a" * LIMIT)], [(TEXT, b"a" * LIMIT)]),
    "a longer length than needed": ([head(0x81, 0xFE, b"\x00\x01\0\0\0\0a")], [(TEXT, b"a")]),
    "an eight-byte length": ([head(0x81, 0xFF, b"\0" * 7 + b"\x01\0\0\0\0a")], [(TEXT, b"a")]),
    "two": ([masked(TEXT, b"a"), masked(TEXT, b"b")], [(TEXT, b"a"), (TEXT, b"b")]),
    "fragments": (
        [masked(BINARY, b"ab", fin=False), masked(0, b"", fin=False), masked(0, b"cde")],
        [(BINARY, b"abcde")],
    ),
    "empty fragments": ([masked(TEXT, b"", fin=False), masked(0, b"", fin=False), masked(0)], [(TEXT, b"")]),
    "control between fragments": (
        [masked(TEXT, b"a", fin=False), masked(PING, b"p"), masked(PONG), masked(0, b"b")],
        [(PING, b"p"), (PONG, b""), (TEXT, b"ab")],
    ),
    "the longest ping": ([masked(PING, b"p" * 125)], [(PING, b"p" * 125)]),
    "two messages in fragments": (
        [masked(TEXT, b"a", fin=False), masked(0, b"b"), masked(BINARY, b"c", fin=False), masked(0, b"d")],
        [(TEXT, b"ab"), (BINARY, b"cd")],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    frames, expected = GOOD[name]
    events, code, _ = read(frames)
    assert [(opcode, payload) for opcode, payload, *_ in events] == expected
    assert code == 0


CLOSES = {
    "no code": (b"", NO_STATUS, b""),
    "one byte": (b"\x03", NO_STATUS, b""),
    "normal": (struct.pack("!H", 1000), 1000, b""),
    "with a reason": (struct.pack("!H", 1001) + "ж".encode(), 1001, "ж".encode()),
    "of an application": (struct.pack("!H", 4999) + b"x" * 123, 4999, b"x" * 123),
}


@pytest.mark.parametrize("name", CLOSES)
def test_close(name):
    payload, code, reason = CLOSES[name]
    assert read([masked(CLOSE, payload)]) == ([(CLOSE, payload, False, code, reason)], 0, b"")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999])
def test_close_codes_that_may_be_sent(code):
    assert read([masked(CLOSE, struct.pack("!H", code))])[0][0][3] == code


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not(code):
    assert read([masked(CLOSE, struct.pack("!H", code))]) == ([], PROTOCOL_ERROR, b"bad close code %d" % code)


def test_nothing_is_read_behind_a_close():
    frames = ClientFrames(LIMIT)
    events = frames.feed(masked(TEXT, b"a") + masked(CLOSE) + masked(TEXT, b"b") + b"\xff\xff")
    assert [e.opcode for e in events] == [TEXT, CLOSE]
    assert frames.feed(masked(TEXT, b"c")) == []
    assert frames.fault_code == 0


WRONG = {
    "RSV1": ([head(0xC1, 0x80)], PROTOCOL_ERROR, b"RSV1 set"),
    "RSV2": ([head(0xA1, 0x80)], PROTOCOL_ERROR, b"RSV2 set"),
    "RSV3": ([head(0x91, 0x80)], PROTOCOL_ERROR, b"RSV3 set"),
    "not masked": ([head(0x81, 0x00)], PROTOCOL_ERROR, b"bad MASK"),
    "opcode 3": ([head(0x83, 0x80)], PROTOCOL_ERROR, b"bad opcode 3"),
    "opcode 7": ([head(0x87, 0x80)], PROTOCOL_ERROR, b"bad opcode 7"),
    "opcode 11": ([head(0x8B, 0x80)], PROTOCOL_ERROR, b"bad opcode 11"),
    "opcode 15": ([head(0x8F, 0x80)], PROTOCOL_ERROR, b"bad opcode 15"),
    "a long ping": ([head(0x89, 0xFE)], PROTOCOL_ERROR, b"len > 125 for control"),
    "a fragmented ping": ([head(0x09, 0x80)], PROTOCOL_ERROR, b"FIN not set on control"),
    "a fragmented close": ([head(0x08, 0x80)], PROTOCOL_ERROR, b"FIN not set on control"),
    "a continuation of nothing": ([masked(0, b"a")], PROTOCOL_ERROR, b"continuation after FIN"),
    "a message within a message": ([masked(TEXT, fin=False), masked(TEXT)], PROTOCOL_ERROR, b"data before FIN"),
    "several at once": (
        [head(0xFF, 0x00)],
        PROTOCOL_ERROR,
        b"RSV1 set, RSV2 set, RSV3 set, bad opcode 15, bad MASK",
    ),
    "a reason that is not UTF-8": (
        [masked(CLOSE, b"\x03\xe8\xff")],
        PROTOCOL_ERROR,
        b"invalid utf8 payload in close frame",
    ),
    "a surrogate in a reason": (
        [masked(CLOSE, b"\x03\xe8\xed\xa0\x80")],
        PROTOCOL_ERROR,
        b"invalid utf8 payload in close frame",
    ),
    "too big": ([head(0x81, 0xFE, struct.pack("!HL", LIMIT + 1, 0))], TOO_BIG, b""),
    "too big in fragments": ([masked(TEXT, b"a" * LIMIT, fin=False), masked(0, b"a")], TOO_BIG, b""),
    "a length of 64 bits": ([head(0x81, 0xFF, struct.pack("!QL", 1 << 63, 0))], DROP, b""),
    "lengths that overflow": (
        [masked(TEXT, b"a", fin=False), head(0x80, 0xFF, struct.pack("!QL", (1 << 63) - 1, 0))],
        DROP,
        b"",
    ),
    "the largest length": ([head(0x81, 0xFF, struct.pack("!QL", (1 << 63) - 1, 0))], TOO_BIG, b""),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    frames, code, reason = WRONG[name]
    good = masked(TEXT, b"before")
    assert read([good + b"".join(frames)]) == ([(TEXT, b"before", False, 0, b"")], code, reason)
    assert read([good, *frames, masked(TEXT, b"behind")])[1:] == (code, reason)


def test_the_fault_shows_as_soon_as_its_byte_is_there():
    for name in ("RSV1", "not masked", "opcode 3", "a long ping", "too big", "a length of 64 bits", "several at once"):
        (stream,), code, _ = WRONG[name]
        reader = ClientFrames(LIMIT)
        for at in range(len(stream)):
            assert reader.fault_code == 0, name
            reader.feed(stream[at : at + 1])
        assert reader.fault_code == code


def test_after_a_fault_nothing_is_read():
    frames = ClientFrames(LIMIT)
    frames.feed(b"\x83\x80")
    assert frames.feed(masked(TEXT, b"a")) == []
    assert frames.fault_reason == b"bad opcode 3"


def test_compression_where_it_was_negotiated():
    frames = [masked(TEXT, b"a", fin=False, compressed=True), masked(PING), masked(0, b"b"), masked(TEXT, b"c")]
    events, code, _ = read(frames, allow_compressed=True)
    assert [(e[0], e[1], e[2]) for e in events] == [(PING, b"", False), (TEXT, b"ab", True), (TEXT, b"c", False)]
    assert code == 0


@pytest.mark.parametrize(
    "frames",
    [
        [head(0xC0 | PING, 0x80, bytes(4))],
        [head(0xC0 | PONG, 0x80, bytes(4))],
        [head(0xC0 | CLOSE, 0x80, bytes(4))],
        [masked(TEXT, b"a", fin=False), head(0xC0, 0x80, bytes(4))],
        [masked(TEXT, b"a", fin=False, compressed=True), head(0x40, 0x80, bytes(4))],
    ],
)
def test_only_the_first_frame_of_a_message_says_that_it_is_compressed(frames: list[bytes]):
    events, code, reason = read(frames, allow_compressed=True)
    assert (events, code, reason) == ([], PROTOCOL_ERROR, b"RSV1 set")


def test_idle_between_messages_only():
    frames = ClientFrames(LIMIT)
    assert frames.is_between_messages
    for piece in (b"\x01", masked(TEXT, b"ab", fin=False)[1:-1], masked(TEXT, b"ab", fin=False)[-1:], masked(PING)):
        frames.feed(piece)
        assert not frames.is_between_messages
    frames.feed(masked(0))
    assert frames.is_between_messages


def test_a_limit_is_needed():
    for limit in (0, -1, 1 << 41):
        with pytest.raises(ValueError, match="max_message_bytes"):
            ClientFrames(limit)


payloads = st.one_of(st.binary(max_size=20), st.integers(0, 400).map(lambda size: b"x" * size))
good_frames = st.builds(
    build_frame,
    st.sampled_from([0, TEXT, TEXT, BINARY, PING, PONG]),
    st.binary(max_size=100),
    mask_key=st.integers(0, 2**32 - 1),
)
fragments = st.builds(
    build_frame, st.sampled_from([0, TEXT]), payloads, mask_key=st.integers(0, 2**32 - 1), fin=st.booleans()
)
streams = st.lists(st.one_of(good_frames, fragments, st.binary(max_size=6)), max_size=8).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(streams, st.lists(st.integers(0, 800), max_size=6), st.booleans())
def test_cutting_makes_no_difference_and_the_twin_agrees(stream, cuts, allow_compressed):
    expected = read_frames(stream, LIMIT, allow_compressed)
    cuts = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(cuts)]
    for fed in ([stream], pieces, [stream[i : i + 1] for i in range(len(stream))]):
        assert drive(fed, LIMIT, allow_compressed) == expected


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 65535, 65536])
@pytest.mark.parametrize("key", [None, 0, KEY, 2**32 - 1])
def test_what_we_write_we_read(size, key):
    payload = bytes(i & 0xFF for i in range(size))
    frame = build_frame(BINARY, payload, mask_key=key)
    assert len(frame) == 2 + (size > 125) * 2 + (size > 65535) * 6 + (key is not None) * 4 + size
    if key is not None:
        assert read([frame], 1 << 20)[0] == [(BINARY, payload, False, 0, b"")]


def test_minimal_lengths_are_written():
    assert build_frame(TEXT, b"a" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert build_frame(TEXT, b"a" * 65536)[:10] == b"\x81\x7f\0\0\0\0\0\x01\0\0"


@pytest.mark.parametrize(
    ("opcode", "payload", "options"),
    [
        (3, b"", {}),
        (11, b"", {}),
        (-1, b"", {}),
        (PING, b"a" * 126, {}),
        (PING, b"", {"fin": False}),
        (CLOSE, b"", {"compressed": True}),
        (TEXT, b"", {"mask_key": 1 << 32}),
        (TEXT, b"", {"mask_key": -1}),
    ],
)
def test_no_frame_that_breaks_the_rules(opcode, payload, options):
    with pytest.raises(ValueError, match=r".+"):
        build_frame(opcode, payload, **options)


def test_closes_are_built():
    assert build_close(NO_STATUS) == b"\x88\x00"
    assert build_close(3501, b"bad request") == b"\x88\x0d\x0d\xadbad request"
    assert len(build_close(1000, b"x" * 200)) == 127
    assert read([build_close(1000, b"bye", mask_key=5)])[0] == [(CLOSE, b"\x03\xe8bye", False, 1000, b"bye")]
    for code in (DROP, 0, 999, 5000):
        with pytest.raises(ValueError, match="code"):
            build_close(code)


def test_masks_differ_and_follow_from_the_seed():
    masks = Masks(42)
    keys = [masks.next() for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert all(0 < key < 1 << 32 for key in keys)
    again = Masks(42 + (1 << 32))
    assert [again.next() for _ in range(3)] == keys[:3]
    assert Masks(0).next() != 0
