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
from typing import Final, Protocol, TypeVar

from cpro.clock import unix_seconds
from cpro.errors import StoreError, StoreReplyError, StoreUnavailableError
from cpro.logs import Occasional

from .shard import Shard
from .store import StatusStore, gathered
from .times import UNKNOWN, Times, later, online_step_s

Result = TypeVar("Result")

log = logging.getLogger(__name__)

MOST_KEPT: Final = 100_000
"""Users with updates that one worker holds for each shard that is away."""
AT_ONCE: Final = 1000
"""Updates in one pipeline."""


class Fold(Protocol):
    """`_fast.statusfold.FoldTable`: what the node's workers have written lately."""

    def claim_active(self, user: str, now: int, step: int) -> bool: ...

    def claim_online(self, user: str, now: int, step: int) -> bool: ...

    def forget(self, user: str) -> None: ...


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
        self._shards = [Shard(number) for number in range(len(store))]
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
            self._shard_of(user).forget(user)
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

    def _shard_of(self, user: str) -> Shard:
        return self._shards[self._store.shard_of(user) if len(self._shards) > 1 else 0]

    def _keep(self, user: str, times: Times) -> None:
        shard = self._shard_of(user)
        if user in shard.kept or len(shard.kept) < self._most_kept:
            shard.keep(user, times)
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

    def _write_now(self, shard: Shard) -> None:
        shard.timer = None
        if shard.kept and shard.writing is None:
            shard.writing = self._loop.create_task(self._write(shard))

    async def _write(self, shard: Shard) -> None:
        """All that is kept, and what comes meanwhile, until the shard fails."""
        try:
            while shard.kept and await self._write_some(shard):
                pass
        finally:
            shard.writing = None

    async def _write_some(self, shard: Shard) -> bool:
        """Whether the shard is there."""
        batch = shard.take_off(AT_ONCE)
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
                    shard.keep(user, times)
        if away is None:
            self._welcome(shard)
            return True
        self._lose(shard.trim(self._most_kept))
        self._leave_alone(shard, away)
        if not self._is_closing:
            shard.timer = self._loop.call_at(shard.ask_again_s, self._write_now, shard)
        return False

    def _refuse(self, error: StoreError) -> None:
        """The store is there, but does not take this one: neither now nor later."""
        self._count_error()
        self._lose(1)
        self._occasional.warning("refused", "store refused a status", error=str(error))

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

    async def _read_from(self, shard: Shard, users: Sequence[str]) -> list[Times]:
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

    async def _forget_at(self, shard: Shard, users: Sequence[str]) -> None:
        if shard.landing is not None:
            await asyncio.shield(shard.landing)  # what is under way must not come after
        await self._store.forget(shard.number, users)

    def _places(self, users: Sequence[str]) -> dict[Shard, list[int]]:
        places: dict[Shard, list[int]] = {}
        for place, user in enumerate(users):
            places.setdefault(self._shard_of(user), []).append(place)
        return places

    async def _at(self, shard: Shard, call: Callable[[], Awaitable[Result]]) -> Result:
        """What the shard answers within the timeout. Raises StoreError, at once while it is being left alone."""
        if shard.is_left_alone(self._loop.time()):
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

    def _leave_alone(self, shard: Shard, error: Exception) -> None:
        self._count_error()
        shard.leave_alone(self._loop.time(), error)

    def _welcome(self, shard: Shard) -> None:
        if shard.welcome() and shard.timer is not None:
            shard.timer.cancel()
            self._write_now(shard)
