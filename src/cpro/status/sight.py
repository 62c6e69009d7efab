"""Who was seen a moment ago: stands before `mark_online`, for most operations are of users who have just done another.

An operation of such a user costs one look into a set.
"""

import asyncio
from collections.abc import Callable
from typing import Final

SPAN_S: Final = 5.0
"""For so long at most a worker says nothing more of a user it has seen."""
MOST_USERS: Final = 100_000


class Sight:
    """A worker's. `close` before the loop ends."""

    def __init__(self, mark_online: Callable[[str], None], expire_s: float) -> None:
        """`expire_s`: after which users are forgotten; they are told of more often than that."""
        self._mark_online = mark_online
        self._span_s = min(SPAN_S, expire_s / 4)
        self._seen: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._span_s, self._forget)

    def see(self, user: str) -> None:
        """The user does something."""
        seen = self._seen
        if user not in seen:
            if len(seen) >= MOST_USERS:
                seen.clear()
            seen.add(user)
            self._mark_online(user)

    def close(self) -> None:
        """See nobody any more."""
        self._timer.cancel()

    def _forget(self) -> None:
        self._seen.clear()
        self._timer = self._loop.call_later(self._span_s, self._forget)
