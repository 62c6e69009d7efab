"""The segments of one worker's journal: made ahead, watched, written to the disk, sealed at the end.

Files. `{root}/{worker}/{20 digits}.seg`, the digits rising also when the folder was empty meanwhile. A worker that is
started again begins a new one.

Threads. One prepares: it keeps a spare segment ready and its pages populated, and replaces a segment that was deleted
or cut short under it. One syncs: it writes to the disk what was appended, within `sync_interval_s`, and closes what is
full. They are two because a disk that takes seconds to sync must not keep the next segment from being ready. Both hold
`_closing` while they use or close a segment that the other may close or use; the worker's own thread holds no lock.

Trouble never reaches the worker: rows drop, the journal counts them, and `report` is told once per change of state.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Final

from cpro import clock
from cpro._fast.journal import Journal
from cpro._fast.segment import START, Segment, sync_folder
from cpro.analytics.recovery import give_back_room
from cpro.analytics.schema import VERSION
from cpro.errors import StoreError

SMALLEST_BYTES: Final = 256 * 1024
COMMON_BYTES: Final = 32 * 1024 * 1024
"""More only where that would be more than `MOST_SEGMENTS`."""
LARGEST_BYTES: Final = 1024 * 1024 * 1024
MOST_SEGMENTS: Final = 512
PARTS: Final = 8
"""A worker's share of the journal is at least so many segments, so that those which are shipped make room in time."""
AHEAD_BYTES: Final = 4 * 1024 * 1024
"""Pages ready before the next append; a worker that wrote more within a tick would wait for the file system itself."""
TICK_S: Final = 0.1
RETRY_S: Final = 0.25
"""How soon after a segment could not be made it is tried again."""
CLOSE_S: Final = 1.0
"""How long a full segment may wait to be synced and closed, where `sync_interval_s` is longer."""
SYNCS: Final = 2
"""In each `sync_interval_s`, so that what was appended so long ago is on the disk although syncing takes its time."""


class Trouble(StrEnum):
    FULL = "full"
    """the journal has no room for another segment: what is not shipped yet takes up all of `max_bytes`"""
    AWAY = "away"
    """the file system refuses one: no space, read-only, no permission"""
    SYNC = "sync"
    """the disk fails to take what was written; a crash of the machine may lose it"""
    LOST = "lost"
    """a segment was deleted or cut short while it was written; what was not shipped of it is lost"""


Report = Callable[[Trouble, str], object]
"""(what, words for a log line); the words are empty when it is over. LOST is told each time, and is over at once."""


