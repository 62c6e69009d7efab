"""Headers of the PROXY protocol: what is one, whose address it gives, where it ends."""

from ipaddress import IPv4Address, IPv6Address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro.errors import ProtocolError
from cpro.http.proxy_header import BLOCK_LIMIT_BYTES, LINE_LIMIT_BYTES, SIGNATURE, ProxyHeader

REST = b"\x16\x03\x01 what follows, whatever it is\r\n\r\n"
IPV4 = IPv4Address("192.0.2.1").packed + IPv4Address("198.51.100.7").packed + pack("!HH", 56324, 443)
IPV6 = IPv6Address("2001:db8::1").packed + IPv6Address("2001:db8::2").packed + pack("!HH", 56324, 443)
UNIX = b"/client".ljust(108, b"\0") + b"/server".ljust(108, b"\0")
EXTENSIONS = b"\x03\x00\x04\xde\xad\xbe\xef" + b"\x04\x00\x02\x00\x00" + b"\x02\x00\x09localhost" + b"\xea\x00\x01\x01"


def block(command: int, kind: int, content: bytes = b"", length: int | None = None) -> bytes:
    return SIGNATURE + pack("!BBH", command, kind, len(content) if length is None else length) + content


HEADERS = {
    "tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "192.0.2.1"),
    "tcp4_shortest": (b"PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", "1.1.1.1"),
    "tcp6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", "2001:db8::1"),
    "tcp6_longest": (b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", None),
    "unknown": (b"PROXY UNKNOWN\r\n", ""),
    "unknown_with_more": (b"PROXY UNKNOWN ffff::1 what?  not 1 2\r\n", ""),
    "unknown_longest": (b"PROXY UNKNOWN ".ljust(LINE_LIMIT_BYTES - 2, b"x") + b"\r\n", ""),
    "block_ipv4": (block(0x21, 0x11, IPV4), "192.0.2.1"),
    "block_ipv4_of_a_datagram": (block(0x21, 0x12, IPV4), "192.0.2.1"),
    "block_ipv6": (block(0x21, 0x21, IPV6), "2001:db8::1"),
    "block_ipv4_with_extensions": (block(0x21, 0x11, IPV4 + EXTENSIONS), "192.0.2.1"),
    "block_longest": (block(0x21, 0x21, IPV6.ljust(BLOCK_LIMIT_BYTES, b"\n")), "2001:db8::1"),
    "block_unix": (block(0x21, 0x31, UNIX), ""),
    "block_unknown": (block(0x21, 0x00), ""),
    "block_unknown_with_more": (block(0x21, 0x00, b"\r\nPROXY"), ""),
    "block_local": (block(0x20, 0x00), None),
    "block_local_of_anything": (block(0x20, 0xFF, b"whatever"), None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_names_the_client_and_nothing_behind_it_is_taken(name: str):
    data, address = HEADERS[name]
    header = ProxyHeader()
    assert header.feed(data + REST) == len(data)
    assert header.is_complete
    assert header.feed(REST) == 0
    if name != "tcp6_longest":
        assert header.address == address


@given(st.sampled_from(sorted(HEADERS)), st.sets(st.integers(1, 300)))
def test_it_does_not_matter_in_what_pieces_a_header_comes(name: str, cuts: set[int]):
    data, _ = HEADERS[name]
    whole = data + REST
    header, at = ProxyHeader(), 0
    for end in sorted({*(cut for cut in cuts if cut < len(whole)), len(whole)}):
        while at < end and not header.is_complete:
            taken = header.feed(whole[at:end])
            assert taken > 0
            at += taken
    assert header.is_complete
    assert at == len(data)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_cut_short_is_not_complete(name: str):
    data, _ = HEADERS[name]
    header = ProxyHeader()
    for place in range(len(data) - 1):
        assert header.feed(data[place : place + 1]) == 1
        assert not header.is_complete


def feed_byte_by_byte(data: bytes) -> None:
    header = ProxyHeader()
    for byte in data:
        header.feed(bytes([byte]))


REFUSED = {
    "http": b"G",
    "tls": b"\x16",
    "another_word": b"PROXZ",
    "small_letters": b"p",
    "no_space": b"PROXY\t",
    "other_signature": SIGNATURE[:11] + b"\r",
    "one_line_end_missing": b"\r\n\r\n\r",
    "tcp5": b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
    "no_target": b"PROXY TCP4 1.1.1.1 1 1\r\n",
    "no_port": b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
    "one_more": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
    "two_spaces": b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
    "space_at_the_end": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
    "port_too_high": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
    "port_with_zero": b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
    "port_below_zero": b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n",
    "address_too_high": b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
    "address_with_zero": b"PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n",
    "target_is_a_name": b"PROXY TCP4 1.1.1.1 localhost 1 1\r\n",
    "ipv6_as_tcp4": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "ipv4_as_tcp6": b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
    "ipv6_with_zone": b"PROXY TCP6 fe80::1%1 ::1 1 1\r\n",
    "not_ascii": "PROXY TCP4 1.1.1.\uff11 1.1.1.1 1 1\r\n".encode(),
    "bare_line_feed": b"PROXY UNKNOWN\n",
    "bare_carriage_return": b"PROXY UNKNOWN \r x\r\n",
    "unknown_run_together": b"PROXY UNKNOWNS\r\n",
    "line_too_long": b"PROXY UNKNOWN ".ljust(LINE_LIMIT_BYTES + 1, b"x"),
    "whole_line_too_long": b"PROXY UNKNOWN ".ljust(LINE_LIMIT_BYTES - 1, b"x") + b"\r\n",
    "version_1_block": block(0x11, 0x11, IPV4),
    "version_3_block": block(0x31, 0x11, IPV4),
    "unknown_command": block(0x22, 0x11, IPV4),
    "unknown_family": block(0x21, 0x41, IPV4),
    "unknown_kind": block(0x21, 0x13, IPV4),
    "ipv4_too_short": block(0x21, 0x11, IPV4[:-1]),
    "ipv6_too_short": block(0x21, 0x21, IPV6[:-1]),
    "unix_too_short": block(0x21, 0x31, UNIX[:-1]),
    "block_too_long": block(0x21, 0x11, b"", BLOCK_LIMIT_BYTES + 1),
    "local_too_long": block(0x20, 0x00, b"", 0xFFFF),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_however_it_comes(name: str):
    with pytest.raises(ProtocolError):
        ProxyHeader().feed(REFUSED[name])
    with pytest.raises(ProtocolError):
        feed_byte_by_byte(REFUSED[name])


@given(st.binary(max_size=400), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_garbage_is_refused_or_waited_for_and_nothing_else(garbage: bytes, start: bytes):
    header = ProxyHeader()
    try:
        taken = header.feed(start + garbage)
    except ProtocolError:
        return
    assert taken <= len(start + garbage)
    assert header.is_complete or taken == len(start + garbage) <= len(SIGNATURE) + 4 + BLOCK_LIMIT_BYTES
