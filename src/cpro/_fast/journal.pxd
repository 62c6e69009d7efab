"""A journal's writer, and the reader of a segment."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cpro._fast.rows cimport MAX_COLUMNS
from cpro._fast.segment cimport Marks, Segment


cdef enum:
    MAX_TABLES = 16                 # table numbers are 1 to 15


cdef struct Record:                 # one good record, where it lies
    int table
    const uint8_t* values
    const uint8_t* end
    uint64_t next                   # offset of what follows it


cdef class Journal:
    cdef Segment segment            # rows go there; None: they drop
    cdef Segment spare              # is next
    cdef readonly list retired      # sealed, to be synced and closed by the thread that makes segments
    cdef readonly bint starving     # a row found no room since `offer` was called last
    cdef int wake_fd                # an eventfd, written at each change of segment; -1: none
    cdef uint64_t appended_rows[16]
    cdef uint64_t dropped_rows[16]

    cdef bint take_spare(self) except -1
    cdef void wake(self) noexcept


cdef class RowWriter:
    cdef Journal journal
    cdef int table
    cdef int count
    cdef uint8_t kinds[MAX_COLUMNS]

    cdef bint append_raw(self, tuple values) except -1


cdef class SegmentReader:
    cdef readonly str path
    cdef readonly str id
    cdef readonly int version
    cdef readonly uint64_t bad          # damaged places that were skipped
    cdef readonly uint64_t lost_bytes   # how much lay there
    cdef int fd
    cdef int guard
    cdef const uint8_t* memory          # NULL once closed
    cdef uint64_t size                  # bytes mapped
    cdef const Marks* marks
    cdef uint64_t walked                # damage before this offset has been counted
    cdef uint64_t final                 # 0, or the end for good: the writer has sealed it or is gone
    cdef uint64_t released              # pages before this offset need not be in memory
    cdef uint32_t seed

    # 1: `record` is the first good one that starts at `offset` or later and ends by `limit`. 0: there is none. Offsets
    # outside of the segment are harmless. Never touches Python; call `open_memory` first.
    cdef bint next_good(self, uint64_t offset, uint64_t limit, Record* record) noexcept nogil
    cdef int open_memory(self) except -1
    cdef void _release(self, uint64_t start, uint64_t limit) noexcept nogil
    cdef uint64_t _plausible(self, uint64_t mark) noexcept nogil
    cdef uint64_t _find_end(self, uint64_t marked) noexcept nogil
    cdef bint _is_good(self, uint64_t offset, uint64_t limit, Record* record) noexcept nogil
    cdef uint64_t _skip(self, uint64_t offset, uint64_t limit) noexcept nogil
