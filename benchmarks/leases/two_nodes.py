"""`python -m benchmarks.leases.two_nodes`: one user hammers two real nodes of two workers each, over one real Redis.

What is admitted beside the ideal (burst + rate · time), the calls Redis counts, and the worst interval of all.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.support.envelope import worst_overshoot
from tests.support.hammer import Hammer
from tests.support.redis import RedisServer
from tests.support.service import Service, limits

from benchmarks.leases.output import show

LIMITS = ((60, 60), (1000, 1000), (100, 50), (20, 2))
"""Tokens a second, and burst."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases.two_nodes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=16, help="to each node")
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    found = [measure(rate, burst, options.seconds, options.connections) for rate, burst in LIMITS]
    show(
        found,
        [
            "rate a second",
            "burst",
            "operations a second",
            "**admitted / ideal**",
            "by each node",
            "calls a second and node",
            "overshoot",
        ],
        [
            [
                str(one["rate"]),
                str(one["burst"]),
                f"{one['operations_per_s']:,.0f}",
                f"**{one['admitted_of_ideal']:.1%}**",
                " + ".join(str(admitted) for admitted in one["admitted_by_node"]),
                f"{one['calls_per_s_and_node']:.1f}",
                f"{one['overshoot_tokens']:.0f}",
            ]
            for one in found
        ],
        keep="" if options.print_only else "leases-two-nodes",
    )
    return 0


def measure(rate: int, burst: int, seconds: float, connections: int) -> dict:
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder) / "redis") as server:
        settings = {
            **limits("redis_user_command", publish=(rate, "1s", burst)),
            "redis": {"address": server.address},
            "proxy": {"without_upstream": "allow"},
            "workers": 2,
        }
        with Service(Path(folder) / "1", settings) as one, Service(Path(folder) / "2", settings) as two:
            hammers = [Hammer(lambda node=node: node.proxy, connections) for node in (one, two)]
            before, began = calls(server), time.monotonic()
            asyncio.run(together(hammers, seconds))
            lasted, asked = time.monotonic() - began, calls(server) - before
    history = [times for hammer in hammers for times in hammer.admitted]
    return {
        "rate": rate,
        "burst": burst,
        "operations_per_s": (len(history) + sum(len(hammer.refused) for hammer in hammers)) / lasted,
        "admitted_by_node": [len(hammer.admitted) for hammer in hammers],
        "admitted_of_ideal": len(history) / (burst + rate * lasted),
        "calls_per_s_and_node": asked / lasted / len(hammers),
        "overshoot_tokens": max(0.0, worst_overshoot(history, burst, rate)),
    }


async def together(hammers: list[Hammer], seconds: float) -> None:
    await asyncio.gather(*(hammer.run(seconds) for hammer in hammers))


def calls(server: RedisServer) -> int:
    """Scripts that Redis has run."""
    stats = server.run("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


if __name__ == "__main__":
    sys.exit(main())
