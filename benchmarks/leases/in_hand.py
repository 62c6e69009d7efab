"""`python -m benchmarks.leases.in_hand`: a decision with a lease in hand beside one of the node's own buckets.

The gates of a worker, called as a door calls them, for users all over the table in random order; both in each round.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import starmap
from pathlib import Path
from random import Random

from benchmarks.leases.output import show, spread
from cpro._fast.buckets import BucketTable
from cpro._fast.leasetable import LeaseTable
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.limits.gate import USER, Gate
from cpro.limits.leaser import Leaser
from cpro.limits.leases import Policy
from cpro.limits.outage import Part
from cpro.limits.rules import Leased, Rules, compile_rules
from cpro.limits.shared_gate import SharedGate
from cpro.operation import Operation, Verdict

NEVER_REACHED = "{enabled: true, buckets: [{interval: 1s, rate: 1000000}]}"
CASES = {
    "1": {"BLOCK": ("publish",)},
    "2": {"BLOCK": ("publish", "total")},
    "1, and 1 of the connection": {"BLOCK": ("publish",), "client_command": ("publish",)},
}
"""By what stands in the table: the buckets of BLOCK, and of blocks that the node keeps in any case."""
LEASED, LASTS_NS = 1 << 20, 3600 * 10**9


class NoStore:
    """Everything is in hand: it is never asked."""

    def part_of(self, key: str) -> Part:
        return Part(0)

    async def take(self, shard: int, requests: object, deliver: object) -> None:
        raise AssertionError("the store was asked")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases.in_hand", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    found = [asyncio.run(measure(buckets, options.users, options.rounds)) for buckets in CASES]
    show(
        {"users": options.users, "rounds": options.rounds, "cases": found},
        ["buckets", "own bucket, ns", "lease in hand, ns", "**ratio**"],
        [
            [
                one["buckets"],
                f"{one['local_ns']:.0f}",
                f"{one['leased_ns']:.0f}",
                "**{median:.2f}** ({least:.2f} … {most:.2f})".format(**one["ratio"]),
            ]
            for one in found
        ],
        keep="" if options.print_only else "leases-in-hand",
    )
    return 0


async def measure(buckets: str, users: int, rounds: int) -> dict:
    """ns per decision by either gate, and their ratio round by round."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        operations = [Operation("publish", "c1", f"user:{number}") for number in range(users)]
        Random(1).shuffle(operations)
        local = gate(Path(folder), "user_command", buckets, users)
        leased = gate(Path(folder), "redis_user_command", buckets, users)
        locals_ns, leased_ns = [], []
        for _ in range(rounds + 1):
            locals_ns.append(timed(local, operations))
            leased_ns.append(timed(leased, operations))
    ratios = [one / other for one, other in zip(leased_ns[1:], locals_ns[1:], strict=True)]  # the first round warms up
    return {"buckets": buckets, "local_ns": min(locals_ns), "leased_ns": min(leased_ns), "ratio": spread(ratios)}


def timed(charge: Callable[[Operation, int], Verdict | None], operations: list[Operation]) -> float:
    now_ns, admitted = boot_ns(), Verdict.ADMITTED
    began = time.perf_counter_ns()
    for operation in operations:
        if charge(operation, now_ns) is not admitted:
            raise AssertionError(operation)
    return (time.perf_counter_ns() - began) / len(operations)


def gate(folder: Path, block: str, buckets: str, users: int) -> Callable[[Operation, int], Verdict | None]:
    """A worker's way to charge: of the node's own block, or of the shared one with leases in hand for everybody."""
    file = folder / f"{block}.yaml"
    blocks = {name.replace("BLOCK", block): operations for name, operations in CASES[buckets].items()}
    file.write_text("client:\n  rate_limit:\n" + "".join(starmap(section, blocks.items())))
    settings = load(str(file), {}).settings
    limits, has_leases = settings.client.rate_limit, block == "redis_user_command"
    rules = compile_rules(limits, settings.channel, settings.rpc, has_store=has_leases)
    table = BucketTable.create_or_open(str(folder / block), 4 * users, bytes(16), boot_ns())
    if not has_leases:
        own = Gate(table, count)
        own.configure(limits, rules)
        return own.charge
    leases = LeaseTable.create_or_open(str(folder / "leases"), 4 * users, bytes(16), boot_ns())
    lease_to_all(leases, rules, users)
    leaser = Leaser(
        NoStore(),  # type: ignore[arg-type]
        leases,
        Policy(),
        timeout_s=1.0,
        count_tokens=lambda event, tokens: None,
        count_error=lambda shard: None,
    )
    shared = SharedGate(table, count, leases, leaser)
    shared.configure(limits, rules)
    return shared.charge


def section(block: str, operations: tuple[str, ...]) -> str:
    limits = ", ".join(f"{name}: {NEVER_REACHED}" for name in operations)
    return f"    {block}: {{enabled: true, {limits}}}\n"


def lease_to_all(leases: LeaseTable, rules: Rules, users: int) -> None:
    leased: Leased = rules.leased[rules.plan("publish", "", "")]
    now_ns = boot_ns()
    for number in range(users):
        for place in range(len(leased.limits)):
            record = leases.claim(leased.plan, place, f"user:{number}", USER, os.getpid(), now_ns)
            if not record:
                raise AssertionError("the table is full")
            record.granted = record.tokens = LEASED
            record.deadline_ns, record.asked_ns = now_ns + LASTS_NS, now_ns
            record.release()


def count(code: int) -> None:
    """Counting costs both gates the same."""


if __name__ == "__main__":
    sys.exit(main())
