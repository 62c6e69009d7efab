"""The crowd file's memory: a header, then one block per worker, each a line of its own and groups of eight words."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from cpro._fast.hashing cimport SipKey
from cpro._fast.mapping cimport Mapping


cdef enum:
    HEADER_SPAN = 64
    FIRST_AT = 64                   # of a block's groups, behind the line that has its count of connections
    GROUP_WORDS = 8                 # a cache line
    COUNT_BITS = 24                 # of a word: the low ones count, the others are the address's tag


cdef struct CrowdHeader:
    uint64_t magic
    uint64_t blocks
    uint64_t groups                 # of each block
    SipKey key
    uint8_t unused[24]


cdef struct Sought:                 # an address, as every block keeps it
    uint64_t tag                    # in the high bits
    uint64_t groups[2]              # where it may be


cdef class CrowdFile(Mapping):
    cdef CrowdHeader* header        # NULL once closed

    cdef CrowdHeader* open_header(self) except NULL


cdef class Crowd(Mapping):          # outlives CrowdFile.close
    cdef CrowdFile file
    cdef uint64_t* at
    cdef uint64_t number            # of the block

    cdef int add(self, uint64_t* slot, uint64_t tag, int64_t change) except -1
    cdef uint64_t* slot_for(self, Sought* sought) noexcept nogil
    cdef uint64_t others(self, Sought* sought) noexcept nogil
    cdef uint64_t total(self) noexcept nogil
