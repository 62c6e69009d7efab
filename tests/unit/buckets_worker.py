"""A process that charges a shared table; started by test_buckets_processes. Prints what was admitted as JSON."""

import ctypes
import json
import mmap
import os
import signal
import sys
import time

from cpro._fast.bucketfile import MUTEX_OFFSET, MUTEX_SPAN, MUTEXES
from cpro._fast.buckets import USER, BucketTable, Layer, Plan

WIDE = Layer(1, USER, 2, 10**9, 400_000 * 10**9)


def narrow(burst: int, step_ns: int) -> Layer:
    return Layer(1, USER, 1, step_ns, burst * step_ns)


def hammer(table: BucketTable, lasting_ns: int, burst: int, step_ns: int, batch: int) -> list[int]:
    """Charge one user as fast as possible; several charges share a clock reading, as in one socket event."""
    until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + lasting_ns
    plan = Plan([narrow(burst, step_ns), WIDE])
    admitted = []
    while (now_ns := time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < until_ns:
        for _ in range(batch):
            if table.charge(plan, "", "42", 1, now_ns) == 0b01_00:
                admitted.append(now_ns)
    return admitted


def insert(table: BucketTable, keys: int) -> list[int]:
    """Charge the same fresh users as the others do, at the same time."""
    plan = Plan([narrow(1, 3600 * 10**9)])
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return [key for key in range(keys) if table.charge(plan, "", str(key), 1, now_ns) == 0b01_00]


def churn(table: BucketTable) -> None:
    """Insert users for ever, until killed."""
    plan = Plan([narrow(1, 10**9), WIDE])
    number = 0
    while True:
        number += 1
        table.charge(plan, "", f"{os.getpid()}:{number}", 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def die_holding_everything(path: str) -> None:
    """Lock every mutex of the table, then end without a word."""
    libc = ctypes.CDLL(None)
    with open(path, "r+b") as file:
        pages = mmap.mmap(file.fileno(), MUTEX_OFFSET + MUTEXES * MUTEX_SPAN)
    first = ctypes.addressof(ctypes.c_char.from_buffer(pages, MUTEX_OFFSET))
    for place in range(MUTEXES):
        assert libc.pthread_mutex_lock(ctypes.c_void_p(first + place * MUTEX_SPAN)) == 0
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    what, path, *numbers = sys.argv[1:]
    if what == "die_holding_everything":
        die_holding_everything(path)
    work = {"hammer": hammer, "insert": insert, "churn": churn}[what]
    table = BucketTable.attach(path)
    print("ready", flush=True)
    sys.stdin.read()  # it ends for all at once
    print(json.dumps(work(table, *map(int, numbers))))
