"""Sends the journal to one sink, in a thread of its own, so that a sink that is slow, raises or hangs delays nobody.

A range of the journal becomes one batch per table that has rows in it. What is being sent stands in the sink's place
file before it is sent; an answer that was lost is asked for again by the same rows under the same id. A batch that is
too big is sent in halves, which stand there too, and one that will never be taken is set aside in a file.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cpro._fast.columns import Blocks
from cpro.analytics.aside import path_of, put_aside
from cpro.analytics.backlog import Backlog
from cpro.analytics.batch import Batch
from cpro.analytics.places import Part, Piece, Place, PlaceFile, Position
from cpro.analytics.schema import TABLES
from cpro.analytics.troubles import LAST_RETRY_S, StoppedError, Troubles, told
from cpro.errors import SinkRejectError, SinkSplitError
from cpro.extension import Sink
from cpro.logs import fields

log = logging.getLogger(__name__)

POLLS: Final = 10
LONGEST_POLL_S: Final = 0.25
"""So many times in a flush interval, and at least so often, it is looked whether a batch is full."""
MOST_BYTES: Final = 16 << 20
"""Of records in a range: what a sink has in memory at a time is a small multiple of it, however long the backlog."""
GUESSED_ROW_BYTES: Final = 64.0

_TABLES: Final[tuple[tuple[int, tuple[tuple[str, int], ...]], ...]] = tuple(
    (table.number, tuple((column.name, int(column.kind)) for column in table.columns)) for table in TABLES
)
_BY_NAME: Final = {table.name: table for table in TABLES}


class Tally(Protocol):
    """Where a sink's rows and failures are counted."""

    def stored(self, table: str, rows: int) -> None: ...
    def lost(self, rows: int) -> None: ...
    def failed(self) -> None: ...
    def lag(self, ms: int) -> None: ...


@dataclass(slots=True)
class Flush:
    """When a range is full. Replaced by a reload while sinks go by it."""

    interval_s: float = 1.0
    rows: int = 100_000


