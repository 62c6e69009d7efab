"""What a charge costs, seen from Python: the call itself, one hot user, users all over the table. Prints JSON."""

import json
import os
import time
import timeit

from cpro._fast.buckets import CLIENT, USER, BucketTable, Layer, Plan

PATH = "/dev/shm/cpro-benchmark.buckets"
STEP_NS = 1_000_000
FULL_NS = 1000 * 10**9
PLANS = {
    "no bucket": Plan([]),
    "1 bucket": Plan([Layer(1, USER, 1, STEP_NS, FULL_NS)]),
    "3 buckets": Plan(
        [Layer(block, (CLIENT, USER, USER)[block], 2, STEP_NS, FULL_NS) for block in range(2)]
        + [Layer(2, USER, 3, STEP_NS, FULL_NS)]
    ),
}


def measure() -> dict[str, dict[str, float]]:
    """Nanoseconds per call, the best of seven runs, by plan and by number of users."""
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    table = BucketTable.create_or_open(PATH, 1_000_000, bytes(16), now_ns)
    results: dict[str, dict[str, float]] = {}
    for users in (1, 10_000, 100_000):
        names = [f"user:{number}" for number in range(users)] * (100_000 // users)
        for label, plan in PLANS.items():

            def charge_all(charge=table.charge, plan=plan, names=names) -> None:
                for name in names:
                    charge(plan, name, name, 1, now_ns)

            best_s = min(timeit.repeat(charge_all, number=1, repeat=7))
            results.setdefault(label, {})[f"{users} users"] = round(best_s / len(names) * 1e9, 1)
    results["evictions"] = {"all": float(table.evictions)}
    table.close()
    os.unlink(PATH)
    return results


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
