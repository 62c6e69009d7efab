"""Calling into plugins while serving, so that nothing they do hurts anybody else: one call is one task with a deadline.

Whatever a plugin does wrong is counted, and logged at most once a minute for each plugin and place.
"""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from cpro.logs import Occasional

log = logging.getLogger(__name__)

Done = Callable[[object, BaseException | None], None]
"""Gets what a call returned, or why it failed; exactly once, never before the call has been started."""

LAST_WAIT_S = 0.5
"""For what has been cancelled to end."""


class Failures:
    """Where everything that goes wrong in plugins is told."""

    def __init__(self, count: Callable[[str], None]) -> None:
        """`count` counts one failure of a plugin."""
        self._count = count
        self._occasional = Occasional(log)

    def tell(self, plugin: str, place: str, error: BaseException) -> None:
        self._count(plugin)
        text = "".join(traceback.format_exception(error)) if error.__traceback__ else f"{error}"
        self._occasional.warning(f"{plugin} {place}", "plugin failed", plugin=plugin, place=place, error=text.rstrip())


class Calls:
    """The calls under way in this process, and work that plugins do in the background."""

    def __init__(self, failures: Failures) -> None:
        self.failures = failures
        self.timeout_s = 1.0
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object], done: Done) -> None:
        """Run to its end, or until `timeout_s` has passed."""
        _Call(self._task(work), self.timeout_s, done)

    def spawn(self, plugin: str, work: Coroutine[Any, Any, object]) -> None:
        """Run with nobody waiting for it."""
        self._task(_guarded(work)).add_done_callback(partial(self._on_background_end, plugin))

    async def idle(self, timeout_s: float) -> None:
        """Wait until nothing runs; TimeoutError when something goes on."""
        async with asyncio.timeout(timeout_s):
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WAIT_S)

    def _task(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_background_end(self, plugin: str, task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failures.tell(plugin, "background", error)


class _Call:
    """A task that is waited for until it ends or its time is up; what comes after that is thrown away."""

    def __init__(self, task: asyncio.Task[object], timeout_s: float, done: Done) -> None:
        self._task = task
        self._done: Done | None = done
        self._timer = task.get_loop().call_later(timeout_s, self._expire, timeout_s)
        task.add_done_callback(self._on_end)

    def _expire(self, timeout_s: float) -> None:
        self._tell(None, TimeoutError(f"no answer within {timeout_s:g} s"))
        self._task.cancel()

    def _on_end(self, task: asyncio.Task[object]) -> None:
        self._timer.cancel()
        if task.cancelled():
            self._tell(None, RuntimeError("was cancelled"))
        elif error := task.exception():
            self._tell(None, error)
        else:
            self._tell(task.result(), None)

    def _tell(self, result: object, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(result, error)


async def call(function: Callable[..., Awaitable[object] | object], *arguments: object) -> object:
    """What a plugin's function returns, plain or async. A SystemExit must not end the process."""
    try:
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"raised {type(error).__name__}") from error


async def _guarded(work: Coroutine[Any, Any, object]) -> object:
    return await call(lambda: work)
