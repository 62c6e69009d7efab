"""Every sink's thread, and what concerns them all: deleting segments that nobody needs, lag, and the state for people.

A segment is deleted when every sink has passed it, by what their place files say. When the journal is nearly as large
as it may be, sinks of plugins no longer count: those that lag lose their oldest segments, one by one, as far as
ClickHouse has passed them (nothing would be gained else) and no batch out of them is being sent. What only ClickHouse
still needs is never deleted: there the journal's writers drop the newest rows instead.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from cpro.analytics.backlog import Backlog, list_segments
from cpro.analytics.places import Place, PlaceFile
from cpro.analytics.sinks import Flush, Folders, Runner, Tally, flush_for
from cpro.clock import unix_ms
from cpro.extension import BUILT_IN_SINK, Sink
from cpro.logs import Occasional, fields

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
GIVE_UP_SHARE: Final = 0.75
"""Of `max_journal_size`: from there on plugins' sinks lose rows, so that the writers need not."""
COUNTED_BYTES: Final = 64 << 20
"""How much of a backlog is read to say how many rows it has; beyond it, it is an estimate."""


class Segment(NamedTuple):
    path: str
    worker: int
    segment: str
    start: int
    end: int
    sealed: bool
    size: int
    written_ns: int


class Shipper:
    """All sinks of this process. `start` returns at once; nothing here waits for a sink but `stop`."""

    def __init__(
        self,
        folders: Folders,
        sinks: Mapping[str, Sink],
        flush: Flush,
        most_bytes: int,
        tally_of: Callable[[str], Tally],
    ) -> None:
        """`sinks` by name; `most_bytes` is `max_journal_size`."""
        self._folders = folders
        self._flush = flush
        self._most_bytes = most_bytes
        self._tallies = {name: tally_of(name) for name in sinks}
        self._runners = [
            Runner(name, sink, folders, flush_for(sink, flush), self._tallies[name], blocks=name == BUILT_IN_SINK)
            for name, sink in sinks.items()
        ]
        self._backlog = Backlog(folders.journal)
        self._occasional = Occasional(log)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="cpro-shipper", daemon=True)

    def start(self) -> None:
        for runner in self._runners:
            runner.start()
        self._thread.start()

    def configure(self, interval_s: float, rows: int) -> None:
        """Batches are cut by this from the next one on."""
        self._flush.interval_s, self._flush.rows = interval_s, rows

    def stop(self, patience_s: float) -> list[str]:
        """Send what is there, for as long as that; the names of sinks that are left behind."""
        until = time.monotonic() + patience_s
        for runner in self._runners:
            runner.stop()
        late = [runner.name for runner in self._runners if not runner.join(max(0.0, until - time.monotonic()))]
        self._stopping.set()
        self._thread.join(LOOK_EVERY_S * 4)
        if late:
            log.warning("sinks are not done, their rows stay in the journal", extra=fields(sinks=late))
        else:
            self._look()
        return late

    def status(self) -> dict[str, Any]:
        """For people and monitoring: see `cpro analytics status`."""
        now_s = unix_ms() / 1000
        return {
            "running": True,
            "journal": journal_size(self._folders.journal),
            "sinks": [
                {
                    "sink": runner.name,
                    "lag_seconds": round(runner.lag_s(now_s), 1),
                    **waiting(self._folders.journal, runner.copy_place()),
                    "errors": runner.troubles.count,
                    "error": runner.troubles.last,
                    "dropped_rows": runner.dropped_rows,
                }
                for runner in self._runners
            ],
        }

    # -- in a thread of its own

    def _look_after(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self._look()
            except Exception:  # one bad file must not end all cleaning
                log.exception("journal can't be looked after")

    def _look(self) -> None:
        now_s = unix_ms() / 1000
        for runner in self._runners:
            self._tallies[runner.name].lag(round(runner.lag_s(now_s) * 1000))
        self._backlog.scan()
        self._delete_passed()
        excess = _bytes_of(self._folders.journal) - int(self._most_bytes * GIVE_UP_SHARE)
        if excess > 0 and any(not runner.blocks for runner in self._runners):
            self._give_up(excess)

    def _delete_passed(self) -> None:
        for worker in list(self._backlog.segments):
            for segment in self._of(worker):
                if not segment.sealed or not all(self._has_passed(runner, segment) for runner in self._runners):
                    break
                self._delete(segment)

    def _give_up(self, excess: int) -> None:
        """Make room for that many bytes, at the cost of sinks that don't block."""
        found = [segment for worker in self._backlog.segments for segment in self._of(worker) if segment.sealed]
        for segment in sorted(found, key=lambda one: (one.written_ns, one.path)):
            if excess <= 0:
                return
            lagging = [runner for runner in self._runners if not self._has_passed(runner, segment)]
            if any(runner.blocks for runner in lagging):
                continue
            lost = {runner.name: runner.give_up(segment.path, segment.segment, segment.start, segment.end)
                    for runner in lagging}  # fmt: skip
            if None in lost.values():
                continue
            self._occasional.warning("full", "the journal is full: sinks lose their oldest rows", rows=lost)
            self._delete(segment)
            excess -= segment.size

    def _of(self, worker: int) -> Iterator[Segment]:
        for found in self._backlog.segments.get(worker, ()):
            reader = self._backlog.reader(found.path)
            if reader is None:
                continue
            sealed, end = reader.sealed, reader.committed
            try:
                facts = os.stat(self._folders.journal / found.path)
            except OSError:
                continue
            size = facts.st_size
            yield Segment(found.path, worker, reader.id, reader.START, end, sealed, size, facts.st_mtime_ns)
            self._backlog.release(found.path)

    @staticmethod
    def _has_passed(runner: Runner, segment: Segment) -> bool:
        return segment.end <= segment.start or runner.has_passed(segment.path, segment.segment, segment.end)

    def _delete(self, segment: Segment) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._folders.journal / segment.path)


def journal_size(folder: Path) -> dict[str, int]:
    """What the journal takes on disk."""
    segments = sum(len(found) for found in list_segments(folder).values())
    return {"bytes": _bytes_of(folder), "segments": segments}


def _bytes_of(folder: Path) -> int:
    total = 0
    for found in list_segments(folder).values():
        for segment in found:
            with suppress(OSError):
                total += os.stat(folder / segment.path).st_size
    return total


def waiting(folder: Path, place: Place) -> dict[str, Any]:
    """Bytes and rows that a sink has not been given; the rows are an estimate where it is `about`."""
    backlog = Backlog(folder)
    try:
        backlog.scan()
        size = backlog.waiting_bytes(place, thorough=True)
        rows, counted = 0, 0
        while counted < COUNTED_BYTES:
            following = backlog.next_parts(place, 1 << 40, COUNTED_BYTES - counted)
            if not following.parts:
                break
            rows += following.rows
            place.range = following.parts
            place.advance()
            counted += sum(part.end - part.start for part in following.parts)
        about = counted < size
        return {
            "waiting_bytes": size,
            "waiting_rows": rows * size // max(1, counted) if about else rows,
            "about": about,
        }
    finally:
        backlog.close()


def status_from_disk(folders: Folders) -> dict[str, Any]:
    """The same while nothing runs: what stands in the files."""
    sinks = []
    for name in PlaceFile.names(folders.places):
        place, _ = PlaceFile(folders.places, name).load()
        sinks.append({"sink": name, **waiting(folders.journal, place)})
    return {"running": False, "journal": journal_size(folders.journal), "sinks": sinks}
