"""A writer killed (-9) at random moments: what it was told is safe is there, once, in order, and nothing else is."""

import mmap
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpro._fast.journal import START, SegmentReader
from cpro._fast.rows import decode
from tests.unit.journal_worker import KINDS, text_of


class Killed:
    """A folder whose writer is started and killed again and again."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "journal"
        self._acknowledged = folder / "acknowledged"
        self._acknowledged.write_bytes(bytes(8))
        with open(self._acknowledged, "r+b") as file:
            self._counter = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    @contextmanager
    def writer(self, this_round: int):
        """Runs within; killed at the end."""
        self._counter[0] = 0
        command = [sys.executable, "-m", "tests.unit.journal_worker", self._root, self._acknowledged, str(this_round)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as writer:
            try:
                yield writer
            finally:
                writer.kill()

    def run(self, this_round: int, until: int) -> tuple[int, bool]:
        """Kill the writer once it has `until` rows; returns (rows it was told are safe, whether it never stopped)."""
        with self.writer(this_round) as writer:
            while self._counter[0] < until and writer.poll() is None:
                time.sleep(0.0002)
            self._check_that_the_last_is_not_sealed()
        return self._counter[0], writer.returncode == -9

    def follow(self, this_round: int, until: int) -> list[tuple]:
        """At least `until` rows, each read as soon as it is committed."""
        found, reader, start = [], None, START
        with self.writer(this_round) as writer:
            while len(found) < until and writer.poll() is None:
                following = [one for one in self._readers() if reader is None or one.path > reader.path]
                if reader is None or (reader.sealed and start == reader.committed):
                    reader, start = (following[0], START) if following else (reader, start)
                    continue
                end, _ = reader.end_of(start, 1 << 30, 1 << 30)
                found += [decode(KINDS, data) for _, data in reader.records(start, end)]
                start = end
                assert reader.bad == 0
        return found

    def _check_that_the_last_is_not_sealed(self) -> None:
        """The last one is sealed once there is another."""
        last = self._readers()[-1]
        assert not last.sealed or self._readers()[-1].path > last.path

    def take(self) -> list[tuple]:
        """All rows that there are; deletes the segments, as the shipper does."""
        found = []
        for reader in self._readers():
            assert reader.sealed
            start = START
            while start < reader.committed:
                end, count = reader.end_of(start, 100, 1 << 20)
                batch = reader.records(start, end)
                assert len(batch) == count
                found += [decode(KINDS, data) for _, data in batch]
                start = end
            assert (reader.bad, reader.lost_bytes) == (0, 0)
            reader.close()
            Path(reader.path).unlink()
        return found

    def _readers(self) -> list[SegmentReader]:
        return [SegmentReader(str(path)) for path in sorted(self._root.glob("0/*.seg"))]


def kill_again_and_again(folder: Path, rounds: int) -> None:
    killed = Killed(folder)
    for this_round in range(rounds):
        acknowledged, never_stopped = killed.run(this_round, until=random.choice([1, 50, 1000, 5000]))
        assert never_stopped
        rows = killed.take()
        assert len(rows) - acknowledged in (0, 1), "one may be written but not yet acknowledged"
        assert rows == [(this_round, number, text_of(this_round, number)) for number in range(len(rows))]


def test_a_killed_writer_leaves_every_row_it_acknowledged(tmp_path: Path):
    kill_again_and_again(tmp_path, 20)


def test_a_reader_on_the_writers_heels_sees_whole_rows_in_order(tmp_path: Path):
    rows = Killed(tmp_path).follow(7, until=5000)
    assert rows == [(7, number, text_of(7, number)) for number in range(len(rows))]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_writer_killed_a_hundred_times_leaves_every_row_it_acknowledged(tmp_path: Path):
    kill_again_and_again(tmp_path, 100)
