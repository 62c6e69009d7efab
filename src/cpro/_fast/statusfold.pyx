"""Which updates of a user's status the store already has from this node: one table for all its workers.

Memory. A header, then 64-byte groups of four slots {tag u64, times u64}; a user has one group. Fixed: where a group is
full, whoever was let through longest ago is forgotten, which costs one write more.

Ownership. The supervisor creates it (a memfd), workers attach; anybody may write any slot.

Ordering. A slot is written by one 16-byte compare-and-swap, and whoever wins it does the write it stands for; the
others look again and find it done.

A crash leaves whole slots: at worst an update stands for a write that was never made, until its second or minute is over.
"""

import os

from libc.string cimport memcpy

from cpro._fast.hashing cimport sip13

from cpro._fast import mapped
from cpro.errors import StartError, StoreError


cdef extern from "cas16.h":
    bint cas16 "cpro_cas16"(void* at, uint64_t tag, int64_t old, uint64_t new_tag, int64_t fresh) noexcept nogil
    uint64_t load_u64 "cpro_load_u64"(const uint64_t* at) noexcept nogil
    int64_t load_i64 "cpro_load_i64"(const int64_t* at) noexcept nogil
    uint64_t scale "cpro_scale"(uint64_t word, uint64_t range) noexcept nogil

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef uint64_t MAGIC = 0x31646c6f66737063ULL  # "cpsfold1"


cdef inline int64_t pack(uint64_t active, uint64_t online) noexcept nogil:
    return <int64_t>(active << 32 | online)


cdef inline int64_t last_of(int64_t times) noexcept nogil:
    cdef int64_t active = <uint32_t>(times >> 32)
    cdef int64_t online = <uint32_t>times
    return active if active > online else online


cdef inline FoldSlot* find(FoldSlot* group, uint64_t tag) noexcept nogil:
    """The tag's slot; else the one to be given up: a free one, or whose user was let through longest ago."""
    cdef int place
    cdef FoldSlot* chosen = group
    for place in range(GROUP_SLOTS):
        if load_u64(&group[place].tag) == tag:
            return &group[place]
        if last_of(load_i64(&group[place].times)) < last_of(load_i64(&chosen.times)):
            chosen = &group[place]
    return chosen


cdef class FoldTable(Mapping):
    """Made by `create` or `attach`, never by its constructor."""

    def __init__(self):
        raise TypeError("use create or attach")

    @classmethod
    def create(cls, path, uint64_t users):
        """OWNER. An empty table for so many users, in the empty file at `path` (a memfd in /proc)."""
        cdef FoldTable table
        cdef uint64_t groups = (users + GROUP_SLOTS - 1) // GROUP_SLOTS
        table = over(cls, mapped.fill_empty(path, FOLD_HEADER_SPAN + groups * GROUP_SLOTS * sizeof(FoldSlot)))
        secret = os.urandom(16)
        memcpy(table.header.hash_key, <char*>secret, 16)
        table.header.groups = groups
        table.header.magic = MAGIC
        return take(table)

    @classmethod
    def attach(cls, path):
        """WORKER. The table its supervisor made."""
        cdef FoldTable table
        pages = mapped.attach(path, FOLD_HEADER_SPAN, "fold table")
        table = over(cls, pages)
        if table.header.magic != MAGIC or table.header.groups != (len(pages) - FOLD_HEADER_SPAN) // 64:
            table.close()
            raise StartError(f"{path} is not a fold table")
        return take(table)

    def claim_active(self, str user not None, uint32_t now, uint32_t step):
        """Whether the caller shall store that the user is active now: nobody else has in this second.

        `step` other than 0: and online, which is due after so many seconds."""
        cdef uint64_t tag = 0
        cdef FoldSlot* group = self.group_of(user, &tag)
        cdef FoldSlot* slot
        cdef uint64_t owner
        cdef int64_t times
        cdef uint32_t online
        while True:
            slot = find(group, tag)
            owner, times = load_u64(&slot.tag), load_i64(&slot.times)
            if load_u64(&slot.tag) != owner:  # another took it between the two loads
                continue
            online = <uint32_t>times if owner == tag else 0
            if owner == tag and <uint32_t>(times >> 32) == now and (step == 0 or now - online < step):
                return False
            if cas16(slot, owner, times, tag, pack(now, now if step != 0 else online)):
                return True

    def claim_online(self, str user not None, uint32_t now, uint32_t step):
        """The same for `online`: nobody has in the last `step` seconds."""
        cdef uint64_t tag = 0
        cdef FoldSlot* group = self.group_of(user, &tag)
        cdef FoldSlot* slot
        cdef uint64_t owner
        cdef int64_t times
        while True:
            slot = find(group, tag)
            owner, times = load_u64(&slot.tag), load_i64(&slot.times)
            if load_u64(&slot.tag) != owner:  # another took it between the two loads
                continue
            if owner == tag and now - <uint32_t>times < step:  # unsigned: a clock that was set back is another time
                return False
            if cas16(slot, owner, times, tag, pack(<uint32_t>(times >> 32) if owner == tag else 0, now)):
                return True

    def forget(self, str user not None):
        """The user's next update shall be stored."""
        cdef uint64_t tag = 0
        cdef FoldSlot* slot = find(self.group_of(user, &tag), tag)
        cdef int64_t times = load_i64(&slot.times)
        while load_u64(&slot.tag) == tag and not cas16(slot, tag, times, tag, 0):
            times = load_i64(&slot.times)

    cdef FoldSlot* group_of(self, str user, uint64_t* tag) except NULL:
        cdef Py_ssize_t size = 0
        cdef const char* data = PyUnicode_AsUTF8AndSize(user, &size)
        if self.header == NULL:
            raise StoreError("the fold table is closed")
        tag[0] = sip13(&self.key, 0, <const uint8_t*>data, <size_t>size) or 1
        return self.slots + scale(tag[0], self.groups) * GROUP_SLOTS

    def close(self):
        """Unmap. Calling it twice is harmless; using it afterwards raises StoreError."""
        self.header = NULL
        self.let_go()


cdef FoldTable over(cls, pages):
    cdef FoldTable table = cls.__new__(cls)
    cdef char* at = table.hold(pages, -1)
    table.header = <FoldHeader*>at
    table.slots = <FoldSlot*>(at + FOLD_HEADER_SPAN)
    return table


cdef FoldTable take(FoldTable table):
    table.groups = table.header.groups
    memcpy(&table.key, table.header.hash_key, 16)
    return table
