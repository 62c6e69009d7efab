"""Streams of Centrifugo's HTTP transports, cut anywhere: every message comes out once, whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.replies import parse_replies
from cpro.doors.gateway.framing import Delimited, Events, Framing, Lines
from cpro.doors.gateway.proto import delimited, int_field, take_varint

JSON = [b'{"id":1,"connect":{"client":"c"}}', b"{}", b'{"id":2,"publish":{}}', b'{"push":{"channel":"data: x"}}']
PROTOBUF = [delimited(int_field(1, number) + b"\x42\x00" * 70) for number in (1, 200, 70_000)] + [b"\x00"]
STREAMS = [
    (Lines(), b"".join(line + b"\n" for line in JSON), b"\n".join(JSON)),
    (Events(), b"".join(b"data: %b\n\n" % line for line in JSON), b"\n".join(JSON)),
    (Delimited(), b"".join(PROTOBUF), b"".join(PROTOBUF)),
]
NAMES = ["lines", "events", "delimited"]


def read(framing: Framing, pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
    """All that was passed on, and the contents."""
    buffer, passed, contents = b"", b"", []
    for piece in pieces:
        buffer += piece
        end = framing.cut(buffer)
        passed += buffer[:end]
        contents.append(framing.content(buffer[:end]))
        buffer = buffer[end:]
    assert not buffer
    return passed, [content for content in contents if content]


@pytest.mark.parametrize(("framing", "stream", "content"), STREAMS, ids=NAMES)
def test_a_stream_cut_at_any_byte_is_the_same_stream(framing, stream, content):
    for at in range(len(stream) + 1):
        passed, contents = read(framing, [stream[:at], stream[at:]])
        assert passed == stream
        said = [one.id for part in contents for one in parse_replies(part, framing.protobuf)]
        assert said == [one.id for one in parse_replies(content, framing.protobuf)]


@pytest.mark.parametrize(("framing", "stream", "content"), STREAMS, ids=NAMES)
def test_a_stream_that_comes_byte_by_byte_is_cut_between_messages_only(framing, stream, content):
    _, contents = read(framing, [stream[at : at + 1] for at in range(len(stream))])
    wanted = PROTOBUF if framing.protobuf else JSON
    assert [part.strip(b"\n") if not framing.protobuf else part for part in contents] == wanted


@pytest.mark.parametrize(("framing", "stream", "content"), STREAMS, ids=NAMES)
def test_what_is_built_reads_as_the_same(framing, stream, content):
    assert framing.build(content) == stream


def test_the_empty_line_that_begins_an_event_stream_says_nothing():
    events = Events()
    assert events.cut(b"\r\n") == 2
    assert events.cut(b"\r") == 0
    assert events.content(b"\r\n") == b""


def test_a_length_without_end_is_a_fault():
    with pytest.raises(ValueError, match="without end"):
        Delimited().cut(b"\xff" * 12)


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_numbers_read_back(value):
    encoded = int_field(1, value)[1:]
    assert not encoded if value == 0 else take_varint(encoded, 0) == (value, len(encoded))
