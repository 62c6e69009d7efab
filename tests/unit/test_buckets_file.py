"""The table's file: what it keeps when opened again, and what becomes of a bad one."""

import os
import random
import resource
from pathlib import Path

import pytest

from cpro._fast import mapped
from cpro._fast.bucketfile import TABLE_OFFSET, groups_for, read_home
from cpro._fast.buckets import USER, BucketTable, Layer, Plan
from cpro.errors import StartError

BOOT, OTHER_BOOT = bytes(16), bytes(15) + b"\1"
NOW_NS = 10**15
PLAN = Plan([Layer(1, USER, 7, 10**9, 10 * 10**9)])


def open_table(path: Path, max_buckets: int = 1000, boot_id: bytes = BOOT, now_ns: int = NOW_NS) -> BucketTable:
    return BucketTable.create_or_open(str(path / "t"), max_buckets, boot_id, now_ns)


def spend(table: BucketTable, users: int, now_ns: int = NOW_NS) -> None:
    for number in range(users):
        table.charge(PLAN, "", str(number), 1, now_ns, 4)


def all_left(table: BucketTable, users: int, now_ns: int = NOW_NS) -> set[int]:
    return {table.tokens_left(PLAN, "", str(number), 1, now_ns) for number in range(users)}


def test_opened_again_it_has_its_buckets_its_key_and_its_holder(tmp_path: Path):
    first = open_table(tmp_path)
    spend(first, 500)
    identity = first.holder_id, first.hash_key
    first.close()
    again = open_table(tmp_path)
    assert (again.holder_id, again.hash_key) == identity
    assert all_left(again, 500) == {6}


def test_two_tables_have_different_keys_and_holders(tmp_path: Path):
    one = BucketTable.create_or_open(str(tmp_path / "one"), 10, BOOT, NOW_NS)
    two = BucketTable.create_or_open(str(tmp_path / "two"), 10, BOOT, NOW_NS)
    assert len({one.holder_id, two.holder_id, one.hash_key, two.hash_key}) == 4


def test_a_worker_shares_what_the_owner_opened(tmp_path: Path):
    owner = open_table(tmp_path)
    worker = BucketTable.attach(owner.path)
    spend(worker, 3)
    assert all_left(owner, 3) == {6}
    with pytest.raises(StartError, match="no bucket table"):
        BucketTable.attach(str(tmp_path / "missing"))


def test_after_a_reboot_it_starts_empty_with_another_key(tmp_path: Path):
    first = open_table(tmp_path)
    spend(first, 5)
    key = first.hash_key
    first.close()
    again = open_table(tmp_path, boot_id=OTHER_BOOT)
    assert again.live(0) == 0
    assert again.hash_key != key


@pytest.mark.parametrize("max_buckets", [100, 3000, 20_000])
def test_a_table_of_another_size_keeps_its_live_buckets(tmp_path: Path, max_buckets: int):
    first = open_table(tmp_path, 5000)
    spend(first, 2000)
    for number in range(2000, 3000):
        first.charge(PLAN, "", str(number), 1, NOW_NS - 20 * 10**9)
    identity = first.holder_id, first.hash_key
    first.close()
    again = open_table(tmp_path, max_buckets)
    assert (again.holder_id, again.hash_key) == identity
    assert again.capacity == 4 * groups_for(max_buckets)
    lost = 2000 - again.live(NOW_NS)
    assert lost == again.evictions
    assert lost == 0 or again.capacity < 2100
    assert all_left(again, 3000) <= {6, 10}
    assert sum(again.tokens_left(PLAN, "", str(number), 1, NOW_NS) == 6 for number in range(2000)) == 2000 - lost


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data[:-64],
        lambda data: data + b"x",
        lambda data: b"X" + data[1:],
        lambda data: data[:8] + b"\xff" + data[9:],
        lambda data: data[:64] + b"\xff" * 8 + data[72:],
        lambda data: data[:64] + bytes(8) + data[72:],
        lambda data: bytes(len(data)),
        lambda data: random.Random(1).randbytes(len(data)),
    ],
    ids=["empty", "cut", "short", "long", "magic", "version", "groups", "no-groups", "zeros", "noise"],
)
def test_a_damaged_file_starts_empty(tmp_path: Path, harm):
    first = open_table(tmp_path)
    spend(first, 5)
    first.close()
    path = tmp_path / "t"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(StartError):
        BucketTable.attach(str(path))
    again = open_table(tmp_path)
    assert again.live(0) == 0
    spend(again, 5)
    assert all_left(again, 5) == {6}


