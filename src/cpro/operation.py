"""The nouns every door and feature shares: an operation, and the reply to it.

Names and codes are Centrifugo's (client protocol, error codes).
"""

from enum import IntEnum
from typing import Any

import msgspec

OPERATIONS = (
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "history",
    "presence",
    "presence_stats",
    "refresh",
    "sub_refresh",
    "rpc",
    "map_publish",
    "map_remove",
    "track",
    "untrack",
)
"""What users can do, in the words of Centrifugo PRO's rate limits."""

NEVER_REFUSED = frozenset({"unsubscribe", "untrack"})
"""Operations that take a token if there is one, and go on without: SDKs drop the connection when these fail."""


class Verdict(IntEnum):
    """What became of an operation. Limits say one of the first three."""

    ADMITTED = 0
    REFUSED = 1
    DRY_RUN = 2
    """Admitted only because the limit that said no is in dry run."""
    FAILED = 3
    """Admitted, but whoever should have handled it failed."""
    INVALID = 4
    """Not a request of Centrifugo's."""


class Operation(msgspec.Struct, gc=False):
    """Something a user wants to do now.

    `user` is empty for anonymous users (and for a connect, until its answer names one), `channel` and `method`
    where the operation has none, `address` where nobody asked for the end user's address. `noted` is what the
    door keeps for those it tells of the operation once it is over, where they asked for it.
    """

    kind: str
    client: str
    user: str
    channel: str = ""
    method: str = ""
    address: str = ""
    started_ns: int = 0
    noted: Any = None


class ScopedOperation(Operation, gc=False):
    """An operation whose own buckets are kept apart by a scope, say a channel; empty for none."""

    scope: str = ""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What the caller gets: an HTTP status and a JSON body in Centrifugo's proxy envelope.

    `error` and `disconnect` repeat the codes inside the body (0 = none), so that nobody has to parse it again.
    `extra` are more header lines, each with CRLF; of other statuses than 200 only.
    """

    body: bytes
    error: int = 0
    disconnect: int = 0
    status: int = 200
    content_type: bytes = b"application/json"
    extra: bytes = b""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises: bad syntax or types, text that is not UTF-8, nesting beyond reason."""


def error_reply(code: int, message: str, *, temporary: bool = False) -> Reply:
    """A refusal or failure as the client protocol spells it; SDKs retry only when `temporary` is set."""
    error = {"code": code, "message": message, "temporary": temporary}
    return Reply(msgspec.json.encode({"error": error}), error=code)


def status_reply(status: int) -> Reply:
    """An empty answer that says everything by its HTTP status."""
    return Reply(b"", status=status)


INTERNAL_ERROR = error_reply(100, "internal server error", temporary=True)
PERMISSION_DENIED = error_reply(103, "permission denied")
BAD_REQUEST = error_reply(107, "bad request")
NOT_AVAILABLE = error_reply(108, "not available")
TOO_MANY_REQUESTS = error_reply(111, "too many requests", temporary=True)
EMPTY = Reply(b"{}")
EMPTY_RESULT = Reply(b'{"result":{}}')
