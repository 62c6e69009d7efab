"""The journal as one sink goes through it: which segments there are, and the next rows that it has not had.

A worker's segments are numbered in the order in which it filled them, and read in that order, each up to what is
committed now. Every part that is handed out ends between two records. Readers stay open for as long as their segment
is being read, so a segment that is deleted meanwhile does no harm.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

from cpro._fast.journal import SegmentReader
from cpro._fast.rows import decode
from cpro.analytics.places import Part, Place
from cpro.analytics.schema import BY_NUMBER
from cpro.errors import StoreError
from cpro.logs import fields

log = logging.getLogger(__name__)

SUFFIX: Final = ".seg"
_EVERYTHING: Final = 1 << 62


class Found(NamedTuple):
    """A segment in the folder."""

    path: str
    """Below the journal's folder."""
    number: int


def list_segments(folder: Path) -> dict[int, list[Found]]:
    """The segments of every worker, in the order in which they were filled."""
    found: dict[int, list[Found]] = {}
    for worker in _numbered(folder, ""):
        segments = [
            Found(f"{worker}/{number:020}{SUFFIX}", number) for number in _numbered(folder / str(worker), SUFFIX)
        ]
        found[worker] = sorted(segments, key=lambda segment: segment.number)
    return found


def _numbered(folder: Path, suffix: str) -> Iterator[int]:
    try:
        names = os.listdir(folder)
    except OSError:  # not there yet, or not any more
        return
    for name in names:
        stem = name.removesuffix(suffix)
        if name.endswith(suffix) and stem.isascii() and stem.isdigit():
            yield int(stem)


class Next(NamedTuple):
    parts: tuple[Part, ...]
    rows: int
    more: bool
    """Some were left for the next time."""


@dataclass(slots=True)
class _Share:
    """What a worker may still add to a range."""

    rows: int
    size: int
    more: bool = False


