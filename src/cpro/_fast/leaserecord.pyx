"""One lease of this node as 64 bytes that all workers share, and `Record`: the same as whoever has its flight sees it.

The meaning of the fields is that of `cpro.limits.leases.Lease`. Which record is whose is up to `leasetable`.

Layout, four 16-byte words:
    {tokens 31 bits, stream 1 bit, epoch u32, deadline i64}
    {sequence u32, flight 22 bits, sequence - acked 10 bits, spent_then u32, half u32}
    {tag u64, start u32, granted u32}
    {returned u32, asked u32, next ask u32, demand u32 in tokens/1000 s}
Times in u32 are ms, and mean the moment nearest to the deadline with these low bits. So that this is the right one, a
claim moves a deadline that is a day old, and forgets the rest; a next ask is at most 20 days after the deadline.

Ownership. Anybody changes `tokens`, by compare-and-swap together with epoch and deadline, and writes `half` into the
second word if that is as it was before, with nobody in flight. All else, the tag too, belongs to whoever has the
flight. A flight is a process id, taken by compare-and-swap from nobody or from a process that is gone. The tag is
looked at again after the tokens were read and after a flight was taken.

Stream. The bit says that tokens come one by one until the deadline; then what would be `half` has the stream's pace and
room instead. It is written with nothing in hand, before the tokens: whoever reads it after them, and then changes them by
compare-and-swap, has read what belongs to them. Every change of tokens may move the deadline.

Epoch. Changes with each request and each new life of a record: a spend found before cannot succeed after it, and is not
given back once it may have been reported.

Half. A note is made by compare-and-swap on the second word as it was before spending. Whoever gives back such that more
than half is in hand again writes 1 there first: no note, by nobody, until the next request.

A crash leaves a flight that others take over, at worst a record without a tag. Tokens are taken before they are used
and counted as granted before they are in hand, so what is missing counts as spent.
"""

from typing import NamedTuple

from libc.stdint cimport INT32_MAX, UINT32_MAX

from cpro._fast.bucketfile cimport STALE_SECONDS
from cpro.errors import StoreError


cdef extern from "<signal.h>" nogil:
    int kill(int, int)

cdef extern from "<errno.h>":
    int errno
    int ESRCH

cdef int64_t STALE_NS = STALE_SECONDS * 1_000_000_000LL
cdef int64_t DAY_NS = 86_400_000_000_000LL


class Peek(NamedTuple):
    """A record as it was, read without claiming it: its fields may not belong together. As `leases.Lease`."""

    tokens: int
    deadline_ns: int
    sequence: int
    flight: int
    spent_then: int
    half_ns: int
    start: int
    granted: int
    returned: int
    asked_ns: int
    next_ask_ns: int
    demand_mtps: int
    acked: int

    @property
    def spent(self):
        return max(0, self.granted - self.returned - self.tokens)

    @property
    def half(self):
        return (self.granted - self.returned - self.spent_then) // 2

    def in_hand(self, now_ns):
        return self.tokens if now_ns < self.deadline_ns else 0


cdef bint is_held(uint32_t flight) noexcept nogil:
    """Whether a process that lives has the flight."""
    return flight != 0 and (kill(<int>flight, 0) == 0 or errno != ESRCH)


cdef int worth_of(const Packed* record, int64_t now_ns) noexcept nogil:
    """What would be lost with it."""
    cdef int64_t deadline_ns = load_i64(&record.deadline_ns)
    if load_u64(&record.tag) == 0:
        return FREE
    if now_ns > deadline_ns + STALE_NS and now_ns >= from_ms(record.next_ask_ms, deadline_ns):
        return FREE
    return EVICTABLE if now_ns >= deadline_ns or tokens_of(load_u64(&record.hand)) == 0 else NEEDED


cdef bint take_flight(Packed* record, uint32_t owner) noexcept nogil:
    cdef uint64_t asking = load_u64(&record.asking)
    cdef uint64_t tail = tail_of(record)
    cdef uint64_t fresh = asking_of(<uint32_t>asking, owner, unacked_of(asking))
    return not is_held(flight_of(asking)) and cas16(&record.asking, asking, <int64_t>tail, fresh, <int64_t>tail)


cdef void leave_flight(Packed* record) noexcept nogil:
    cdef uint64_t asking = load_u64(&record.asking)
    store_u64(&record.asking, asking_of(<uint32_t>asking, 0, unacked_of(asking)))


cdef void set_hand(Packed* record, uint32_t tokens, int64_t deadline_ns) noexcept nogil:
    """With the flight: these tokens, whatever they were, and a new epoch."""
    cdef uint64_t hand
    while True:
        hand = load_u64(&record.hand)
        if cas16(record, hand, load_i64(&record.deadline_ns), hand_of(tokens, <uint32_t>(hand >> 32) + 1), deadline_ns):
            return


