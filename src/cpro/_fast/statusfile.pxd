"""The status file's memory: a header page, then 512-byte blocks of 21 slots."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cpro._fast.hashing cimport SipKey
from cpro._fast.mapping cimport Mapping


cdef enum:
    HEADER_SPAN = 4096
    BLOCK_SPAN = 512                # a disk's sector: no slot lies on both sides of its end
    BLOCK_SLOTS = 21
    SPARE = 32                      # of so many slots one stays free, so that a search always ends soon


cdef struct StatusHeader:           # in the first 4096 bytes
    uint64_t magic
    uint32_t version
    uint32_t unused
    uint8_t boot_id[16]
    uint8_t hash_key[16]
    uint64_t slots
    uint64_t following              # number of the generation that takes over; 0 = none
    uint64_t moved                  # 1: everything is there by now
    uint8_t beside[56]
    uint64_t used                   # at 128, in a line of its own: slots that have a user


cdef struct Slot:                   # its user never changes while the file lives; only the last word does
    uint64_t low                    # two keyed hashes of the user's id; 0 = not (yet) taken
    uint64_t high
    uint64_t times                  # active << 32 | online, Unix seconds


cdef class StatusFile(Mapping):
    cdef readonly str path
    cdef readonly uint64_t number   # of the generation
    cdef StatusHeader* header       # NULL once closed
    cdef char* blocks
    cdef uint64_t slots
    cdef SipKey key

    cdef StatusHeader* open_header(self) except NULL
    cdef Slot* slot_at(self, uint64_t place) noexcept nogil
    cdef Slot* find(self, uint64_t low, uint64_t high) noexcept nogil
    cdef Slot* claim(self, uint64_t low, uint64_t high) noexcept nogil
    cdef int copy_slot(self, Slot* slot, StatusFile into, uint64_t oldest) noexcept nogil
    cdef int copy_all(self, StatusFile into, uint64_t oldest) noexcept nogil
