"""The envelope of emulated commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.emulation import build_emulation, parse_emulation
from tests.support.protobuf import field


def test_node_session_and_commands():
    assert parse_emulation(field(3, b"\x02\x08\x01") + field(1, b"n") + field(2, b"s")) == (b"n", b"s", b"\x02\x08\x01")
    assert parse_emulation(b"") == (b"", b"", b"")


def test_the_last_of_several_counts_and_others_are_skipped():
    body = field(1, b"first") + b"\xfa\x3e\x01x" + field(1, b"last") + field(9, 5)
    assert parse_emulation(body) == (b"last", b"", b"")


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05n", field(1, 5), b"\x02\x00", b"\x0c", b"\xff" * 11])
def test_what_centrifugo_would_not_read(body):
    assert parse_emulation(body) is None


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=300))
def test_what_is_built_is_read(node, session, commands):
    assert parse_emulation(build_emulation(node, session, commands)) == (node, session, commands)


@given(st.binary(max_size=60))
def test_anything_is_read_or_refused(body):
    read = parse_emulation(body)
    assert read is None or parse_emulation(build_emulation(*read)) == read


def test_an_sdk_reads_what_is_built():
    client_pb2 = pytest.importorskip("centrifuge.protocol.client_pb2")
    request = client_pb2.EmulationRequest.FromString(build_emulation(b"n", b"s", b"\x00"))
    assert (request.node, request.session, request.data) == ("n", "s", b"\x00")
