"""`python -m benchmarks.leases.cold`: the first decision about a user beside a bare GET, of one client under one load.

Users whom neither the node nor Redis knows arrive at random times, each for one operation: a worker's gate asks the
store. Then as many GETs of keys that are not there are sent at the same times over the same connections.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import uvloop
from tests.support.redis import RedisServer

from benchmarks.leases.output import show, spread
from cpro._fast.buckets import BucketTable
from cpro._fast.leasetable import LeaseTable
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.config.redis_address import parse_redis
from cpro.limits.leaser import Leaser
from cpro.limits.leases import Policy
from cpro.limits.redis_store import LeaseStore
from cpro.limits.rules import compile_rules
from cpro.limits.shared_gate import SharedGate
from cpro.operation import Operation
from cpro.redis import Shards

SETTINGS = """redis: {{address: "{address}"}}
client:
  rate_limit:
    store_timeout: 5s
    redis_user_command: {{enabled: true, publish: {{enabled: true, buckets: [{{interval: 1s, rate: 60}}]}}}}
"""

PREPARE_S = 0.25
"""Longer than it takes to set the times of a round."""

Ask = Callable[[str, Callable[[object], None]], None]
"""Asks about a name; the callback hears when it is answered."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases.cold", description=__doc__)
    parser.add_argument("--per-second", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round, for either")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder) / "redis") as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(measure(Path(folder), server, options))
    show(
        found,
        ["users a second", "GET p50, ms", "GET p99, ms", "decision p50, ms", "decision p99, ms", "**p99, ratio**"],
        [
            [
                f"{one['per_second']:,}",
                *(f"{one[which][share]['median']:.2f}" for which in ("get", "decision") for share in ("p50", "p99")),
                "**{median:.2f}** ({least:.2f} … {most:.2f})".format(**one["ratio"]),
            ]
            for one in found
        ],
        keep="" if options.print_only else "leases-cold",
    )
    return 0


async def measure(folder: Path, server: RedisServer, options: argparse.Namespace) -> list[dict]:
    file = folder / "cpro.yaml"
    file.write_text(SETTINGS.format(address=server.address))
    settings = load(str(file), {}).settings
    limits = settings.client.rate_limit
    shards = Shards(parse_redis(settings.redis))
    leases = LeaseTable.create_or_open(str(folder / "leases"), 1_000_000, bytes(16), boot_ns())
    table = BucketTable.create_or_open(str(folder / "buckets"), 1000, bytes(16), boot_ns())
    leaser = Leaser(
        LeaseStore(shards, shards.prefix),
        leases,
        Policy(),
        timeout_s=5.0,
        count_tokens=lambda event, tokens: None,
        count_error=lambda shard: None,
    )
    gate = SharedGate(table, lambda code: None, leases, leaser)
    gate.configure(limits, compile_rules(limits, settings.channel, settings.rpc, has_store=True))
    getting: set[asyncio.Task[None]] = set()

    def decide(name: str, done: Callable[[object], None]) -> None:
        operation = Operation("publish", "c1", name)
        if gate.charge(operation, boot_ns()) is not None:
            raise AssertionError("the user is not cold")
        gate.wait(operation, done)

    def get(name: str, done: Callable[[object], None]) -> None:
        async def ask(key: bytes) -> None:
            done(await shards.command(0, key, "GET", key))

        task = asyncio.get_running_loop().create_task(ask(name.encode()))
        getting.add(task)
        task.add_done_callback(getting.discard)

    try:
        await arrive(get, "warm-up-get", 500, 0.2, 0)
        await arrive(decide, "warm-up", 500, 0.2, 0)
        return [await compare(get, decide, per_second, options) for per_second in options.per_second]
    finally:
        await leaser.close()
        await shards.aclose()


async def compare(get: Ask, decide: Ask, per_second: int, options: argparse.Namespace) -> dict:
    gets, decisions = [], []
    for number in range(options.rounds):
        gets.append(await arrive(get, f"get-{per_second}-{number}", per_second, options.seconds, number))
        decisions.append(await arrive(decide, f"user-{per_second}-{number}", per_second, options.seconds, number))
    ratios = [at(one, 0.99) / at(other, 0.99) for one, other in zip(decisions, gets, strict=True)]
    return {
        "per_second": per_second,
        "get": percentiles(gets),
        "decision": percentiles(decisions),
        "ratio": spread(ratios),
    }


async def arrive(ask: Ask, stem: str, per_second: int, seconds: float, seed: int) -> list[float]:
    """Milliseconds that each took, in order; the times of arrival depend on the seed alone."""
    loop, random, took = asyncio.get_running_loop(), Random(seed), []
    open_, over = 0, asyncio.Event()

    def begin(number: int) -> None:
        began = boot_ns()

        def done(answer: object) -> None:
            nonlocal open_
            took.append((boot_ns() - began) / 10**6)
            open_ -= 1
            if not open_:
                over.set()

        ask(f"{stem}-{number}", done)

    at_s, times = loop.time() + PREPARE_S, []
    until_s = at_s + seconds
    while at_s < until_s:
        times.append(at_s)
        at_s += random.expovariate(per_second)
    open_ = len(times)
    for number, when_s in enumerate(times):
        loop.call_at(when_s, begin, number)
    gc.collect()
    gc.freeze()  # as a worker does: neither the times nor the table of users need be looked at again
    await over.wait()
    return sorted(took)


def percentiles(rounds: list[list[float]]) -> dict[str, dict[str, float]]:
    return {f"p{share * 100:.0f}": spread([at(took, share) for took in rounds]) for share in (0.5, 0.99)}


def at(took: list[float], share: float) -> float:
    return took[min(len(took) - 1, int(len(took) * share))]


if __name__ == "__main__":
    sys.exit(main())
