"""A segment of the journal: what is appended is read, in order, and what finds no room is counted."""

import fcntl
import os
import random
import stat
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.journal import START, Journal, RowWriter, SegmentReader
from cpro._fast.rows import decode, encode
from cpro._fast.segment import Segment, crc32c, crc32c_by_table
from cpro.analytics.schema import OPERATIONS, SUBSCRIPTIONS, Kind
from cpro.errors import StoreError
from tests.oracle import journal as oracle

SIZE = 64 * 1024
NUMBERED = [Kind.U64, Kind.TEXT]
SLACK = 64
"""Bytes at the end of a segment that may stay unused."""


@pytest.fixture
def make(tmp_path: Path):
    """Segments, numbered as they are made; closed at the end."""
    made = []

    def create(size: int = SIZE, version: int = 1) -> Segment:
        made.append(Segment.create(str(tmp_path / f"{len(made) + 1:020}.seg"), size, version))
        return made[-1]

    yield create
    for segment in made:
        segment.close()


def journal_on(segment: Segment | None) -> Journal:
    journal = Journal()
    journal.switch(segment)
    return journal


def append_rows(journal: Journal, count: int, text: str = "x", first: int = 0) -> int:
    """Numbered rows of table 1; how many found room."""
    rows = RowWriter(journal, 1, NUMBERED)
    return sum(rows.append((number, text)) for number in range(first, first + count))


def numbers_in(reader: SegmentReader) -> list[int]:
    return [decode(NUMBERED, data)[0] for _, data in reader.records(START, reader.committed)]


def test_rows_are_read_in_the_order_in_which_they_were_appended(make):
    segment = make()
    journal = journal_on(segment)
    operation = ("c", "u", "publish", "chat:x", "", 0, 0, 5, {}, "chat", "n", 1)
    subscription = ("c", "u", "chat:x", "chat", "n", 1)
    assert RowWriter(journal, 1, OPERATIONS.kinds).append(operation)
    assert RowWriter(journal, 3, SUBSCRIPTIONS.kinds).append(subscription)
    expected = [(1, encode(OPERATIONS.kinds, operation)), (3, encode(SUBSCRIPTIONS.kinds, subscription))]
    reader = SegmentReader(segment.path)
    assert reader.records(START, reader.committed) == expected
    assert (journal.appended[1], journal.appended[3], sum(journal.dropped)) == (1, 1, 0)
    found = oracle.Segment(Path(segment.path).read_bytes())
    assert (found.records(), found.bad) == (expected, 0)
    assert (found.name.hex(), found.version, found.size, found.end) == (reader.id, 1, SIZE, segment.committed)
    assert found.data[1024:1072] == found.data[:48] == oracle.identity(found.name, SIZE)
    assert segment.rows == 2


def test_a_reader_sees_what_is_appended_after_it_was_opened(make):
    segment = make()
    journal, reader = journal_on(segment), SegmentReader(segment.path)
    assert (reader.committed, reader.end_of(START, 10, SIZE)) == (START, (START, 0))
    assert append_rows(journal, 3) == 3
    assert reader.committed == segment.committed > START
    assert numbers_in(reader) == [0, 1, 2]


def test_a_batch_ends_at_whole_rows_within_its_limits(make):
    segment = make()
    append_rows(journal_on(segment), 10)
    reader = SegmentReader(segment.path)
    row = (reader.committed - START) // 10
    assert reader.end_of(START, 4, SIZE) == (START + 4 * row, 4)
    assert reader.end_of(START + 4 * row, 100, 3 * row) == (START + 7 * row, 3)
    assert reader.end_of(START, 100, 3 * row - 1) == (START + 2 * row, 2)
    assert reader.end_of(START, 100, SIZE) == (reader.committed, 10)
    assert reader.end_of(START, 5, 0) == (START + row, 1), "one row, however small the limit"
    assert reader.end_of(START, 0, SIZE) == (START, 0)
    assert reader.end_of(reader.committed, 5, SIZE) == (reader.committed, 0)


def test_a_full_segment_is_followed_by_the_spare_one(make):
    first, second = make(), make()
    journal = journal_on(first)
    journal.offer(second)
    fitting = append_rows(journal, 1000, "x" * 500)
    assert fitting < 1000
    assert journal.segment is second
    assert (journal.spare, journal.retired, journal.starving) == (None, [first], True)
    assert journal.dropped[1] == 1000 - fitting
    readers = [SegmentReader(segment.path) for segment in (first, second)]
    assert [reader.sealed for reader in readers] == [True, False]
    assert numbers_in(readers[0]) + numbers_in(readers[1]) == list(range(fitting))


