"""Counters in a mapped file: a header line, then one block of 8-byte slots per worker."""

from libc.stdint cimport int64_t, uint64_t

from cpro._fast.mapping cimport Mapping


cdef struct CounterHeader:          # 64 bytes, written once by the owner
    uint64_t magic
    uint64_t blocks
    uint64_t slots                  # per block
    uint64_t block_bytes            # a multiple of 64: no line is shared by two workers


cdef class CounterFile(Mapping):
    cdef CounterHeader* header      # NULL once closed

    cdef CounterHeader* open_header(self) except NULL


cdef class Counters(Mapping):       # outlives CounterFile.close
    cdef uint64_t* at               # NULL where nobody made it
    cdef uint64_t slots

    cdef int add_raw(self, uint64_t index, uint64_t n) except -1
    cdef int record_raw(self, uint64_t verdict_index, uint64_t histogram_base, int64_t value_ns) except -1


cdef class Tally:
    cdef Counters counters
    cdef uint64_t first


cdef class Recorder:
    cdef Counters counters
    cdef uint64_t first
    cdef uint64_t histogram_base

    cdef int record(self, uint64_t place, int64_t value_ns) except -1
