"""permessage-deflate: what is agreed, what clients send unfolded within bounds, what they are sent."""

import random
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.wsframe import BINARY, CLOSE, DROP, PING, PROTOCOL_ERROR, TEXT, TOO_BIG, build_close, build_frame
from cpro._fast.wsscan import ServerScan
from cpro.doors.gateway.deflate import LEAST_BYTES, Agreed, Deflating, Inflating, negotiate

TAIL = b"\x00\x00\xff\xff"
BOTH = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LIMIT = 1000
KEY = 0x37FA213D


# -- what is agreed


@pytest.mark.parametrize(
    ("offered", "bits"),
    [
        (b"permessage-deflate", 0),
        (b"permessage-deflate; client_max_window_bits", 0),  # what browsers offer
        (b"permessage-deflate; client_max_window_bits=8", 0),
        (b"permessage-deflate;server_no_context_takeover ; client_no_context_takeover", 0),
        (b"permessage-deflate; server_max_window_bits=12", 12),
        (b'Permessage-Deflate; server_max_window_bits="9"', 9),
        (b"permessage-deflate; server_max_window_bits=15; client_max_window_bits=15", 15),
        (b"x-webkit-deflate-frame, permessage-deflate", 0),
        (b'x; a="permessage-deflate, b", permessage-deflate; server_max_window_bits=10', 10),
        (b"permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=11", 11),
        (b"permessage-deflate; unknown, permessage-deflate", 0),
    ],
)
def test_the_first_offer_that_can_be_met_is_taken(offered: bytes, bits: int):
    agreed = negotiate(offered)
    assert agreed is not None
    assert agreed.bits == (bits or 15)
    assert agreed.header == (BOTH + b"; server_max_window_bits=%d" % bits if bits else BOTH)


@pytest.mark.parametrize(
    "offered",
    [
        b"",
        b",",
        b"permessage-deflated",
        b"permessage-bzip2",
        b"permessage-deflate; unknown",
        b"permessage-deflate; client_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=",
        b"permessage-deflate; server_max_window_bits=8",
        b"permessage-deflate; server_max_window_bits=08",
        b"permessage-deflate; server_max_window_bits=1x",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; client_no_context_takeover=",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"permessage-deflate; ",
        b'permessage-deflate; "server_no_context_takeover"',
        b'permessage-deflate; server_max_window_bits="9',
    ],
)
def test_an_offer_that_cannot_be_met_is_declined(offered: bytes):
    assert negotiate(offered) is None


@given(st.text('permsag-dfl;=,"\\ x19', max_size=60))
def test_any_offer_is_read(offered: str):
    negotiate(offered.encode())
    assert negotiate(b"permessage-deflate, " + offered.encode()) is not None


# -- what a client sends


