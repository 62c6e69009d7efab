"""Requests of a worker's leaser that are under way: built about one user's buckets, sent by shard, booked once.

Whoever has a request under way has the flight of each record it is about, so that no other worker asks about the same
bucket. The outcome of a request that was not answered is unknown: it is never sent again, and what it would have
brought counts as spent. The arithmetic is `leases`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from cpro._fast.leasetable import LeaseTable, Peek, Record
from cpro.clock import boot_ns
from cpro.errors import StoreError, StoreReplyError
from cpro.limits.gate import USER
from cpro.limits.leases import Answer, Ask, Lease, Limit, Policy, Request, build_ask, take_answer
from cpro.limits.outage import Outages, Part
from cpro.limits.redis_store import LeaseStore
from cpro.limits.rules import Leased
from cpro.limits.waiting import Waiter
from cpro.logs import Occasional, fields

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Flight:
    """One request under way."""

    name: str
    kind: int
    part: Part
    leased: Leased
    records: list[Record | None]
    """One a bucket; None where the table has no room, and the store decides about each operation by itself."""
    request: Request
    waiters: list[Waiter]
    """Whose operations it asks for."""
    holds: bool = True
    """Whether something is in hand after it."""


Ended = Callable[[Flight, Answer | None], None]
"""Hears of each flight once, when its records are free again; None: there was no answer."""


class Flights:
    """Those of one worker. `close` before the loop ends."""

    def __init__(
        self,
        store: LeaseStore,
        table: LeaseTable,
        policy: Policy,
        outages: Outages,
        on_ended: Ended,
        *,
        count_tokens: Callable[[str, int], None],
        count_error: Callable[[int], None],
    ) -> None:
        self._store = store
        self._table = table
        self._policy = policy
        self._outages = outages
        self._on_ended = on_ended
        self._count_tokens = count_tokens
        self._count_error = count_error
        self._loop = asyncio.get_running_loop()
        self._occasional = Occasional(log)
        self._sending: set[asyncio.Task[None]] = set()

    def begin(
        self, name: str, kind: int, leased: Leased, waiters: list[Waiter], *, refused: int = 0, leave: bool = False
    ) -> Flight | None:
        """Build the request about one plan's buckets, to be sent now; None while another worker asks about one.

        `refused` as in `leases.build_ask`."""
        now_ns = boot_ns()
        records: list[Record | None] = []
        for place in range(len(leased.limits)):
            record = self._table.claim(leased.plan, place, name, kind, os.getpid(), now_ns)
            if record is None:
                _release(records)
                return None
            records.append(record or None)
        asks = tuple(
            self._ask(lease_of(record), limit, now_ns, len(waiters), refused, leave=leave) if record else Ask(limit)
            for record, limit in zip(records, leased.limits, strict=True)
        )
        request = Request(key_of(name, kind), asks, len(waiters))
        return Flight(name, kind, self._store.part_of(request.user), leased, records, request, waiters)

    def send(self, flights: Sequence[Flight]) -> None:
        """Have them go out together, by shard."""
        self._outages.on_sending((flight.part for flight in flights), self._loop.time())
        by_shard: dict[int, list[Flight]] = {}
        for flight in flights:
            by_shard.setdefault(flight.part.shard, []).append(flight)
        for shard, some in by_shard.items():
            task = self._loop.create_task(self._take(shard, some))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def close(self, until_s: float) -> None:
        """Wait for those under way, until then by the loop's time; abandon the others."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=max(0.0, until_s - self._loop.time()))
        cancelled = list(self._sending)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)

    async def _take(self, shard: int, flights: list[Flight]) -> None:
        requests = [flight.request for flight in flights]
        open_ = set(range(len(flights)))

        def hear(index: int, answer: Answer | StoreError) -> None:
            if index in open_:
                open_.discard(index)
                self._land(flights[index], answer)

        try:
            await self._store.take(shard, requests, hear)
        except StoreError as error:
            for index in sorted(open_):
                hear(index, error)
        finally:
            for index in sorted(open_):  # cancelled
                self._abandon(flights[index])

    def _ask(self, lease: Lease, limit: Limit, now_ns: int, need: int, refused: int, *, leave: bool) -> Ask:
        """Build what is asked about one lease, and count what has become of its tokens since the last time."""
        is_dropped = now_ns >= lease.deadline_ns or (lease.pace and leave)
        expired = lease.tokens if is_dropped else 0
        spent_then, returned = lease.spent_then, lease.returned
        holder_id, policy = self._table.holder_id, self._policy
        ask = build_ask(lease, limit, holder_id, now_ns, policy, need, refused=refused, leave=leave)
        self._count_tokens("expired", expired)
        self._count_tokens("spent", max(0, ask.spent - spent_then - expired))
        self._count_tokens("returned", max(0, ask.returned - returned))
        return ask

    def _land(self, flight: Flight, answer: Answer | StoreError) -> None:
        if isinstance(answer, StoreError):
            self._on_error(flight, answer)
            self._abandon(flight)
            return
        for part in self._outages.on_answered(flight.part):
            log.info("store of limits is back", extra=fields(**part.fields))
        now_ns = boot_ns()
        try:
            for place, (record, ask) in enumerate(zip(flight.records, flight.request.asks, strict=True)):
                if record:
                    self._book(record, ask, answer, place, now_ns)
            self._count_tokens("spent", answer.admitted * len(flight.records))
            flight.holds = any(record and record.tokens for record in flight.records)
        finally:
            _release(flight.records)
            self._on_ended(flight, answer)

    def _book(self, record: Record, ask: Ask, answer: Answer, place: int, now_ns: int) -> None:
        before, balance = record.granted, answer.balances[place]
        if take_answer(lease_of(record), ask, answer, place, now_ns, self._policy):
            brought = record.granted - before if balance.pace else balance.extra
            self._count_tokens("granted", brought + answer.admitted)

    def _abandon(self, flight: Flight) -> None:
        """No answer: what it would have brought counts as spent."""
        _release(flight.records)
        self._on_ended(flight, None)

    def _on_error(self, flight: Flight, error: StoreError) -> None:
        shard = flight.part.shard
        self._count_error(shard)
        if isinstance(error, StoreReplyError):  # it is there, and others may fare better
            self._occasional.warning(str(shard), "store refused a limit", error=str(error))
            return
        away = self._outages.on_failed(flight.part, flight.request.user, self._loop.time())
        if away is not None:
            log.error("store of limits is away", extra=fields(**away.fields, error=str(error)))


def lease_of(record: Record | Peek) -> Lease:
    """A record of the shared table has the face of a Lease."""
    return cast(Lease, record)


def key_of(name: str, kind: int) -> str:
    """Whose buckets the store keeps: what stands in for an anonymous user may not meet a user of that name."""
    return name if kind == USER else f"\0{kind}:{name}"


def _release(records: Iterable[Record | None]) -> None:
    for record in records:
        if record is not None:
            record.release()
