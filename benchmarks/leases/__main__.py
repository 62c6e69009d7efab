"""`python -m benchmarks.leases`: what leases cost Redis, into benchmarks/README.md; what a large deployment would do,
into docs/leases.md."""

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.leases.cost import abuse, compare, memory, started
from benchmarks.leases.deployment import deployment
from benchmarks.load.machine import describe, made_on
from benchmarks.load.report import README, put
from benchmarks.pages import publish

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "leases.json"
PAGE = ROOT / "docs" / "leases.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases", description=__doc__)
    parser.add_argument("--users", type=int, default=2000, help="active users whose cost is measured")
    parser.add_argument("--nodes", type=int, default=1000, help="nodes of the large deployment")
    parser.add_argument("--population", type=int, default=20_000, help="its users")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    server = started()
    try:
        sizes = memory(server, 20)
        costs = [compare(server, options.users, nodes, depth) for nodes in (1, 4) for depth in (50, 8, 1)]
    finally:
        server.stop()
        shutil.rmtree(server.folder)
    found = {
        "machine": describe(sys.executable),
        "memory_bytes": sizes,
        "cost": costs,
        "abuse": abuse(),
        "deployment": [
            deployment(options.nodes, options.population, each_per_s=0.5, seconds=options.seconds, spread=spread)
            for spread in (1, 4)
        ],
    }
    costs, deployments = cost_lines(found), deployment_lines(found)
    print("\n".join([*costs, "", *deployments]))
    if not options.print_only:
        put(README, "leases-cost", costs)
        publish(found, "\n".join(deployments), RESULT, PAGE)
    return 0


def cost_lines(found: dict) -> list[str]:
    """Measured: on a real Redis."""
    sizes, abusive = found["memory_bytes"], found["abuse"]
    costs = [
        f"| {one['nodes']} | {one['pipeline']} | {one['decisions_per_lease_call']:.1f} | {one['lease_call_us']:.1f} "
        f"| {one['plain_call_us']:.1f} | **{one['ratio']:.1f}** ({one['ratio_least']:.1f} … {one['ratio_most']:.1f}) |"
        for one in found["cost"]
    ]
    return [
        f"{made_on(found['machine'])} `python -m benchmarks.leases`.",
        "",
        "| nodes per user | pipeline | decisions per call | lease call, µs | plain call, µs "
        "| **decisions per CPU-second, ratio** |",
        "|---|---|---|---|---|---|",
        *costs,
        "",
        f"A user with {abusive['operations_per_s']:,} operations a second under a limit of 60: "
        f"{abusive['calls_per_s']:.1f} calls a second, {abusive['admitted_of_ideal']:.1%} of the ideal admitted, "
        f"overshoot {abusive['overshoot_tokens']:.0f}.",
        "",
        f"Memory (`MEMORY USAGE`, one bucket): {sizes[0]} bytes with one holder, "
        f"{(sizes[-1] - sizes[0]) / (len(sizes) - 1):.0f} more for each further one (mean of {len(sizes) - 1}).",
    ]


def deployment_lines(found: dict) -> list[str]:
    """Simulated."""
    deployments = [
        f"| {one['nodes']:,} | {one['users']:,} | {one['nodes_per_user']} | {one['most_demand_per_s']:,.0f} "
        f"| {one['calls_per_decision']:.3f} | {one['admitted_of_ideal']:.2%} | {one['overshoot_tokens']:.0f} "
        f"| {one['in_hand_tokens']:,.0f} |"
        for one in found["deployment"]
    ]
    return [
        f"{made_on(found['machine'])} `python -m benchmarks.leases`.",
        "",
        "Simulated deployments, demand by Zipf's law, limit 60 a second, up to 2 ms to the store and back each:",
        "",
        "| nodes | users | nodes per user | busiest user, operations/s | calls per decision | admitted / ideal "
        "| overshoot | tokens in hand |",
        "|---|---|---|---|---|---|---|---|",
        *deployments,
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
