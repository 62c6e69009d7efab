"""`python -m benchmarks.leases.small`: small buckets under a hammer, in virtual time (streams in docs/leases.md).

Every node is asked for eight times the rate of one user's bucket, 0.5 ms to the store and back. Beside what a bucket
gives by leases stands the ideal, a single bucket that sees every operation.
"""

import argparse
import sys

from benchmarks.leases.deployment import of_one_user
from benchmarks.leases.output import show
from benchmarks.leases.simulator import Result

BUCKETS = [(1000, 100), (1000, 20), (100, 25), (100, 10), (20, 4), (20, 2), (100, 1)]
"""Rates a second, and bursts."""
NODES = (1, 2, 4)
HAMMER = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases.small", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of virtual time")
    options = parser.parse_args()
    found = [measure(rate, burst, nodes, options.seconds) for rate, burst in BUCKETS for nodes in NODES]
    head = ["rate a second", "burst", "nodes", "admitted of the ideal", "calls a second and node", "overshoot"]
    rows = (
        [*(f"{one[name]:,}" for name in ("rate", "burst", "nodes")), f"{one['share']:.0%}", f"{one['calls']:.1f}",
         f"{one['overshoot']:g}"]
        for one in found
    )  # fmt: skip
    show(found, head, rows)
    return 0


def measure(rate: int, burst: int, nodes: int, seconds: int) -> dict[str, float]:
    result: Result = of_one_user(rate, burst, nodes, HAMMER * nodes * rate, seconds).result
    return {
        "rate": rate,
        "burst": burst,
        "nodes": nodes,
        "share": result.share_of_ideal,
        "calls": max(result.calls_by_node.values()) / result.seconds,
        "overshoot": max(0.0, result.overshoot_tokens),
    }


if __name__ == "__main__":
    sys.exit(main())
