"""Quotas shared by all nodes: the store is asked for each request, exactly and without leases; one per worker.

What is asked in one turn of the loop goes out together, by shard. Who waits hears within the timeout. A request whose
answer is late or lost may have spent its tokens; it is never sent again. A shard that does not answer is left alone
for a moment, so that nobody needs to wait to find out.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cpro.errors import StoreError, StoreReplyError
from cpro.limits.leases import Answer, Ask, Limit, Request
from cpro.limits.outage import Outages, Part
from cpro.limits.quota import Quota, Standing, Tell, sizes_of
from cpro.limits.redis_store import LeaseStore
from cpro.limits.waiting import Waiter, Waiting
from cpro.logs import Occasional, fields

log = logging.getLogger(__name__)

_LIMITS: Final = 1024


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter(Waiter):
    quota: Quota
    part: Part


class SharedQuotas:
    """See the module. `close` before the loop ends."""

    def __init__(self, store: LeaseStore, *, timeout_s: float, count_error: Callable[[], None]) -> None:
        """`timeout_s` is the longest a request waits, `count_error` hears of each that failed at the store."""
        self._store = store
        self._timeout_s = timeout_s
        self._count_error = count_error
        self._loop = asyncio.get_running_loop()
        self._outages = Outages(store.part_of)
        self._queue: list[_Waiter] = []
        self._waiting = Waiting(self._loop, self._on_overdue)
        self._is_flushing = False
        self._sending: set[asyncio.Task[None]] = set()
        self._occasional = Occasional(log)

    def configure(self, timeout_s: float) -> None:
        """Put settings in force from the next request on."""
        self._timeout_s = timeout_s

    def ask(self, quota: Quota, now_ns: int, tell: Tell) -> Standing | None:
        """Have the store asked; `tell` hears within the timeout, never before this returns."""
        now_s = self._loop.time()
        if self._outages.is_left_alone(quota.key, now_s):
            self._loop.call_soon(tell, None)
            return None
        part = self._store.part_of(quota.key)
        waiter = _Waiter(done=tell, quota=quota, part=part, deadline_s=now_s + self._timeout_s)
        self._waiting.add(waiter)
        self._queue.append(waiter)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)
        return None

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._waiting.close(None)

    # --- the store ---

    def _flush(self) -> None:
        self._is_flushing = False
        waiters, self._queue = self._queue, []
        self._outages.on_sending((waiter.part for waiter in waiters), self._loop.time())
        calls: dict[tuple[int, bool], list[_Waiter]] = {}
        for waiter in waiters:
            calls.setdefault((waiter.part.shard, _only_looks(waiter.quota)), []).append(waiter)
        for (shard, is_look), some in calls.items():
            task = self._loop.create_task(self._call(shard, some, is_look=is_look))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _call(self, shard: int, waiters: list[_Waiter], *, is_look: bool) -> None:
        def hear(index: int, answer: Answer | StoreError) -> None:
            self._land(waiters[index], answer)

        call = self._store.look if is_look else self._store.take
        try:
            await call(shard, [_request(waiter.quota) for waiter in waiters], hear)
        except StoreError as error:
            for index in [index for index, waiter in enumerate(waiters) if not waiter.is_told]:
                hear(index, error)
        finally:
            for waiter in waiters:  # cancelled, or a bug
                waiter.tell(None)

    def _land(self, waiter: _Waiter, answer: Answer | StoreError) -> None:
        if isinstance(answer, StoreError):
            self._count_error()
            if isinstance(answer, StoreReplyError):  # it is there, and others may fare better
                self._occasional.warning(str(waiter.part.shard), "store refused a quota", error=str(answer))
            else:
                self._leave_alone(waiter, str(answer))
            waiter.tell(None)
            return
        for part in self._outages.on_answered(waiter.part):
            log.info("store of quotas is back", extra=fields(**part.fields))
        waiter.tell(_standing(waiter.quota, answer))

    def _leave_alone(self, waiter: _Waiter, reason: str) -> None:
        away = self._outages.on_failed(waiter.part, waiter.quota.key, self._loop.time())
        if away is not None:
            log.error("store of quotas is away", extra=fields(**away.fields, error=reason))

    def _on_overdue(self, waiter: _Waiter) -> None:
        """Nobody waits longer than the timeout."""
        self._leave_alone(waiter, "no answer in time")
        waiter.tell(None)


def _only_looks(quota: Quota) -> bool:
    return quota.dry_run or quota.score == 0


def _request(quota: Quota) -> Request:
    need, score = (1, quota.score) if quota.score else (0, 1)
    return Request(quota.key, (_ask(quota.interval_ms, quota.rate),), need, score)


def _standing(quota: Quota, answer: Answer) -> Standing:
    left = answer.balances[0].left
    if not quota.score or answer.admitted:
        return Standing(True, left)
    return Standing(False, left, answer.wait_ns)


@lru_cache(_LIMITS)
def _ask(interval_ms: int, rate: int) -> Ask:
    return Ask(Limit(*sizes_of(interval_ms, rate)))
