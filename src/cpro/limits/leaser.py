"""Gets tokens of cluster-wide buckets from the store for the operations of this node; one per worker.

What is in hand lies in the lease table, where every worker spends it without asking anybody. This decides when the
store is asked: when an operation finds too little in hand, before it runs low, when nobody spends it any more, and at
the end. One request per user is under way at a time in a worker; all that begin in one turn of the loop go out
together (`flights`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from random import random

from cpro._fast.leasetable import ASK, SPENT, SPENT_DUE, LeaseTable, Peek
from cpro.clock import boot_ns
from cpro.limits.flights import Flight, Flights, key_of, lease_of
from cpro.limits.leases import Answer, Policy, is_over
from cpro.limits.outage import Outages
from cpro.limits.redis_store import LeaseStore
from cpro.limits.rules import Leased
from cpro.limits.waiting import Waiter, Waiting

BUSY_RETRY_S = 0.003
"""When to look again after another worker was found asking about the same bucket."""
SWEEP_S, SWEEP_USERS = 0.05, 2000
"""Every so often so many users are looked at for leases to renew or give back."""
PRESSED_NS = 1_000_000_000
"""How long it is remembered that operations were refused unasked, though nothing is in hand."""
LEAVE_S, LEAVE_AGAIN_S = 1.0, 0.01
"""Longest that a stop waits for leases to be taken back; how often it looks whether requests in its way have ended."""


class Outcome(Enum):
    """What a waiting operation hears."""

    GRANTED = "granted"
    REFUSED = "refused"
    STORE_AWAY = "store away"


Done = Callable[[Outcome], None]


@dataclass(slots=True, eq=False)
class _User:
    """One user's business with the store in this worker."""

    name: str
    kind: int
    key: str
    """What the store knows the user by."""
    lines: dict[Leased, list[Waiter]] = field(default_factory=dict)
    """Who waits, by what they have to pay from. An empty line is one that had something in hand when last looked at."""
    low: Leased | None = None
    """What runs low and should be refilled before somebody has to wait."""
    refused: dict[Leased, int] = field(default_factory=dict)
    """How many were, unasked, since the store was asked last; where a bucket may stream."""
    refused_ns: int = -PRESSED_NS
    flight: Flight | None = None
    is_queued: bool = False
    retry: asyncio.TimerHandle | None = None
    """Set while another worker was found asking and this one looks again."""


