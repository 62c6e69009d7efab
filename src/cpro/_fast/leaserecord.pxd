"""A record, as it lies in memory and as a Python object."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from cpro._fast.bucketfile cimport BucketFile, cas16, load_i64, load_u64


cdef extern from "cas16.h":
    void store_u64 "cpro_store_u64"(uint64_t* at, uint64_t value) noexcept nogil


cdef enum:
    FLIGHT_BITS = 22                # a process id; Linux has none beyond
    MOST_UNACKED = 1023             # what is left of the 32 bits
    NEVER_MS = 1                    # as `half_ms`: not noted, and not to be in this round
    ROOM_BITS = 27                  # of a stream's `half_ms`; above it, its pace less one
    STREAM_BIT = 31                 # of the tokens


cdef enum:                          # what a record is worth to its key
    FREE = 0
    EVICTABLE = 1
    NEEDED = 2


cdef struct Packed:                 # one record as it lies in memory; 64-aligned
    uint64_t hand                   # tokens 31 bits | stream 1 | epoch u32: that changes with requests and new lives
    int64_t deadline_ns
    uint64_t asking                 # sequence u32 | flight 22 bits | sequence - acked 10 bits
    uint32_t spent_then
    uint32_t half_ms                # of a stream: room 27 bits | pace - 1
    uint64_t tag                    # 0: nobody's
    uint32_t start
    uint32_t granted
    uint32_t returned
    uint32_t asked_ms
    uint32_t next_ask_ms
    uint32_t demand_mtps


cdef inline uint32_t tokens_of(uint64_t hand) noexcept nogil:
    return <uint32_t>hand & ((1U << STREAM_BIT) - 1)


cdef inline bint is_stream(uint64_t hand) noexcept nogil:
    return hand >> STREAM_BIT & 1


cdef inline uint64_t streaming(uint64_t hand) noexcept nogil:
    """The same as a stream."""
    return hand | 1ULL << STREAM_BIT


cdef inline int64_t pace_of(const Packed* record) noexcept nogil:
    return (record.half_ms >> ROOM_BITS) + 1


cdef inline int64_t room_of(const Packed* record) noexcept nogil:
    return record.half_ms & ((1U << ROOM_BITS) - 1)


cdef inline int64_t gap_of(int64_t step_ns, int64_t pace) noexcept nogil:
    """`leases.gap_ns`."""
    return (step_ns * 512 + 31 * pace - 1) // (31 * pace)


cdef inline int64_t longest_of(int64_t step_ns, int64_t stream_ns, int64_t pace) noexcept nogil:
    """`leases.longest_ns`."""
    return (stream_ns * 3 // 2 + 48 * step_ns // pace) * 15 // 16


cdef inline uint64_t hand_of(uint32_t tokens, uint32_t epoch) noexcept nogil:
    return <uint64_t>epoch << 32 | tokens


cdef inline uint32_t flight_of(uint64_t asking) noexcept nogil:
    return <uint32_t>(asking >> 32) & ((1 << FLIGHT_BITS) - 1)


cdef inline uint32_t unacked_of(uint64_t asking) noexcept nogil:
    return <uint32_t>(asking >> (32 + FLIGHT_BITS))


cdef inline uint64_t asking_of(uint32_t sequence, uint32_t flight, uint32_t unacked) noexcept nogil:
    return sequence | <uint64_t>flight << 32 | <uint64_t>unacked << (32 + FLIGHT_BITS)


cdef inline uint64_t tail_of(const Packed* record) noexcept nogil:
    """The second half of the word that `asking` begins."""
    return load_u64(<const uint64_t*>&record.spent_then)


cdef inline uint32_t up_to_ms(int64_t at_ns) noexcept nogil:
    """Rounded up: neither a denial ends early nor was anything spent before it was."""
    if at_ns <= 0:
        return 0
    return max(<uint32_t>2, <uint32_t>((at_ns + 999_999) // 1_000_000))


cdef inline uint32_t down_to_ms(int64_t at_ns) noexcept nogil:
    if at_ns <= 0:
        return 0
    return max(<uint32_t>2, <uint32_t>(at_ns // 1_000_000))


cdef inline int64_t from_ms(uint32_t at_ms, int64_t near_ns) noexcept nogil:
    """The time nearest to the record's deadline with these low bits: within 24 days of it."""
    cdef int64_t near_ms = near_ns // 1_000_000
    if at_ms <= NEVER_MS:
        return 0
    return max(<int64_t>1, (near_ms + <int32_t>(at_ms - <uint32_t>near_ms)) * 1_000_000)


cdef inline int64_t half_of(const Packed* record) noexcept nogil:
    return (<int64_t>record.granted - record.returned - record.spent_then) // 2


cdef bint is_held(uint32_t flight) noexcept nogil
cdef int worth_of(const Packed* record, int64_t now_ns) noexcept nogil
cdef bint take_flight(Packed* record, uint32_t owner) noexcept nogil
cdef void leave_flight(Packed* record) noexcept nogil
cdef void set_hand(Packed* record, uint32_t tokens, int64_t deadline_ns) noexcept nogil
cdef void renew(Packed* record, uint64_t tag, int64_t now_ns) noexcept nogil
cdef peek(const Packed* at)
cdef record_of(BucketFile table, Packed* at, uint64_t tag, uint32_t owner, int64_t now_ns)


cdef class Record:
    cdef readonly BucketFile table
    cdef readonly uint64_t tag
    cdef readonly uint32_t owner
    cdef Packed* at                 # NULL once released
    cdef int64_t seen               # tokens, when this was last read or written here
    cdef int64_t missing            # so many of those to be taken away had been spent meanwhile
    cdef int64_t lowered            # so much was `granted` lowered, and the tokens have not been yet

    cdef Packed* held(self) except NULL
