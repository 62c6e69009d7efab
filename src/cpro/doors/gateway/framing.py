"""How messages stand in the streams of Centrifugo's HTTP transports: cut apart, and put there.

A cut is between messages. Content is what `replies` reads: JSON lines, or Protobuf messages with their length in front.
"""

from typing import Protocol

from cpro.doors.gateway.proto import take_varint


class Framing(Protocol):
    """Of one stream. What it is asked of stands as Centrifugo wrote it."""

    protobuf: bool
    content_type: bytes

    def cut(self, buffer: bytes) -> int:
        """How many bytes of `buffer` are whole messages; ValueError where it can't be what Centrifugo sends."""

    def content(self, whole: bytes) -> bytes:
        """What whole messages say."""

    def build(self, content: bytes) -> bytes:
        """Messages of this content for the stream."""


class Lines:
    """JSON over HTTP-stream: each message ends with LF."""

    protobuf = False
    content_type = b"text/plain; charset=utf-8"

    def cut(self, buffer: bytes) -> int:
        return buffer.rfind(b"\n") + 1

    def content(self, whole: bytes) -> bytes:
        return whole

    def build(self, content: bytes) -> bytes:
        return content if content.endswith(b"\n") else content + b"\n"


class Events:
    """SSE: `data: …` and an empty line. Centrifugo's stream begins with an empty line of its own, in CRLF."""

    protobuf = False
    content_type = b"text/event-stream; charset=utf-8"

    def cut(self, buffer: bytes) -> int:
        end = buffer.rfind(b"\n\n")
        return end + 2 if end >= 0 else 2 if buffer.startswith(b"\r\n") else 0

    def content(self, whole: bytes) -> bytes:
        lines = whole.split(b"\n")
        return b"\n".join(line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:"))

    def build(self, content: bytes) -> bytes:
        return b"".join(b"data: %s\n\n" % line for line in content.split(b"\n") if line)


class Delimited:
    """Protobuf over HTTP-stream: the length of each message stands in front of it, as a varint."""

    protobuf = True
    content_type = b"application/octet-stream"

    def cut(self, buffer: bytes) -> int:
        at = 0
        while at < len(buffer):
            taken = take_varint(buffer, at)
            if taken is None or sum(taken) > len(buffer):
                break
            at = sum(taken)
        return at

    def content(self, whole: bytes) -> bytes:
        return whole

    def build(self, content: bytes) -> bytes:
        return content
