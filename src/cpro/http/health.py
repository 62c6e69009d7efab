"""Health of an origin: skipped after failures, probed in the background until it accepts connections again."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from cpro.http.endpoints import Origin

FAILURES_TO_SKIP = 3
PROBE_INTERVAL_S = 1.0
PROBE_JITTER = 0.2

_log = logging.getLogger("cpro.http")


class Health:
    """Counts failures in a row; owns the one probe task of its origin, from the skip to the recovery or `close`."""

    __slots__ = ("_loop", "_on_change", "_origin", "_probe", "_task", "failures", "is_watched", "skipped")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        probe: Callable[[], Awaitable[bool]],
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._origin = origin
        self._probe = probe
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self.is_watched = False  # some route has another endpoint to go to
        self.failures = 0
        self.skipped = False

    def on_answer(self) -> None:
        """Any answer will do, a 5xx too. Called only when `failures` isn't zero."""
        if self.skipped:
            self._take_back()
        self.failures = 0

    def on_refused(self, reason: str) -> None:
        self.failures = FAILURES_TO_SKIP
        self._skip(reason)

    def on_failure(self, reason: str) -> None:
        """A timeout or a reset."""
        self.failures += 1
        if self.failures >= FAILURES_TO_SKIP:
            self._skip(f"{reason} {FAILURES_TO_SKIP} times in a row")

    def close(self) -> list[asyncio.Task[None]]:
        """Stop watching and cancel the probe; returns what is left to wait for."""
        self.is_watched = False
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    def _skip(self, reason: str) -> None:
        if self.skipped or not self.is_watched:
            return
        self.skipped = True
        self._task = self._loop.create_task(self._probe_until_it_accepts())
        _log.warning("upstream %s is skipped until it recovers: %s", self._origin, reason)
        self._on_change()

    def _take_back(self) -> None:
        self.skipped = False
        if self._task is not None:
            self._task.cancel()
            self._task = None
        _log.info("upstream %s is back", self._origin)
        self._on_change()

    async def _probe_until_it_accepts(self) -> None:
        accepts = False
        while not accepts:
            spread = 1 + PROBE_JITTER * random.uniform(-1, 1)  # noqa: S311
            await asyncio.sleep(PROBE_INTERVAL_S * spread)
            accepts = await self._probe()
        self.failures = FAILURES_TO_SKIP - 1  # accepting is not answering: the next failure skips it again
        self._task = None
        self._take_back()
