"""An empty small bucket streams to the nodes that are hammered: never one token too many, few calls, nearly all of it.

Nodes and store in virtual time, with clocks of the nodes' own, requests and answers that are late or lost, and demand
that comes and goes. The store is the oracle: `tests/services/test_lease_script.py` says that the script answers alike.
"""

from collections import Counter
from random import Random

import pytest
from benchmarks.leases.deployment import of_one_user
from benchmarks.leases.simulator import START_US

from cpro.limits.leases import Lease, Limit, Policy, longest_ns
from tests.oracle.leases import StoreOracle
from tests.services.test_lease_system import overshoot_units
from tests.support.lease_node import Node

POLICY = Policy()
NOW_NS = 10**13
SMALL = [(1_000_000, 20), (10_000_000, 10), (10_000_000, 1), (50_000_000, 2), (3_333_334, 33)]
"""Steps in ns, and bursts."""


class World:
    """Three nodes, whose clocks are two percent fast, right, and two percent slow."""

    def __init__(self, limit: Limit, seed: int, *, is_troubled: bool) -> None:
        self.random = Random(seed)
        self.limit, self.is_troubled = limit, is_troubled
        self.store = StoreOracle(POLICY)
        self.now_us = START_US
        self.history: list[tuple[int, int]] = []
        self.nodes = [Node(bytes([number]) * 16, POLICY, self.spent) for number in range(3)]
        self.calls: Counter[int] = Counter()
        self.streamed = 0

    def spent(self, *_: object) -> None:
        self.history.append((self.now_us, 1))

    def local_ns(self, number: int) -> int:
        elapsed_ns = (self.now_us - START_US) * 1000
        return 10**13 + elapsed_ns + elapsed_ns * (1 - number) // 50

    def operate(self, number: int) -> None:
        request = self.nodes[number].operate("user", (self.limit,), self.local_ns(number))[1]
        while request is not None:
            self.now_us += self.random.choice([0, 1, 300, 300, 2000])
            if self.is_lost(number, request):
                return
            self.calls[number] += 1
            answer = self.store.call(self.now_us, request)
            if answer.admitted:
                self.history.append((self.now_us, answer.admitted))
            self.now_us += self.random.choice([1, 300, 300, 2000, 50_000 if self.is_troubled else 300])
            if self.is_lost(number, request):
                return
            request = self.nodes[number].landed(request, answer, self.local_ns(number))[2]
            self.streamed += answer.balances[0].pace > 0

    def is_lost(self, number: int, request) -> bool:
        if not self.is_troubled or self.random.random() > 0.1:
            return False
        self.now_us += self.random.choice([0, 200_000])
        self.nodes[number].timed_out(request)
        return True

    def play(self, steps: int) -> None:
        """Demand of each node changes now and then; sometimes nobody asks for a while."""
        step_us = self.limit.step_ns // 1000
        pauses = [step_us // 20 + 1, step_us // 5, step_us, 3 * step_us]
        pause_us, crowd = pauses[0], [0, 1, 2]
        for _ in range(steps):
            if self.random.random() < 0.02:
                pause_us, crowd = self.random.choice(pauses), self.random.sample(range(3), self.random.randint(1, 3))
                self.now_us += self.random.choice([0, 0, self.limit.tokens * step_us, self.random.randint(0, 600_000)])
            self.now_us += self.random.randint(0, 2 * pause_us)
            self.operate(self.random.choice(crowd))


@pytest.mark.parametrize("is_troubled", [False, True])
@pytest.mark.parametrize(("step_ns", "burst"), SMALL)
def test_however_demand_comes_and_goes_no_token_is_too_many(step_ns, burst, is_troubled):
    streamed = 0
    for seed in range(12):
        world = World(Limit(1, step_ns, step_ns * burst), seed, is_troubled=is_troubled)
        world.play(2500)
        assert overshoot_units(world.history, world.limit) <= 0, seed
        streamed += world.streamed
    assert streamed > 12


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize(("rate", "burst"), [(1000, 100), (1000, 20), (100, 25), (100, 10), (20, 4), (20, 2)])
def test_under_a_hammer_a_small_bucket_is_asked_five_times_a_second_and_gives_nearly_all(rate, burst, nodes):
    result = of_one_user(rate, burst, nodes, 5 * nodes * rate, 4 if rate > 100 else 12).result
    assert result.share_of_ideal >= 0.85
    assert max(result.calls_by_node.values()) <= 5.5 * result.seconds + 4
    assert result.overshoot_tokens <= 0


def test_a_stream_that_is_spent_slowly_lasts_longer_but_not_for_ever():
    limit = Limit(1, 10_000_000, 100_000_000)
    lease = Lease(1, asked_ns=NOW_NS)
    lease.begin_stream(25, pace=16, room=2, limit=limit, now_ns=NOW_NS)
    gap_ns, now_ns, spent_ns = lease.gap_ns, NOW_NS, []
    for _ in range(100):
        now_ns += 5 * gap_ns // 2
        if lease.spend(1, now_ns):
            spent_ns.append(now_ns)
    assert NOW_NS + 26 * gap_ns < spent_ns[-1] < NOW_NS + longest_ns(limit, 16)
    assert longest_ns(limit, 16) * 16 / 15 <= 375_000_000 + 30_000_000, "then the store has it back"


def test_a_stream_never_holds_more_than_its_room():
    limit = Limit(1, 10_000_000, 100_000_000)
    lease = Lease(1, asked_ns=NOW_NS)
    lease.begin_stream(25, pace=8, room=3, limit=limit, now_ns=NOW_NS)
    assert [lease.in_hand(NOW_NS + gaps * lease.gap_ns) for gaps in range(6)] == [0, 1, 2, 3, 3, 3]
    later_ns = NOW_NS + 6 * lease.gap_ns - 1
    assert [lease.spend(1, later_ns) for _ in range(4)] == [True] * 3 + [False]
    assert not lease.spend(1, later_ns + lease.gap_ns - 1), "the next began to accrue when the first was spent"
    assert lease.spend(1, later_ns + lease.gap_ns)


def test_a_user_below_the_limit_is_streamed_nothing():
    assert of_one_user(100, 10, 3, 60, 10).result.share_of_ideal >= 0.96