class Backlog:
    """Not for several threads at once; every sink has its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers: dict[str, SegmentReader] = {}
        self._unusable: set[str] = set()  # files that are no segments
        self._passed: set[str] = set()  # nothing will ever come out of these again
        self._turn = 0
        self.segments: dict[int, list[Found]] = {}
        self.bad = 0
        """Records that were skipped because they were damaged, so far."""

    def scan(self) -> None:
        """Look which segments there are now, and let go of those that are gone."""
        self.segments = list_segments(self._folder)
        present = {one.path for segments in self.segments.values() for one in segments}
        for path in [path for path in self._readers if path not in present]:
            self.release(path)
        self._unusable &= present
        self._passed &= present

    def reader(self, path: str) -> SegmentReader | None:
        """The open segment; None where the file is none, or is gone."""
        reader = self._readers.get(path)
        if reader is None and path not in self._unusable:
            try:
                reader = self._readers[path] = SegmentReader(str(self._folder / path))
            except StoreError as error:
                if os.path.lexists(self._folder / path):  # else it is gone
                    self._unusable.add(path)
                    log.error(
                        "not a segment of the journal, it is left alone", extra=fields(file=path, error=str(error))
                    )
        return reader

    def release(self, path: str) -> None:
        """Close a segment that is not needed now."""
        reader = self._readers.pop(path, None)
        if reader is not None:
            reader.close()

    def close(self) -> None:
        for path in list(self._readers):
            self.release(path)

    def next_parts(self, place: Place, most_rows: int, most_bytes: int) -> Next:
        """What comes next, from every worker that has something.

        Each has an equal share of what those before it left, and who begins takes turns.
        """
        waiting = [worker for worker in sorted(self.segments) if self.segments[worker]]
        self._turn += 1
        turn = self._turn % len(waiting) if waiting else 0
        parts: list[Part] = []
        rows, size, more = 0, 0, False
        for left, worker in zip(range(len(waiting), 0, -1), waiting[turn:] + waiting[:turn], strict=True):
            share = _Share(-(-(most_rows - rows) // left), -(-(most_bytes - size) // left))
            before = share.rows, share.size
            parts += self._parts_of(worker, place, share)
            rows += before[0] - share.rows
            size += before[1] - share.size
            more = more or share.more
        return Next(tuple(parts), rows, more)

    def _left(self, worker: int) -> list[Found]:
        return [segment for segment in self.segments[worker] if segment.path not in self._passed]

    def _parts_of(self, worker: int, place: Place, share: _Share) -> Iterator[Part]:
        for segment in self._left(worker):
            reader = self.reader(segment.path)
            if reader is None:
                continue
            sealed = reader.sealed  # before what is committed: nothing can come after that then
            committed = reader.committed
            start = place.offset(segment.path, reader.id, reader.START)
            if start < committed:
                if share.rows <= 0 or share.size <= 0:
                    share.more = True
                    return
                end, rows = self._end_of(reader, start, share.rows, share.size)
                yield Part(segment.path, reader.id, start, end)
                share.rows -= rows
                share.size -= end - start
                if end < committed:
                    share.more = True
                    return
            elif sealed:
                self.release(segment.path)
                self._passed.add(segment.path)
            if not sealed:
                return

    def _end_of(self, reader: SegmentReader, start: int, most_rows: int, most_bytes: int) -> tuple[int, int]:
        before = reader.bad
        end, rows = reader.end_of(start, most_rows, most_bytes)
        if end <= start:  # a record larger than that must go out none the less
            end, rows = reader.end_of(start, 1, _EVERYTHING)
        self.bad += reader.bad - before
        return end, rows

    def waiting_bytes(self, place: Place, *, thorough: bool = False) -> int:
        """Bytes of records that the place has not passed; only in segments that are open, unless `thorough`."""
        total = 0
        for segment in (one for segments in self.segments.values() for one in segments):
            reader = self.reader(segment.path) if thorough else self._readers.get(segment.path)
            if reader is not None:
                total += max(0, reader.committed - place.offset(segment.path, reader.id, reader.START))
        return total

    def halves(self, parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], tuple[Part, ...]] | None:
        """The parts cut in two where about half of their records are before; None where there is one record or none.

        The same cut for the same parts, so that both halves have an id of their own that stays.
        """
        counts = [self.rows(part) for part in parts]
        total = sum(counts)
        if total < 2:
            return None
        first: list[Part] = []
        second: list[Part] = []
        left = total // 2
        for part, rows in zip(parts, counts, strict=True):
            if left >= rows:
                first.append(part)
            elif left <= 0:
                second.append(part)
            else:
                cut = self._cut(part, left)
                first.append(Part(part.path, part.segment, part.start, cut))
                second.append(Part(part.path, part.segment, cut, part.end))
            left -= rows
        return tuple(first), tuple(second)

    def rows(self, part: Part) -> int:
        """Good records of a part; 0 where the segment is gone."""
        reader = self.of(part)
        return 0 if reader is None else reader.end_of(part.start, _EVERYTHING, part.end - part.start)[1]

    def of(self, part: Part) -> SegmentReader | None:
        """The segment that a part is in; None where it is gone, or another one has its name."""
        reader = self.reader(part.path)
        return reader if reader is not None and reader.id == part.segment else None

    def _cut(self, part: Part, rows: int) -> int:
        reader = self.of(part)
        return part.end if reader is None else reader.end_of(part.start, rows, part.end - part.start)[0]

    def oldest_time(self, place: Place) -> int | None:
        """When the oldest row that the place has not passed was recorded, in seconds since 1970."""
        times = [time for worker in self.segments if (time := self._first_time(worker, place)) is not None]
        return min(times, default=None)

    def _first_time(self, worker: int, place: Place) -> int | None:
        for segment in self._left(worker):
            reader = self.reader(segment.path)
            if reader is None:
                continue
            sealed = reader.sealed
            start = place.offset(segment.path, reader.id, reader.START)
            if start < reader.committed:
                time = _time_at(reader, start)
                if time is not None:
                    return time
            if not sealed:
                return None
        return None


def _time_at(reader: SegmentReader, start: int) -> int | None:
    """The time of the first good record; every table ends with that column."""
    end, _ = reader.end_of(start, 1, _EVERYTHING)
    for number, values in reader.records(start, end):
        table = BY_NUMBER.get(number)
        if table is not None:
            with suppress(ValueError):  # not the columns that we know
                return cast(int, decode(table.kinds, values)[-1])
    return None
