"""permessage-deflate on the client's leg (RFC 7692): messages are compressed here, and Centrifugo hears of none of it.

As Centrifugo does it, no message's compression builds upon another's, in neither direction: so a connection that says
nothing keeps no window of zlib's, which would be 300 KiB. The tap is the same with and without: what the client sends
is read by `Inflating`, what is written to it passes through `Deflating`.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from cpro._fast.wsframe import BINARY, DROP, TEXT, TOO_BIG, ClientFrames, Event, build_frame
from cpro._fast.wsscan import ServerScan
from cpro.http.dial import Transport

EXTENSION: Final = b"permessage-deflate"
HEADER: Final = b"Sec-WebSocket-Extensions"
LEVEL: Final = 1
LEAST_BYTES: Final = 128
"""Shorter messages are sent as they are."""
LEAST_BITS, MOST_BITS = 9, 15
"""Of a window; with 8, which RFC 7692 has too, zlib can't write raw streams."""
_FLAGS: Final = (b"server_no_context_takeover", b"client_no_context_takeover")
_OWN, _THEIRS = b"server_max_window_bits", b"client_max_window_bits"
_TAIL: Final = b"\x00\x00\xff\xff"  # that a message ends with, and is sent without (section 7.2.1)
_OFFER: Final = re.compile(rb'\s*(?:[^",]|"(?:[^"\\]|\\.)*")+')
_BITS: Final = re.compile(rb"[89]|1[0-5]")
_SWITCHING: Final = b"HTTP/1.1 101 "


class Agreed(NamedTuple):
    """What both sides do."""

    bits: int
    """Of the window that we compress with."""
    header: bytes
    """The value of our answer's header."""


def negotiate(offered: bytes) -> Agreed | None:
    """The first offer among extensions that can be accepted; None: the connection goes uncompressed.

    Whatever a client offers, it must take an answer without context takeover (sections 7.1.1.1 and 7.1.1.2).
    """
    for offer in _OFFER.findall(offered):
        name, *parameters = (part.strip() for part in offer.split(b";"))
        window = _window_of(parameters) if name.lower() == EXTENSION else None
        if window is not None:
            answer = [EXTENSION, *_FLAGS, *([b"%b=%b" % (_OWN, window)] if window else [])]
            return Agreed(int(window or MOST_BITS), b"; ".join(answer))
    return None


def _window_of(parameters: Sequence[bytes]) -> bytes | None:
    """The bits of the window that we may compress with, empty where an offer doesn't say; None: it must be declined."""
    found: dict[bytes, bytes | None] = {}
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition(b"="))
        if name in found or name not in (*_FLAGS, _OWN, _THEIRS):
            return None
        found[name] = _unquoted(value) if equals else None
    own, theirs = found.get(_OWN), found.get(_THEIRS)
    is_good = (
        all(found.get(flag) is None for flag in _FLAGS)
        and (_OWN not in found or (own is not None and _BITS.fullmatch(own) and int(own) >= LEAST_BITS))
        and (theirs is None or _BITS.fullmatch(theirs))
    )
    return (own or b"") if is_good else None


def _unquoted(value: bytes) -> bytes:
    is_quoted = len(value) >= 2 and value[:1] == value[-1:] == b'"'
    return value[1:-1] if is_quoted else value


class Message(NamedTuple):
    """A message of the client's that was compressed; as `wsframe.Event`."""

    opcode: int
    payload: bytes
    code: int = 0
    reason: bytes = b""


class Inflating:
    """`wsframe.ClientFrames` of a connection with compression. A message is bounded as sent, and as it unfolds."""

    def __init__(self, max_message_bytes: int) -> None:
        self._frames = ClientFrames(max_message_bytes, allow_compressed=True)
        self._most_bytes = max_message_bytes
        self._fault_code = 0

    def feed(self, data: bytes) -> list[Event | Message]:
        if self._fault_code:
            return []
        read: list[Event | Message] = []
        for event in self._frames.feed(data):
            message = self._inflate(event) if event.compressed else event
            if message is None:
                break
            read.append(message)
        return read

    @property
    def fault_code(self) -> int:
        return self._fault_code or self._frames.fault_code

    @property
    def fault_reason(self) -> bytes:
        return b"" if self._fault_code else self._frames.fault_reason

    def _inflate(self, event: Event) -> Message | None:
        stream = zlib.decompressobj(-MOST_BITS)
        try:
            payload = stream.decompress(event.payload + _TAIL, self._most_bytes + 1)
        except zlib.error:
            self._fault_code = DROP
            return None
        if len(payload) > self._most_bytes:
            self._fault_code = TOO_BIG
            return None
        return Message(event.opcode, payload)


class Deflating:
    """The transport to the client, as far as a tap uses it: compresses the messages that are written."""

    def __init__(self, transport: Transport, agreed: Agreed, max_message_bytes: int) -> None:
        """Nothing has been written yet. `max_message_bytes`: of one that is written."""
        self._transport = transport
        self._agreed = agreed
        self._scan: ServerScan | None = None  # once the connection is upgraded
        self._most_bytes = max_message_bytes
        self._is_answered = False
        self.close = transport.close
        self.abort = transport.abort
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """The head of an answer, in one piece; then frames, in whatever pieces."""
        if self._scan is not None:
            self._write_frames(self._scan, data)
        elif not self._is_answered and data.startswith(_SWITCHING):
            self._scan = ServerScan(protobuf=False, max_message_bytes=self._most_bytes, holds=True)
            self._transport.write(data[:-2] + b"%b: %b\r\n\r\n" % (HEADER, self._agreed.header))
        else:
            self._transport.write(data)
        self._is_answered = True

    def _write_frames(self, scan: ServerScan, data: bytes) -> None:
        out = [self._deflated(event) for event in scan.feed(data) or ()]
        if out:
            self._transport.write(b"".join(out))
        if scan.fault:
            self._transport.abort()

    def _deflated(self, event: Event) -> bytes:
        """The frames of an event, shorter if they can be."""
        raw, payload = event.raw or b"", event.payload
        if event.opcode not in (TEXT, BINARY) or len(payload) < LEAST_BYTES:
            return raw
        stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -self._agreed.bits)
        deflated = (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)
        if len(deflated) >= len(payload):
            return raw
        return build_frame(event.opcode, deflated, compressed=True)
