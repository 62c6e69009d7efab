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
from random import random
from typing import Final

from cpro.errors import StoreError, StoreReplyError
from cpro.limits.leases import Answer, Ask, Limit, Request
from cpro.limits.quota import Quota, Standing, Tell, sizes_of
from cpro.limits.redis_store import LeaseStore
from cpro.limits.waiting import Waiter, Waiting
from cpro.logs import Occasional, fields

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 2.0
"""How long a shard that failed is left alone: doubles while it keeps failing."""

_LIMITS: Final = 1024


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter(Waiter):
    quota: Quota
    shard: "_Shard"


class _Shard:
    """One shard of the store as this worker knows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: list[_Waiter] = []
        self.is_away = False
        self.pause_s = 0.0
        self.ask_again_s = 0.0


class SharedQuotas:
    """See the module. `close` before the loop ends."""

    def __init__(self, store: LeaseStore, *, timeout_s: float, count_error: Callable[[], None]) -> None:
        """`timeout_s` is the longest a request waits, `count_error` hears of each that failed at the store."""
        self._store = store
        self._timeout_s = timeout_s
        self._count_error = count_error
        self._loop = asyncio.get_running_loop()
        self._shards: dict[int, _Shard] = {}
        self._waiting = Waiting(self._loop, self._on_overdue)
        self._is_flushing = False
        self._sending: set[asyncio.Task[None]] = set()
        self._occasional = Occasional(log)

    def configure(self, timeout_s: float) -> None:
        """Put settings in force from the next request on."""
        self._timeout_s = timeout_s

    def ask(self, quota: Quota, now_ns: int, tell: Tell) -> Standing | None:
        """Have the store asked; `tell` hears within the timeout, never before this returns."""
        number = self._store.shard_of(quota.key)
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = _Shard(number)
        now_s = self._loop.time()
        if shard.is_away and now_s < shard.ask_again_s:
            self._loop.call_soon(tell, None)
            return None
        waiter = _Waiter(done=tell, quota=quota, shard=shard, deadline_s=now_s + self._timeout_s)
        self._waiting.add(waiter)
        shard.queue.append(waiter)
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
        for shard in self._shards.values():
            waiters, shard.queue = shard.queue, []
            for is_look in (False, True):
                some = [waiter for waiter in waiters if _only_looks(waiter.quota) == is_look]
                if some:
                    task = self._loop.create_task(self._call(shard, some, is_look=is_look))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)

    async def _call(self, shard: _Shard, waiters: list[_Waiter], *, is_look: bool) -> None:
        def hear(index: int, answer: Answer | StoreError) -> None:
            self._land(waiters[index], answer)

        call = self._store.look if is_look else self._store.take
        try:
            await call(shard.number, [_request(waiter.quota) for waiter in waiters], hear)
        except StoreError as error:
            for index in [index for index, waiter in enumerate(waiters) if not waiter.is_told]:
                hear(index, error)
        finally:
            for waiter in waiters:  # cancelled, or a bug
                waiter.tell(None)

    def _land(self, waiter: _Waiter, answer: Answer | StoreError) -> None:
        shard = waiter.shard
        if isinstance(answer, StoreError):
            self._count_error()
            if isinstance(answer, StoreReplyError):  # it is there, and others may fare better
                self._occasional.warning(str(shard.number), "store refused a quota", error=str(answer))
            else:
                self._leave_alone(shard, str(answer))
            waiter.tell(None)
            return
        if shard.is_away:
            shard.is_away = False
            log.info("store of quotas is back", extra=fields(shard=shard.number))
        waiter.tell(_standing(waiter.quota, answer))

    def _leave_alone(self, shard: _Shard, reason: str) -> None:
        now_s = self._loop.time()
        if shard.is_away and now_s < shard.ask_again_s:
            return  # one of those that failed together
        if not shard.is_away:
            log.error("store of quotas is away", extra=fields(shard=shard.number, error=reason))
        shard.pause_s = min(shard.pause_s * 2, LAST_PAUSE_S) if shard.is_away else FIRST_PAUSE_S
        shard.is_away = True
        shard.ask_again_s = now_s + shard.pause_s * (0.5 + random() / 2)  # noqa: S311 -- jitter

    def _on_overdue(self, waiter: _Waiter) -> None:
        """Nobody waits longer than the timeout."""
        self._leave_alone(waiter.shard, "no answer in time")
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