cdef void set_epoch(Packed* record) noexcept nogil:
    cdef uint64_t hand
    cdef int64_t deadline_ns
    cdef bint is_done = False
    while not is_done:
        hand, deadline_ns = load_u64(&record.hand), load_i64(&record.deadline_ns)
        is_done = cas16(record, hand, deadline_ns, hand + (1ULL << 32), deadline_ns)


cdef void renew(Packed* record, uint64_t tag, int64_t now_ns) noexcept nogil:
    """With the flight: make it the new record of `tag`. Its deadline is now: nothing in hand."""
    cdef uint64_t asking = load_u64(&record.asking)
    cdef bint is_used = load_i64(&record.deadline_ns) != 0
    store_u64(&record.tag, 0)
    set_hand(record, 0, now_ns)
    record.spent_then = record.half_ms = 0
    store_u64(&record.asking, asking_of(<uint32_t>asking + is_used, flight_of(asking), 0))
    record.returned = record.asked_ms = record.next_ask_ms = record.demand_mtps = record.granted = 0
    record.start = <uint32_t>(now_ns >> 8)
    store_u64(&record.tag, tag)


cdef class Record:
    """A claimed record, as `leases.Lease`. Setters keep the order in which a crash leaves tokens spent."""

    def __init__(self):
        raise TypeError("use LeaseTable.claim")

    cdef Packed* held(self) except NULL:
        if self.at == NULL or self.table.header == NULL:
            raise StoreError("the lease was released")
        return self.at

    def release(self):
        """Give the flight up. Calling it twice is harmless."""
        if self.at != NULL and self.table.header != NULL:
            leave_flight(self.at)
        self.at = NULL

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        self.release()

    @property
    def tokens(self):
        self.seen = tokens_of(load_u64(&self.held().hand))
        return self.seen

    @tokens.setter
    def tokens(self, int64_t value):
        """Adds the difference to what was last read here, for workers spend meanwhile. 0 is 0, and a new epoch.

        What should have gone but was spent has not been returned, nor was it not granted."""
        cdef Packed* at = self.held()
        cdef uint64_t hand
        cdef uint64_t changed
        cdef int64_t deadline_ns
        cdef int64_t fresh
        while True:
            hand, deadline_ns = load_u64(&at.hand), load_i64(&at.deadline_ns)
            fresh = min(tokens_of(hand) + value - self.seen, INT32_MAX)
            self.missing = max(0, -fresh)
            fresh = max(0, fresh) if value != 0 else 0
            changed = hand_of(<uint32_t>fresh, <uint32_t>(hand >> 32) + (value == 0))
            if is_stream(hand) and value != 0:
                changed = streaming(changed)
            if cas16(at, hand, deadline_ns, changed, deadline_ns):
                break
        at.granted += <uint32_t>min(self.missing, self.lowered)
        self.missing -= min(self.missing, self.lowered)
        self.seen, self.lowered = max(0, value), 0

    @property
    def deadline_ns(self):
        return load_i64(&self.held().deadline_ns)

    @deadline_ns.setter
    def deadline_ns(self, int64_t value):
        cdef Packed* at = self.held()
        cdef uint64_t hand
        cdef bint is_done = False
        while not is_done:
            hand = load_u64(&at.hand)
            is_done = cas16(at, hand, load_i64(&at.deadline_ns), hand, value)

    @property
    def sequence(self):
        return <uint32_t>load_u64(&self.held().asking)

    @sequence.setter
    def sequence(self, uint32_t value):
        """A new epoch first: what was spent until now may be reported."""
        cdef Packed* at = self.held()
        cdef uint64_t asking = load_u64(&at.asking)
        cdef int64_t unacked = unacked_of(asking) + max(0, <int64_t>value - <uint32_t>asking)
        set_epoch(at)
        store_u64(&at.asking, asking_of(value, flight_of(asking), <uint32_t>min(unacked, MOST_UNACKED)))

    @property
    def acked(self):
        """At most 1023 less than `sequence`."""
        cdef uint64_t asking = load_u64(&self.held().asking)
        return max(0, <int64_t><uint32_t>asking - unacked_of(asking))

    @acked.setter
    def acked(self, uint32_t value):
        cdef Packed* at = self.held()
        cdef uint64_t asking = load_u64(&at.asking)
        cdef int64_t unacked = max(0, min(<int64_t><uint32_t>asking - value, MOST_UNACKED))
        store_u64(&at.asking, asking_of(<uint32_t>asking, flight_of(asking), <uint32_t>unacked))

    @property
    def flight(self):
        return flight_of(load_u64(&self.held().asking))

    @property
    def spent_then(self):
        return self.held().spent_then

    @spent_then.setter
    def spent_then(self, uint32_t value):
        self.held().spent_then = value

    @property
    def half_ns(self):
        return 0 if is_stream(load_u64(&self.held().hand)) else from_ms(self.at.half_ms, self.at.deadline_ns)

    @half_ns.setter
    def half_ns(self, int64_t value):
        self.held().half_ms = up_to_ms(value)

    @property
    def pace(self):
        return pace_of(self.at) if is_stream(load_u64(&self.held().hand)) else 0

    @property
    def room(self):
        return room_of(self.at) if is_stream(load_u64(&self.held().hand)) else 0

    def accrued(self, int64_t now_ns, int64_t step_ns):
        """Of a stream: what is in hand, by its bucket's step."""
        cdef int64_t left_ns = self.deadline_ns - now_ns
        return max(0, min(self.room, self.tokens - left_ns // gap_of(step_ns, pace_of(self.at)))) if left_ns > 0 else 0

    def begin_stream(self, int64_t tokens, int64_t pace, int64_t room, limit, int64_t now_ns):
        """`tokens` to come, beside those in hand."""
        cdef Packed* at = self.held()
        cdef int64_t gap = gap_of(limit.step_ns, pace)
        cdef uint64_t hand
        cdef bint is_done = False
        if not (0 < tokens < 1 << 30 and 0 < pace <= 16):
            raise ValueError("a stream has tokens, and a sixteenth of the refill or up to sixteen")
        at.half_ms = <uint32_t>((pace - 1) << ROOM_BITS | min(room, (1 << ROOM_BITS) - 1))
        at.granted += <uint32_t>tokens
        while not is_done:
            hand = load_u64(&at.hand)
            is_done = cas16(at, hand, load_i64(&at.deadline_ns), streaming(hand + <uint64_t>tokens),
                            now_ns + (tokens + 1) * gap - 1)

    def drop(self):
        """Nothing in hand any more, and no stream; a new epoch."""
        self.tokens = 0
        self.at.half_ms = 0

    @property
    def start(self):
        return self.held().start

    @start.setter
    def start(self, uint32_t value):
        self.held().start = value

    @property
    def granted(self):
        return self.held().granted

    @granted.setter
    def granted(self, uint32_t value):
        self.lowered = max(0, <int64_t>self.held().granted - value)
        self.at.granted = value

    @property
    def returned(self):
        return self.held().returned

    @returned.setter
    def returned(self, uint32_t value):
        cdef int64_t grown = max(0, <int64_t>value - self.held().returned)
        self.at.returned = value - <uint32_t>min(grown, self.missing)
        self.missing = 0

    @property
    def asked_ns(self):
        return from_ms(self.held().asked_ms, self.at.deadline_ns)

    @asked_ns.setter
    def asked_ns(self, int64_t value):
        self.held().asked_ms = down_to_ms(value)

    @property
    def next_ask_ns(self):
        return from_ms(self.held().next_ask_ms, self.at.deadline_ns)

    @next_ask_ns.setter
    def next_ask_ns(self, int64_t value):
        self.held().next_ask_ms = up_to_ms(min(value, self.at.deadline_ns + 20 * DAY_NS))

    @property
    def demand_mtps(self):
        return self.held().demand_mtps

    @demand_mtps.setter
    def demand_mtps(self, value):
        self.held().demand_mtps = max(0, min(value, UINT32_MAX))

    @property
    def spent(self):
        return max(0, <int64_t>self.held().granted - self.at.returned - self.tokens)

    @property
    def half(self):
        return half_of(self.held())

    def in_hand(self, int64_t now_ns):
        return self.tokens if now_ns < self.deadline_ns else 0


cdef peek(const Packed* at):
    cdef uint64_t asking = load_u64(&at.asking)
    cdef int64_t deadline_ns = load_i64(&at.deadline_ns)
    cdef int64_t sequence = <uint32_t>asking
    return Peek(tokens_of(load_u64(&at.hand)), deadline_ns, sequence, flight_of(asking), at.spent_then,
                0 if is_stream(at.hand) else from_ms(at.half_ms, deadline_ns), at.start, at.granted, at.returned, from_ms(at.asked_ms, deadline_ns),
                from_ms(at.next_ask_ms, deadline_ns), at.demand_mtps, max(0, sequence - unacked_of(asking)))


cdef record_of(BucketFile table, Packed* at, uint64_t tag, uint32_t owner, int64_t now_ns):
    """With the flight: its times, a day after the deadline, would come to mean other moments."""
    cdef Record record = Record.__new__(Record)
    if now_ns - load_i64(&at.deadline_ns) > DAY_NS:
        set_hand(at, 0, now_ns)
        at.asked_ms = at.next_ask_ms = at.half_ms = at.demand_mtps = 0
    record.table, record.tag, record.owner, record.at = table, tag, owner, at
    record.seen = tokens_of(load_u64(&at.hand))
    return record
