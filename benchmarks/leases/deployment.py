"""Simulated deployments: users of very different demand (Zipf), each on some of the nodes."""

from array import array
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from tests.oracle.leases import StoreOracle

from benchmarks.leases.cost import LIMIT, POLICY
from benchmarks.leases.simulator import START_US, Simulation
from cpro.limits.leases import Limit

LATENCY_US = 2000


def deployment(nodes: int, users: int, *, each_per_s: float, seconds: int, spread: int) -> dict[str, float]:
    """`each_per_s` operations a second of the average user; the busiest has a tenth or so of all of them."""
    random = Random(7)
    until_us = START_US + seconds * 10**6
    sums = array("d", accumulate(1 / rank for rank in range(1, users + 1)))
    total_per_s = users * each_per_s

    def operations() -> Iterator[tuple[int, int, str]]:
        now_us = float(START_US)
        while now_us < until_us:
            now_us += random.expovariate(total_per_s) * 10**6
            user = bisect(sums, random.random() * sums[-1])
            node = (user * 7919 + random.randrange(spread) * 104_729) % nodes
            yield int(now_us), node, f"user-{user}"

    simulation = Simulation(StoreOracle(POLICY), nodes, (LIMIT,), latency_us=LATENCY_US)
    simulation.arrivals(operations())
    simulation.forget()
    result = simulation.run(until_us)
    return {
        "nodes": nodes,
        "users": users,
        "users_seen": result.users,
        "nodes_per_user": spread,
        "operations": result.operations,
        "calls_per_decision": result.calls_per_decision,
        "admitted_of_ideal": result.share_of_ideal,
        "overshoot_tokens": max(0.0, result.overshoot_tokens),
        "in_hand_tokens": result.in_hand_tokens,
        "most_demand_per_s": total_per_s / sums[-1],
    }


def of_one_user(rate: int, burst: int, nodes: int, per_s: float, seconds: int = 20, idle: int = 0) -> Simulation:
    """`per_s` operations a second of one user, spread over the nodes, 0.5 ms to the store and back; then idle ones."""
    step_ns = -(-(10**9) // rate)
    simulation = Simulation(StoreOracle(POLICY), nodes, (Limit(0x4141414141414141, step_ns, burst * step_ns),))
    random, until_us = Random(3), START_US + seconds * 10**6

    def operations() -> Iterator[tuple[int, int, str]]:
        now_us = START_US
        while now_us < until_us:
            now_us += max(1, int(random.expovariate(per_s) * 10**6))
            yield now_us, random.randrange(nodes), "user"

    simulation.arrivals(operations())
    simulation.run(until_us + idle * 10**6)
    return simulation
