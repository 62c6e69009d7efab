class Message:
    """A received message: offsets into the bytes it came in. Made by parsers only."""

    minor_version: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    keep_alive: bool
    """Whether the connection may be used again after this message (RFC 9112 section 9.3)."""

    @property
    def body(self) -> bytes:
        """The content, with chunked coding already removed."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header with this lower-case name, without white space around it."""

    def header_count(self, name: bytes) -> int:
        """How many headers have this lower-case name."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers in order, names as received."""

class MessageParser:
    """Buffer, head and body framing, common to both directions."""

    work_bytes: int
    """Bytes scanned or copied so far because input came in pieces; tests hold that this stays linear."""

    def __init__(self, max_head_bytes: int, max_body_bytes: int) -> None: ...
