"""A process that spends from a shared lease table; started by test_leasetable_processes. Prints a number as JSON."""

import itertools
import json
import os
import random
import sys
import time

from cpro._fast.leasetable import LeasePlan, LeaseTable

PLAN = LeasePlan([1])
BOTH = LeasePlan([1, 2])


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def spend_all(table: LeaseTable, until_ns: int) -> int:
    """Spend until nothing comes any more; how many were had."""
    had = 0
    while (now_ns := boot_ns()) < until_ns:
        had += table.spend(BOTH, "u", 0, now_ns) <= 1
    return had


def spend_loudly(table: LeaseTable) -> None:
    """Spend for ever; a byte is written after each, so that spending is known after a kill."""
    while True:
        if table.spend(PLAN, "u", 0, boot_ns()) <= 1:
            os.write(1, b".")


def undo(table: LeaseTable, until_ns: int) -> int:
    while (now_ns := boot_ns()) < until_ns:
        if table.spend(BOTH, "u", 0, now_ns) <= 1:
            table.give_back(BOTH, "u", 0, now_ns)
    return 0


def claim_keys(table: LeaseTable, start_ns: int, keys: int) -> int:
    """Claim the same keys as the others do, at the same time in another order, and keep the flights."""
    order = [str(key) for key in range(keys)]
    random.shuffle(order)
    while boot_ns() < start_ns:
        pass
    won = sum(bool(table.claim(PLAN, 0, key, 0, os.getpid(), start_ns)) for key in order)
    time.sleep(1)  # a process that ends loses its flights
    return won


def churn(table: LeaseTable) -> None:
    """Claim and fill new records for ever, until killed."""
    for number in itertools.count():
        now_ns = boot_ns()
        record = table.claim(PLAN, 0, f"{os.getpid()}:{number}", 0, os.getpid(), now_ns)
        if record:
            record.sequence += 1
            record.granted += 3
            record.tokens += 3
            record.deadline_ns = now_ns + 10**9
            record.release()


if __name__ == "__main__":
    what, path, *numbers = sys.argv[1:]
    work = {f.__name__: f for f in (spend_all, spend_loudly, undo, claim_keys, churn)}[what]
    print(json.dumps(work(LeaseTable.attach(path), *map(int, numbers))))
