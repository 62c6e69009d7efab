"""Statuses that nodes share through Redis: what a worker writes, keeps while Redis is away, and reads.

An update that the node has not made in this second (or minute, for `online`) is kept, one for each user; what is kept
goes out at the end of the loop's turn, a pipeline a shard, one at a time. Nobody waits for that. What fails is kept on
and goes out once the shard is back; beyond a bound, updates are lost, and counted. Reads lay what is kept over what
Redis says, so a worker always sees what it was told itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from random import random
from typing import Final, Protocol, TypeVar

from cpro.clock import unix_seconds
from cpro.errors import StoreError, StoreReplyError, StoreUnavailableError
from cpro.logs import Occasional, fields

from .store import StatusStore, gathered
from .times import UNKNOWN, Times, later, online_step_s

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MOST_KEPT: Final = 100_000
"""Users with updates that one worker holds for each shard that is away."""
AT_ONCE: Final = 1000
"""Updates in one pipeline."""
READS: Final = 4
"""Of one worker from one shard at a time; the others wait for their turn."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 1.0
"""How long a shard that failed is left alone: doubles while it keeps failing."""


class Fold(Protocol):
    """`_fast.statusfold.FoldTable`: what the node's workers have written lately."""

    def claim_active(self, user: str, now: int, step: int) -> bool: ...

    def claim_online(self, user: str, now: int, step: int) -> bool: ...

    def forget(self, user: str) -> None: ...


