"""Where h11 or httptools may refuse a message that we take: each difference is deliberate, with its reason.

They may only refuse. A message that both take has to mean the same to both. The one exception is `has_framed_interim`.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.fuzz.opinions import Refusal, Said


class Message(NamedTuple):
    raw: bytes
    said: Said
    minor_version: int

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.said.headers if each == name]


class Tolerance(NamedTuple):
    reason: str
    refusal: tuple[str, ...]
    """What the library's message begins with."""
    applies: Callable[[Message], object]


METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}
INTERIM = re.compile(rb"HTTP/1\.[01] 1")
FRAMING_LINE = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)
SPACED_CHUNK = re.compile(rb"[0-9A-Fa-f][ \t]+;|;[ \t]|[ \t][;=]|=[ \t]")
MANY_DIGITS = re.compile(rb"[0-9A-Fa-f]{21}")

SPACED_CHUNK_REASON = "RFC 9112 section 7.1.1: a recipient must parse white space around chunk extensions"
FRAMING_REASON = "RFC 9110 section 6.5.1: framing fields in trailers mean nothing; we discard trailers, as we may"


def is_chunked(message: Message) -> bool:
    return bool(message.values(b"transfer-encoding"))


def has_framing_in_trailers(message: Message) -> bool:
    return is_chunked(message) and bool(FRAMING_LINE.search(message.raw.partition(b"\r\n\r\n")[2]))


def has_spaced_chunk(message: Message) -> bool:
    return is_chunked(message) and bool(SPACED_CHUNK.search(message.raw))


def has_framed_interim(raw: bytes) -> bool:
    """Whether an interim response before the response announces a body.

    llhttp is not asked then, because it would read one; interim responses end at their empty line whatever they say
    (RFC 9112 section 6.3, rule 1).
    """
    while INTERIM.match(raw):
        head, _, raw = raw.partition(b"\r\n\r\n")
        if FRAMING_LINE.search(head):
            return True
    return False


H11 = (
    Tolerance(SPACED_CHUNK_REASON, ("illegal chunk header",), has_spaced_chunk),
    Tolerance(
        "RFC 9112 section 7.1: a chunk size is 1*HEXDIG, leading zeros included; h11 takes 20",
        ("illegal chunk header",),
        lambda message: is_chunked(message) and MANY_DIGITS.search(message.raw),
    ),
    Tolerance(
        "RFC 9110 section 8.6: a length is 1*DIGIT, leading zeros included; h11 takes 20",
        ("bad Content-Length",),
        lambda message: any(len(value) > 20 for value in message.values(b"content-length")),
    ),
    Tolerance(
        FRAMING_REASON,
        ("Only Transfer-Encoding: chunked", "multiple Transfer-Encoding", "bad Content-Length", "conflicting Content"),
        has_framing_in_trailers,
    ),
)
HTTPTOOLS = (
    Tolerance(SPACED_CHUNK_REASON, ("Invalid character in chunk",), has_spaced_chunk),
    Tolerance(FRAMING_REASON, ("Invalid `Transfer-Encoding` header", "Content-Length can"), has_framing_in_trailers),
    Tolerance(
        "RFC 9110 section 9.1: a method is any token; llhttp knows a list",
        ("Invalid method encountered", "Expected space after method"),
        lambda message: isinstance(message.said.start, tuple) and message.said.start[0] not in METHODS,
    ),
    Tolerance(
        "RFC 9110 section 15.2: a client skips interim responses, whatever they say about the connection",
        ("Data after `Connection: close`",),
        lambda message: INTERIM.match(message.raw),
    ),
)


def agree(message: Message, opinion: Said | Refusal, tolerances: Iterable[Tolerance]) -> None:
    if isinstance(opinion, Refusal):
        applying = [t for t in tolerances if opinion.reason.startswith(t.refusal) and t.applies(message)]
        assert applying, f"refused by another: {opinion.reason}: {message.raw!r}"
    else:
        assert opinion == message.said, f"{opinion} != {message.said}"
