"""Statuses of users on this node alone: in a table that its workers share, without waiting and without folding."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from cpro.clock import unix_seconds
from cpro.logs import Occasional

from .generations import Generations
from .times import ONLINE_STEP_S, Times

log = logging.getLogger(__name__)


def oldest_at(now: int, expire_s: int) -> int:
    """Statuses up to this second have expired."""
    return max(0, now - expire_s)


class LocalStatuses:
    """A worker's; never waits, so everything is answered at once."""

    def __init__(
        self,
        table: Generations,
        expire_s: int,
        count_lost: Callable[[int], None],
        clock: Callable[[], int] = unix_seconds,
    ) -> None:
        """`count_lost` hears of updates that the table had no room for."""
        self._table = table
        self._expire_s = expire_s
        self._count_lost = count_lost
        self._clock: Final = clock
        self._occasional = Occasional(log)

    def mark_active(self, user: str) -> None:
        """The user is active, and online."""
        now = self._clock()
        self._update(user, now, now, now)

    def mark_online(self, user: str) -> None:
        """The user is online; stored once a minute."""
        now = self._clock()
        self._update(user, 0, now, now, ONLINE_STEP_S)

    def update(self, users: Sequence[str]) -> None:
        """The users are active, says their backend."""
        now = self._clock()
        for user in users:
            self._update(user, now, 0, now)

    def ask(self, users: Sequence[str], tell: object) -> list[Times]:
        """Of each, in their order."""
        return self._table.get_many(users, oldest_at(self._clock(), self._expire_s))

    def forget(self, users: Sequence[str], tell: object) -> bool:
        """Nothing is known of them any more."""
        self._table.forget(users)
        return True

    async def close(self) -> None:
        self._table.close()

    def _update(self, user: str, active: int, online: int, now: int, step: int = 0) -> None:
        if not self._table.update(user, active, online, oldest_at(now, self._expire_s), step):
            self._count_lost(1)
            self._occasional.warning("full", "status table is full, and the disk has no room for a larger one")
