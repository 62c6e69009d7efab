"""Telling observers of finished operations: in batches, each in a thread of its own, never in a reply's way."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from cpro.clock import unix_seconds
from cpro.extension import Finished, Observe
from cpro.operation import Operation, Reply, Verdict
from cpro.plugins.calls import Failures

BATCH_S = 0.1
BATCH_OPERATIONS = 1000
BACKLOG_OPERATIONS = 10_000
LAST_BATCHES_S = 1.0
"""How long observers may take at shutdown for what they have not been told yet."""

Batch = tuple[Finished, ...]


class Observers:
    """Gathers operations on the event loop and hands batches to the threads."""

    def __init__(
        self, observers: tuple[tuple[str, Observe], ...], failures: Failures, count_dropped: Callable[[str, int], None]
    ) -> None:
        """`count_dropped` counts operations that a plugin has not been told of."""
        self._threads = [_Thread(plugin, observe, failures, count_dropped) for plugin, observe in observers]
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Finished] = []
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, door: str, operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        """An operation at a door is over; for one door it is a `doors.claims.Tell`."""
        self._gathered.append(
            Finished(
                door,
                operation.kind,
                operation.client,
                operation.user,
                operation.channel,
                operation.method,
                verdict.name.lower(),
                reply.error,
                reply.disconnect,
                duration_ns,
                unix_seconds(),
            )
        )
        if len(self._gathered) >= BATCH_OPERATIONS:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(BATCH_S, self._hand_over)

    def close(self) -> None:
        """Hand over the rest, and wait a little for those who are not done."""
        self._hand_over()
        until = self._loop.time() + LAST_BATCHES_S
        for thread in self._threads:
            thread.end()
        for thread in self._threads:
            thread.join(max(0.0, until - self._loop.time()))

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            batch, self._gathered = tuple(self._gathered), []
            for thread in self._threads:
                thread.give(batch)


class _Thread:
    """One observer. It may hang for ever: its thread does not keep the process from ending."""

    def __init__(
        self, plugin: str, observe: Observe, failures: Failures, count_dropped: Callable[[str, int], None]
    ) -> None:
        self._plugin = plugin
        self._observe = observe
        self._failures = failures
        self._count_dropped = count_dropped
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()  # None ends it
        self._given = 0  # operations; written by the loop's thread only
        self._taken = 0  # the same, by this thread only
        self._thread = threading.Thread(target=self._run, name=f"cpro-observe-{plugin}", daemon=True)
        self._thread.start()

    def give(self, batch: Batch) -> None:
        if self._given - self._taken + len(batch) > BACKLOG_OPERATIONS:
            self._count_dropped(self._plugin, len(batch))
            return
        self._given += len(batch)
        self._batches.put(batch)

    def end(self) -> None:
        self._batches.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._observe(batch)
            except (Exception, SystemExit) as error:  # whatever a plugin may raise
                self._failures.tell(self._plugin, "cpro_observe", error)
            self._taken += len(batch)
