"""What an error reply means: the table of Redis's error codes, and its translation into ours.

Every foreign exception becomes one of ours here or in `node`; nothing else of redis-py's leaves this package.
"""

from enum import Enum, auto
from typing import Final

from redis import exceptions

from cpro.errors import StoreReplyError, StoreUnavailableError

Reply = object  # bytes, int, float, bool, None, list or dict, as RESP has them


class Next(Enum):
    """What to do with a call whose reply is an error."""

    LOAD = auto()  # the server has forgotten the script
    MOVED = auto()  # the slot lives elsewhere
    ASK = auto()  # the slot is on its way: ask there, this once
    AGAIN = auto()  # the slot is on its way, and not all of it is anywhere
    AWAY = auto()  # not executed, and the server can't for now
    FAULT = auto()  # the call itself is wrong


_BY_CLASS: Final[tuple[tuple[type[Exception], Next], ...]] = (  # subclasses before their bases
    (exceptions.NoScriptError, Next.LOAD),
    (exceptions.MovedError, Next.MOVED),
    (exceptions.AskError, Next.ASK),
    (exceptions.TryAgainError, Next.AGAIN),
    (exceptions.ClusterDownError, Next.AWAY),  # MASTERDOWN too
    (exceptions.BusyLoadingError, Next.AWAY),
    (exceptions.ReadOnlyError, Next.AWAY),  # a script writes nothing before its first write fails
    (exceptions.OutOfMemoryError, Next.AWAY),  # likewise: Redis looks at memory only until a script has written
    (exceptions.AuthenticationError, Next.AWAY),  # credentials changed under a living connection
)
_AWAY_CODES: Final = frozenset({"BUSY", "MISCONF", "NOREPLICAS"})  # redis-py has no classes for these

ERROR_REPLIES: Final = (
    exceptions.ResponseError,
    exceptions.BusyLoadingError,  # redis-py derives it from its ConnectionError, but the connection is fine
    exceptions.AuthenticationError,
)
"""Errors that are replies; any other exception means that the connection is lost."""


def next_of(error: Exception) -> Next:
    for kind, what in _BY_CLASS:
        if isinstance(error, kind):
            return what
    return Next.AWAY if str(error).partition(" ")[0] in _AWAY_CODES else Next.FAULT


def translate(error: Exception) -> StoreUnavailableError | StoreReplyError:
    """An error reply as ours; for one that could be followed, it means: given up."""
    if next_of(error) is Next.FAULT:
        return StoreReplyError(f"Redis: {error}")
    return StoreUnavailableError(f"Redis: {type(error).__name__}: {error}")
