"""The fold table's memory: a 64-byte header, then 64-byte groups of four slots."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cpro._fast.hashing cimport SipKey
from cpro._fast.mapping cimport Mapping


cdef enum:
    FOLD_HEADER_SPAN = 64
    GROUP_SLOTS = 4


cdef struct FoldHeader:
    uint64_t magic
    uint64_t groups
    uint8_t hash_key[16]


cdef struct FoldSlot:               # 16-aligned, written by one 16-byte compare-and-swap; tag 0 = nobody
    uint64_t tag                    # keyed hash of the user's id
    int64_t times                   # active << 32 | online: when each was last let through


cdef class FoldTable(Mapping):
    cdef FoldHeader* header         # NULL once closed
    cdef FoldSlot* slots
    cdef uint64_t groups
    cdef SipKey key

    cdef FoldSlot* group_of(self, str user, uint64_t* tag) except NULL
