"""Segments that are torn, cut or wrong in bytes: what is whole is read, the rest counted, nothing else comes out."""

import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cpro._fast.journal import START, Journal, RowWriter, SegmentReader
from cpro._fast.rows import decode
from cpro._fast.segment import Segment
from cpro.analytics.schema import Kind
from cpro.errors import StoreError
from tests.oracle import journal as oracle

SIZE = 8192
ROWS = 12
NUMBERED = [Kind.U64, Kind.TEXT]
IDENTITY = range(48)
COPY = range(1024, 1072)
COMMITTED = range(2048, 2056)
SEALED_AT = range(2112, 2120)


def write_segment(path: Path, *, sealed: bool) -> list[tuple[int, str]]:
    segment = Segment.create(str(path), SIZE, 1)
    journal = Journal()
    journal.switch(segment)
    rows = RowWriter(journal, 1, NUMBERED)
    written = [(number, f"row {number} " + "x" * number * 3) for number in range(ROWS)]
    assert all(map(rows.append, written))
    if sealed:
        journal.switch(None)
    segment.close()
    return written


@pytest.fixture(params=[True, False], ids=["sealed", "killed"])
def segment(request, tmp_path: Path) -> tuple[Path, list[tuple[int, str]]]:
    path = tmp_path / "1.seg"
    return path, write_segment(path, sealed=request.param)


class Passed(NamedTuple):
    id: str
    end: int
    bad: int
    lost_bytes: int


def read(path: Path) -> tuple[list[tuple[int, str]], Passed]:
    """All rows, in batches of three, and what was passed over."""
    reader = SegmentReader(str(path))
    assert reader.sealed
    found, start = [], START
    while start < reader.committed:
        end, count = reader.end_of(start, 3, 1 << 30)
        assert end > start
        batch = reader.records(start, end)
        assert len(batch) == count
        found += [decode(NUMBERED, data) for _, data in batch]
        start = end
    assert start == reader.committed
    passed = Passed(reader.id, start, reader.bad, reader.lost_bytes)
    reader.close()
    return found, passed


def ends_of(path: Path) -> list[int]:
    """Where each record ends."""
    reader = SegmentReader(str(path))
    assert reader.sealed
    ends = [START]
    while ends[-1] < reader.committed:
        ends.append(reader.end_of(ends[-1], 1, 0)[0])
    reader.close()
    return ends[1:]


@contextmanager
def changed(path: Path, at: int, data: bytes):
    """Other bytes in place, and what was there again afterwards; a file system may take long to write a file anew."""
    with open(path, "r+b", buffering=0) as file:
        before = os.pread(file.fileno(), len(data), at)
        os.pwrite(file.fileno(), data, at)
        yield
        os.pwrite(file.fileno(), before, at)


def test_a_wrong_byte_in_a_record_costs_that_row_only(segment):
    path, written = segment
    ends, whole = ends_of(path), path.read_bytes()
    for at in range(START, ends[-1]):
        for flip in (1, 0x80, 0xFF):
            with changed(path, at, bytes([whole[at] ^ flip])):
                found, passed = read(path)
            hit = next(place for place, end in enumerate(ends) if at < end)
            if not (hit == ROWS - 1 and found == written[:-1]):  # the end of a killed one is found by its records
                assert passed.bad == 1
            assert found == [row for place, row in enumerate(written) if place != hit]


def test_a_wrong_byte_in_the_header_costs_nothing(segment):
    path, written = segment
    whole = path.read_bytes()
    for at in (*IDENTITY, *COPY, *COMMITTED, *SEALED_AT):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 0xFF):
            with changed(path, at, bytes([whole[at] ^ flip])):
                found, passed = read(path)
            assert found == written
            if at in IDENTITY or at in COPY:
                assert passed[2:] == (0, 0)


def test_wrong_bytes_in_both_copies_of_what_identifies_it_are_an_error(segment):
    path, _ = segment
    whole = bytearray(path.read_bytes())
    whole[20] ^= 1
    whole[1024 + 30] ^= 1
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="not a segment"):
        SegmentReader(str(path))


def test_a_file_cut_anywhere_has_the_rows_before(segment):
    path, written = segment
    ends = ends_of(path)
    for size in reversed(range(START, ends[-1])):
        os.truncate(path, size)
        found, _ = read(path)
        assert found == written[: sum(end <= size for end in ends)]
    for size in (START - 1, 2100, 1000, 47, 1, 0):
        os.truncate(path, size)
        with pytest.raises(StoreError, match="not a segment"):
            SegmentReader(str(path))