def test_without_a_segment_every_row_is_dropped_and_counted(make):
    journal = Journal()
    assert append_rows(journal, 5) == 0
    assert (journal.dropped[1], journal.starving) == (5, True)
    journal.offer(make())
    assert not journal.starving
    assert append_rows(journal, 5) == 5


STRICT = """
import ctypes, sys
from cpro._fast.journal import Journal, RowWriter
from cpro._fast.segment import Segment
journal = Journal()
segment = Segment.create(sys.argv[1], 1 << 20, 1)
journal.switch(segment)
append = RowWriter(journal, 1, [5, 1, 8]).append
row = (1 << 60, "ж" * 50, {"a": "b"})
write = ctypes.CDLL(None, use_errno=True).write
def run():
    for _ in range(5000):
        append(row)
run()
if ctypes.CDLL(None).prctl(22, 1, 0, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_STRICT: read, write and exit, or death
    sys.exit(3)
run()
write(1, b"alive", 5)
segment.close()
"""


def test_an_append_neither_calls_the_kernel_nor_keeps_memory(make, tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", STRICT, str(tmp_path / "s")], capture_output=True, timeout=20)
    if done.returncode == 3:
        pytest.skip("no seccomp here")
    assert (done.stdout, done.returncode) == (b"alive", -9), "the kernel kills it at the first other call"
    rows = RowWriter(journal_on(make(1 << 20)), 1, NUMBERED)
    row = (1 << 60, "ж" * 50)
    rows.append(row)
    size, blocks = sys.getsizeof(row[1]), sys.getallocatedblocks()
    for _ in repeat(None, 1000):
        rows.append(row)
    assert sys.getsizeof(row[1]) == size, "a string does not keep its UTF-8"
    assert sys.getallocatedblocks() - blocks < 100


def test_a_row_larger_than_a_segment_costs_nobody_a_segment(make):
    first, second = make(), make()
    journal = journal_on(first)
    journal.offer(second)
    assert append_rows(journal, 1, "x" * SIZE) == 0
    assert (journal.segment, journal.spare, journal.dropped[1]) == (first, second, 1)
    assert not journal.starving
    assert append_rows(journal, 1) == 1


def test_a_segment_is_filled_to_its_end(make):
    segment = make()
    journal = journal_on(segment)
    size = 0
    while append_rows(journal, 1, "x" * size):
        size = (size + 7) % 200
    while append_rows(journal, 1, ""):
        pass
    assert SIZE - SLACK < segment.committed <= SIZE
    assert SegmentReader(segment.path).bad == 0


def test_a_row_of_the_wrong_type_leaves_nothing_behind(make):
    segment = make()
    journal = journal_on(segment)
    rows = RowWriter(journal, 1, NUMBERED)
    for wrong, error in [((1, None), TypeError), ((-1, "x"), OverflowError), ((1,), TypeError)]:
        with pytest.raises(error):
            rows.append(wrong)
    assert (segment.committed, sum(journal.appended), sum(journal.dropped)) == (START, 0, 0)
    assert rows.append((7, "x"))
    assert numbers_in(SegmentReader(segment.path)) == [7]


def test_a_change_of_segment_wakes_whoever_makes_them(make):
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        journal = Journal(wake)
        append_rows(journal, 3)
        assert os.eventfd_read(wake) == 1, "once, not for every row that is dropped"
        journal.switch(make())
        append_rows(journal, 1)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(wake)
        journal.offer(make())
        append_rows(journal, 200, "x" * 500)
        assert os.eventfd_read(wake) >= 1
    finally:
        os.close(wake)


def test_a_segment_is_private_complete_and_locked_while_it_is_written(make):
    segment = make()
    facts = os.stat(segment.path)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert (facts.st_size, facts.st_blocks * 512 >= SIZE) == (SIZE, True)
    assert os.listdir(Path(segment.path).parent) == [Path(segment.path).name]
    with open(segment.path, "rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        segment.close()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_closed_segment_that_was_sealed_gives_back_its_room(make):
    segment = make()
    journal = journal_on(segment)
    append_rows(journal, 10)
    early = SegmentReader(segment.path)
    journal.switch(None)
    segment.close()
    segment.close()
    assert os.path.getsize(segment.path) == START + 4096
    for reader in (early, SegmentReader(segment.path)):
        assert reader.sealed
        assert numbers_in(reader) == list(range(10))


def test_a_segment_whose_writer_is_gone_is_sealed(make):
    segment = make()
    append_rows(journal_on(segment), 10)
    reader = SegmentReader(segment.path)
    assert not reader.sealed
    segment.close()  # unsealed: as the end of its process does it
    assert reader.sealed
    assert numbers_in(reader) == list(range(10))
    assert os.path.getsize(segment.path) == SIZE


def test_a_reader_gives_back_the_memory_of_what_it_has_read(make):
    segment = make(8 << 20)
    append_rows(journal_on(segment), 4000, "x" * 1000)
    reader = SegmentReader(segment.path)
    start = START
    while start < reader.committed:
        start, _ = reader.end_of(start, 100, SIZE)
        assert resident_bytes(segment.path, "r--s") < 2 << 20
    reader.end_of(start, 100, SIZE)
    assert resident_bytes(segment.path, "r--s") < 128 << 10
    assert numbers_in(reader) == list(range(4000)), "it can be read again"


def resident_bytes(path: str, permissions: str) -> int:
    """Of a mapping of this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(path) and permissions in line:
            return next(int(one.split()[1]) * 1024 for one in lines if one.startswith("Rss:"))
    raise AssertionError("not mapped")


def test_readers_of_sealed_segments_need_no_open_file(make):
    segment = make()
    append_rows(journal_on(segment), 10)
    segment.close()
    readers = [SegmentReader(segment.path) for _ in range(100)]
    before = len(os.listdir("/proc/self/fd"))
    assert all(reader.sealed for reader in readers)
    assert len(os.listdir("/proc/self/fd")) == before - 100
    assert all(numbers_in(reader) == list(range(10)) for reader in readers)


def test_sync_tells_whether_there_was_anything_to_write(make):
    segment = make()
    journal = journal_on(segment)
    assert not segment.sync()
    append_rows(journal, 1)
    assert segment.sync()
    assert not segment.sync()


def test_pages_made_ahead_hold_what_was_there(make):
    segment = make()
    journal = journal_on(segment)
    append_rows(journal, 100)
    segment.populate(10_000)
    segment.populate(10**9)
    append_rows(journal, 100, first=100)
    assert numbers_in(SegmentReader(segment.path)) == list(range(200))


def test_what_is_closed_can_not_be_used(make):
    segment = make()
    reader = SegmentReader(segment.path)
    segment.close()
    reader.close()
    reader.close()
    journal = Journal()
    for use in (
        segment.sync,
        segment.seal,
        lambda: segment.is_whole,
        lambda: segment.populate(1),
        lambda: reader.committed,
        lambda: reader.sealed,
        lambda: reader.end_of(START, 1, 1),
        lambda: reader.records(START, 1),
        lambda: journal.switch(segment),
        lambda: journal.offer(segment),
    ):
        with pytest.raises(StoreError, match="closed"):
            use()


@pytest.mark.parametrize("data", [b"", b"short", bytes(4096), b"cprojrnl" + b"\xff" * 5000])
def test_a_file_that_is_no_segment_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(StoreError, match="not a segment"):
        SegmentReader(str(tmp_path / "s"))


def test_what_is_no_plain_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name, words in [
        ("fifo", "not a segment"),
        ("link", "can't read"),
        ("none", "can't read"),
        (".", "not a segment"),
    ]:
        with pytest.raises(StoreError, match=words):
            SegmentReader(str(tmp_path / name))


def test_a_segment_that_can_not_be_made_leaves_nothing(tmp_path: Path):
    for path in (tmp_path / "none" / "1.seg", tmp_path):
        with pytest.raises(StoreError, match="can't create"):
            Segment.create(str(path), SIZE, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 4096, 8191, 1 << 40])
def test_sizes_that_can_not_be_are_errors(tmp_path: Path, size: int):
    with pytest.raises(ValueError, match="bytes"):
        Segment.create(str(tmp_path / "s"), size, 1)


@pytest.mark.parametrize("table", [0, 16, -1])
def test_tables_that_can_not_be_are_errors(table: int):
    with pytest.raises(ValueError, match="number"):
        RowWriter(Journal(), table, NUMBERED)


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_the_checksum_is_crc32c_with_and_without_the_instruction(data: bytes, seed: int):
    assert crc32c(data, seed) == crc32c_by_table(data, seed) == oracle.crc32c(data, seed)


def test_the_checksum_is_the_one_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


def test_rows_of_any_size_fill_segments_without_a_gap(make):
    chance = random.Random(5)
    segments = [make() for _ in range(8)]
    journal = journal_on(segments[0])
    written = []
    for number in range(3000):
        if journal.spare is None and len(journal.retired) < 6:
            journal.offer(segments[len(journal.retired) + 1])
        text = chance.choice("aé€😀") * chance.choice([0, 1, 30, 300, 3000])
        if append_rows(journal, 1, text, first=number):
            written.append((number, text))
    found = []
    for segment in segments:
        reader = SegmentReader(segment.path)
        found += [decode(NUMBERED, data) for _, data in reader.records(START, reader.committed)]
        assert reader.bad == 0
    assert found == written
    assert len(journal.retired) == 6
