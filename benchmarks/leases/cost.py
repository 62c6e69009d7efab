"""What a decision costs Redis: leases against one EVALSHA token bucket per check, as ratios within one run.

The operations of some seconds are simulated; the calls that nodes make of them are then replayed against a real Redis,
in the simulation's time and in pipelines, and so is one plain call for every operation. CPU time is the server's own.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from tests.oracle.leases import StoreOracle
from tests.support.redis import RedisServer

from benchmarks.leases.simulator import START_US, Simulation
from benchmarks.load.cpu import spent
from cpro.limits.leases import Answer, Ask, Limit, Policy, Request
from cpro.limits.redis_store import LEASE_SCRIPT, pack_request

PLAIN_TEXT = Path(__file__).with_name("token_bucket.lua").read_text()
POLICY = Policy()
WARM_S, MEASURED_S = 6, 10
PER_SECOND, RATE = 20, 60
ROUNDS = 3
LIMIT = Limit(0x6C696D6974206F66, -(-(10**9) // RATE), RATE * -(-(10**9) // RATE))

Call = tuple[int, bytes, bytes]
"""When (µs), key, packed request."""


@dataclass
class Recorder:
    """A store that remembers what it was asked."""

    store: StoreOracle = field(default_factory=lambda: StoreOracle(POLICY))
    calls: list[Call] = field(default_factory=list)

    def call(self, now_us: int, request: Request) -> Answer:
        self.calls.append((now_us, b"cpro:limit:" + request.user.encode(), pack_request(request, 1, POLICY)))
        return self.store.call(now_us, request)


def timed(text: str, clock: str) -> str:
    """The script in the time it is told; it pays for asking the clock all the same."""
    assert text.count(clock) == 1
    return text.replace(clock, f"({clock} and {{ARGV[#ARGV - 1], ARGV[#ARGV]}})")


def operations(users: int, nodes: int, until_us: int, random: Random) -> Iterator[tuple[int, int, str]]:
    """(when, node, user): every user at random times, on a node of its own or on all of them in turn."""
    now_us = float(START_US)
    while now_us < until_us:
        now_us += random.expovariate(users * PER_SECOND) * 10**6
        yield int(now_us), random.randrange(nodes), f"user-{random.randrange(users):06}"


def cost(server: RedisServer, calls: Iterable[tuple], depth: int) -> float:
    """CPU seconds of the server for `calls`: packed commands with their times, in order."""
    with server.client() as client:
        before = spent([server.process.pid])
        calls = iter(calls)
        while some := list(islice(calls, depth)):
            pipeline = client.pipeline(transaction=False)
            for command in some:
                pipeline.execute_command(*command)
            pipeline.execute()
        return spent([server.process.pid]).since(before).run_ns / 10**9


def compare(server: RedisServer, users: int, nodes: int, depth: int) -> dict[str, float]:
    recorder, from_us = Recorder(), START_US + WARM_S * 10**6
    until_us = from_us + MEASURED_S * 10**6
    simulation = Simulation(recorder, nodes, (LIMIT,))
    simulation.arrivals(operations(users, nodes, until_us, Random(1)))
    result = simulation.run(until_us)
    with server.client() as client:
        client.flushall()
        lease = client.script_load(timed(LEASE_SCRIPT.text, "call('TIME')"))
        plain = client.script_load(timed(PLAIN_TEXT, "redis.call('TIME')"))

    def lease_calls(calls: list[Call]) -> Iterator[tuple]:
        for when_us, key, packed in calls:
            yield ("EVALSHA", lease, 1, key, packed, *divmod(when_us, 10**6))

    def plain_calls(from_us: int, until_us: int) -> Iterator[tuple]:
        for when_us, _, user in operations(users, nodes, until_us, Random(1)):
            if when_us >= from_us:
                yield ("EVALSHA", plain, 1, f"plain:{user}", RATE, RATE, *divmod(when_us, 10**6))

    warm_up = [call for call in recorder.calls if call[0] < from_us]
    measured = [call for call in recorder.calls if call[0] >= from_us]
    sampled_us = until_us - 2 * 10**6  # of the plain calls a fifth is enough: each costs the same
    rounds = []
    for _ in range(ROUNDS):
        with server.client() as client:
            client.flushdb()
        cost(server, lease_calls(warm_up), depth)
        lease_s = cost(server, lease_calls(measured), depth)
        plain_s = cost(server, plain_calls(sampled_us, until_us), depth) * MEASURED_S / 2
        rounds.append((plain_s / lease_s, lease_s, plain_s))
    ratio, lease_s, plain_s = sorted(rounds)[ROUNDS // 2]
    decisions = users * PER_SECOND * MEASURED_S
    return {
        "users": users,
        "nodes": nodes,
        "pipeline": depth,
        "decisions_per_lease_call": decisions / len(measured),
        "lease_call_us": lease_s / len(measured) * 10**6,
        "plain_call_us": plain_s / decisions * 10**6,
        "lease_decisions_per_cpu_s": decisions / lease_s,
        "plain_decisions_per_cpu_s": decisions / plain_s,
        "ratio": ratio,
        "ratio_least": min(rounds)[0],
        "ratio_most": max(rounds)[0],
        "admitted_of_ideal": result.share_of_ideal,
        "overshoot_tokens": max(0.0, result.overshoot_tokens),
    }


def memory(server: RedisServer, holders: int) -> list[int]:
    """MEMORY USAGE of one live user with 1, 2, ... holders, each with totals as they are after a while."""
    found = []
    with server.client() as client:
        client.flushall()
        sha = client.script_load(LEASE_SCRIPT.text)
        for number in range(holders):
            ask = Ask(LIMIT, bytes([number + 1]) * 8, sequence=300, acked=299, spent=5000, returned=200, extra=20)
            request = Request("user-123456", (ask,), need=1)
            client.evalsha(sha, 1, f"cpro:limit:{request.user}", pack_request(request, 1, POLICY))
            found.append(client.memory_usage(f"cpro:limit:{request.user}"))
    return found


def abuse(per_second: int = 10_000, seconds: int = 30) -> dict[str, float]:
    simulation = Simulation(StoreOracle(POLICY), 1, (LIMIT,))
    until_us = START_US + seconds * 10**6
    simulation.arrivals(
        (START_US + number * 10**6 // per_second, 0, "abuser") for number in range(per_second * seconds)
    )
    result = simulation.run(until_us)
    return {
        "operations_per_s": per_second,
        "calls_per_s": result.calls / seconds,
        "admitted_of_ideal": result.share_of_ideal,
        "overshoot_tokens": max(0.0, result.overshoot_tokens),
    }


def started() -> RedisServer:
    return RedisServer(Path(tempfile.mkdtemp(prefix="cpro-leases-"))).start()