def test_noise_in_the_slots_refuses_nobody_for_long(tmp_path: Path):
    first = open_table(tmp_path)
    first.close()
    path = tmp_path / "t"
    data = path.read_bytes()
    path.write_bytes(data[:TABLE_OFFSET] + random.Random(2).randbytes(len(data) - TABLE_OFFSET))
    again = open_table(tmp_path)
    spend(again, 1000)
    assert all_left(again, 1) <= {6, 10}


def test_a_file_with_holes_is_filled_before_it_is_used(tmp_path: Path):
    first = open_table(tmp_path, 100_000)
    first.close()
    path = tmp_path / "t"
    head = path.read_bytes()[:TABLE_OFFSET]
    size = path.stat().st_size
    path.write_bytes(head)
    os.truncate(path, size)
    open_table(tmp_path, 100_000).close()
    assert path.stat().st_blocks * 512 >= size


def test_only_when_twelve_slots_are_live_is_a_bucket_lost_and_that_is_counted(tmp_path: Path):
    table = open_table(tmp_path, 1)
    users = 0
    while table.evictions == 0:
        users += 1
        table.charge(PLAN, "", str(users), 1, NOW_NS)
    assert users > table.capacity / 2
    assert table.live(NOW_NS) == users - 1
    spend(table, 20_000)
    assert table.live(NOW_NS) > 0.99 * table.capacity
    before = table.evictions
    later_ns = NOW_NS + 30 * 10**9
    spend(table, 500, later_ns)
    assert table.evictions == before, "buckets that are full again are no loss"


def test_the_one_that_is_full_first_is_evicted(tmp_path: Path):
    table = open_table(tmp_path, 1)
    for number in range(20_000):
        table.charge(PLAN, "", f"little{number}", 1, NOW_NS)
    for number in range(100):
        table.charge(PLAN, "", f"much{number}", 1, NOW_NS, 10)
    for number in range(20_000):
        table.charge(PLAN, "", f"more{number}", 1, NOW_NS)
    kept = sum(table.tokens_left(PLAN, "", f"much{number}", 1, NOW_NS) == 0 for number in range(100))
    assert kept > 95


def test_at_seventy_percent_almost_nothing_is_lost(tmp_path: Path):
    table = open_table(tmp_path, 200_000)
    spend(table, 200_000)
    assert 0.69 < 200_000 / table.capacity < 0.71
    assert table.evictions < 0.0002 * 200_000
    assert table.live(NOW_NS) == 200_000 - table.evictions


def test_ten_million_buckets_take_230_megabytes():
    assert 0.69 < 10**7 / (4 * groups_for(10**7)) <= 0.7
    assert TABLE_OFFSET + 64 * groups_for(10**7) < 230e6


def test_a_table_remembers_its_data_folder(tmp_path: Path):
    table = BucketTable.create_or_open(str(tmp_path / "t"), 10, BOOT, NOW_NS, "/data/für/cpro")
    assert table.home == read_home(table.path) == "/data/für/cpro"
    table.close()
    moved = BucketTable.create_or_open(table.path, 10, BOOT, NOW_NS, "/elsewhere")
    assert moved.home == read_home(moved.path) == "/elsewhere"
    with pytest.raises(StartError, match="longer than 1024"):
        BucketTable.create_or_open(str(tmp_path / "u"), 10, BOOT, NOW_NS, "/x" * 600)
    assert read_home(str(tmp_path / "missing")) is None


def test_a_symbolic_link_is_not_followed(tmp_path: Path):
    real = tmp_path / "real"
    BucketTable.create_or_open(str(real), 10, BOOT, NOW_NS).close()
    (tmp_path / "t").symlink_to(real)
    with pytest.raises(StartError, match="symbolic link"):
        open_table(tmp_path)


def test_a_file_that_others_may_read_is_replaced(tmp_path: Path):
    first = open_table(tmp_path)
    key = first.hash_key
    first.close()
    (tmp_path / "t").chmod(0o644)
    again = open_table(tmp_path)
    assert again.hash_key != key
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600


def test_another_users_file_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    open_table(tmp_path).close()
    monkeypatch.setattr(mapped.os, "geteuid", lambda: 12345)
    with pytest.raises(StartError, match="belongs to user"):
        open_table(tmp_path)


def test_no_room_is_an_error_at_start_that_leaves_no_file(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StartError, match="no room for 23 MB"):
            open_table(tmp_path, 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