class Leaser:
    """See the module. `close` before the loop ends."""

    def __init__(
        self,
        store: LeaseStore,
        table: LeaseTable,
        policy: Policy,
        *,
        timeout_s: float,
        count_tokens: Callable[[str, int], None],
        count_error: Callable[[int], None],
    ) -> None:
        """`timeout_s` is the longest an operation waits. `count_tokens` hears of granted, spent, returned and expired
        tokens, `count_error` of each request that failed, by shard."""
        self._table = table
        self._policy = policy
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._outages = Outages(store.part_of)
        self._flights = Flights(
            store,
            table,
            policy,
            self._outages,
            self._on_ended,
            count_tokens=count_tokens,
            count_error=count_error,
        )
        self._users: OrderedDict[tuple[int, str], _User] = OrderedDict()  # who was swept longest ago comes first
        self._queued: list[_User] = []
        self._local_until_ns = 0
        self.is_troubled = False
        """Whether buckets kept on this node may have a say about anybody: up to a sweep longer than they do."""
        self._waiting = Waiting(self._loop, self._on_overdue)
        self._flushing = False
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._longest_ns = 0
        self._plans: frozenset[Leased] | None = None
        self._successors: dict[tuple[bytes, ...], Leased] = {}
        self._configured_ns = 0
        self._is_closing = False

    def configure(self, plans: Iterable[Leased], timeout_s: float) -> None:
        """Rules changed: `plans` are all that may be asked for from now on."""
        plans = self._plans = frozenset(plans)
        self._timeout_s = timeout_s
        self._longest_ns = max((limit.step_ns * limit.tokens for plan in plans for limit in plan.limits), default=0)
        self._waiting.shorten(self._loop.time() + timeout_s)
        self._successors = {_buckets_of(plan): plan for plan in plans}
        self._configured_ns = boot_ns()
        for user in self._users.values():
            self._succeed(user)

    def is_away(self, name: str, kind: int) -> bool:
        """Whether the store is not to be asked about a user now, so that nobody needs to wait to find out."""
        return bool(self._outages) and self._outages.is_left_alone(key_of(name, kind), self._loop.time())

    def keeps_locally(self, name: str, kind: int, now_ns: int) -> bool:
        """Whether buckets kept on this node have a say: the user's store is away, or they may not be full again."""
        return now_ns < self._local_until_ns or (bool(self._outages) and self._outages.is_away(key_of(name, kind)))

    def on_local(self, now_ns: int) -> None:
        """A bucket kept on this node decided without the store: until it is full again, both must admit."""
        self._local_until_ns = now_ns + self._longest_ns
        self.is_troubled = True

    def ask(self, name: str, kind: int, leased: Leased, done: Done) -> None:
        """Get one operation's tokens; `done` hears within the timeout, never before this returns."""
        user = self._user(name, kind)
        waiter = Waiter(done=done, deadline_s=self._loop.time() + self._timeout_s)
        if self._is_closing:
            self._loop.call_soon(waiter.tell, Outcome.STORE_AWAY)
            return
        user.lines.setdefault(leased, []).append(waiter)
        self._waiting.add(waiter)
        self._queue(user)

    def on_refused(self, name: str, kind: int, leased: Leased, now_ns: int) -> None:
        """An operation was refused unasked, of a plan that may have streams."""
        user = self._user(name, kind)
        user.refused[leased] = user.refused.get(leased, 0) + 1
        user.refused_ns = now_ns

    def refill(self, name: str, kind: int, leased: Leased) -> None:
        """What is in hand runs low: get more before somebody has to wait."""
        user = self._user(name, kind)
        user.lines.setdefault(leased, [])
        if not self.is_away(name, kind):
            user.low = leased
            self._queue(user)

    async def close(self) -> None:
        """Give everything back. Whoever still waits decides without the store."""
        self._is_closing = True
        self._sweeper.cancel()
        until_s = self._loop.time() + LEAVE_S
        while self._leave() and self._loop.time() < until_s:
            await asyncio.sleep(LEAVE_AGAIN_S)
        await self._flights.close(until_s)
        for user in self._users.values():
            if user.retry is not None:
                user.retry.cancel()
        self._waiting.close(Outcome.STORE_AWAY)

    # --- who asks ---

    def _user(self, name: str, kind: int) -> _User:
        key = (kind, name)
        user = self._users.get(key)
        if user is None:
            user = self._users[key] = _User(name, kind, key_of(name, kind))
        return user

    def _succeed(self, user: _User) -> None:
        """Those who wait go on by new rules about the same buckets. An empty line stays of limits that are gone,
        before all others: it is given back first."""
        gone: dict[Leased, list[Waiter]] = {}
        lines: dict[Leased, list[Waiter]] = {}
        for leased, line in user.lines.items():
            successor = self._successors.get(_buckets_of(leased), leased)
            lines.setdefault(successor, []).extend(line)
            if _sizes_of(successor) != _sizes_of(leased):
                gone[leased] = []
        user.lines = gone | lines
        user.low = None

    def _queue(self, user: _User) -> None:
        """Have the user's requests go out at the end of this turn of the loop."""
        if user.is_queued or user.flight is not None or self._is_closing:
            return
        user.is_queued = True
        self._queued.append(user)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        users, self._queued = self._queued, []
        for user in users:
            user.is_queued = False
        flights: list[Flight] = []
        try:
            for user in users:
                flight = self._begin_next(user)
                if flight is not None:
                    flights.append(flight)
        finally:
            self._flights.send(flights)

    def _begin_next(self, user: _User) -> Flight | None:
        """The next request of a user: for those who wait, in turns, else for a bucket that runs low."""
        if user.flight is not None or self._is_closing:
            return None
        for leased in list(user.lines):
            if self._is_gone(leased) and not user.lines[leased]:
                flight = self._give_back(user, leased, boot_ns())
                if flight is not None:
                    return flight
            elif self._serve(user, leased):
                flight = self._begin(user, leased, user.lines[leased])
                if flight is not None:
                    return flight
                self._retry(user)
        low, user.low = user.low, None
        return None if low is None else self._begin(user, low, [])

    def _retry(self, user: _User) -> None:
        if user.retry is None:
            pause_s = BUSY_RETRY_S * (1 + random())  # noqa: S311 -- jitter
            user.retry = self._loop.call_later(pause_s, self._on_retry, user)

    def _on_retry(self, user: _User) -> None:
        user.retry = None
        self._queue(user)

    def _begin(self, user: _User, leased: Leased, waiters: list[Waiter], *, leave: bool = False) -> Flight | None:
        """Begin a request for those who wait; None while another worker asks about one of the buckets."""
        refused = user.refused.get(leased, 0)
        flight = self._flights.begin(user.name, user.kind, leased, waiters, refused=refused, leave=leave)
        if flight is None:
            return None
        user.refused.pop(leased, None)
        user.lines.pop(leased, None)
        user.lines[leased] = []  # behind the user's other plans: they take turns
        if user.low is leased:
            user.low = None
        user.flight = flight
        return flight

    def _serve(self, user: _User, leased: Leased) -> bool:
        """Let those who wait spend what has come meanwhile, refuse them if there is none; whether any still wait."""
        line = [waiter for waiter in user.lines[leased] if not waiter.is_told]
        while line:
            got = self._table.spend(leased.plan, user.name, user.kind, boot_ns())
            if got == ASK:
                break
            line.pop(0).tell(Outcome.GRANTED if got in (SPENT, SPENT_DUE) else Outcome.REFUSED)
        user.lines[leased] = line
        return bool(line)

    def _on_ended(self, flight: Flight, answer: Answer | None) -> None:
        """Tell those it asked for; without an answer all of the user's who wait decide without the store."""
        user = self._users[flight.kind, flight.name]
        user.flight = None
        if answer is None:
            self.is_troubled = True
            for line in (flight.waiters, *user.lines.values()):
                for waiter in line:
                    waiter.tell(Outcome.STORE_AWAY)
            user.lines = {leased: [] for leased in user.lines}
            return
        for number, waiter in enumerate(flight.waiters):
            waiter.tell(Outcome.GRANTED if number < answer.admitted else Outcome.REFUSED)
        if user.low is not None or any(user.lines.values()):
            self._queue(user)
        elif not flight.holds and len(user.lines) == 1 and user.refused_ns < 0 and user.retry is None:
            del self._users[user.kind, user.name]  # most users come once: nothing of them is left to be swept

    # --- time ---

    @staticmethod
    def _on_overdue(waiter: Waiter) -> None:
        """Nobody waits longer than the timeout; the request goes on, its answer is booked when it comes."""
        waiter.tell(Outcome.STORE_AWAY)

    def _sweep(self) -> None:
        """Renew what would be lost, give back what nobody spends, forget users who have nothing here."""
        now_ns = boot_ns()
        flights = []
        for key in list(islice(self._users, SWEEP_USERS)):
            user = self._users[key]
            flight = self._tidy(user, now_ns)
            if flight is not None:
                flights.append(flight)
            if user.lines or user.flight is not None or now_ns - user.refused_ns < PRESSED_NS:
                self._users.move_to_end(key)
            else:
                del self._users[key]
        self._flights.send(flights)
        self.is_troubled = bool(self._outages) or now_ns < self._local_until_ns
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _leave(self) -> bool:
        """Give back what nothing else is asking about; whether there is more."""
        is_more = False
        flights = []
        now_ns = boot_ns()
        for user in self._users.values():
            if self._outages.is_away(user.key):
                continue
            while user.flight is None and user.lines:
                leased = next(iter(user.lines))
                if self._in_hand(user, leased, now_ns):
                    flight = self._begin(user, leased, [], leave=True)
                    if flight is None:
                        break
                    flights.append(flight)
                del user.lines[leased]
            is_more = is_more or bool(user.lines)
        self._flights.send(flights)
        return is_more

    def _tidy(self, user: _User, now_ns: int) -> Flight | None:
        if user.flight is not None or user.is_queued:
            return None
        for leased, line in list(user.lines.items()):
            if line:
                continue
            if self._is_gone(leased):
                flight = self._give_back(user, leased, now_ns)
                if flight is not None:
                    return flight
                continue
            records = self._in_hand(user, leased, now_ns)
            if not records:
                del user.lines[leased]
            elif self._is_over(user, records, now_ns):
                return self._begin(user, leased, [])
        return None

    def _is_gone(self, leased: Leased) -> bool:
        return self._plans is not None and leased not in self._plans

    def _give_back(self, user: _User, leased: Leased, now_ns: int) -> Flight | None:
        """Return what was leased by limits that are gone, by these limits: a token is worth another share of the new.

        What was leased since, by new limits, is theirs."""
        records = self._in_hand(user, leased, now_ns)
        is_theirs = _buckets_of(leased) in self._successors and any(
            record.asked_ns > self._configured_ns for record in records
        )
        if not records or is_theirs:
            del user.lines[leased]
            return None
        flight = None if self._outages.is_away(user.key) else self._begin(user, leased, [], leave=True)
        if flight is not None:
            del user.lines[leased]
        return flight

    def _is_over(self, user: _User, records: Iterable[Peek], now_ns: int) -> bool:
        some = any(is_over(lease_of(record), now_ns, self._policy) for record in records)
        return some and not self._outages.is_away(user.key)

    def _in_hand(self, user: _User, leased: Leased, now_ns: int) -> list[Peek]:
        """Those of a plan's records that have tokens."""
        tags = [self._table.tag_of(leased.plan, place, user.name, user.kind) for place in range(len(leased.limits))]
        found = [self._table.peek_tag(tag) for tag in tags]
        return [record for record in found if record is not None and record.in_hand(now_ns)]


def _sizes_of(leased: Leased) -> list[tuple[int, int, int]]:
    return [(limit.cost, limit.accrual, limit.full) for limit in leased.limits]


def _buckets_of(leased: Leased) -> tuple[bytes, ...]:
    return tuple(limit.identity for limit in leased.limits)
