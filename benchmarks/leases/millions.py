"""`python -m benchmarks.leases.millions`: a minute of a thousand nodes and ten million users, in virtual time.

Most users of such a deployment are quiet: the average one comes every 1,000 seconds, the busiest 600 times a second.
Who has not come for 15 seconds is forgotten, for by then bucket and leases are as if new. So memory is for those who
come (and the ranks of all), and a longer time takes longer but no more of it.
"""

import argparse
import sys
import time

from benchmarks.leases.deployment import deployment
from benchmarks.leases.output import show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases.millions", description=__doc__)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--each-per-s", type=float, default=0.001, help="operations of the average user")
    parser.add_argument("--seconds", type=int, default=60, help="of virtual time")
    options = parser.parse_args()
    found = []
    for spread in (1, 4):
        began = time.monotonic()
        one = deployment(
            options.nodes, options.users, each_per_s=options.each_per_s, seconds=options.seconds, spread=spread
        )
        found.append({**one, "took_s": time.monotonic() - began})
    show(
        found,
        [
            "nodes",
            "users",
            "visits",
            "nodes per user",
            "operations",
            "busiest user, operations/s",
            "calls per decision",
            "admitted / ideal",
            "overshoot",
            "tokens in hand",
        ],
        [
            [
                f"{one['nodes']:,}",
                f"{one['users']:,}",
                f"{one['users_seen']:,}",
                str(one["nodes_per_user"]),
                f"{one['operations']:,}",
                f"{one['most_demand_per_s']:,.0f}",
                f"{one['calls_per_decision']:.3f}",
                f"{one['admitted_of_ideal']:.2%}",
                f"{one['overshoot_tokens']:.0f}",
                f"{one['in_hand_tokens']:,.0f}",
            ]
            for one in found
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
