"""The segments of one worker: always one ready, never more than allowed, and no trouble that reaches the worker."""

import os
import resource
import shutil
import threading
import time
from pathlib import Path

import pytest

from cpro._fast.journal import START, RowWriter, SegmentReader
from cpro._fast.rows import decode
from cpro.analytics import segments as module
from cpro.analytics.recovery import give_back_room
from cpro.analytics.schema import VERSION, Kind
from cpro.analytics.segments import SMALLEST_BYTES, Segments, Trouble, segment_bytes, used_bytes
from cpro.errors import StoreError

NUMBERED = [Kind.U64, Kind.TEXT]
PLENTY = 64 * SMALLEST_BYTES
KIB = 1024


class Rig:
    """Segments without threads, in a folder of their own; rounds are run by hand."""

    def __init__(self, root: Path, **changes) -> None:
        self.told: list[tuple[Trouble, str]] = []
        self.root = root
        values = {"workers": 8, "max_bytes": PLENTY, "sync_interval_s": 0.0} | changes
        self.segments = Segments(str(root), 3, **values, report=lambda what, words: self.told.append((what, words)))
        self.journal = self.segments.journal
        self.rows = RowWriter(self.journal, 1, NUMBERED)
        self.number = 0

    def append(self, count: int = 1, size: int = 10) -> int:
        """How many of so many rows found room; they are numbered by those that did."""
        before = self.number
        for _ in range(count):
            self.number += self.rows.append((self.number, "x" * size))
        return self.number - before

    def files(self) -> list[Path]:
        return sorted((self.root / "3").glob("*.seg"))

    def read(self) -> list[int]:
        return [number for path in self.files() for number in numbers_in(path)]

    @property
    def troubles(self) -> list[Trouble]:
        return [what for what, _ in self.told]


def numbers_in(path: Path) -> list[int]:
    reader = SegmentReader(str(path))
    found = [decode(NUMBERED, data)[0] for _, data in reader.records(START, reader.committed)]
    reader.close()
    return found


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    made: list[Rig] = []

    def start(**changes) -> Rig:
        made.append(Rig(tmp_path / "journal", **changes))
        made[-1].segments.open()
        return made[-1]

    yield start
    for one in made:
        one.segments.close()


def test_rows_find_a_segment_from_the_start(rig):
    one = rig()
    assert one.append(5) == 5
    assert one.read() == [0, 1, 2, 3, 4]
    assert one.told == []
    assert (one.root / "3").stat().st_mode & 0o777 == 0o700


def test_the_next_segment_is_ready_before_the_current_one_is_full(rig):
    one = rig()
    for _ in range(20):
        one.segments.prepare()
        assert one.append(100, KIB) == 100
    assert len(one.files()) > 5
    assert one.read() == list(range(2000))
    assert one.told == []


def test_full_segments_are_closed_and_give_back_their_room(rig):
    one = rig()
    for _ in range(5):
        one.segments.prepare()
        one.append(200, KIB)
    one.segments.sync()
    assert one.journal.retired == []
    assert [SegmentReader(str(path)).sealed for path in one.files()] == [True] * 4 + [False]


def test_over_its_limit_the_newest_rows_drop_until_segments_are_deleted(rig):
    one = rig(max_bytes=8 * SMALLEST_BYTES)
    for _ in range(100):
        one.segments.prepare()
        one.segments.sync()
        one.append(50, KIB)
    kept = one.number
    assert used_bytes(str(one.root)) <= 8 * SMALLEST_BYTES
    assert 1800 < kept < 2048
    assert one.journal.dropped[1] == 5000 - kept
    assert one.told == [(Trouble.FULL, one.told[0][1])]
    assert one.read() == list(range(kept))
    assert one.journal.segment is None, "it is sealed, so that it can be shipped and deleted"
    for path in one.files()[:4]:
        path.unlink()
    one.segments.prepare()
    assert one.told[1:] == [(Trouble.FULL, "")]
    assert one.append(50, KIB) == 50


def test_a_large_row_without_room_leaves_a_segment_that_has_some(rig):
    one = rig(max_bytes=SMALLEST_BYTES)
    assert one.append(1, 100 * KIB) == 1
    one.segments.prepare()
    assert one.append(1, 200 * KIB) == 0
    one.segments.prepare()
    assert one.journal.segment is not None, "the others still fit"
    assert one.append(1, KIB) == 1


def test_a_deleted_folder_is_made_again(rig):
    one = rig()
    one.segments.prepare()
    one.append(5)
    shutil.rmtree(one.root)
    one.append(2)
    one.segments.prepare()
    assert one.troubles == [Trouble.LOST]
    assert "7 rows" in one.told[0][1]
    one.number = 0
    assert one.append(3) == 3
    one.segments.sync()
    assert one.read() == [0, 1, 2]


@pytest.mark.parametrize("left", [0, 100, 4096, 8192, 100_000])
def test_a_file_cut_short_under_the_worker_does_not_kill_it(rig, left):
    one = rig()
    one.segments.prepare()
    one.append(5)
    os.truncate(one.files()[0], left)
    assert one.append(100, KIB) == 100
    one.segments.sync()
    one.segments.prepare()
    assert one.troubles == [Trouble.LOST]
    one.number = 0
    assert one.append(100, KIB) == 100
    assert numbers_in(one.files()[1]) == list(range(100))


def test_a_spare_cut_short_is_not_used(rig):
    one = rig()
    one.segments.prepare()
    os.truncate(one.journal.spare.path, 0)
    one.segments.prepare()
    for _ in range(4):
        one.append(100, KIB)
        one.segments.prepare()
    assert one.number == 400
    assert one.told == []


