"""Plans and the table they are spent from; the memory is bucketfile's, a record leaserecord's."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cpro._fast.bucketfile cimport BucketFile
from cpro._fast.leaserecord cimport Packed


cdef enum:
    MOST_PLACES = 16


cdef struct Spent:                  # one record in one call: what was read of it, and what was taken
    Packed* record
    uint64_t tag
    uint64_t hand
    int64_t deadline_ns
    uint64_t asking                 # the second word, before anything was taken
    uint64_t tail
    uint32_t epoch                  # when it was taken
    uint32_t left                   # tokens after that
    int64_t gap                     # of a stream; 0: it is none
    int64_t room
    int64_t pace


cdef class LeasePlan:
    cdef readonly int count
    cdef uint64_t identities[MOST_PLACES]
    cdef double most[MOST_PLACES]   # what a lease may hold at most
    cdef double twice[MOST_PLACES]  # and while its bucket is nearly empty
    cdef int64_t steps[MOST_PLACES]
    cdef int64_t streams[MOST_PLACES]   # how long a stream lasts; 0: there is none
    cdef double period_ns
    cdef double lead_ns


cdef class LeaseTable(BucketFile):
    cdef public object clock        # tests: what tells the time, in ns, instead of CLOCK_BOOTTIME
    cdef Spent last[MOST_PLACES]    # of this object's last spend, for `give_back`
    cdef int64_t last_tokens        # 0: it took nothing

    cdef int spend_raw(self, LeasePlan plan, str user, int user_kind, int64_t now_ns, int64_t tokens) except -1
    cdef int _aim(self, Spent* spents, LeasePlan plan, str user, int user_kind, int64_t now_ns, int64_t tokens) except -1
    cdef bint _is_empty(self, const Spent* spent, int64_t now_ns) noexcept nogil
    cdef int _refusal(self, Spent* spents, LeasePlan plan, int64_t now_ns, int64_t tokens) noexcept nogil
    cdef bint _take(self, Spent* spent, LeasePlan plan, int place, int64_t now_ns, int64_t tokens) noexcept nogil
    cdef int _note_half(self, Spent* spent, int64_t now_ns, int64_t tokens) except -1
    cdef Packed* _home(self, uint64_t tag) noexcept nogil
    cdef Packed* _find(self, uint64_t tag) noexcept nogil
    cdef Packed* _acquire(self, uint64_t tag, uint32_t owner, int64_t now_ns, bint* is_busy) noexcept nogil
    cdef Packed* _create(self, uint64_t tag, uint32_t owner, int64_t now_ns, bint* is_there) noexcept nogil
    cdef object _claimed(self, Packed* record, uint64_t tag, uint32_t owner, int64_t now_ns)
