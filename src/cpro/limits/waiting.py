"""Those who wait for a store: each is told once, in time, and one timer serves them all."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

log = logging.getLogger(__name__)

TIMER_SLACK_S: Final = 0.0005
"""uvloop's timers and clock have a resolution of a millisecond."""


@dataclass(slots=True, eq=False, kw_only=True)
class Waiter:
    """One who waits, until `deadline_s` of the loop's time at the latest."""

    done: Callable[[Any], None]
    deadline_s: float
    is_told: bool = False

    def tell(self, outcome: object) -> None:
        """Say what became of it; the first word counts."""
        if not self.is_told:
            self.is_told = True
            try:
                self.done(outcome)
            except Exception:  # its own affair: others wait to be told
                log.exception("who waited for a store failed")


Kind = TypeVar("Kind", bound=Waiter)


class Waiting(Generic[Kind]):
    """Waiters in the order they came. All wait equally long, so the first is the next whose time is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_overdue: Callable[[Kind], None]) -> None:
        """`on_overdue` takes one whom nobody has told anything in time, and tells it."""
        self._loop = loop
        self._on_overdue = on_overdue
        self._line: deque[Kind] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._line)

    @property
    def has_timer(self) -> bool:
        return self._timer is not None

    def add(self, waiter: Kind) -> None:
        """It waits from now on."""
        self._line.append(waiter)
        if self._timer is None:
            self._set_timer()

    def shorten(self, latest_s: float) -> None:
        """Nobody waits beyond `latest_s` of the loop's time."""
        for waiter in self._line:
            waiter.deadline_s = min(waiter.deadline_s, latest_s)
        self._set_timer()

    def close(self, outcome: object) -> None:
        """Tell all who still wait."""
        for waiter in self._line:
            waiter.tell(outcome)
        self._line.clear()
        self._set_timer()

    def _on_timer(self) -> None:
        now_s = self._loop.time() + TIMER_SLACK_S
        while self._line and (self._line[0].is_told or self._line[0].deadline_s <= now_s):
            waiter = self._line.popleft()
            if not waiter.is_told:
                self._on_overdue(waiter)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._line[0].deadline_s, self._on_timer) if self._line else None