def deflated(payload: bytes, mode: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (stream.compress(payload) + stream.flush(mode)).removesuffix(TAIL)


def masked(payload: bytes, opcode: int = TEXT, **options) -> bytes:
    return build_frame(opcode, payload, mask_key=KEY, **{"compressed": True, **options})


def unfold(*frames: bytes, limit: int = LIMIT) -> tuple[list[tuple[int, bytes]], int]:
    reader = Inflating(limit)
    read = [(event.opcode, event.payload) for frame in frames for event in reader.feed(frame)]
    return read, reader.fault_code


def test_the_rfcs_own_examples():
    for payload in ("f248cdc9c90700", "f2480500 0000ffff cac9c90700", "000500faff48656c6c6f00", "f348cdc9c9070000"):
        assert unfold(masked(bytes.fromhex(payload))) == ([(TEXT, b"Hello")], 0)


def test_compressed_and_plain_messages_alternate_as_the_client_likes():
    frames = [
        masked(deflated(b"a" * 500)),
        masked(b"plain", BINARY, compressed=False),
        masked(deflated(b"")),
        masked(deflated(b"final", zlib.Z_FINISH), BINARY),
        masked(deflated(b"stored", level=0)),
        masked(b"ping", PING, compressed=False),
    ]
    read = [(TEXT, b"a" * 500), (BINARY, b"plain"), (TEXT, b""), (BINARY, b"final"), (TEXT, b"stored"), (PING, b"ping")]
    assert unfold(*frames) == (read, 0)
    assert unfold(b"".join(frames)) == (read, 0)


def test_a_compressed_message_may_come_in_fragments():
    payload = deflated(b"fragments" * 20)
    frames = [
        masked(payload[:5], fin=False),
        masked(b"", PING, compressed=False),
        masked(payload[5:], 0, compressed=False),
    ]
    assert unfold(*frames) == ([(PING, b""), (TEXT, b"fragments" * 20)], 0)


def test_a_message_is_bounded_as_it_unfolds():
    assert unfold(masked(deflated(b"a" * LIMIT))) == ([(TEXT, b"a" * LIMIT)], 0)
    assert unfold(masked(deflated(b"a" * (LIMIT + 1)))) == ([], TOO_BIG)
    assert unfold(masked(deflated(random.Random(1).randbytes(LIMIT + 1)))) == ([], TOO_BIG)
    assert unfold(masked(b"ok", compressed=False), masked(deflated(b"a" * 5000))) == ([(TEXT, b"ok")], TOO_BIG)


def test_a_bomb_takes_no_memory():
    bomb = masked(deflated(bytes(50_000_000)))
    reader = Inflating(65_536)
    tracemalloc.start()
    assert reader.feed(bomb) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reader.fault_code == TOO_BIG
    assert most < 1_000_000


def test_after_a_fault_nothing_is_read():
    for frame, code in ((masked(b"\xff\xff\xff"), DROP), (masked(deflated(b"a" * 2000)), TOO_BIG)):
        reader = Inflating(LIMIT)
        later = masked(b"later", compressed=False)
        assert [event.payload for event in reader.feed(masked(deflated(b"a")) + frame + later)] == [b"a"]
        assert (reader.fault_code, reader.fault_reason) == (code, b"")
        assert reader.feed(later) == []


def test_other_faults_are_those_of_frames():
    reader = Inflating(LIMIT)
    assert reader.feed(bytes([0xA1, 0x80, 0, 0, 0, 0])) == []
    assert (reader.fault_code, reader.fault_reason) == (PROTOCOL_ERROR, b"RSV2 set")
    close = build_close(3000, b"bye", mask_key=KEY)
    (event,) = Inflating(LIMIT).feed(close)
    assert (event.opcode, event.code, event.reason) == (CLOSE, 3000, b"bye")


@given(st.binary(max_size=300))
def test_garbage_is_unfolded_within_bounds_or_refused(garbage: bytes):
    read, code = unfold(masked(garbage))
    assert code in (0, DROP, TOO_BIG)
    assert all(len(payload) <= LIMIT for _, payload in read)


# -- what a client is sent


class Sink:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.done: list[str] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def __getattr__(self, name: str):
        return lambda: self.done.append(name)


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def sent(*pieces: bytes, bits: int = 15) -> bytes:
    """What the client gets behind the head."""
    sink = Sink()
    transport = Deflating(sink, Agreed(bits, BOTH), 1 << 20)  # type: ignore[arg-type]
    for piece in (HEAD, *pieces):
        transport.write(piece)
    head, *rest = sink.written
    assert head == HEAD[:-2] + b"Sec-WebSocket-Extensions: " + BOTH + b"\r\n\r\n"
    return b"".join(rest)


def received(data: bytes, bits: int = 15) -> list[tuple[int, bytes]]:
    """What a client makes of it, that has a window of so many bits, and a new one for each message."""
    scan = ServerScan(False, 1 << 20, holds=True, allow_compressed=True)
    events = scan.feed(data) or []
    assert not scan.fault
    assert scan.is_between_messages
    return [(event.opcode, plain(event.payload, bits) if event.compressed else event.payload) for event in events]


def plain(payload: bytes, bits: int) -> bytes:
    stream = zlib.decompressobj(-bits)
    return stream.decompress(payload + TAIL)


def test_long_messages_are_compressed_and_others_are_not():
    text = b'{"push":{"channel":"news"}}' * 100
    noise = random.Random(1).randbytes(1000)
    short = b"a" * (LEAST_BYTES - 1)
    frames = [build_frame(TEXT, text), build_frame(BINARY, noise), build_frame(TEXT, short), build_close(3001, b"bye")]
    data = sent(*frames)
    assert len(data) < len(b"".join(frames)) - len(text) // 2
    assert data.endswith(b"".join(frames[1:])), "what can't be shorter stays as it is"
    assert received(data) == [(TEXT, text), (BINARY, noise), (TEXT, short), (CLOSE, b"\x0b\xb9bye")]


@pytest.mark.parametrize("bits", range(9, 16))
def test_a_client_with_a_small_window_understands(bits: int):
    text = random.Random(1).randbytes(700) * 100
    assert received(sent(build_frame(TEXT, text), bits=bits), bits) == [(TEXT, text)]


PAYLOADS = st.one_of(st.binary(max_size=20), st.binary(min_size=1, max_size=5).map(lambda one: one * 200))
MESSAGES = st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), PAYLOADS, st.integers(0, 50)), max_size=8)


@given(MESSAGES, st.sets(st.integers(0, 5000)))
def test_messages_arrive_whole_and_in_order_however_they_are_written(messages: list, cuts: set[int]):
    stream, expected = b"", []
    for opcode, content, cut in messages:
        payload = content[:125] if opcode == PING else content
        expected.append((opcode, payload))
        if opcode == PING or cut >= len(payload):
            stream += build_frame(opcode, payload)
        else:
            stream += build_frame(opcode, payload[:cut], fin=False) + build_frame(0, payload[cut:])
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert received(sent(*pieces)) == expected


def test_an_answer_that_is_no_upgrade_passes_as_it_is():
    sink = Sink()
    transport = Deflating(sink, Agreed(15, BOTH), 1 << 20)  # type: ignore[arg-type]
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    transport.write(answer)
    transport.write(b"more")
    assert sink.written == [answer, b"more"]
    transport.close()
    assert sink.done == ["close"]


def test_what_can_not_be_read_ends_the_connection():
    sink = Sink()
    transport = Deflating(sink, Agreed(15, BOTH), 100)  # type: ignore[arg-type]
    transport.write(HEAD)
    transport.write(build_frame(TEXT, b"a" * 101))
    assert sink.done == ["abort"]
