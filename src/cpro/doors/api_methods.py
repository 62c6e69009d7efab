"""How the API door calls a method of its own."""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from cpro.doors.api_answers import BAD_REQUEST
from cpro.logs import Occasional
from cpro.operation import UNREADABLE

log = logging.getLogger(__name__)


class Method(Protocol):
    """One method of the server API."""

    def __call__(self, params: bytes | msgspec.Raw, now_ns: int, answer: Callable[[object], None], /) -> object | None:
        """A result, or an ApiError; None: `answer` hears it later. Raises what is in `UNREADABLE` for bad params."""


_occasional = Occasional(log)


def call(
    name: str, method: Method, params: bytes | msgspec.Raw, now_ns: int, answer: Callable[[object], None]
) -> object | None:
    """The same; bad parameters are an ApiError, too."""
    try:
        return method(params, now_ns, answer)
    except UNREADABLE as error:
        warn_of(name, error)
        return BAD_REQUEST


def warn_of(name: str, error: Exception) -> None:
    """A request that can't be read: say why, now and then."""
    _occasional.warning(name, "bad request to the server API", method=name, error=str(error))
