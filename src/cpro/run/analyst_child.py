"""The analyst process as the supervisor sees it: started with the service, started again when it dies, ended last."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from cpro import logs
from cpro.config.model import Settings
from cpro.errors import StartError
from cpro.extension import BUILT_IN_SINK
from cpro.run.child import Child
from cpro.run.orders import AnalystOrders, Finish, Reload

log = logging.getLogger(__name__)

FIRST_RESTART_S, LAST_RESTART_S = 0.1, 10.0
YOUNG_S: Final = 10.0
LEAST_FLUSH_S, MOST_FLUSH_S = 2.0, 10.0
"""For sending what is left at the end; what remains then is in the journal, and waits for the next start."""
KILL_AFTER_S: Final = 3.0
RELOAD_S: Final = 5.0
"""How long a reload waits for it."""


def sinks_of(settings: Settings, of_plugins: Sequence[str]) -> tuple[str, ...]:
    """Names of all sinks by the settings the service started with; none without analytics."""
    return (BUILT_IN_SINK, *of_plugins) if settings.clickhouse_analytics.enabled else ()


class AnalystKeeper:
    """Nothing else ever waits for that process, but the end of the service."""

    def __init__(self, orders: Callable[[], AnalystOrders], stopping: asyncio.Event) -> None:
        """`orders` makes those of the moment."""
        self._orders = orders
        self._stopping = stopping
        self._child: Child | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StartError when it can't start at all: a sink that can't be loaded, an engine that isn't installed."""
        self._child = await self._begin()
        self._keeping = asyncio.get_running_loop().create_task(self._keep(self._child))

    async def reload(self, settings: Settings) -> None:
        child = self._child
        if child is not None:
            child.tell(Reload(settings))
            with suppress(StartError, TimeoutError):  # it died; its successor starts with the new settings
                await asyncio.wait_for(child.answer(), RELOAD_S)

    async def stop(self, within_s: float) -> None:
        """Have it send what is left, and end it."""
        if self._keeping is None:
            return
        within_s = min(max(within_s, LEAST_FLUSH_S), MOST_FLUSH_S)
        if self._child is not None:
            self._child.tell(Finish(within_s))
        _, late = await asyncio.wait([self._keeping], timeout=within_s + KILL_AFTER_S)
        if late:
            if self._child is not None:
                self._child.kill()
            await asyncio.wait(late)

    async def _begin(self) -> Child:
        orders = self._orders()
        child = await Child.start(orders, name="analyst")
        latest = self._orders()
        if latest.settings is not orders.settings:  # a reload went by while it was starting
            child.tell(Reload(latest.settings))
            await child.answer()
        return child

    async def _keep(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_RESTART_S
        while True:
            born = loop.time()
            status = await child.wait()
            self._child = None
            if self._stopping.is_set():
                return
            wait_s = FIRST_RESTART_S if loop.time() - born > YOUNG_S else min(wait_s * 2, LAST_RESTART_S)
            log.error("analyst died, starting it again", extra=logs.fields(status=status))
            revived = await self._revive(wait_s)
            if revived is None:
                return
            self._child = child = revived
            if self._stopping.is_set():  # the order to finish went out while this one was starting
                child.tell(Finish(LEAST_FLUSH_S))

    async def _revive(self, wait_s: float) -> Child | None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
                return None
            try:
                return await self._begin()
            except StartError as error:
                log.error("analyst can't start", extra=logs.fields(error=str(error)))
                wait_s = min(wait_s * 2, LAST_RESTART_S)
        return None