def test_many_wrong_bytes_are_passed_over_as_by_the_twin(segment):
    path, written = segment
    ends, whole, chance = ends_of(path), path.read_bytes(), random.Random(7)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            start = chance.randrange(START, ends[-1])
            length = chance.choice([1, 1, 2, 5, 40])
            data[start : start + length] = chance.choice([bytes(length), chance.randbytes(length)])
        del data[len(whole) :]
        with changed(path, 0, bytes(data)):
            found, passed = read(path)
        twin = oracle.Segment(bytes(data))
        assert found == [decode(NUMBERED, values) for _, values in twin.records()]
        assert passed == (twin.name.hex(), twin.end, twin.bad, twin.lost_bytes)
        assert set(found) <= set(written)
        assert found == sorted(found)


def test_what_a_user_wrote_is_never_taken_for_a_record(tmp_path: Path):
    """A row whose text holds a record of another segment, whole: damage before it must not bring that to light."""
    other = tmp_path / "other.seg"
    write_segment(other, sealed=True)
    planted = other.read_bytes()[START : ends_of(other)[-1]]
    path = tmp_path / "1.seg"
    segment = Segment.create(str(path), SIZE, 1)
    journal = Journal()
    journal.switch(segment)
    rows = RowWriter(journal, 1, NUMBERED)
    assert rows.append((1, planted))
    assert rows.append((2, "honest"))
    segment.close()
    data = bytearray(path.read_bytes())
    for at in range(START, START + 4):
        data[at] ^= 0x40
        path.write_bytes(data)
        assert read(path)[0] == [(2, "honest")]
        data[at] ^= 0x40


def test_damage_is_counted_once_however_often_it_is_read(segment):
    path, _ = segment
    ends = ends_of(path)
    with open(path, "r+b") as file:
        file.seek(ends[4] + 3)
        file.write(b"\xff\xff\xff\xff\xff\xff")
    reader = SegmentReader(str(path))
    assert reader.sealed
    for _ in range(3):
        assert reader.end_of(START, ROWS, SIZE)[1] == ROWS - 1
        assert (reader.bad, reader.lost_bytes) == (1, ends[5] - ends[4])


def test_text_made_to_look_like_many_records_ends_the_search_in_time(tmp_path: Path):
    size = 4 * 1024 * 1024
    path = tmp_path / "1.seg"
    segment = Segment.create(str(path), size, 1)
    journal = Journal()
    journal.switch(segment)
    rows = RowWriter(journal, 1, NUMBERED)
    plausible = (1_000_000).to_bytes(4, "little") * 250_000
    for number in range(4):
        assert rows.append((number, plausible))
    segment.close()
    with open(path, "r+b") as file:
        file.seek(ends_of(path)[0] + 4)
        file.write(b"\xff\xff\xff\xff")
    found, passed = read(path)
    assert [number for number, _ in found] == [0, 2, 3], "the length of the bad one leads to the next"
    assert passed.bad == 1


@pytest.mark.parametrize("left", [0, 100, START, START + 100])
def test_a_file_cut_short_under_a_reader_does_not_kill_it(segment, left):
    path, written = segment
    reader = SegmentReader(str(path))
    assert reader.sealed
    end = reader.committed
    os.truncate(path, left)
    os.truncate(path, SIZE)  # which does not bring back what was there
    os.truncate(path, left)
    rows = [decode(NUMBERED, data) for _, data in reader.records(START, end)]
    assert rows == written[: len(rows)]
    assert reader.end_of(START, ROWS, SIZE)[0] in (reader.committed, START)
    reader.close()


OTHER_FAULT = """
import mmap, sys, tempfile
from cpro._fast.segment import Segment
if sys.argv[2] == "faulthandler":
    import faulthandler
    faulthandler.enable()
segment = Segment.create(sys.argv[1], 8192, 1)
with tempfile.TemporaryFile() as file:
    file.truncate(4096)
    pages = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)
    pages[0] = 1
print("alive")
"""


@pytest.mark.parametrize("before", ["nothing", "faulthandler"])
def test_a_bus_error_elsewhere_still_ends_the_process(tmp_path: Path, before: str):
    command = [sys.executable, "-c", OTHER_FAULT, str(tmp_path / "1.seg"), before]
    done = subprocess.run(command, capture_output=True, timeout=20)
    assert done.returncode == -7
    assert done.stdout == b""
    assert (b"Bus error" in done.stderr) == (before == "faulthandler")


def test_a_bus_error_sent_by_somebody_ends_the_process(tmp_path: Path):
    script = (
        "import os, signal, sys; from cpro._fast.segment import Segment; s = Segment.create(sys.argv[1], 8192, 1);"
        "os.kill(os.getpid(), signal.SIGBUS); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "1.seg")], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (-7, b"")
