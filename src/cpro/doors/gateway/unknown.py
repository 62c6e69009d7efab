"""Requests to paths that are no transport's: which of them may be passed on to Centrifugo.

Never those that reach what is its operators' alone, or that could carry commands of clients past the gateway, however
they are spelled: Go's ServeMux decodes a path and cleans it before it looks for a handler, and what stands between may
do so again. So whatever can be read as one of those names, anywhere in a path, is one; and only methods without a body
are passed, for Centrifugo's transports may stand at any path it is told.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from cpro._fast.http1 import Request
from cpro.doors.gateway.ways import CONNECT

METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
OPERATORS: Final = frozenset({b"api", b"admin", b"metrics", b"debug", b"pprof", b"swagger"})
TRANSPORTS: Final = frozenset({b"emulation", b"websocket", b"sse", b"http_stream", b"webtransport"}) | frozenset(
    {b"uni_websocket", b"uni_sse", b"uni_http_stream", b"uni_grpc"}
)
_MOST_ROUNDS: Final = 4
"""As often a path may be encoded again and again."""


def may_pass(request: Request) -> bool:
    """Whether it may be passed on to Centrifugo, with its path as it is."""
    return (
        request.method in METHODS
        and not request.body
        and not _carries_commands(request.query)
        and not is_kept_back(request.path)
    )


def is_kept_back(path: bytes) -> bool:
    """Whether a path may be read as one that isn't for clients, or is the root, where the admin page is."""
    names = _names(path)
    return names is None or not names or any(name in OPERATORS or name in TRANSPORTS for name in names)


def _names(path: bytes) -> list[bytes] | None:
    """The names between slashes, in all readings; None for a path that nobody needs to be able to ask for."""
    if not path.startswith(b"/"):
        return None
    plain = _decoded(path)
    if plain is None or not plain.isascii() or any(byte < 0x20 or byte == 0x7F for byte in plain):
        return None
    pieces = plain.lower().replace(b"\\", b"/").replace(b"?", b"/").replace(b"#", b"/").replace(b";", b"/").split(b"/")
    return [name for piece in pieces if (name := piece.strip(b" ."))] if not _is_root(pieces) else []


def _is_root(pieces: list[bytes]) -> bool:
    depth = 0
    for piece in pieces:
        depth += -(depth > 0) if piece == b".." else piece not in (b"", b".")
    return depth == 0


def _carries_commands(query: bytes) -> bool:
    plain = _decoded(query.replace(b"+", b" "))
    return plain is None or CONNECT in plain.lower()


def _decoded(text: bytes) -> bytes | None:
    """Until nothing more can be decoded; None where that takes too long to be anybody's honest address."""
    for _ in range(_MOST_ROUNDS):
        decoded = unquote_to_bytes(text)
        if decoded == text:
            return text
        text = decoded
    return None
