"""Finds out anew who serves what: in the background, one at a time, and not too often."""

import asyncio
from collections.abc import Awaitable, Callable

from cpro.errors import StoreError, StoreUnavailableError


class Refresher:
    """Runs `refresh` (which raises StoreError when nobody answers) at most once per `interval_s`."""

    def __init__(self, refresh: Callable[[], Awaitable[None]], interval_s: float) -> None:
        self._refresh = refresh
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._ended_s = -interval_s
        self._closed = False

    def request(self) -> None:
        """Soon, without waiting; a request while one is running is answered by that one."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._on_done)

    def is_older_than(self, seconds: float) -> bool:
        """Whether the last answer (or failure to get one) was that long ago."""
        return asyncio.get_running_loop().time() - self._ended_s > seconds

    async def wait(self) -> None:
        """Now, or as soon as the interval allows; StoreError when nobody knows."""
        self.request()
        task = self._task
        if task is None:
            raise StoreUnavailableError("Redis: closed")
        await asyncio.wait([task])  # a waiter that is cancelled leaves it to the others
        if task.cancelled():
            raise StoreUnavailableError("Redis: closed")
        task.result()

    async def aclose(self) -> None:
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._ended_s + self._interval_s - loop.time()))
        try:
            await self._refresh()
        finally:
            self._ended_s = loop.time()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            error = task.exception()  # retrieved: the next call that needs an answer asks again
            if error is not None and not isinstance(error, StoreError):
                task.get_loop().call_exception_handler({"message": "refresh of Redis nodes failed", "exception": error})