def test_a_full_disk_is_told_once_and_recovers(rig):
    one = rig()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for _ in range(10):
            one.segments.prepare()
            one.append(50, KIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert one.troubles == [Trouble.AWAY]
    assert "File too large" in one.told[0][1]
    assert one.journal.dropped[1] == 500 - one.number > 0
    assert one.journal.segment is None, "what could be written is sealed, so that it can be shipped and deleted"
    assert not list(one.root.glob("*/*.new"))
    one.segments.prepare()
    assert one.told[1:] == [(Trouble.AWAY, "")]
    assert one.append(50, KIB) == 50
    assert one.read() == list(range(one.number))


def test_a_folder_that_can_not_be_made_is_told_once_and_recovers(rig, tmp_path: Path):
    (tmp_path / "journal").write_text("in the way")
    one = rig()
    for _ in range(10):
        one.segments.prepare()
        assert one.append(5) == 0
    assert one.troubles == [Trouble.AWAY]
    assert one.journal.dropped[1] == 50
    (tmp_path / "journal").unlink()
    one.segments.prepare()
    assert one.append(5) == 5
    assert one.troubles == [Trouble.AWAY, Trouble.AWAY]


def test_a_disk_that_fails_to_sync_is_told_once_and_serving_goes_on(rig, monkeypatch):
    one = rig()

    def fail(path: str) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for _ in range(3):
            assert one.append(5) == 5
            one.segments.sync()
    assert one.troubles == [Trouble.SYNC]
    assert "Input/output error" in one.told[0][1]
    one.segments.sync()
    assert one.told[1:] == [(Trouble.SYNC, "")]


def test_closing_seals_and_keeps_no_segment_that_was_never_used(rig):
    one = rig()
    one.segments.prepare()
    assert len(one.files()) == 2
    one.append(5)
    one.segments.close()
    assert one.append(5) == 0
    assert one.journal.dropped[1] == 5
    (path,) = one.files()
    assert SegmentReader(str(path)).sealed
    assert numbers_in(path) == [0, 1, 2, 3, 4]
    assert path.stat().st_size == START + 4096


def test_numbers_rise_when_a_worker_starts_again_although_the_clock_went_back(rig, tmp_path: Path):
    one = rig(now_ms=lambda: 1000)
    one.segments.close()
    two = rig(now_ms=lambda: 10)
    two.segments.prepare()
    assert [int(path.stem) for path in two.files()] == [1000, 1001, 1002]


def test_a_start_clears_away_what_a_killed_worker_left_unfinished(rig, tmp_path: Path):
    folder = tmp_path / "journal" / "3"
    folder.mkdir(parents=True)
    (folder / "00000000000000000007.seg.new").write_bytes(bytes(10))
    (folder / "notes.txt").write_text("not ours")
    rig()
    assert sorted(os.listdir(folder))[1:] == ["notes.txt"]


def test_segments_of_dead_workers_are_cut_to_what_they_hold(rig, tmp_path: Path):
    one = rig()
    one.append(5)
    (path,) = one.files()
    give_back_room(str(path.parent))
    assert path.stat().st_size == SMALLEST_BYTES, "its writer lives"
    one.journal.segment.close()  # as the end of its process does it
    (path.parent / "1.seg").write_bytes(b"no segment")
    give_back_room(str(path.parent))
    assert path.stat().st_size == START + 4096
    assert numbers_in(path) == [0, 1, 2, 3, 4]
    assert (path.parent / "1.seg").read_bytes() == b"no segment"
    one.segments._stopping.set()
    with pytest.raises(StoreError, match="can't read"):
        give_back_room(str(tmp_path / "none"))


def test_what_all_workers_use_counts(rig, tmp_path: Path):
    one = rig()
    other = tmp_path / "journal" / "0"
    other.mkdir()
    (other / "1.seg").write_bytes(bytes(1000))
    places = tmp_path / "journal" / "places"
    places.mkdir()
    (places / "sink").write_bytes(bytes(7))
    assert used_bytes(str(one.root)) == SMALLEST_BYTES + 1000
    assert used_bytes(str(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    ("max_bytes", "workers", "expected"),
    [
        (8 << 30, 1, 32 << 20),
        (8 << 30, 64, 16 << 20),
        (64 << 20, 1, 8 << 20),
        (8 << 20, 1, 1 << 20),
        (1, 1, 256 << 10),
        (100_000_000, 3, 4_165_632),
        (100 << 30, 2, 200 << 20),
        (1 << 50, 2, 1 << 30),
    ],
)
def test_a_small_journal_has_small_segments_and_a_huge_one_not_too_many(max_bytes, workers, expected):
    assert segment_bytes(max_bytes, workers) == expected


def test_rows_carry_the_schemas_version(rig):
    one = rig()
    assert SegmentReader(str(one.files()[0])).version == VERSION


def test_in_its_threads_nothing_drops_nothing_is_lost_and_all_of_it_is_synced(rig):
    one = rig(max_bytes=1024 * SMALLEST_BYTES, workers=128, sync_interval_s=0.05)
    one.segments.start()
    for _ in range(200):
        one.append(40, KIB)
        while one.journal.spare is None:  # faster than any worker: let it prepare one
            time.sleep(0.001)
    assert one.number == 8000
    one.segments.close()
    assert one.read() == list(range(8000))
    assert one.told == []
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if t.name.startswith("journal")]


def test_a_folder_deleted_again_and_again_under_running_threads_harms_nobody(rig):
    one = rig(sync_interval_s=0.01)
    one.segments.start()
    for _ in range(10):
        shutil.rmtree(one.root, ignore_errors=True)
        told = len(one.told)
        while len(one.told) == told:
            one.append(10, KIB)
            time.sleep(0.001)
    assert Trouble.LOST in one.troubles
    one.segments.close()
