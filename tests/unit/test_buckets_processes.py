"""Several processes on one table: exact together, and none hurt by the sudden end of another."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from pathlib import Path

import pytest

from cpro._fast.buckets import BucketTable, Plan
from tests.unit.buckets_worker import WIDE, narrow

WORKER = [sys.executable, "-m", "tests.unit.buckets_worker"]
SECOND = 1_000_000_000


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture
def table(tmp_path: Path):
    made = BucketTable.create_or_open(str(tmp_path / "t"), 1_000_000, bytes(16), boot_ns())
    yield made
    made.close()


def run_together(processes: int, what: str, table: BucketTable, *numbers: int) -> list[list[int]]:
    """What each has admitted; all begin when the last is ready."""
    command = [*WORKER, what, table.path, *map(str, numbers)]
    begin, hold = os.pipe()
    workers = [subprocess.Popen(command, stdin=begin, stdout=subprocess.PIPE) for _ in range(processes)]
    os.close(begin)
    assert [worker.stdout.readline() for worker in workers] == [b"ready\n"] * processes
    os.close(hold)
    return [json.loads(worker.communicate(timeout=40)[0]) for worker in workers]


def busiest_ns(times: list[int], step_ns: int) -> int:
    """The most that any interval admits beyond its refill, as ns: max over i <= j of (j - i + 1) * step - (t_j - t_i).

    Exact, for these are the times the charges were made for. One pass: the least height so far is carried along.
    """
    heights = [number * step_ns - time_ns for number, time_ns in enumerate(times)]
    return max(height - least + step_ns for height, least in zip(heights, accumulate(heights, min), strict=True))


@contextmanager
def churning(table: BucketTable, processes: int):
    """Workers that insert without end, killed (-9) on the way out."""
    workers = [
        subprocess.Popen([*WORKER, "churn", table.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize(
    ("processes", "burst", "step_ns", "batch"), [(2, 10, 10_000_000, 20), (4, 100, 50_000, 5), (3, 1, 1_000_000, 1)]
)
def test_processes_together_keep_the_envelope_and_lose_little(table: BucketTable, processes, burst, step_ns, batch):
    admitted = run_together(processes, "hammer", table, int(0.6 * SECOND), burst, step_ns, batch)
    times = sorted(time_ns for own in admitted for time_ns in own)
    assert busiest_ns(times, step_ns) <= burst * step_ns
    overflowed_ns = sum(max(0, later - earlier - burst * step_ns) for earlier, later in pairwise(times))  # nobody ran
    assert len(times) >= 0.9 * (times[-1] - times[0] - overflowed_ns) / step_ns
    spent = 400_000 - table.tokens_left(Plan([WIDE]), "", "42", 1, times[0])  # refills one a second
    assert len(times) - 3 <= spent <= 1.05 * len(times) + 10, "the wide bucket leaks where the narrow one refuses"


def test_racing_inserts_make_one_bucket_of_one_key(table: BucketTable):
    admitted = run_together(4, "insert", table, 60_000)
    assert sorted(key for own in admitted for key in own) == list(range(60_000))
    assert sum(bool(own) for own in admitted) > 1, "they did not race"
    assert table.live(boot_ns()) == 60_000


def test_a_worker_that_died_holding_every_mutex_blocks_nobody(table: BucketTable):
    subprocess.run([*WORKER, "die_holding_everything", table.path], check=False)
    plan = Plan([narrow(1, SECOND)])
    now_ns = boot_ns()
    assert all(table.charge(plan, "", str(number), 1, now_ns) == 0b01_00 for number in range(5000))
    assert all(table.charge(plan, "", str(number), 1, now_ns) == 0b10_00 for number in range(5000))


def test_workers_killed_while_they_insert_leave_a_sound_table(table: BucketTable):
    plan = Plan([narrow(1, 3600 * SECOND)])
    now_ns = boot_ns()
    users = (str(number) for number in range(150_000))
    for _ in range(6):
        with churning(table, 2):
            until = time.monotonic() + 0.25 + random.random() * 0.05
            while time.monotonic() < until:
                for user in islice(users, 50):
                    assert table.charge(plan, "", user, 1, now_ns) == 0b01_00
                    assert table.charge(plan, "", user, 1, now_ns) == 0b10_00


def test_a_second_owner_leaves_workers_their_mutexes(table: BucketTable):
    with churning(table, 1) as workers:
        for _ in range(20):
            again = BucketTable.create_or_open(table.path, 1_000_000, bytes(16), boot_ns())
            assert again.holder_id == table.holder_id
            again.close()
        assert workers[0].poll() is None