def segment_bytes(max_bytes: int, workers: int) -> int:
    """How large the segments of a journal of `max_bytes` are, for `workers` who write it."""
    most = min(max(COMMON_BYTES, max_bytes // MOST_SEGMENTS), LARGEST_BYTES)
    return max(SMALLEST_BYTES, min(most, max_bytes // (PARTS * workers))) // 4096 * 4096


def used_bytes(root: str) -> int:
    """What the segments of all workers take up."""
    total = 0
    for worker in _entries(root):
        if worker.name.isdecimal():
            for file in _entries(worker.path):
                with suppress(OSError):
                    total += file.stat(follow_symlinks=False).st_size
    return total


class Segments:
    """Keeps `journal` in segments. `open`, then `start`; `close` when the worker appends no more."""

    def __init__(
        self,
        root: str,
        worker: int,
        *,
        workers: int,
        max_bytes: int,
        sync_interval_s: float,
        report: Report,
        now_ms: Callable[[], int] = clock.unix_ms,
    ) -> None:
        self._root = root
        self._folder = os.path.join(root, str(worker))
        self._max_bytes = max_bytes
        self._size = segment_bytes(max_bytes, workers)
        self._sync_every_s = max(sync_interval_s / SYNCS, 0.01)
        self._report = report
        self._now_ms = now_ms
        self._number = 0
        self._troubles: set[Trouble] = set()
        self._retry_at_ns = 0
        self._closing = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.journal = Journal(self._wake_fd)

    def open(self) -> None:
        """Make the first segment. Never raises for what the disk does: then rows drop until it recovers."""
        for name in (entry.name for entry in _entries(self._folder)):
            stem, kind = os.path.splitext(name)
            if kind == ".seg" and stem.isdecimal():
                self._number = max(self._number, int(stem))
            elif kind == ".new":  # of a worker that was killed
                with suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))
        self.journal.switch(self._make())

    def start(self) -> None:
        """Prepare and sync in threads from now on."""
        for name, run in (("journal", self._run_preparing), ("journal sync", self._run_syncing)):
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Seal and sync. The journal drops what is appended afterwards. Calling it twice is harmless."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        os.eventfd_write(self._wake_fd, 1)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        spare = self.journal.take_back()
        self.journal.detach()
        self._close_retired()
        if spare is not None:
            with suppress(OSError):
                os.unlink(spare.path)
            spare.close()
        os.close(self._wake_fd)

    def prepare(self) -> None:
        """One round of the thread that prepares: what must be ready before the next append, and is not, gets ready."""
        with self._closing:
            self._replace_damaged()
            self._offer()
            for segment in (self.journal.segment, self.journal.spare):
                if segment is not None:
                    segment.populate(AHEAD_BYTES)

    def sync(self) -> None:
        """Close what is full, and write to the disk what the current segment has."""
        self._close_retired()
        if (segment := self.journal.segment) is not None:
            self._sync(segment)

    def _run_preparing(self) -> None:
        wake = select.poll()
        wake.register(self._wake_fd, select.POLLIN)
        with suppress(StoreError):
            give_back_room(self._folder)
        while not self._stopping.is_set():
            self.prepare()
            if wake.poll(TICK_S * 1000):
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake_fd)

    def _run_syncing(self) -> None:
        sync_at_ns = 0
        while not self._stopping.wait(min(self._sync_every_s, CLOSE_S)):
            if clock.boot_ns() < sync_at_ns:
                self._close_retired()
            else:
                sync_at_ns = clock.boot_ns() + int(self._sync_every_s * 1e9)
                self.sync()

    def _replace_damaged(self) -> None:
        spare, current = self.journal.spare, self.journal.segment
        if spare is not None and not spare.is_whole and self.journal.spare is spare:
            self.journal.take_back()
            self.journal.retired.append(spare)
            self._retry_at_ns = 0
        if current is None or current.is_whole or self.journal.segment is not current:
            return
        self._retry_at_ns = 0
        self.journal.switch(self.journal.take_back())
        self._report(Trouble.LOST, f"{current.path} was deleted or cut short; it had {current.rows} rows")

    def _offer(self) -> None:
        """A spare segment if there is none; without one, let what is full be shipped, which makes room again."""
        if self.journal.spare is not None or clock.boot_ns() < self._retry_at_ns:
            return
        segment, current = self._make(), self.journal.segment
        if segment is not None:
            self.journal.offer(segment)
        elif self.journal.starving and current is not None and _is_nearly_full(current):
            self.journal.switch(None)

    def _make(self) -> Segment | None:
        used = used_bytes(self._root)
        self._tell(Trouble.FULL, f"{used} bytes wait to be shipped" if used + self._size > self._max_bytes else "")
        if Trouble.FULL not in self._troubles:
            try:
                self._make_folder()
                self._number = max(self._number + 1, self._now_ms())
                path = os.path.join(self._folder, f"{self._number:020}.seg")
                segment = Segment.create(path, self._size, VERSION)
                segment.populate(AHEAD_BYTES)
                self._tell(Trouble.AWAY, "")
            except StoreError as fault:
                self._tell(Trouble.AWAY, str(fault))
            else:
                return segment
        self._retry_at_ns = clock.boot_ns() + int(RETRY_S * 1e9)
        return None

    def _make_folder(self) -> None:
        if os.path.isdir(self._folder):
            return
        try:
            os.makedirs(self._folder, 0o700)
        except OSError as fault:
            raise StoreError(f"can't create {self._folder}: {fault.strerror}") from fault
        sync_folder(self._root)
        sync_folder(os.path.dirname(self._root) or ".")

    def _close_retired(self) -> None:
        retired = self.journal.retired
        while retired:
            self._sync(retired[0])
            with self._closing:
                retired.pop(0).close()

    def _sync(self, segment: Segment) -> None:
        try:
            if segment.is_whole and segment.sync():
                self._tell(Trouble.SYNC, "")
        except StoreError as fault:
            self._tell(Trouble.SYNC, str(fault))

    def _tell(self, what: Trouble, words: str) -> None:
        """Report a change of state, and nothing else."""
        if bool(words) != (what in self._troubles):
            self._troubles.symmetric_difference_update({what})
            self._report(what, words)


def _is_nearly_full(segment: Segment) -> bool:
    return segment.committed > max(START, segment.size * 3 // 4)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """None where the folder is not there, or can't be read."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
