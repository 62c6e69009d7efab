"""The header of the PROXY protocol, by which a proxy says at the start of a connection whose it is.

Version 1 (a line) and 2 (binary) as the specification of HAProxy has them, `doc/proxy-protocol.txt`. Strict: what isn't
a header is an error at the first byte that shows it, and nothing that follows the header is ever read.
"""

from ipaddress import IPv4Address, IPv6Address
from re import compile as pattern
from struct import Struct
from typing import Final

from cpro.errors import ProtocolError

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LINE_LIMIT_BYTES: Final = 107
"""Longest line of version 1, its end included."""
BLOCK_LIMIT_BYTES: Final = 4096
"""Longest address block of version 2 that is taken, extensions (TLV) included: those are a few hundred bytes."""

_KEYWORD: Final = b"PROXY "
_LINE: Final = pattern(
    rb"PROXY (?:TCP(?P<family>[46]) (?P<source>\S+) (?P<target>\S+) (?P<ports>(?:0|[1-9]\d{0,4}) (?:0|[1-9]\d{0,4}))"
    rb"|UNKNOWN(?: [^\r]*)?)\r\n"
)
_HEAD: Final = Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command
_UNKNOWN, _UNIX = 0, 3  # families; the low half of that byte, the kind of socket, says nothing of interest
_KINDS: Final = 3
_ADDRESS_BYTES: Final = {1: 4, 2: 16, _UNIX: 108}
_PORT_BYTES: Final = 2


class ProxyHeader:
    """Reads one header, in whatever pieces it comes."""

    def __init__(self) -> None:
        self.is_complete = False
        self.address: str | None = None
        """The client's, once complete: empty where the proxy doesn't know it, None when the proxy speaks for itself."""
        self._head = b""

    def feed(self, data: bytes) -> int:
        """Take what belongs to the header; how many bytes that is. ProtocolError: this is none."""
        taken = 0
        while not self.is_complete and taken < len(data):
            piece = data[taken : taken + self._wanted(data[taken:])]
            taken += len(piece)
            self._head += piece
            self._read()
        return taken

    def _wanted(self, data: bytes) -> int:
        """How many bytes can be taken, all of them the header's."""
        head = self._head
        if not head:
            return 1
        if head[:1] == _KEYWORD[:1]:
            return data.find(b"\n") + 1 or len(data)
        if len(head) < _HEAD.size:
            return _HEAD.size - len(head)
        length: int = _HEAD.unpack_from(head)[3]
        return _HEAD.size + length - len(head)

    def _read(self) -> None:
        head = self._head
        expected = _KEYWORD if head[:1] == _KEYWORD[:1] else SIGNATURE
        if head[: len(expected)] != expected[: len(head)]:
            raise _fault("there is none")
        if expected is _KEYWORD:
            self._read_line(head)
        elif len(head) >= _HEAD.size:
            self._read_block(head)

    def _read_line(self, head: bytes) -> None:
        if len(head) > LINE_LIMIT_BYTES:
            raise _fault("its line is too long")
        if not head.endswith(b"\n"):
            return
        match = _LINE.fullmatch(head)
        if match is None:
            raise _fault("its line can't be read")
        self.is_complete, self.address = True, ""
        if match["family"]:
            read = _ipv4 if match["family"] == b"4" else _ipv6
            self.address, _ = read(match["source"]), read(match["target"])
            if any(int(port) > 0xFFFF for port in match["ports"].split()):
                raise _fault("its line can't be read")

    def _read_block(self, head: bytes) -> None:
        _, version_and_command, kind, length = _HEAD.unpack_from(head)
        if version_and_command not in (_LOCAL, _PROXY):
            raise _fault("its version or command is unknown")
        if length > BLOCK_LIMIT_BYTES:
            raise _fault("it is too long")
        family, socket_kind = kind >> 4, kind & 15
        if version_and_command == _PROXY:
            if family > _UNIX or socket_kind >= _KINDS:
                raise _fault("its family or protocol is unknown")
            if family and length < 2 * (_ADDRESS_BYTES[family] + (_PORT_BYTES if family != _UNIX else 0)):
                raise _fault("it is too short for its addresses")
        if len(head) < _HEAD.size + length:
            return
        self.is_complete = True
        if version_and_command == _PROXY:
            self.address = _source(family, head[_HEAD.size :])


def _source(family: int, block: bytes) -> str:
    if family in (_UNKNOWN, _UNIX):
        return ""
    packed = block[: _ADDRESS_BYTES[family]]
    return str(IPv4Address(packed) if family == 1 else IPv6Address(packed))


def _ipv4(text: bytes) -> str:
    try:
        return str(IPv4Address(text.decode("ascii")))
    except ValueError:
        raise _fault("its line has no such address") from None


def _ipv6(text: bytes) -> str:
    try:
        if b"%" in text:  # a zone means nothing on another machine
            raise ValueError
        return str(IPv6Address(text.decode("ascii")))
    except ValueError:
        raise _fault("its line has no such address") from None


def _fault(what: str) -> ProtocolError:
    return ProtocolError(400, f"PROXY protocol: {what}")
