"""The node's leases: one 64-byte record per user and bucket, spent by every worker without asking anybody.

The record, and who may change what of it when, is `leaserecord`; the arithmetic is `cpro.limits.leases`. The file is
bucketfile's, with a record where that has a group of four slots. A tag names three places; a record lies in one of them
or beside it, in the same 256 bytes. A file of another size or boot starts empty.

Creation holds the stripe's mutex, so that a key never gets two records. It takes the flight of a record that nobody
needs: unused; FORGET_NS past its deadline with no denial pending; or else (counted as an eviction) with no tokens in
hand. Tag 0, new epoch and deadline, the other fields, and the new tag last. It keeps counting the sequence on.

A crash leaves a flight that others take over, at worst a record without a tag.
"""

from libc.math cimport floor
from posix.time cimport clock_gettime, timespec

from cpro._fast cimport hashing
from cpro._fast.buckets cimport BucketTable, Plan, refuses
from cpro._fast.bucketfile cimport (
    GROUP_SPAN, NEAR_GROUPS, SLOTS_AT, STALE_SECONDS, Probe, Slot, cas16, hash_text, load_i64, load_u64, lock_stripe,
    place_probe, prefetch, unlock_stripe,
)
from cpro._fast.leaserecord cimport (
    EVICTABLE, FLIGHT_BITS, FREE, NEEDED, NEVER_MS, flight_of, from_ms, gap_of, half_of, hand_of, is_held, is_stream,
    leave_flight, longest_of, pace_of, peek, record_of, renew, room_of, streaming, tail_of, take_flight, tokens_of,
    up_to_ms, worth_of,
)

from cpro._fast.leaserecord import Peek, Record  # noqa: F401 -- what it hands out


cdef extern from "cas16.h":
    void count "cpro_count"(uint64_t* at) noexcept nogil

cdef extern from "<time.h>":
    int CLOCK_BOOTTIME

cdef int64_t STALE_NS = STALE_SECONDS * 1_000_000_000LL
cdef int64_t MAX_NS = 1LL << 60
cdef int64_t MOST_TOKENS = 1LL << 30
cdef uint64_t LEASES = 0x73657361656c7063ULL  # "cpleases"

SPENT, SPENT_DUE, ASK, EMPTY = range(4)

cdef enum:
    DUE_CODE = 1
    ASK_CODE = 2
    EMPTY_CODE = 3
    DUE_BIT = 64                    # beyond the codes of a table

DUE = DUE_BIT

FORGET_NS = STALE_NS
"""So long after its deadline a record may become another key's: longer than the store remembers the lease."""


