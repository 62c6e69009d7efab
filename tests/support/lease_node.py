"""A node as `limits.leases` wants to be called, with neither network nor clock: both are the test's.

What the leaser does with tasks and shared memory is here a dictionary; `operate` and `landed` return what to send next.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from cpro.limits.leases import (
    Answer,
    Lease,
    Limit,
    Policy,
    Request,
    birth,
    build_ask,
    is_due,
    is_over,
    may_ask,
    take_answer,
)

Plan = tuple[Limit, ...]


class Outcome(Enum):
    ADMITTED = "admitted"
    REFUSED = "refused"
    WAITS = "waits"


@dataclass
class User:
    """One user's buckets on this node."""

    name: str
    leases: dict[bytes, Lease] = field(default_factory=dict)
    flight: tuple[Request, Plan] | None = None
    waiting: dict[Plan, int] = field(default_factory=dict)
    refused: dict[Plan, int] = field(default_factory=dict)
    """Unasked, since the last request."""


class Node:
    """Admissions from what is in hand go to `on_spent(user, plan, now_ns)`, the others to `on_granted(..., count)`.

    One flight a user, so that the test's network stays simple; the leaser may have one for every bucket.
    """

    def __init__(self, holder_id: bytes, policy: Policy, on_spent: Callable, on_granted: Callable = lambda *_: None):
        self.holder_id = holder_id
        self.policy = policy
        self.on_spent = on_spent
        self.on_granted = on_granted
        self.users: dict[str, User] = {}

    def user(self, name: str) -> User:
        return self.users.setdefault(name, User(name))

    def operate(self, name: str, plan: Plan, now_ns: int) -> tuple[Outcome, Request | None]:
        """An operation arrives."""
        user = self.user(name)
        leases = [self._lease(user, limit, now_ns) for limit in plan]
        if self._charge(user, plan, now_ns):
            due = user.flight is None and any(
                is_due(lease, limit, now_ns, self.policy) for lease, limit in zip(leases, plan, strict=True)
            )
            return Outcome.ADMITTED, self._send(user, plan, 0, now_ns) if due else None
        if user.flight is None and not all(may_ask(lease, now_ns) for lease in leases):
            user.refused[plan] = user.refused.get(plan, 0) + 1
            return Outcome.REFUSED, None
        user.waiting[plan] = user.waiting.get(plan, 0) + 1
        return Outcome.WAITS, None if user.flight else self._send_waiting(user, plan, now_ns)

    def landed(self, request: Request, answer: Answer, now_ns: int) -> tuple[int, int, Request | None]:
        """An answer arrives: how many that waited are admitted, how many refused, and what to send next."""
        user = self.user(request.user)
        if user.flight is None or user.flight[0] is not request:
            for place, ask in enumerate(request.asks):  # late; unless it answers the last request, it changes nothing
                if lease := user.leases.get(ask.limit.identity):
                    take_answer(lease, ask, answer, place, now_ns, self.policy)
            return 0, 0, None
        plan, user.flight = user.flight[1], None
        for place, ask in enumerate(request.asks):
            take_answer(user.leases[ask.limit.identity], ask, answer, place, now_ns, self.policy)
        self.on_granted(user.name, plan, answer.admitted)
        refused, admitted = request.need - answer.admitted, answer.admitted
        for waiting_plan in list(user.waiting):
            more = self._serve(user, waiting_plan, now_ns)
            admitted += more[0]
            refused += more[1]
        waiting = next((plan for plan, count in user.waiting.items() if count), None)
        return admitted, refused, None if waiting is None else self._send_waiting(user, waiting, now_ns)

    def timed_out(self, request: Request) -> int:
        """No answer: how many are left to `on_store_error`. The outcome is unknown; nothing changes."""
        user = self.user(request.user)
        if user.flight is None or user.flight[0] is not request:
            return 0
        user.flight = None
        left = request.need + sum(user.waiting.values())
        user.waiting.clear()
        return left

    def tick(self, name: str, plan: Plan, now_ns: int) -> Request | None:
        """What a sweep over the table does now and then: renew, or give back what nobody spends."""
        user = self.user(name)
        leases = [(user.leases.get(limit.identity), limit) for limit in plan]
        due = any(lease and is_over(lease, now_ns, self.policy) for lease, limit in leases)
        return self._send(user, plan, 0, now_ns) if due and user.flight is None else None

    def leave(self, name: str, plan: Plan, now_ns: int) -> Request | None:
        """Shutdown: everything goes back."""
        user = self.user(name)
        return None if user.flight else self._send(user, plan, 0, now_ns, leave=True)

    def restart(self) -> None:
        """The processes die, the table stays: leases are adopted as they are."""
        for user in self.users.values():
            user.flight = None
            user.waiting.clear()

    def _lease(self, user: User, limit: Limit, now_ns: int) -> Lease:
        lease = user.leases.get(limit.identity)
        if lease is None:
            lease = user.leases[limit.identity] = Lease(start=birth(now_ns))
        return lease

    def _charge(self, user: User, plan: Plan, now_ns: int) -> bool:
        """Look at all buckets, then charge them in one go."""
        leases = [self._lease(user, limit, now_ns) for limit in plan]
        if not all(lease.in_hand(now_ns) for lease in leases):
            return False
        for lease in leases:
            lease.spend(1, now_ns)
        self.on_spent(user.name, plan, now_ns)
        return True

    def _serve(self, user: User, plan: Plan, now_ns: int) -> tuple[int, int]:
        """Those that came while the request was under way: spend what it brought, refuse if the bucket is empty."""
        admitted = refused = 0
        while user.waiting.get(plan):
            if self._charge(user, plan, now_ns):
                admitted += 1
            elif all(may_ask(self._lease(user, limit, now_ns), now_ns) for limit in plan):
                break
            else:
                user.refused[plan] = user.refused.get(plan, 0) + 1
                refused += 1
            user.waiting[plan] -= 1
        return admitted, refused

    def _send_waiting(self, user: User, plan: Plan, now_ns: int) -> Request:
        return self._send(user, plan, user.waiting.pop(plan), now_ns)

    def _send(self, user: User, plan: Plan, need: int, now_ns: int, *, leave: bool = False) -> Request:
        refused = user.refused.pop(plan, 0)
        leases = [self._lease(user, limit, now_ns) for limit in plan]
        asks = tuple(
            build_ask(lease, limit, self.holder_id, now_ns, self.policy, need, refused=refused, leave=leave)
            for lease, limit in zip(leases, plan, strict=True)
        )
        request = Request(user.name, asks, need)
        user.flight = (request, plan)
        return request
