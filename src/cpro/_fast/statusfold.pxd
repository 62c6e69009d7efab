"""The fold table's memory: a 64-byte header, then 64-byte groups of four slots."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from cpython.buffer cimport Py_buffer

from cpro._fast.hashing cimport SipKey


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


cdef class FoldTable:
    cdef object pages               # mmap; unmapped when its last buffer is released
    cdef Py_buffer buffer
    cdef FoldHeader* header         # NULL once closed
    cdef FoldSlot* slots
    cdef uint64_t groups
    cdef SipKey key

    cdef FoldSlot* group_of(self, str user, uint64_t* tag) except NULL
