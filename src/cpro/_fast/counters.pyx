"""Metric counters of all workers: one file, summed by whoever renders /metrics.

Memory. A 64-byte header, then one block per worker, each a multiple of 64 bytes long, of 8-byte counters.
Ownership. The supervisor creates the file; only worker i writes block i, also after a restart of that worker.
Ordering. Relaxed 8-byte loads and stores: a reader sees each counter whole, but not all at one instant.
A crash leaves at worst the last increment missing: a verdict's count and its histogram may differ by one.
"""

import os

cimport cython

from cpro._fast import mapped
from cpro.errors import StartError, StoreError


cdef extern from "cas16.h":
    uint64_t read_u64 "cpro_read_u64"(const uint64_t* at) noexcept nogil
    void write_u64 "cpro_write_u64"(uint64_t* at, uint64_t value) noexcept nogil

cdef enum:
    HEADER_SPAN = 64
    BOUNDS = 15

cdef uint64_t MAGIC = 0x31746e756f637063ULL  # "cpcount1"
cdef uint64_t MAX_COUNT = 1 << 20

BOUNDS_NS = tuple([microseconds * 1000 for microseconds in (
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000)])
HISTOGRAM_SLOTS = BOUNDS + 2

cdef int64_t[BOUNDS] bounds
for _place in range(BOUNDS):
    bounds[_place] = BOUNDS_NS[_place]


cdef inline uint64_t block_span(uint64_t slots) noexcept nogil:
    return (slots * 8 + 63) // 64 * 64


cdef class CounterFile(Mapping):
    """Made by `create` (the supervisor) or `attach` (workers, and whoever sums)."""

    def __init__(self):
        raise TypeError("use CounterFile.create or CounterFile.attach")

    @staticmethod
    def create(path, uint64_t blocks, uint64_t slots):
        """OWNER. Zeros at `path`: in the file there if it is empty (a memfd in /proc), else in a new one instead."""
        cdef uint64_t block_bytes = block_span(slots)
        if not (1 <= blocks <= MAX_COUNT and 1 <= slots <= MAX_COUNT):
            raise ValueError(f"blocks and slots must be 1 to {MAX_COUNT}")

        def fill(pages):
            cdef CounterFile unnamed = over(pages)
            unnamed.header[0] = CounterHeader(MAGIC, blocks, slots, block_bytes)
            unnamed.close()

        size = HEADER_SPAN + blocks * block_bytes
        if os.path.exists(path) and os.path.getsize(path) == 0:
            pages = mapped.fill_empty(path, size)
            fill(pages)
        else:
            fd, pages = mapped.create(path, size, fill)
            os.close(fd)
        return over(pages)

    @staticmethod
    def attach(path):
        """The file that `create` made at `path`."""
        cdef CounterFile file
        cdef CounterHeader* header
        pages = mapped.attach(path, HEADER_SPAN, "counter file")
        size = len(pages)
        file = over(pages)
        header = file.header
        if (header.magic != MAGIC or not 1 <= header.blocks <= MAX_COUNT or not 1 <= header.slots <= MAX_COUNT
                or header.block_bytes != block_span(header.slots)
                or <uint64_t>size != HEADER_SPAN + header.blocks * header.block_bytes):
            file.close()
            raise StartError(f"{path} is not a counter file")
        return file

    cdef CounterHeader* open_header(self) except NULL:
        if self.header == NULL:
            raise StoreError("the counter file is closed")
        return self.header

    def block(self, int64_t index):
        """The counters that worker `index`, and nobody else, may write."""
        cdef CounterHeader* header = self.open_header()
        cdef Counters counters
        if not 0 <= index < <int64_t>header.blocks:
            raise IndexError(f"there are {header.blocks} blocks, not one of number {index}")
        counters = Counters.__new__(Counters)
        counters.at = <uint64_t*>(counters.hold(self.pages, -1) + HEADER_SPAN + index * header.block_bytes)
        counters.slots = header.slots
        return counters

    def totals(self):
        """Each slot's sum over the blocks."""
        cdef CounterHeader* header = self.open_header()
        cdef uint64_t block, slot, total
        cdef char* first = <char*>header + HEADER_SPAN
        sums = []
        for slot in range(header.slots):
            total = 0
            for block in range(header.blocks):
                total += read_u64(<uint64_t*>(first + block * header.block_bytes) + slot)
            sums.append(total)
        return sums

    def close(self):
        """Let go of the file; blocks in use keep it mapped. Calling it twice is harmless."""
        self.header = NULL
        self.let_go()


cdef CounterFile over(pages):
    cdef CounterFile file = CounterFile.__new__(CounterFile)
    file.header = <CounterHeader*>file.hold(pages, -1)
    return file


cdef class Counters(Mapping):
    """One worker's counters. Every call costs an addition; a wrong index raises IndexError."""

    def add(self, int64_t index, uint64_t n=1):
        self.add_raw(<uint64_t>index, n)

    def set(self, int64_t index, uint64_t value):
        """For gauges."""
        if <uint64_t>index >= self.slots:
            raise IndexError(index)
        write_u64(self.at + index, value)

    def record(self, int64_t verdict_index, int64_t histogram_base, int64_t value_ns):
        """Count a verdict and put its duration into the histogram of HISTOGRAM_SLOTS slots at `histogram_base`:
        one per bound (not cumulative), one for what is longer, one for the sum in ns."""
        self.record_raw(<uint64_t>verdict_index, <uint64_t>histogram_base, value_ns)

    cdef int add_raw(self, uint64_t index, uint64_t n) except -1:
        if index >= self.slots:
            raise IndexError(<int64_t>index)
        write_u64(self.at + index, read_u64(self.at + index) + n)
        return 0

    cdef int record_raw(self, uint64_t verdict_index, uint64_t histogram_base, int64_t value_ns) except -1:
        cdef int place = 0
        cdef uint64_t* histogram
        if verdict_index >= self.slots or self.slots < BOUNDS + 2 or histogram_base > self.slots - (BOUNDS + 2):
            raise IndexError((<int64_t>verdict_index, <int64_t>histogram_base))
        if value_ns < 0:
            value_ns = 0
        while place < BOUNDS and value_ns > bounds[place]:
            place += 1
        histogram = self.at + histogram_base
        write_u64(self.at + verdict_index, read_u64(self.at + verdict_index) + 1)
        write_u64(histogram + place, read_u64(histogram + place) + 1)
        write_u64(histogram + BOUNDS + 1, read_u64(histogram + BOUNDS + 1) + <uint64_t>value_ns)
        return 0


@cython.final
@cython.auto_pickle(False)
cdef class Tally:
    """Counts by place: bound once, called from hot paths without a Python frame between."""

    def __init__(self, Counters counters not None, uint64_t first):
        self.counters = counters
        self.first = first

    def __call__(self, uint64_t place):
        self.counters.add_raw(self.first + place, 1)


@cython.final
@cython.auto_pickle(False)
cdef class Recorder:
    """The same with a duration, for `Counters.record`."""

    def __init__(self, Counters counters not None, uint64_t first, uint64_t histogram_base):
        self.counters = counters
        self.first = first
        self.histogram_base = histogram_base

    def __call__(self, uint64_t place, int64_t value_ns):
        self.record(place, value_ns)

    cdef int record(self, uint64_t place, int64_t value_ns) except -1:
        return self.counters.record_raw(self.first + place, self.histogram_base, value_ns)