class _Shard:
    """One shard of the store as this worker knows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kept: dict[str, Times] = {}
        self.flying: dict[str, Times] = {}
        self.landing: asyncio.Future[None] | None = None  # of what is flying
        self.writing: asyncio.Task[None] | None = None
        self.room = asyncio.Semaphore(READS)
        self.is_away = False
        self.pause_s = 0.0
        self.ask_again_s = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def under_way(self, users: Sequence[str]) -> dict[str, Times]:
        """What is on its way to the store."""
        if not self.kept and not self.flying:
            return {}
        kept, flying = self.kept, self.flying
        return {
            user: later(kept.get(user, UNKNOWN), flying.get(user, UNKNOWN))
            for user in users
            if user in kept or user in flying
        }


class SharedStatuses:
    """A worker's. `close` before the loop ends."""

    def __init__(
        self,
        store: StatusStore,
        fold: Fold,
        *,
        timeout_s: float,
        expire_s: int,
        count_error: Callable[[], None],
        count_lost: Callable[[int], None],
        most_kept: int = MOST_KEPT,
        clock: Callable[[], int] = unix_seconds,
    ) -> None:
        """`timeout_s`: of reads; `expire_s`: after which the store forgets.

        `count_error` hears of failed requests to the store, `count_lost` of lost updates.
        """
        self._store = store
        self._fold = fold
        self._timeout_s = timeout_s
        self._step_s = online_step_s(expire_s)
        self._count_error = count_error
        self._count_lost = count_lost
        self._most_kept = most_kept
        self._clock: Final = clock
        self._loop = asyncio.get_running_loop()
        self._shards = [_Shard(number) for number in range(len(store))]
        self._is_flushing = False
        self._is_closing = False
        self._asking: set[asyncio.Task[None]] = set()
        self._occasional = Occasional(log)

    # --- what doors tell it

    def mark_active(self, user: str) -> None:
        """The user is active, and online."""
        now = self._clock()
        if self._fold.claim_active(user, now, self._step_s):
            self._keep(user, (now, now))

    def mark_online(self, user: str) -> None:
        """The user is online; stored once a minute."""
        now = self._clock()
        if self._fold.claim_online(user, now, self._step_s):
            self._keep(user, (0, now))

    def update(self, users: Sequence[str]) -> None:
        """The users are active, says their backend."""
        now = self._clock()
        for user in users:
            if self._fold.claim_active(user, now, 0):
                self._keep(user, (now, 0))

    def ask(self, users: Sequence[str], tell: Callable[[list[Times] | None], None]) -> None:
        """Of each, in their order; None: the store does not answer. Told later, within the timeout."""
        self._begin(partial(self._read, users), tell)

    def forget(self, users: Sequence[str], tell: Callable[[bool | None], None]) -> None:
        """Nothing is known of them any more; None: the store does not answer."""
        for user in users:
            self._fold.forget(user)
            shard = self._shard_of(user)
            shard.kept.pop(user, None)
            shard.flying.pop(user, None)  # so that it does not come back if its flight fails
        self._begin(partial(self._forget, users), tell)

    async def close(self) -> None:
        """Write what is kept, give up what waits; bounded by the timeout."""
        for task in self._asking:
            task.cancel()
        self._is_closing = True
        for shard in self._shards:
            if shard.timer is not None:
                shard.timer.cancel()
            self._write_now(shard)
        writing = [shard.writing for shard in self._shards if shard.writing is not None]
        if writing:
            _, late = await asyncio.wait(writing, timeout=self._timeout_s)
            for task in late:
                task.cancel()
        await asyncio.gather(*writing, *self._asking, return_exceptions=True)
        self._lose(sum(len(shard.kept) + len(shard.flying) for shard in self._shards))

    # --- writing

    def _shard_of(self, user: str) -> _Shard:
        return self._shards[self._store.shard_of(user) if len(self._shards) > 1 else 0]

    def _keep(self, user: str, times: Times) -> None:
        shard = self._shard_of(user)
        known = shard.kept.get(user)
        if known is not None:
            shard.kept[user] = later(known, times)
        elif len(shard.kept) < self._most_kept:
            shard.kept[user] = times
        else:
            self._lose(1)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        for shard in self._shards:
            if shard.kept and shard.timer is None:
                self._write_now(shard)

    def _write_now(self, shard: _Shard) -> None:
        shard.timer = None
        if shard.kept and shard.writing is None:
            shard.writing = self._loop.create_task(self._write(shard))

    async def _write(self, shard: _Shard) -> None:
        """All that is kept, and what comes meanwhile, until the shard fails."""
        try:
            while shard.kept and await self._write_some(shard):
                pass
        finally:
            shard.writing = None

    async def _write_some(self, shard: _Shard) -> bool:
        """Whether the shard is there."""
        if len(shard.kept) <= AT_ONCE:
            shard.flying, shard.kept = shard.kept, {}
        else:
            shard.flying = {user: shard.kept.pop(user) for user in list(islice(shard.kept, AT_ONCE))}
        batch = list(shard.flying.items())
        landing = shard.landing = self._loop.create_future()
        try:
            results = await self._store.write(shard.number, batch)
        finally:
            landing.set_result(None)
        flown, shard.flying = shard.flying, {}
        away: StoreError | None = None
        for (user, times), error in zip(batch, results, strict=True):
            if isinstance(error, StoreReplyError):
                self._refuse(error)
            elif error is not None:
                away = error
                if user in flown:
                    shard.kept[user] = later(times, shard.kept.get(user, UNKNOWN))
        if away is None:
            self._welcome(shard)
            return True
        self._trim(shard)
        self._leave_alone(shard, away)
        if not self._is_closing:
            shard.timer = self._loop.call_at(shard.ask_again_s, self._write_now, shard)
        return False

    def _refuse(self, error: StoreError) -> None:
        """The store is there, but does not take this one: neither now nor later."""
        self._count_error()
        self._lose(1)
        self._occasional.warning("refused", "store refused a status", error=str(error))

    def _trim(self, shard: _Shard) -> None:
        """What came back does not go beyond the bound."""
        excess = max(0, len(shard.kept) - self._most_kept)
        for user in list(islice(shard.kept, excess)):
            del shard.kept[user]
        self._lose(excess)

    def _lose(self, updates: int) -> None:
        if updates:
            self._count_lost(updates)

    # --- reading

    def _begin(self, work: Callable[[], Awaitable[Result]], tell: Callable[[Result | None], None]) -> None:
        task = self._loop.create_task(self._answer(work, tell))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answer(self, work: Callable[[], Awaitable[Result]], tell: Callable[[Result | None], None]) -> None:
        result = None
        try:
            result = await work()
        except StoreError:
            pass  # whoever raised it has said so
        finally:
            tell(result)

    async def _read(self, users: Sequence[str]) -> list[Times]:
        if len(self._shards) == 1:
            return await self._read_from(self._shards[0], users)
        places = self._places(users)
        parts = await gathered(
            self._read_from(shard, [users[place] for place in found]) for shard, found in places.items()
        )
        answer = [UNKNOWN] * len(users)
        for found, part in zip(places.values(), parts, strict=True):
            for place, times in zip(found, part, strict=True):
                answer[place] = times
        return answer

    async def _read_from(self, shard: _Shard, users: Sequence[str]) -> list[Times]:
        if not users:
            return []
        under_way = shard.under_way(users)
        found = await self._at(shard, partial(self._store.read, shard.number, users))
        if not under_way:
            return found
        return [later(times, under_way.get(user, UNKNOWN)) for user, times in zip(users, found, strict=True)]

    async def _forget(self, users: Sequence[str]) -> bool:
        places = self._places(users)
        await gathered(
            self._at(shard, partial(self._forget_at, shard, [users[place] for place in found]))
            for shard, found in places.items()
        )
        return True

    async def _forget_at(self, shard: _Shard, users: Sequence[str]) -> None:
        if shard.landing is not None:
            await asyncio.shield(shard.landing)  # what is under way must not come after
        await self._store.forget(shard.number, users)

    def _places(self, users: Sequence[str]) -> dict[_Shard, list[int]]:
        places: dict[_Shard, list[int]] = {}
        for place, user in enumerate(users):
            places.setdefault(self._shard_of(user), []).append(place)
        return places

    async def _at(self, shard: _Shard, call: Callable[[], Awaitable[Result]]) -> Result:
        """What the shard answers within the timeout. Raises StoreError, at once while it is being left alone."""
        if shard.is_away and self._loop.time() < shard.ask_again_s:
            self._count_error()
            raise StoreUnavailableError("left alone")
        is_asked = False
        try:
            async with asyncio.timeout(self._timeout_s), shard.room:
                is_asked = True
                result = await call()
        except StoreReplyError as error:
            self._count_error()
            self._occasional.warning("asked", "store refused to tell statuses", error=str(error))
            raise
        except (StoreError, TimeoutError) as error:
            if is_asked:
                self._leave_alone(shard, error)
            else:  # it is ourselves who ask too much
                self._count_error()
            raise StoreUnavailableError(str(error)) from error
        self._welcome(shard)
        return result

    # --- a shard that does not answer

    def _leave_alone(self, shard: _Shard, error: Exception) -> None:
        self._count_error()
        now_s = self._loop.time()
        if shard.is_away and now_s < shard.ask_again_s:
            return  # one of those that failed together
        if not shard.is_away:
            log.error("store of statuses is away", extra=fields(shard=shard.number, error=str(error) or "timed out"))
        shard.pause_s = min(shard.pause_s * 2, LAST_PAUSE_S) if shard.is_away else FIRST_PAUSE_S
        shard.is_away = True
        shard.ask_again_s = now_s + shard.pause_s * (0.5 + random() / 2)  # noqa: S311 -- jitter

    def _welcome(self, shard: _Shard) -> None:
        if not shard.is_away:
            return
        shard.is_away = False
        log.info("store of statuses is back", extra=fields(shard=shard.number))
        if shard.timer is not None:
            shard.timer.cancel()
            self._write_now(shard)
