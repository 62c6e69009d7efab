"""What a charge costs, seen from Python: by number of buckets, and with users all over the table. No clock is read."""

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpro._fast.buckets import CLIENT, USER, BucketTable, Layer, Plan

STEP_NS = 1_000_000
FULL_NS = 1000 * 10**9
USERS = 100_000
PLANS = {
    "no bucket": Plan([]),
    "1 bucket": Plan([Layer(1, USER, 1, STEP_NS, FULL_NS)]),
    "3 buckets": Plan(
        [
            Layer(0, CLIENT, 2, STEP_NS, FULL_NS),
            Layer(1, USER, 2, STEP_NS, FULL_NS),
            Layer(2, USER, 3, STEP_NS, FULL_NS),
        ]
    ),
    "refused": Plan([Layer(1, USER, 4, FULL_NS, FULL_NS)]),
}


@contextmanager
def table_for(buckets):
    """Where cpro has it by default: on a disk, the pages would be written back and fault again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        table = BucketTable.create_or_open(f"{folder}/table", buckets, bytes(16), now_ns())
        yield table
        table.close()


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("users", [pytest.param(1, id="1 user"), pytest.param(USERS, id="100k users")])
@pytest.mark.parametrize("label", PLANS)
def test_charge(measure, label, users):
    charge_all(measure, 1_000_000, label, users)


def test_charge_in_a_table_with_room_for_150k(measure):
    """The same where the table is no larger than its users need: fewer pages, so the processor finds them faster."""
    charge_all(measure, 150_000, "1 bucket", USERS)


def charge_all(measure, room, label, users):
    names = [f"user:{number}" for number in range(users)] * (USERS // users)
    now = now_ns()

    with table_for(room) as table:

        def run(calls, charge=table.charge, plan=PLANS[label]):
            for name in names:
                charge(plan, name, name, 1, now)

        measure(run, USERS)
        assert table.evictions == 0
