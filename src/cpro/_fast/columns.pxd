"""Columns of a table as they grow, and the tables of one batch."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cpro._fast.growing cimport Buffer
from cpro._fast.hashing cimport SipKey
from cpro._fast.words cimport Words


cdef struct Marks:                  # where a column ended before the row that is being added
    size_t data, keys, ends, values
    uint64_t pairs, items
    uint32_t words


cdef struct Column:
    int kind
    Buffer data                     # fixed: values; String: Native strings; word: u32 numbers; map: u64 end offsets
    Buffer keys                     # of a map: Native strings
    Buffer ends                     # of lists in a map: u64 end offsets
    Buffer values                   # of a map: Native strings
    uint64_t pairs                  # of a map, all rows'
    uint64_t items                  # strings in `values`
    Words words
    Marks before


cdef struct Table:
    int number
    int width                       # columns
    Column* columns
    size_t rows


cdef class Blocks:
    cdef readonly uint64_t bad      # records that did not decode, or of a table that is not here
    cdef list heads                 # per table: one `name, type` per column, in Native form
    cdef Table* tables
    cdef int count
    cdef Table* by_number[256]
    cdef SipKey key

    cdef Table* _table(self, int number) except NULL
