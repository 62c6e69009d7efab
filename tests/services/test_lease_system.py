"""Nodes, a bad network and the real script: whatever happens, nobody admits more than a token bucket would.

Holders are `limits.leases` as the leaser uses it. Requests are lost, doubled, reordered and late, nodes crash with and
without their table, clocks drift; the envelope is checked over all intervals of the whole history.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cpro.limits.leases import Limit, Policy
from tests.oracle.leases import StoreOracle
from tests.support.lease_node import Node, Outcome
from tests.support.lease_script import TimedStore

POLICY = Policy()
START_US = 1_800_000_000_000_000
NODES = 3
SIZES = [  # step, full in ns: what refills in a second and more, small bursts, one token, odd steps
    (16_666_667, 60 * 16_666_667),
    (100_000_000, 10 * 100_000_000),
    (10_000_000, 5 * 10_000_000),
    (500_000_000, 500_000_000),
    (33_333_334, 90 * 33_333_334),
    (720_000_000_000, 5 * 720_000_000_000),
    (1_000_000, 20 * 1_000_000),  # what has streams, as has the third
    (50_000_000, 50_000_000),
]


def overshoot_units(history: list[tuple[int, int]], limit: Limit) -> int:
    """By how much the worst interval exceeds burst + rate * length, in units; at most 0. `history`: (time, count).

    O(n): for an interval that ends at j, the worst beginning is where `before it admitted - accrued` is least.
    """
    admitted = 0
    least, worst = None, -limit.full
    for now_us, count in sorted(history):
        accrued = now_us * limit.accrual
        level = admitted * limit.cost - accrued
        least = level if least is None else min(least, level)
        admitted += count
        worst = max(worst, admitted * limit.cost - accrued - least - limit.full)
    return worst


class System(RuleBasedStateMachine):
    store: TimedStore
    may_lose_state = False

    @initialize(sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)), drift=st.integers(-20, 20))
    def begin(self, sizes, drift):
        self.own, self.total = (
            Limit(number, *size) for number, size in zip((0x4141414141414141, 0x4242424242424242), sizes, strict=True)
        )
        self.plans = [(self.own, self.total), (self.total,), (self.own,)]
        self.now_us = START_US
        self.drift_per_mille = drift
        self.history: dict[bytes, list[tuple[int, int]]] = {limit.identity: [] for limit in (self.own, self.total)}
        self.nodes = [self.new_node(number) for number in range(NODES)]
        self.births = NODES
        self.requests: list[tuple[Node, object]] = []
        self.answers: list[tuple[Node, object, object]] = []
        self.losses = 0
        self.saved = None
        self.store.lose("user")
        self.oracle = StoreOracle(POLICY)

    def new_node(self, number: int) -> Node:
        return Node(b"holder%02d" % number * 2, POLICY, self.spent)

    def spent(self, _, plan, now_ns):
        for limit in plan:
            self.history[limit.identity].append((self.now_us, 1))

    def local_ns(self, node: Node) -> int:
        """Every node has its own clock; they run at slightly different speeds."""
        number = self.nodes.index(node)
        elapsed_ns = (self.now_us - START_US) * 1000
        return (number + 1) * 10**12 + elapsed_ns + elapsed_ns * self.drift_per_mille * (number - 1) // 1000

    def sends(self, node: Node, request) -> None:
        if request is not None:
            self.requests.append((node, request))

    @rule(pause_us=st.one_of(st.integers(0, 50_000), st.integers(0, 3_000_000), st.integers(9_000_000, 10_500_000)))
    def time_passes(self, pause_us):
        self.now_us += pause_us

    @rule(number=st.integers(0, NODES - 1), plan=st.integers(0, 2), count=st.integers(1, 40))
    def operations_arrive(self, number, plan, count):
        node = self.nodes[number]
        for _ in range(count):
            self.sends(node, node.operate("user", self.plans[plan], self.local_ns(node))[1])

    @rule(
        number=st.integers(0, NODES - 1),
        count=st.integers(5, 30),
        pause_us=st.integers(1000, 50_000),
        pick=st.integers(0, 2),
    )
    def operations_flow(self, number, count, pause_us, pick):
        """A while without accidents, so that leases grow."""
        node = self.nodes[number]
        for _ in range(count):
            self.now_us += pause_us
            self.sends(node, node.operate("user", self.plans[pick], self.local_ns(node))[1])
            while self.requests:
                self.reach_store(0)
            while self.answers:
                self.reach_node(0)

    @rule(
        numbers=st.lists(st.integers(0, NODES - 1), min_size=1, max_size=NODES, unique=True),
        count=st.integers(20, 80),
        pace=st.sampled_from([1, 3, 10]),
        pick=st.integers(0, 2),
        delay_us=st.integers(0, 3000),
    )
    def several_press_for_more_than_there_is(self, numbers, count, pace, pick, delay_us):
        """So that an empty bucket streams to them. Answers take a while."""
        pause_us = max(1, min(limit.step_ns for limit in self.plans[pick]) // 1000 // pace)
        for turn in range(count):
            node = self.nodes[numbers[turn % len(numbers)]]
            self.now_us += min(pause_us, 300_000)
            self.sends(node, node.operate("user", self.plans[pick], self.local_ns(node))[1])
            while self.requests:
                self.reach_store(0)
            self.now_us += delay_us if self.answers else 0
            while self.answers:
                self.reach_node(0)

    @rule(order=st.permutations(range(NODES)), pick=st.integers(0, 2), late=st.booleans())
    def everybody_spends_what_they_can(self, order, pick, late):
        """The worst moment for whatever went wrong before: all that is in hand, then all that the store has."""
        for asks_store in (True, False) if late else (False, True):
            for number in order:
                self.drain(self.nodes[number], self.plans[pick], asks_store)

    def drain(self, node: Node, plan, asks_store: bool) -> None:
        user = node.user("user")
        for _ in range(200):
            leases = [user.leases.get(limit.identity) for limit in plan]
            if not asks_store and not all(lease and lease.in_hand(self.local_ns(node)) for lease in leases):
                return
            outcome, request = node.operate("user", plan, self.local_ns(node))
            self.sends(node, request)
            if outcome is Outcome.REFUSED or (outcome is Outcome.WAITS and request is None):
                return
            if asks_store and request is not None:
                self.requests.pop()
                self.deliver_at_once(node, request)

    def deliver_at_once(self, node: Node, request) -> None:
        while request is not None:
            request = node.landed(request, self.call_store(request), self.local_ns(node))[2]

    @rule(number=st.integers(0, NODES - 1), which=st.sampled_from(["own", "total"]), early_us=st.integers(-1, 1))
    def a_lease_is_about_to_end(self, number, which, early_us):
        """Just before or after its holder thinks so."""
        node = self.nodes[number]
        lease = node.user("user").leases.get(getattr(self, which).identity)
        if lease and lease.tokens:
            left_ns = lease.deadline_ns - self.local_ns(node)
            pace = 1000 + self.drift_per_mille * (number - 1)
            self.now_us += max(0, left_ns * 1000 // pace // 1000 - early_us)

    def reach_store(self, index: int, *, stays: bool = False) -> None:
        node, request = self.requests[index] if stays else self.requests.pop(index)
        self.answers.append((node, request, self.call_store(request)))

    def call_store(self, request):
        self.now_us += 1  # nothing is there and back in no time: records born after an answer differ from those before
        answer = self.store.call(self.now_us, request)
        if not self.may_lose_state:
            assert answer == self.oracle.call(self.now_us, request)
        for ask in request.asks:
            if answer.admitted:
                self.history[ask.limit.identity].append((self.now_us, answer.admitted))
        return answer

    def reach_node(self, index: int, *, stays: bool = False) -> None:
        node, request, answer = self.answers[index] if stays else self.answers.pop(index)
        if node in self.nodes:
            self.sends(node, node.landed(request, answer, self.local_ns(node))[2])

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), stays=st.booleans())
    def a_request_reaches_the_store(self, data, stays):
        self.reach_store(data.draw(st.integers(0, len(self.requests) - 1)), stays=stays)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), stays=st.booleans())
    def an_answer_reaches_its_node(self, data, stays):
        self.reach_node(data.draw(st.integers(0, len(self.answers) - 1)), stays=stays)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_request_is_lost(self, data):
        self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_is_lost(self, data):
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))

    @rule(number=st.integers(0, NODES - 1))
    def a_node_gives_up_waiting(self, number):
        flight = self.nodes[number].user("user").flight
        if flight:
            self.nodes[number].timed_out(flight[0])

    @rule(number=st.integers(0, NODES - 1), plan=st.integers(0, 2))
    def a_node_sweeps(self, number, plan):
        node = self.nodes[number]
        self.sends(node, node.tick("user", self.plans[plan], self.local_ns(node)))

    @rule(number=st.integers(0, NODES - 1), plan=st.integers(0, 2))
    def a_node_gives_everything_back(self, number, plan):
        node = self.nodes[number]
        self.sends(node, node.leave("user", self.plans[plan], self.local_ns(node)))

    @rule(number=st.integers(0, NODES - 1))
    def a_node_dies_and_finds_its_table(self, number):
        self.nodes[number].restart()

    @rule(number=st.integers(0, NODES - 1))
    def a_node_dies_with_its_table(self, number):
        self.births += 1
        self.nodes[number] = self.new_node(self.births)

    @rule(number=st.integers(0, NODES - 1), which=st.sampled_from(["own", "total"]))
    def a_record_is_evicted(self, number, which):
        user = self.nodes[number].user("user")
        if user.flight is None:
            user.leases.pop(getattr(self, which).identity, None)

    @precondition(lambda self: self.may_lose_state)
    @rule()
    def the_store_loses_the_user(self):
        self.store.lose("user")
        self.losses += 1

    @precondition(lambda self: self.may_lose_state)
    @rule()
    def a_replica_copies_the_user(self):
        self.saved = (self.now_us, self.store.snapshot("user"))

    @precondition(lambda self: self.may_lose_state and self.saved)
    @rule()
    def a_replica_takes_over(self):
        saved_us, snapshot = self.saved
        self.store.roll_back("user", snapshot)
        self.losses += 1
        self.lag_us = max(getattr(self, "lag_us", 0), self.now_us - saved_us)
        self.saved = None

    @invariant()
    def the_envelope_holds(self):
        if not hasattr(self, "history") or len(self.history) == 0:
            return
        for limit in {self.own.identity: self.own, self.total.identity: self.total}.values():
            streaming_us = limit.stream_ns * 3 // 2000  # what streams when state is lost goes on to its end
            bound = self.losses * (limit.full + (getattr(self, "lag_us", 0) + streaming_us) * limit.accrual)
            assert overshoot_units(self.history[limit.identity], limit) <= bound


@pytest.fixture(scope="module")
def store(lease_redis):
    with lease_redis.client() as client:
        yield TimedStore(client, POLICY)


QUICK = settings(max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=10_000, stateful_step_count=80)


def run(store, policy, *, loses: bool):
    machine = type("System", (System,), {"store": store, "may_lose_state": loses})
    run_state_machine_as_test(machine, settings=policy)


def test_never_more_than_a_token_bucket(store):
    run(store, QUICK, loses=False)


def test_a_store_that_loses_state_costs_at_most_one_burst_each_time(store):
    run(store, QUICK, loses=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("loses", [False, True])
def test_never_more_than_a_token_bucket_for_long(store, loses):
    run(store, LONG, loses=loses)


def test_the_envelope_helper_sees_one_token_too_many():
    limit = Limit(1, *SIZES[1])
    exact = [(START_US, 10), (START_US + 100_000, 1), (START_US + 200_000, 1)]
    assert overshoot_units(exact, limit) == 0
    assert overshoot_units([*exact, (START_US + 299_999, 1)], limit) == limit.accrual
    assert overshoot_units([(START_US, 9)], limit) == -limit.cost