cdef class LeasePlan:
    """The leased buckets of one operation, in order. Immutable.

    `limits` are each bucket's `leases.Limit`, if a refill is to be called due by them, or a bucket has streams."""

    def __init__(self, identities, limits=(), double period_ns=3e9, double lead_ns=5e7):
        self.count = len(identities)
        if self.count > MOST_PLACES:
            raise ValueError(f"a plan has at most {MOST_PLACES} leased buckets")
        if len(set(identities)) != self.count:
            raise ValueError("a bucket stands twice in one plan")
        self.period_ns, self.lead_ns = period_ns, lead_ns
        for place in range(self.count):
            self.identities[place] = identities[place]
            self.most[place] = min(limits[place].tokens * 2 // 3, MOST_TOKENS) if limits else MOST_TOKENS
            self.twice[place] = 2 * limits[place].chunk if limits else MOST_TOKENS
            self.steps[place] = limits[place].step_ns if limits else 0
            self.streams[place] = limits[place].stream_ns if limits else 0

    def __len__(self):
        return self.count


cdef inline int64_t in_hand(const Spent* spent, int64_t now_ns) noexcept nogil:
    if spent.record == NULL or now_ns >= spent.deadline_ns:
        return 0
    if spent.gap:
        return min(spent.room, <int64_t>tokens_of(spent.hand) - (spent.deadline_ns - now_ns) // spent.gap)
    return tokens_of(spent.hand)


cdef inline bint read_hand(Spent* spent, int64_t step_ns) noexcept nogil:
    """Read tokens and deadline, of a stream its pace; False if the record is another key's by now."""
    if spent.record == NULL:
        return False
    spent.hand = load_u64(&spent.record.hand)
    spent.deadline_ns = load_i64(&spent.record.deadline_ns)
    spent.gap = 0
    if is_stream(spent.hand):
        spent.pace, spent.room = pace_of(spent.record), room_of(spent.record)
        spent.gap = max(<int64_t>1, gap_of(step_ns, spent.pace))
    if load_u64(&spent.record.tag) != spent.tag:
        spent.record = NULL
    return spent.record != NULL


cdef bint put_back(Spent* spent, int64_t now_ns, uint32_t tokens) noexcept nogil:
    """Unless it may have been reported as spent, or expired, meanwhile. (False: it stays spent.)

    If more than half is in hand again, a note of when half was spent is wrong, or will be: it is ruled out first."""
    cdef uint32_t left
    cdef int64_t half
    while read_hand(spent, 0):
        spent.asking, spent.tail = load_u64(&spent.record.asking), tail_of(spent.record)
        if <uint32_t>(spent.hand >> 32) != spent.epoch or now_ns >= spent.deadline_ns or flight_of(spent.asking):
            return False
        left, half = tokens_of(spent.hand), half_of(spent.record)
        if not spent.gap and left <= half < <int64_t>left + tokens and spent.tail >> 32 != NEVER_MS:
            if not cas16(&spent.record.asking, spent.asking, <int64_t>spent.tail, spent.asking,
                         <int64_t>(<uint64_t>NEVER_MS << 32 | <uint32_t>spent.tail)):
                continue
        if cas16(spent.record, spent.hand, spent.deadline_ns, spent.hand + tokens, spent.deadline_ns):
            return True
    return False


cdef bint is_low(const Spent* spent, LeasePlan plan, int place, int64_t now_ns) noexcept:
    """`leases.is_due`, and nobody is asking yet."""
    cdef const Packed* record = spent.record
    cdef double demand = record.demand_mtps
    cdef double wanted
    if spent.gap or spent.left > demand * plan.lead_ns / 1e12 or flight_of(load_u64(&record.asking)) or record.asked_ms == 0:
        return False
    if now_ns < from_ms(record.next_ask_ms, spent.deadline_ns):
        return False
    wanted = <double>record.granted - record.returned - spent.left - record.spent_then
    wanted = demand * plan.period_ns + max(0, wanted) * 1e12
    wanted = floor(wanted / (plan.period_ns + max(0, now_ns - from_ms(record.asked_ms, spent.deadline_ns))))
    wanted = floor(wanted * plan.period_ns / 1e12)
    if record.next_ask_ms:
        wanted = min(wanted, plan.twice[place])
    return min(wanted, plan.most[place]) > spent.left


cdef uint64_t of_stream(const Spent* spent, LeasePlan plan, int place, int64_t now_ns, int64_t tokens,
                        int64_t* deadline_ns) noexcept nogil:
    """What a stream's first word becomes by spending; `leases.Lease.spend`."""
    cdef const Packed* record = spent.record
    cdef int64_t to_come = (spent.deadline_ns - now_ns) // spent.gap
    cdef int64_t last_ns
    if tokens_of(spent.hand) - to_come < spent.room:
        return spent.hand - <uint64_t>tokens
    if to_come:
        last_ns = from_ms(record.asked_ms, spent.deadline_ns)
        last_ns += longest_of(plan.steps[place], plan.streams[place], spent.pace)
        to_come -= now_ns + (to_come + 1) * spent.gap > last_ns
        deadline_ns[0] = now_ns + (to_come + 1) * spent.gap - 1
    return streaming(hand_of(<uint32_t>(spent.room + to_come - tokens), <uint32_t>(spent.hand >> 32)))


cdef inline Packed* beside(Slot* group, int place) noexcept nogil:
    """One of the four records in the same 256 bytes; 0 is the group itself."""
    return <Packed*>(<uint64_t>group ^ <uint64_t>place * sizeof(Packed))


cdef Packed* choose(const Probe* probe, int64_t now_ns, int* worth) noexcept nogil:
    """The record to make another key's: in the first group where most are free, else of those without tokens the one
    that ended first; NULL if there is neither."""
    cdef Packed* chosen = NULL
    cdef Packed* victim = NULL
    cdef Packed* record
    cdef Packed* first
    cdef int group, place, own, free
    cdef int most = 0
    for group in range(3):
        first, free = NULL, 0
        for place in range(4):
            record = beside(probe.groups[group], place)
            own = worth_of(record, now_ns)
            if own == NEEDED or is_held(flight_of(load_u64(&record.asking))):
                continue
            if own == FREE:
                first, free = record if first == NULL else first, free + 1
            elif victim == NULL or load_i64(&record.deadline_ns) < load_i64(&victim.deadline_ns):
                victim = record
        if free > most:
            chosen, most = first, free
        if free > 2:
            break
    worth[0] = EVICTABLE if chosen == NULL else FREE
    return victim if chosen == NULL else chosen


cdef int64_t boot_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef class LeaseTable(BucketFile):
    """Spend with `spend`; ask the store about a record after `claim`."""

    @classmethod
    def _groups_for(cls, max_leases):
        return groups_for(max_leases)

    def _magic(self):
        return LEASES

    def _copy_live(self, BucketFile old not None, int64_t now_ns):
        """A table of another size starts without leases: whoever is still at the old one spends those."""

    def _renew_mutexes(self):
        if BucketFile._renew_mutexes(self):
            self.free_flights(0)
            return True
        return False

    @property
    def capacity(self):
        return self.groups

    def live(self, int64_t now_ns):
        """How many records have tokens in hand. Reads the whole table."""
        cdef Packed* records = <Packed*>self.slots
        cdef uint64_t place
        cdef uint64_t found = 0
        self.open_header()
        for place in range(self.groups):
            found += records[place].tag != 0 and tokens_of(records[place].hand) and records[place].deadline_ns > now_ns
        return found

    def spend(self, LeasePlan plan not None, str user not None, int user_kind, int64_t now_ns, int64_t tokens=1):
        """Take `tokens` from every record of the plan, or nothing at all.

        SPENT; SPENT_DUE: and some record should be refilled now; ASK: some record has too few, and its bucket may be
        asked; EMPTY: it is known to have none now."""
        return self.spend_raw(plan, user, user_kind, now_ns, tokens)

    def give_back(self, LeasePlan plan not None, str user not None, int user_kind, int64_t now_ns, int64_t tokens=1):
        """Undo this object's last spend. What may have been reported as spent by now stays spent."""
        cdef Spent aimed[MOST_PLACES]
        cdef int place
        self._aim(aimed, plan, user, user_kind, now_ns, tokens)
        if self.last_tokens != tokens:
            return
        self.last_tokens = 0
        for place in range(plan.count):
            if self.last[place].tag == aimed[place].tag:
                put_back(&self.last[place], now_ns, <uint32_t>tokens)

    def charge(self, LeasePlan plan not None, BucketTable table not None, Plan own not None, str client not None,
               str user not None, int user_kind, int64_t now_ns):
        """Take a token of every record of the plan and of every bucket of `own`, or nothing at all.

        The table's code, with DUE added where `spend` says SPENT_DUE; -ASK or -EMPTY, and the table was not asked."""
        cdef int place
        cdef int code
        cdef int got = self.spend_raw(plan, user, user_kind, now_ns, 1)
        if got > DUE_CODE:
            return -got
        code = table.charge_raw(own, client, user, user_kind, now_ns, 1)
        if not refuses(code):
            return code | DUE_BIT if got else code
        self.last_tokens = 0
        for place in range(plan.count):
            put_back(&self.last[place], now_ns, 1)
        return code

    cdef int spend_raw(self, LeasePlan plan, str user, int user_kind, int64_t now_ns, int64_t tokens) except -1:
        cdef Spent* spents = self.last
        cdef int verdict
        cdef int place
        cdef int other
        self.last_tokens = 0
        self._aim(spents, plan, user, user_kind, now_ns, tokens)
        verdict = self._refusal(spents, plan, now_ns, tokens)
        if verdict:
            return verdict
        for place in range(plan.count):
            if not self._take(&spents[place], plan, place, now_ns, tokens):
                for other in range(place):
                    put_back(&spents[other], now_ns, <uint32_t>tokens)
                return self._refusal(spents, plan, now_ns, tokens) or ASK_CODE
        self.last_tokens = tokens
        for place in range(plan.count):
            self._note_half(&spents[place], now_ns, tokens)
            if is_low(&spents[place], plan, place, now_ns):
                verdict = DUE_CODE
        return verdict

    cdef int _aim(self, Spent* spents, LeasePlan plan, str user, int user_kind, int64_t now_ns,
                  int64_t tokens) except -1:
        """Which tags are meant, and where their records are."""
        cdef uint64_t entity
        cdef int place
        self.open_header()
        if not 1 <= tokens <= MOST_TOKENS or not 0 <= now_ns <= MAX_NS:
            raise ValueError("tokens must be 1 to 2^30, now_ns a reading of CLOCK_BOOTTIME")
        entity = hash_text(&self.key, <uint64_t>user_kind, user)
        for place in range(plan.count):
            spents[place].tag = hashing.mix(entity ^ plan.identities[place]) or 1
            spents[place].record = NULL
            prefetch(self._home(spents[place].tag))
        return 0

    cdef int _refusal(self, Spent* spents, LeasePlan plan, int64_t now_ns, int64_t tokens) noexcept nogil:
        """0 = every record has enough in hand; else ASK or EMPTY."""
        cdef int verdict = 0
        cdef int place
        cdef Spent* spent
        for place in range(plan.count):
            spent = &spents[place]
            spent.record = self._find(spent.tag)
            if spent.record != NULL:
                spent.asking, spent.tail = load_u64(&spent.record.asking), tail_of(spent.record)
            if read_hand(spent, plan.steps[place]) and in_hand(spent, now_ns) >= tokens:
                continue
            if spent.record != NULL and self._is_empty(spent, now_ns):
                return EMPTY_CODE
            verdict = ASK_CODE
        return verdict

    cdef bint _is_empty(self, const Spent* spent, int64_t now_ns) noexcept nogil:
        """Whether the record's bucket is not to be asked: it is known to be empty, or streams."""
        if spent.gap:
            return tokens_of(spent.hand) > 0 and now_ns < spent.deadline_ns
        return now_ns < from_ms(spent.record.next_ask_ms, spent.deadline_ns)

    cdef bint _take(self, Spent* spent, LeasePlan plan, int place, int64_t now_ns, int64_t tokens) noexcept nogil:
        """False: other workers took what was there, or it is another key's record by now."""
        cdef uint64_t hand
        cdef int64_t deadline_ns
        while in_hand(spent, now_ns) >= tokens:
            hand, deadline_ns = spent.hand - <uint64_t>tokens, spent.deadline_ns
            if spent.gap:
                hand = of_stream(spent, plan, place, now_ns, tokens, &deadline_ns)
            if cas16(spent.record, spent.hand, spent.deadline_ns, hand, deadline_ns):
                spent.epoch = <uint32_t>(hand >> 32)
                spent.left = tokens_of(hand)
                return True
            read_hand(spent, plan.steps[place])
        return False

    cdef int _note_half(self, Spent* spent, int64_t now_ns, int64_t tokens) except -1:
        """If this took the last of the first half: the time, read now. Whoever took of that half did so before.

        A `now_ns` far from it is not of this clock, or stale; no note is always safe."""
        cdef int64_t half
        cdef int64_t after_ns
        if spent.gap or flight_of(spent.asking) or spent.tail >> 32:
            return 0
        half = half_of(spent.record)
        if not spent.left <= half < spent.left + tokens:
            return 0
        after_ns = self.clock() if self.clock is not None else boot_ns()
        if now_ns <= after_ns <= now_ns + STALE_NS:
            cas16(&spent.record.asking, spent.asking, <int64_t>spent.tail, spent.asking,
                  <int64_t>(<uint64_t>up_to_ms(after_ns) << 32 | <uint32_t>spent.tail))
        return 0

    cdef Packed* _home(self, uint64_t tag) noexcept nogil:
        """Where the tag's record is, unless another was there first."""
        cdef Probe probe
        place_probe(&probe, self.slots, self.groups, tag)
        return <Packed*>probe.groups[0]

    cdef Packed* _find(self, uint64_t tag) noexcept nogil:
        """The three places of the tag, each with those beside it; NULL if it has no record."""
        cdef Probe probe
        cdef Packed* record
        cdef int group, place
        place_probe(&probe, self.slots, self.groups, tag)
        for group in range(3):
            for place in range(4):
                record = beside(probe.groups[group], place)
                if load_u64(&record.tag) == tag:
                    return record
        return NULL

    def retry_ns(self, LeasePlan plan not None, str user not None, int user_kind, int64_t now_ns):
        """How long until every bucket may be asked."""
        cdef Spent aimed[MOST_PLACES]
        cdef Packed* record
        cdef int64_t longest = 0
        cdef int place
        self._aim(aimed, plan, user, user_kind, now_ns, 1)
        for place in range(plan.count):
            record = self._find(aimed[place].tag)
            if record != NULL:
                longest = max(longest, from_ms(record.next_ask_ms, load_i64(&record.deadline_ns)) - now_ns)
        return longest

    def tag_of(self, LeasePlan plan not None, int place, str user not None, int user_kind):
        """The name of a record, for as long as the file lives."""
        if not 0 <= place < plan.count:
            raise IndexError("the plan has no such place")
        self.open_header()
        return hashing.mix(hash_text(&self.key, <uint64_t>user_kind, user) ^ plan.identities[place]) or 1

    def claim(self, LeasePlan plan not None, int place, str user not None, int user_kind, uint32_t owner,
              int64_t now_ns):
        """The record with its flight, made if there is none. None: somebody has the flight. False: no room for it."""
        cdef uint64_t tag = self.tag_of(plan, place, user, user_kind)
        cdef Packed* record = NULL
        cdef bint is_there = True
        cdef bint is_busy = False
        check_owner(owner)
        while is_there:
            record = self._acquire(tag, owner, now_ns, &is_busy)
            if record != NULL or is_busy:
                return self._claimed(record, tag, owner, now_ns)
            lock_stripe(self.header, tag)
            record = self._create(tag, owner, now_ns, &is_there)
            unlock_stripe(self.header, tag)
        return False if record == NULL else self._claimed(record, tag, owner, now_ns)

    def claim_tag(self, uint64_t tag, uint32_t owner, int64_t now_ns):
        """The record with its flight; None if somebody has that, or there is no record."""
        cdef bint is_busy = False
        check_owner(owner)
        self.open_header()
        return self._claimed(self._acquire(tag, owner, now_ns, &is_busy), tag, owner, now_ns)

    cdef object _claimed(self, Packed* record, uint64_t tag, uint32_t owner, int64_t now_ns):
        return None if record == NULL else record_of(self, record, tag, owner, now_ns)

    cdef Packed* _acquire(self, uint64_t tag, uint32_t owner, int64_t now_ns, bint* is_busy) noexcept nogil:
        cdef Packed* record
        while True:
            record = self._find(tag)
            if record == NULL:
                return NULL
            if take_flight(record, owner):
                if load_u64(&record.tag) == tag:
                    return record
                leave_flight(record)
            elif load_u64(&record.tag) == tag and is_held(flight_of(load_u64(&record.asking))):
                is_busy[0] = True
                return NULL

    cdef Packed* _create(self, uint64_t tag, uint32_t owner, int64_t now_ns, bint* is_there) noexcept nogil:
        """Under the tag's mutex: a new record, its flight taken. NULL: no room, or `is_there` after all."""
        cdef Probe probe
        cdef Packed* record
        cdef int worth = FREE
        is_there[0] = self._find(tag) != NULL
        if is_there[0]:
            return NULL
        place_probe(&probe, self.slots, self.groups, tag)
        while True:
            record = choose(&probe, now_ns, &worth)
            if record == NULL:
                return NULL
            if not take_flight(record, owner):
                continue
            if worth_of(record, now_ns) <= worth:
                if worth == EVICTABLE:
                    count(&self.header.evictions)
                renew(record, tag, now_ns)
                return record
            leave_flight(record)

    def peek_tag(self, uint64_t tag):
        """The record as it is now; None if there is none."""
        cdef Packed* record
        self.open_header()
        record = self._find(tag)
        return None if record == NULL else peek(record)

    def free_flights(self, uint32_t owner):
        """Give up the flights of a process that is gone, or (0) of all; how many. Reads the whole table.

        For the supervisor after a worker ended: another process may be given its id."""
        cdef Packed* records = <Packed*>self.slots
        cdef uint64_t place
        cdef uint64_t freed = 0
        cdef uint32_t flight
        self.open_header()
        for place in range(self.groups):
            flight = flight_of(load_u64(&records[place].asking))
            if flight != 0 and owner in (0, flight):
                leave_flight(&records[place])
                freed += 1
        return freed


cdef check_owner(uint32_t owner):
    if not 0 < owner < 1 << FLIGHT_BITS:
        raise ValueError("an owner is a process id")


def groups_for(max_leases):
    """As many records, in whole neighbourhoods, as hold `max_leases` at 70 % load."""
    if not 1 <= max_leases <= 1 << 40:
        raise ValueError("max_leases must be 1 to 2^40")
    return -(-max_leases * 10 // (7 * NEAR_GROUPS)) * NEAR_GROUPS


def file_bytes(max_leases):
    """How large the file of a table for `max_leases` is."""
    return SLOTS_AT + groups_for(max_leases) * GROUP_SPAN
