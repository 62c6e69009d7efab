"""`python -m benchmarks.status`: what users' statuses cost; into docs/user-status.md."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.load.machine import describe, made_on
from benchmarks.pages import publish
from benchmarks.status import reads, updates

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "status.json"
PAGE = ROOT / "docs" / "user-status.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.status", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=100, help="reads of a thousand users in a round")
    parser.add_argument("--requests", type=int, default=20_000, help="requests of a client in a round")
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cpro-status-") as folder:
        found = {
            "machine": describe(sys.executable),
            "reads": [reads.compare(Path(folder), shards, options.rounds, options.calls) for shards in (1, 4)],
            "updates": updates.compare(Path(folder), options.rounds, options.requests),
        }
    page = report(found)
    print(page)
    if not options.print_only:
        publish(found, page, RESULT, PAGE)
    return 0


def report(found: dict) -> str:
    updated = found["updates"]
    rows = [
        f"| {one['shards']} | {one['time_ms']['ours']:.2f} | {one['cpu_ms']['ours']:.2f} "
        f"| **{one['time_to_pipelines']:.2f}** | **{one['cpu_to_pipelines']:.2f}** "
        f"| {one['time_to_mgets']:.2f} | {one['cpu_to_mgets']:.2f} |"
        for one in found["reads"]
    ]
    kinds = [
        f"| {kind} | {updated['cpu_us'][f'{kind}: rpc']:.1f} | **{updated[f'{kind}: rpc to refused publish']:.2f}** "
        f"| {updated[f'{kind}: refused publish to one without user_status']:.2f} |"
        for kind in ("embedded", "redis")
    ]
    return "\n".join(
        [
            f"{made_on(found['machine'])} `python -m benchmarks.status`.",
            "",
            "`get_user_status` of 1,000 users, request decoded and answer encoded, to bare redis-py fetching the same:",
            "",
            "| shards | time, ms | CPU, ms | **time to pipelines of GET** | **CPU** | time to MGETs | CPU |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "An update by a client that is folded, to a refused publish on the same cpro; and that publish to one",
            "on a cpro without `user_status`, so what it costs to see who is online. CPU time of the worker:",
            "",
            "| store | update, µs | **to a refused publish** | refused publish, on to off |",
            "|---|---|---|---|",
            *kinds,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
