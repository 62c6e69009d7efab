"""Nodes, users and a store in virtual time: deterministic, one event after the other."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, Protocol

from tests.support.lease_node import Node, Outcome, Plan

from cpro.limits.leases import Answer, Limit, Policy, Request

START_US = 1_800_000_000_000_000
SWEEP_US = 1_000_000
FORGET_US = 15_000_000
"""A user who has not come for so long has a full bucket everywhere, and no lease is left."""


class Store(Protocol):
    users: dict[str, Any]

    def call(self, now_us: int, request: Request) -> Answer: ...


@dataclass
class Bucket:
    """What one user was admitted, beside a plain token bucket asked for every operation, and the promise."""

    limit: Limit
    at_us: int = START_US
    available: int = 0
    ideal: int = 0
    admitted: int = 0
    least: int | None = None
    worst: int = 0
    """Units by which the worst interval exceeded burst + rate * length; at most 0."""

    def __post_init__(self) -> None:
        self.available, self.worst = self.limit.full, -self.limit.full

    def asked(self, now_us: int) -> None:
        gained = (now_us - self.at_us) * self.limit.accrual
        self.available, self.at_us = min(self.limit.full, self.available + gained), now_us
        if self.available >= self.limit.cost:
            self.available -= self.limit.cost
            self.ideal += 1

    def admit(self, now_us: int, count: int) -> None:
        accrued = now_us * self.limit.accrual
        level = self.admitted * self.limit.cost - accrued
        self.least = level if self.least is None else min(self.least, level)
        self.admitted += count
        self.worst = max(self.worst, self.admitted * self.limit.cost - accrued - self.least - self.limit.full)


@dataclass
class Result:
    seconds: float
    users: int = 0
    """Visits: one who was forgotten and came again counts twice."""
    operations: int = 0
    admitted: int = 0
    ideal: int = 0
    calls: int = 0
    overshoot_tokens: float = -inf
    in_hand_tokens: float = 0.0
    """Leased and not spent, at the average sweep."""
    calls_by_node: Counter[int] = field(default_factory=Counter)
    admitted_by_node: Counter[int] = field(default_factory=Counter)

    @property
    def calls_per_decision(self) -> float:
        return self.calls / max(1, self.operations)

    @property
    def share_of_ideal(self) -> float:
        return self.admitted / max(1, self.ideal)


class Simulation:
    """`operate` schedules one operation; `run` plays everything."""

    def __init__(
        self,
        store: Store,
        nodes: int,
        plan: Plan,
        *,
        policy: Policy | None = None,
        latency_us: int = 500,
        seed: int = 1,
    ) -> None:
        self.store, self.plan, self.latency_us, self.random = store, plan, latency_us, Random(seed)
        self.policy = policy or Policy()
        self.now_us = START_US
        self.nodes = [self._node(number) for number in range(nodes)]
        self.buckets: dict[str, Bucket] = {}
        self._seen_by: dict[str, set[int]] = {}
        self.result = Result(0.0)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._sweeps = 0
        self._swept: set[tuple[int, str]] = set()

    def _node(self, number: int) -> Node:
        def spent(user: str, plan: Plan, now_ns: int) -> None:
            self.buckets[user].admit(self.now_us, 1)

        return Node(self.random.randbytes(16), self.policy, spent)

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when_us, self._number, what))

    def arrivals(self, stream: Iterator[tuple[int, int, str]]) -> None:
        """(when_us, node, user) in order of time; taken one by one."""
        following = next(stream, None)
        if following is None:
            return
        when_us, node, user = following

        def arrive() -> None:
            self.operate(node, user)
            self.arrivals(stream)

        self.at(when_us, arrive)

    def operate(self, number: int, user: str) -> None:
        bucket = self.buckets.get(user)
        if bucket is None:
            bucket = self.buckets[user] = Bucket(self.plan[0], self.now_us)
            self._seen_by[user] = set()
        self._seen_by[user].add(number)
        bucket.asked(self.now_us)
        self.result.operations += 1
        outcome, request = self.nodes[number].operate(user, self.plan, self.now_us * 1000)
        self._admit(number, outcome is Outcome.ADMITTED)
        self._send(number, request)
        if (number, user) not in self._swept:
            self._swept.add((number, user))
            self.at(self.now_us + SWEEP_US, lambda: self._sweep(number, user))

    def forget(self) -> None:
        """Drop the users who have not come for a while, now and from now on: memory is for those who have."""
        for name in [name for name, bucket in self.buckets.items() if bucket.at_us < self.now_us - FORGET_US]:
            self._count(self.buckets.pop(name))
            self.store.users.pop(name, None)
            for node in self._seen_by.pop(name):
                del self.nodes[node].users[name]
        self.at(self.now_us + FORGET_US, self.forget)

    def _count(self, bucket: Bucket) -> None:
        self.result.users += 1
        self.result.ideal += bucket.ideal
        self.result.overshoot_tokens = max(self.result.overshoot_tokens, bucket.worst / bucket.limit.cost)

    def run(self, until_us: int) -> Result:
        while self._events and self._events[0][0] <= until_us:
            self.now_us, _, what = heapq.heappop(self._events)
            what()
        result = self.result
        result.seconds = (until_us - START_US) / 10**6
        for bucket in self.buckets.values():
            self._count(bucket)
        result.in_hand_tokens /= max(1.0, result.seconds)
        return result

    def _send(self, number: int, request: Request | None) -> None:
        if request is not None:
            self.result.calls += 1
            self.result.calls_by_node[number] += 1
            self.at(self.now_us + self._delay_us(), lambda: self._reach_store(number, request))

    def _reach_store(self, number: int, request: Request) -> None:
        answer = self.store.call(self.now_us, request)
        if answer.admitted:
            self.buckets[request.user].admit(self.now_us, answer.admitted)
        self.at(self.now_us + self._delay_us(), lambda: self._reach_node(number, request, answer))

    def _reach_node(self, number: int, request: Request, answer: Answer) -> None:
        before = self.buckets[request.user].admitted
        _, _, following = self.nodes[number].landed(request, answer, self.now_us * 1000)
        self._admit(number, answer.admitted + self.buckets[request.user].admitted - before)
        self._send(number, following)

    def _admit(self, number: int, count: int) -> None:
        self.result.admitted += count
        self.result.admitted_by_node[number] += count

    def _sweep(self, number: int, user: str) -> None:
        node = self.nodes[number]
        self._send(number, node.tick(user, self.plan, self.now_us * 1000))
        in_hand = sum(lease.in_hand(self.now_us * 1000) for lease in node.users[user].leases.values())
        self.result.in_hand_tokens += in_hand * SWEEP_US / 10**6
        if in_hand or node.users[user].flight:
            self.at(self.now_us + SWEEP_US, lambda: self._sweep(number, user))
        else:
            self._swept.discard((number, user))

    def _delay_us(self) -> int:
        return self.random.randint(self.latency_us // 2, self.latency_us)
