from typing import Final

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
NO_STATUS: Final = 1005
"""Code of a close frame without one (or with one byte, which Centrifugo takes for none). Never sent."""
DROP: Final = 1006
"""As `fault_code`: close the TCP connection without a close frame, as Centrifugo does. Never sent."""
PROTOCOL_ERROR: Final = 1002
TOO_BIG: Final = 1009

class Event:
    """A whole message (however many frames it came in) or a control frame. Made by readers of frames only."""

    @property
    def opcode(self) -> int:
        """TEXT, BINARY, CLOSE, PING or PONG."""
    @property
    def payload(self) -> bytes:
        """Unmasked. Of a message: the frames' payloads joined; of a close: code and reason, to be relayed as it is."""
    @property
    def compressed(self) -> bool:
        """Of a message: RSV1 was set on its first frame; the payload is raw DEFLATE without its last 00 00 FF FF."""
    @property
    def code(self) -> int:
        """Of a close: its code, or NO_STATUS; 0 for everything else."""
    @property
    def reason(self) -> bytes:
        """Of a close from a client: valid UTF-8. Empty for everything else."""
    @property
    def end(self) -> int:
        """`ServerScan`: offset in the fed data behind the last byte of what the event tells of. Otherwise 0."""
    @property
    def raw(self) -> bytes | None:
        """`ServerScan` while it holds: the frames themselves, to be written on. Otherwise None."""

class ClientFrames:
    """What a client sends, RFC 6455, read as strictly and as leniently as Centrifugo's own WebSocket library does.

    Text is not checked to be UTF-8: Centrifugo doesn't either. An idle reader holds no buffer."""

    def __init__(self, max_message_bytes: int, allow_compressed: bool = False) -> None:
        """`max_message_bytes`: of one message, all fragments together, as sent (compressed or not)."""
    def feed(self, data: bytes) -> list[Event]:
        """The messages and control frames that `data` completes, in order; often an empty list.

        A control frame between the fragments of a message comes before that message. After a close from the client
        nothing more is read. When the client breaks the protocol, what was complete before is returned, and the
        fault stands in `fault_code`; from then on every feed returns an empty list. Never raises but MemoryError."""
    @property
    def fault_code(self) -> int:
        """0; PROTOCOL_ERROR or TOO_BIG to be sent in a close frame; or DROP."""
    @property
    def fault_reason(self) -> bytes:
        """Goes with the code, word for word what Centrifugo would say; empty for TOO_BIG and DROP."""
    @property
    def is_between_messages(self) -> bool:
        """No byte of an unfinished frame or message is held."""

def build_frame(
    opcode: int, payload: bytes, *, mask_key: int | None = None, fin: bool = True, compressed: bool = False
) -> bytes:
    """One frame; masked when a key (32 bits, the first byte of it highest) is given, as all frames to a server must be.

    A key of 0 makes masking a copy. ValueError: unknown opcode, a control frame of more than 125 bytes or unfinished,
    a key that isn't one."""

def build_close(code: int, reason: bytes = b"", *, mask_key: int | None = None) -> bytes:
    """A close frame; empty for NO_STATUS. A reason of more than 123 bytes is cut. ValueError: DROP, or no code."""

class Masks:
    """Masking keys of one connection, by xorshift. They only have to differ: the unpredictability that RFC 6455 section
    10.3 asks for protects proxies from scripts in browsers, and no browser writes to this leg."""

    def __init__(self, seed: int) -> None:
        """Any number; only its low 32 bits count."""
    def next(self) -> int: ...
