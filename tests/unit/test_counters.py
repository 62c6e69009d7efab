"""Counters of several workers in one file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpro._fast.counters import BOUNDS_NS, HISTOGRAM_SLOTS, CounterFile
from cpro.errors import StartError, StoreError


@pytest.fixture
def file(tmp_path: Path):
    made = CounterFile.create(str(tmp_path / "c"), 3, 40)
    yield made
    made.close()


def test_totals_are_the_sum_over_the_workers(file: CounterFile):
    for worker in range(3):
        file.block(worker).add(5, worker)
        file.block(worker).add(39)
    assert file.totals() == [0] * 5 + [3] + [0] * 33 + [3]


def test_a_gauge_is_what_was_set_last(file: CounterFile):
    file.block(0).set(1, 9)
    file.block(0).set(1, 4)
    file.block(1).set(1, 2)
    assert file.totals()[1] == 6


@pytest.mark.parametrize("place", range(len(BOUNDS_NS)))
@pytest.mark.parametrize(("beside", "bucket"), [(-1, 0), (0, 0), (1, 1)])
def test_a_duration_is_counted_below_the_bound_it_does_not_exceed(
    file: CounterFile, place: int, beside: int, bucket: int
):
    file.block(0).record(2, 10, BOUNDS_NS[place] + beside)
    histogram = [0] * HISTOGRAM_SLOTS
    histogram[place + bucket] = 1
    histogram[-1] = BOUNDS_NS[place] + beside
    assert file.totals() == [0, 0, 1] + [0] * 7 + histogram + [0] * (30 - HISTOGRAM_SLOTS)


def test_a_negative_duration_counts_as_none(file: CounterFile):
    file.block(0).record(0, 10, -5)
    assert (file.totals()[10], file.totals()[9 + HISTOGRAM_SLOTS]) == (1, 0)


@pytest.mark.parametrize("index", [40, -1, 2**62, -(2**63)])
def test_an_index_out_of_range_is_an_error_and_writes_nothing(file: CounterFile, index: int):
    block = file.block(1)
    for wrong in (
        lambda: block.add(index),
        lambda: block.set(index, 1),
        lambda: block.record(index, 0, 1),
        lambda: block.record(0, index, 1),
        lambda: block.record(0, 40 - HISTOGRAM_SLOTS + 1, 1),
    ):
        with pytest.raises(IndexError):
            wrong()
    assert file.totals() == [0] * 40
    block.record(0, 40 - HISTOGRAM_SLOTS, 1)


@pytest.mark.parametrize("index", [3, -1])
def test_a_block_out_of_range_is_an_error(file: CounterFile, index: int):
    with pytest.raises(IndexError, match="3 blocks"):
        file.block(index)


def test_a_worker_that_is_restarted_goes_on_counting(file: CounterFile, tmp_path: Path):
    script = (
        "import sys; from cpro._fast.counters import CounterFile; CounterFile.attach(sys.argv[1]).block(1).add(3, 7)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "c")], check=True)
    assert file.totals()[3] == 14


def test_a_memfd_serves_as_well_as_a_file():
    memory = os.memfd_create("counters")
    try:
        path = f"/proc/{os.getpid()}/fd/{memory}"
        CounterFile.create(path, 2, 10).block(1).add(4, 2)
        assert CounterFile.attach(path).totals()[4] == 2
    finally:
        os.close(memory)


def test_created_again_it_starts_at_zero_and_old_holders_keep_theirs(file: CounterFile, tmp_path: Path):
    old = file.block(0)
    again = CounterFile.create(str(tmp_path / "c"), 3, 40)
    old.add(0)
    assert (again.totals()[0], file.totals()[0]) == (0, 1)


def test_blocks_outlive_a_closed_file(file: CounterFile):
    block = file.block(0)
    file.close()
    file.close()
    block.add(0)
    with pytest.raises(StoreError, match="closed"):
        file.totals()


@pytest.mark.parametrize("data", [b"", b"short", bytes(4096), b"cpcount1" + b"\xff" * 4088])
def test_a_file_that_is_none_of_ours_stops_the_start(tmp_path: Path, data: bytes):
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(StartError, match="not a counter file"):
        CounterFile.attach(str(tmp_path / "c"))
    with pytest.raises(StartError, match="can't open"):
        CounterFile.attach(str(tmp_path / "missing"))


@pytest.mark.parametrize(("blocks", "slots"), [(0, 1), (1, 0), (1, 2**21)])
def test_sizes_that_can_not_be_are_errors(tmp_path: Path, blocks: int, slots: int):
    with pytest.raises(ValueError, match="must be 1 to"):
        CounterFile.create(str(tmp_path / "c"), blocks, slots)
