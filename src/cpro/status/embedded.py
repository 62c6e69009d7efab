"""Statuses of users on this node alone: in a table that its workers share, without waiting and without folding."""

from collections.abc import Callable, Sequence
from typing import Final

from cpro.clock import unix_seconds

from .generations import Generations
from .times import Times, online_step_s


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
        self._store: Final = table.update
        self._expire_s = expire_s + 1  # times are cut off to whole seconds: nobody is forgotten early
        self._step_s = online_step_s(expire_s)
        self._count_lost = count_lost
        self._clock: Final = clock

    def mark_active(self, user: str) -> None:
        """The user is active, and online."""
        now = self._clock()
        if not self._store(user, now, now, now - self._expire_s):
            self._lose()

    def mark_online(self, user: str) -> None:
        """The user is online; stored once a minute."""
        now = self._clock()
        if not self._store(user, 0, now, now - self._expire_s, self._step_s):
            self._lose()

    def update(self, users: Sequence[str]) -> None:
        """The users are active, says their backend."""
        now = self._clock()
        for user in users:
            if not self._store(user, now, 0, now - self._expire_s):
                self._lose()

    def ask(self, users: Sequence[str], tell: object) -> list[Times]:
        """Of each, in their order."""
        return self._table.get_many(users, self._clock() - self._expire_s)

    def forget(self, users: Sequence[str], tell: object) -> bool:
        """Nothing is known of them any more."""
        self._table.forget(users)
        return True

    async def close(self) -> None:
        self._table.close()

    def _lose(self) -> None:
        self._count_lost(1)
