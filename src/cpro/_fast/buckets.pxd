"""Plans and the table that is charged by them; the memory is bucketfile's."""

from libc.stdint cimport int64_t, uint64_t

from cpro._fast.bucketfile cimport BucketFile, Probe


cdef struct Bucket:                 # one layer of a plan
    uint64_t identity
    int64_t step_ns
    int64_t full_ns
    uint64_t previous_identity
    int64_t previous_full_ns
    int block
    int keyed_by
    bint returns                    # older than its predecessor


cdef enum:
    MAX_LAYERS = 64


cdef inline bint refuses(int code) noexcept nogil:
    """Whether any block of a table's answer is 2: refused, and not in dry run."""
    return code & ~(code << 1) & 0b101010


cdef class Plan:
    cdef readonly int count
    cdef int asks_client
    cdef int asks_user
    cdef bint dry[3]
    cdef Bucket layers[MAX_LAYERS]


cdef class BucketTable(BucketFile):
    cdef int charge_raw(self, Plan plan, str client, str user, int user_kind, int64_t now_ns, int64_t tokens) except -1
    cdef int _aim(
        self, Probe* probes, Plan plan, str client, str user, int user_kind, int64_t now_ns, int64_t tokens
    ) except -1
    cdef int64_t _base(self, Probe* probe, const Bucket* layer, int64_t now_ns) noexcept nogil
    cdef int _judge(self, Probe* probes, Plan plan, int64_t now_ns) noexcept nogil
    cdef int _spend_all(self, Probe* probes, Plan plan, int code, int64_t now_ns) except -1
    cdef int _spend(self, Probe* probe, const Bucket* layer, int64_t now_ns) except -1
    cdef int _insert(self, Probe* probe, const Bucket* layer, int64_t now_ns) except -1
