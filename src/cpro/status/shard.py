"""One shard of the store of statuses as a worker knows it: what is to be written there, and whether it answers."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from random import random
from typing import Final

from cpro.logs import fields

from .times import UNKNOWN, Times, later

log = logging.getLogger(__name__)

READS: Final = 4
"""Of one worker from one shard at a time; the others wait for their turn."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 1.0
"""How long a shard that failed is left alone: doubles while it keeps failing."""


class Shard:
    """What is `kept` goes out next; what is `flying` is on its way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kept: dict[str, Times] = {}
        self.flying: dict[str, Times] = {}
        self.landing: asyncio.Future[None] | None = None  # of what is flying
        self.writing: asyncio.Task[None] | None = None
        self.room = asyncio.Semaphore(READS)
        self.timer: asyncio.TimerHandle | None = None
        self.ask_again_s = 0.0
        self.is_away = False
        self._pause_s = 0.0

    # --- what is to be written

    def keep(self, user: str, times: Times) -> None:
        """Neither time moves back."""
        known = self.kept.get(user)
        self.kept[user] = times if known is None else later(known, times)

    def take_off(self, most: int) -> list[tuple[str, Times]]:
        """What is kept, or so many of it, is flying from now on."""
        if len(self.kept) <= most:
            self.flying, self.kept = self.kept, {}
        else:
            self.flying = {user: self.kept.pop(user) for user in list(islice(self.kept, most))}
        return list(self.flying.items())

    def forget(self, user: str) -> None:
        """Not even a flight that fails brings it back."""
        self.kept.pop(user, None)
        self.flying.pop(user, None)

    def trim(self, most: int) -> int:
        """Keep no more than that; how many are lost."""
        excess = max(0, len(self.kept) - most)
        for user in list(islice(self.kept, excess)):
            del self.kept[user]
        return excess

    def under_way(self, users: Sequence[str]) -> dict[str, Times]:
        """What of theirs is on its way to the store."""
        if not self.kept and not self.flying:
            return {}
        kept, flying = self.kept, self.flying
        return {
            user: later(kept.get(user, UNKNOWN), flying.get(user, UNKNOWN))
            for user in users
            if user in kept or user in flying
        }

    # --- whether it answers; times are the loop's

    def is_left_alone(self, now_s: float) -> bool:
        return self.is_away and now_s < self.ask_again_s

    def leave_alone(self, now_s: float, error: Exception) -> None:
        """It did not answer: for a while nobody asks it. Failures of requests that were under way together are one."""
        if self.is_left_alone(now_s):
            return
        if not self.is_away:
            log.error("store of statuses is away", extra=fields(shard=self.number, error=str(error) or "timed out"))
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S) if self.is_away else FIRST_PAUSE_S
        self.is_away = True
        self.ask_again_s = now_s + self._pause_s * (0.5 + random() / 2)  # noqa: S311 -- jitter

    def welcome(self) -> bool:
        """It answers; whether it was away."""
        if not self.is_away:
            return False
        self.is_away = False
        log.info("store of statuses is back", extra=fields(shard=self.number))
        return True