def flush_for(sink: Sink, default: Flush) -> Flush:
    """What the sink wants instead of the default, which is shared with those that want nothing."""
    interval_s, rows = getattr(sink, "flush_interval_s", None), getattr(sink, "flush_rows", None)
    if interval_s is None and rows is None:
        return default
    return Flush(interval_s or default.interval_s, rows or default.rows)


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the journal lies, and what belongs to it."""

    journal: Path
    rejected: Path

    @property
    def places(self) -> Path:
        return self.journal / "places"


class Runner:
    """One sink at work. `blocks` says whether segments wait for it even when the journal is full."""

    def __init__(self, name: str, sink: Sink, folders: Folders, flush: Flush, tally: Tally, *, blocks: bool) -> None:
        self.name = name
        self.blocks = blocks
        self.dropped_rows = 0
        self._sink = sink
        self._folders = folders
        self._flush = flush
        self._tally = tally
        self._file = PlaceFile(folders.places, name)
        self._backlog = Backlog(folders.journal)
        self._blocks = Blocks(_TABLES)
        self._loaded: tuple[Part, ...] = ()  # what the blocks hold
        self._guard = threading.Lock()  # around the place and the backlog, which the shipper looks at too
        self._place = Place()
        self._saved: dict[str, Position] = {}  # positions as the file has them
        self._is_saved = True
        self._oldest: int | None = None  # when the oldest row that is not stored was recorded
        self._row_bytes = GUESSED_ROW_BYTES
        self._damaged = 0
        self._is_open = False
        self._stopping = threading.Event()
        self.troubles = Troubles(name, self._stopping, tally.failed)
        self._thread = threading.Thread(target=self._run, name=f"cpro-sink-{name}", daemon=True)

    def start(self) -> None:
        self._load()
        self._thread.start()

    def stop(self) -> None:
        """Have it send what is there, once, and end."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Whether it has ended in time; a sink that hangs is left behind."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- for the shipper, from its thread

    def lag_s(self, now_s: float) -> float:
        """Age of the oldest row that is not stored."""
        if self._oldest is None:  # rows may have come since it looked
            with self._guard:
                self._backlog.scan()
                self._oldest = self._backlog.oldest_time(self._place)
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, now_s - oldest)

    def has_passed(self, path: str, segment: str, end: int) -> bool:
        """Whether nothing before `end` is needed any more, not even after a power cut."""
        position = self._saved.get(path)
        return position is not None and position.segment == segment and position.offset >= end

    def give_up(self, path: str, segment: str, start: int, end: int) -> int | None:
        """Lose what is left of a segment, and say how many rows that is. None: a batch of it is being sent."""
        with self._guard:
            if any(part.path == path for part in self._place.range):
                return None
            left = Part(path, segment, self._place.offset(path, segment, start), end)
            rows = self._backlog.rows(left) if left.start < end else 0
            self._place.positions[path] = Position(segment, end)
            self._saved[path] = Position(segment, end)
            self._is_saved = False
        self.dropped_rows += rows
        self._tally.lost(rows)
        return rows

    def copy_place(self) -> Place:
        with self._guard:
            place = self._place
            return Place(place.version, dict(place.positions), place.range, list(place.pieces))

    # -- its own thread

    def _run(self) -> None:
        while True:
            try:
                self._work()
                break
            except StoppedError:
                break
            except Exception as error:  # ours, or no memory: begin again where the file says
                self.troubles.add()
                log.exception("sink begins again", extra=fields(sink=self.name))
                self.troubles.last = told(error)
                if self._stopping.wait(LAST_RETRY_S):
                    break
                self._load()
        self._end()

    def _work(self) -> None:
        if not self._is_open:
            self.troubles.overcome("open", self._sink.open)
            self._is_open = True
        while not self._stopping.is_set():
            self._ship()
            self._wait()
        while self._ship():  # what has come meanwhile
            pass

    def _end(self) -> None:
        with self._guard:
            if not self._is_saved:
                with suppress(OSError):
                    self._save()
            self._backlog.close()
        if self._is_open:
            try:
                self._sink.close()
            except (Exception, SystemExit) as error:  # whatever a plugin may raise
                self.troubles.tell("close", error)

    def _load(self) -> None:
        with self._guard:
            self._place, readable = self._file.load()
            self._saved = dict(self._place.positions)
            self._loaded = ()
            self._backlog.close()
            self._backlog, self._damaged = Backlog(self._folders.journal), 0
            self._backlog.scan()
            self._oldest = self._backlog.oldest_time(self._place)
        if not readable:
            self.troubles.add()

    def _wait(self) -> None:
        """Until the flush interval is over or a range is full."""
        began = time.monotonic()
        while (left_s := began + self._flush.interval_s - time.monotonic()) > 0:
            if self._stopping.wait(min(left_s, self._flush.interval_s / POLLS, LONGEST_POLL_S)):
                return
            with self._guard:
                waiting = self._backlog.waiting_bytes(self._place)
            if waiting >= min(MOST_BYTES, self._flush.rows * self._row_bytes):
                return

    def _ship(self) -> bool:
        """Send what is there; what comes meanwhile waits for the next time. False where there was nothing."""
        found = bool(self._place.range)
        if found:  # what was being sent when the last process ended
            self._send_range()
        more = True
        while more:
            parts, more = self._form()
            if not parts:
                break
            found = True
            self._send_range()
        if not self._is_saved:
            self.troubles.overcome("save", self._save)
        return found

    def _form(self) -> tuple[bool, bool]:
        """Take the next range, and have its boundaries on disk. Whether there is one, and whether there is more."""
        with self._guard:
            self._backlog.scan()
            following = self._backlog.next_parts(self._place, self._flush.rows, MOST_BYTES)
            self._forget_gone()
            self._oldest = self._backlog.oldest_time(self._place)
            if not following.parts:
                return False, False
            self._fill(following.parts)
            present = [table.name for table in TABLES if self._blocks.rows(table.number)]
            self._place.range = following.parts
            self._place.pieces = [Piece(table, following.parts) for table in present]
            if following.rows:
                self._row_bytes = sum(part.end - part.start for part in following.parts) / following.rows
        damaged, self._damaged = self._backlog.bad - self._damaged, self._backlog.bad
        if damaged:
            self.troubles.tell_damage(damaged)
        self.troubles.overcome("save", self._save)
        return True, following.more

    def _send_range(self) -> None:
        while self._place.pieces:
            piece = self._place.pieces[0]
            with self._guard:
                batch = self._batch(piece)
            if batch is not None and not self._send(piece, batch):
                continue
            with self._guard:
                self._place.pieces = self._place.pieces[1:]
        with self._guard:
            self._place.advance()
            self._is_saved = False
            self._oldest = self._backlog.oldest_time(self._place)

    def _send(self, piece: Piece, batch: Batch) -> bool:
        """False where it has to be sent in halves, which stand in its place now."""
        try:
            self.troubles.overcome("write", lambda: self._sink.write(batch))
        except SinkSplitError as error:
            if self._split(piece):
                return False
            self._set_aside(batch, error)
        except SinkRejectError as error:
            self._set_aside(batch, error)
        else:
            self._tally.stored(batch.table.name, batch.rows)
        return True

    def _batch(self, piece: Piece) -> Batch | None:
        table = _BY_NAME.get(piece.table)
        if table is None:  # of a later cpro
            return None
        self._fill(piece.parts)
        rows = self._blocks.rows(table.number)
        return Batch(piece.id, table, rows, self._blocks.block(table.number)) if rows else None

    def _fill(self, parts: tuple[Part, ...]) -> None:
        """Have the blocks hold the rows of these parts; those of a segment that is gone are gone."""
        if parts == self._loaded:
            return
        self._loaded = ()
        self._blocks.clear()
        for part in parts:
            reader = self._backlog.of(part)
            if reader is not None:
                self._blocks.add(reader, part.start, part.end)
        self._loaded = parts

    def _split(self, piece: Piece) -> bool:
        """Send it in halves from now on; False where it is one record."""
        with self._guard:
            halves = self._backlog.halves(piece.parts)
            if halves is None:
                return False
            self._place.pieces = [*(Piece(piece.table, half) for half in halves), *self._place.pieces[1:]]
        self.troubles.overcome("save", self._save)
        return True

    def _set_aside(self, batch: Batch, error: Exception) -> None:
        """Keep a batch that the sink will never take in a file, for whoever has to look after it."""
        path = path_of(self._folders.rejected, self.name, batch.table.name, batch.id)
        self.troubles.overcome("set aside", lambda: put_aside(path, batch.native))
        self.dropped_rows += batch.rows
        self._tally.lost(batch.rows)
        self.troubles.add()
        values = fields(sink=self.name, table=batch.table.name, rows=batch.rows, file=str(path), error=told(error))
        log.error("batch set aside: the sink will not take it", extra=values)

    def _forget_gone(self) -> None:
        """Drop positions of segments that are deleted."""
        present = {one.path for segments in self._backlog.segments.values() for one in segments}
        for path in [path for path in self._place.positions if path not in present]:
            del self._place.positions[path]

    def _save(self) -> None:
        self._file.save(self._place)
        self._saved = dict(self._place.positions)
        self._is_saved = True
