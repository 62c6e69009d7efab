"""What ClickHouse answered, or that it did not -> what is to become of a batch.

Codes are those of ClickHouse's ErrorCodes.cpp.
"""

from typing import Final

import urllib3.exceptions as http
from clickhouse_connect.driver.exceptions import ClickHouseError

from cpro.errors import SinkError, SinkRejectError, SinkSplitError

_TOO_LARGE: Final = frozenset({241})  # MEMORY_LIMIT_EXCEEDED
_NO_SCHEMA: Final = frozenset({8, 16, 47, 60, 81})  # no such column, identifier, table, database
_TURNED_AWAY: Final = frozenset({192, 193, 194, 202, 497, 516})  # user, password, too many queries, no right
_BAD_DATA: Final = frozenset({6, 27, 32, 33, 43, 44, 50, 53, 69, 70, 117, 128, 131, 190, 321, 349, 469})
"""Cannot parse, read or convert; a constraint that is violated."""
_MOST_CHARS: Final = 500


class NotSentError(SinkError):
    """The server surely has nothing of the batch: another may be asked."""


class NoSchemaError(SinkError):
    """A table, or a column of it, is not there."""


def translate(error: ClickHouseError) -> SinkError:
    code = getattr(error, "code", None)
    text = _told(error)
    if (code in _TOO_LARGE and "(total)" not in text) or (code is None and "HTTP status 413" in text):
        return SinkSplitError(text)  # "(total)": all queries together have too much, not this one
    if code in _NO_SCHEMA:
        return NoSchemaError(text)
    if code in _TURNED_AWAY or was_not_sent(error):
        return NotSentError(text)
    if code in _BAD_DATA:
        return SinkRejectError(text)
    return SinkError(text)


def was_not_sent(error: BaseException | None) -> bool:
    """Whether there was no connection to send anything over."""
    while error is not None:
        if isinstance(error, http.NewConnectionError | http.ConnectTimeoutError):
            return True
        error = error.reason if isinstance(error, http.MaxRetryError) else error.__cause__
    return False


def _told(error: ClickHouseError) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "…"
