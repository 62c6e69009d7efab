"""The bucket file's memory: a header page, 1024 mutexes, then groups of four slots."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cpro._fast.hashing cimport SipKey, sip13
from cpro._fast.mapping cimport Mapping


cdef extern from "cas16.h":
    bint cas16 "cpro_cas16"(void* at, uint64_t tag, int64_t tat, uint64_t new_tag, int64_t new_tat) noexcept nogil
    uint64_t load_u64 "cpro_load_u64"(const uint64_t* at) noexcept nogil
    int64_t load_i64 "cpro_load_i64"(const int64_t* at) noexcept nogil
    void prefetch "cpro_prefetch"(const void* at) noexcept nogil
    uint64_t scale "cpro_scale"(uint64_t word, uint64_t range) noexcept nogil

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef enum:
    HEADER_SPAN = 4096
    STRIPES = 1024
    STRIPE_SPAN = 64
    SLOTS_AT = 69632                # HEADER_SPAN + STRIPES * STRIPE_SPAN
    GROUP_SPAN = 64
    NEAR_GROUPS = 512               # groups in a neighbourhood, 32 KiB
    HOME_BYTES = 1024

cdef enum:
    STALE_SECONDS = 10              # no clock reading is older than this when it is used


cdef struct Header:                 # the first 4096 bytes; written by the owner only, but for `evictions`
    uint64_t magic
    uint32_t version
    uint32_t mutex_bytes            # sizeof(pthread_mutex_t): another C library is another version
    uint8_t boot_id[16]
    uint8_t holder_id[16]
    uint64_t hash_key[2]
    uint64_t groups
    uint8_t unused[48]
    uint64_t home_bytes             # length of the data folder's path, below
    uint64_t evictions              # at 128, in a line of its own: added to atomically by every process
    uint8_t beside_evictions[56]
    uint8_t home[1024]              # which data folder this table belongs to


cdef struct Slot:                   # 16-aligned, written by one 16-byte compare-and-swap; tag 0 = never used
    uint64_t tag
    int64_t tat


cdef struct Probe:                  # one bucket in one call; lives on the caller's stack
    uint64_t tag                    # 0: this layer isn't asked
    uint64_t entity                 # keyed hash of the client or user
    Slot* groups[3]
    Slot* slot                      # where the tag was seen, or NULL
    int64_t tat                     # what was read there
    int64_t cost_ns
    int64_t charged_tat             # what this call wrote; 0 = nothing
    bint scarce


cdef inline uint64_t hash_text(const SipKey* key, uint64_t kind, str text) except? 1:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return sip13(key, kind, <const uint8_t*>data, <size_t>size)


cdef inline void place_probe(Probe* probe, Slot* slots, uint64_t groups, uint64_t tag) noexcept nogil:
    """The three distinct groups of a tag, in one neighbourhood: their page table entries share a cache line.

    The top bits choose the neighbourhood, the lowest 45 the groups in it. Only the first is fetched ahead; the others
    are needed where it does not have the tag, which is rare while the table is far from full."""
    cdef uint64_t first, second, third
    if tag == 0:
        tag = 1
    first = tag & (NEAR_GROUPS - 1)
    second = 1 + (((tag >> 9 & 0x3ffff) * (NEAR_GROUPS - 1)) >> 18)
    third = 1 + (((tag >> 27 & 0x3ffff) * (NEAR_GROUPS - 2)) >> 18)
    third += third >= second
    slots += scale(tag, groups // NEAR_GROUPS) * (4 * NEAR_GROUPS)
    probe.tag = tag
    probe.groups[0] = slots + 4 * first
    probe.groups[1] = slots + 4 * (first ^ second)
    probe.groups[2] = slots + 4 * (first ^ third)
    prefetch(probe.groups[0])


cdef inline Slot* find(Probe* probe) noexcept nogil:
    """Where the tag is now, its value in `probe.tat`; NULL if nowhere."""
    cdef int group, place
    cdef Slot* slot
    for group in range(3):
        for place in range(4):
            slot = probe.groups[group] + place
            if load_u64(&slot.tag) == probe.tag:
                probe.tat = load_i64(&slot.tat)
                if load_u64(&slot.tag) == probe.tag:  # else it was reclaimed between the two loads
                    return slot
        if group == 0:
            prefetch(probe.groups[1])
            prefetch(probe.groups[2])
    return NULL


cdef int lock_stripe(Header* header, uint64_t tag) except -1
cdef void unlock_stripe(Header* header, uint64_t tag) noexcept nogil


cdef class BucketFile(Mapping):     # its open file keeps the shared lock that tells an owner that somebody is attached
    cdef readonly str path
    cdef Header* header             # NULL once closed
    cdef Slot* slots
    cdef uint64_t groups
    cdef SipKey key

    cdef Header* open_header(self) except NULL
    cdef int take_header(self) except -1
    cdef bint claim_slot(self, Probe* probe, int64_t tat, int64_t now_ns) noexcept nogil
    cdef bint take_slot(self, Probe* probe, Slot* slot, bint must_be_free, int64_t tat, int64_t now_ns) noexcept nogil
