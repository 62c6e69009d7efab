"""The file behind the buckets: its memory, who may open it, and how a slot is claimed.

Memory. Header (4096 bytes), 1024 mutexes 64 bytes apart, then 64-byte groups of four slots {tag u64, tat i64}. A tag
alone decides the three groups where its slot may be, so slots can be moved to a table of another size. `tat` is a time
(ns of CLOCK_BOOTTIME); a slot whose tat has passed is free, but keeps its tag until another key takes it. Tag 0 was
never used.

Ownership. The supervisor creates or opens the file before any worker exists; workers attach. A shared flock, held for
as long as a table is open, tells a later owner whether orphans are attached: then it leaves the mutexes alone.

Ordering. Every write to a slot is one 16-byte compare-and-swap (a full barrier), so nobody writes a slot that another
key took meanwhile. Reads are two acquire loads; what is written on their strength is validated by the swap. Only an
insertion holds a mutex (striped by tag), so that one key never gets two slots; nothing it does there can be half done.

Time. A caller's `now_ns` may be older than another's. While there is a choice, a slot is only reclaimed once its tat is
STALE_SECONDS past.

A crash leaves whole slots. The mutexes are robust: that of a dead process is taken over by the next who wants it. A
process that is stopped (SIGSTOP) while it inserts holds up insertions of one in 1024 keys until it goes on.
"""

import fcntl
import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from cpro._fast import mapped
from cpro.errors import StartError, StoreError


cdef extern from "cas16.h":
    void count "cpro_count"(uint64_t* at) noexcept nogil

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    int PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t*)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t*, int)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t*, int)
    int pthread_mutex_init(pthread_mutex_t*, pthread_mutexattr_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_consistent(pthread_mutex_t*)

cdef extern from "<errno.h>":
    int EOWNERDEAD

cdef enum:
    FORMAT = 1

cdef int64_t STALE_NS = STALE_SECONDS * 1_000_000_000LL
cdef uint64_t BUCKETS = 0x74656b6375627063ULL  # "cpbucket"
cdef uint64_t LEASES = 0x73657361656c7063ULL  # "cpleases": a table of `leasetable`

MUTEX_OFFSET, MUTEX_SPAN, MUTEXES = HEADER_SPAN, STRIPE_SPAN, STRIPES
TABLE_OFFSET = SLOTS_AT


cdef inline pthread_mutex_t* mutex_at(Header* header, uint64_t stripe) noexcept nogil:
    return <pthread_mutex_t*>(<char*>header + HEADER_SPAN + stripe * STRIPE_SPAN)


cdef int lock_stripe(Header* header, uint64_t tag) except -1:
    """Hold the mutex of a tag; one that a dead process held is taken over, for nothing under it can be half done."""
    cdef pthread_mutex_t* mutex = mutex_at(header, tag % STRIPES)
    cdef int fault = pthread_mutex_lock(mutex)
    if fault == EOWNERDEAD:
        fault = pthread_mutex_consistent(mutex)
    if fault:
        raise StoreError(f"a mutex of the bucket table is broken: {os.strerror(fault)}")
    return 0


cdef void unlock_stripe(Header* header, uint64_t tag) noexcept nogil:
    pthread_mutex_unlock(mutex_at(header, tag % STRIPES))


cdef class BucketFile(Mapping):
    """A mapped table. Made by `create_or_open` or `attach`, never by its constructor."""

    def __init__(self):
        raise TypeError("use create_or_open or attach")

    @classmethod
    def create_or_open(cls, path, max_buckets, boot_id, now_ns, home=""):
        """OWNER. The table at `path` with its buckets, if they are of this boot; else an empty one.

        `home` is the data folder it belongs to."""
        cdef BucketFile table
        groups = cls._groups_for(max_buckets)
        if len(boot_id) != 16:
            raise ValueError("a boot id has 16 bytes")
        if len(os.fsencode(home)) > HOME_BYTES:
            raise StartError(f"the path of the data folder is longer than {HOME_BYTES} bytes: {home}")
        table = open_valid(cls, path, True)
        if table is None:
            return new_table(cls, path, groups, boot_id, home)
        if table.boot_id != boot_id:
            table.close()
            return new_table(cls, path, groups, boot_id, home)
        if table.groups != groups:
            resized = new_table(cls, path, groups, boot_id, home, table, now_ns)
            table.close()
            return resized
        table._write_home(home)
        table._renew_mutexes()
        return table

    @classmethod
    def attach(cls, path):
        """WORKER. The table its supervisor made at `path`."""
        cdef BucketFile table = open_valid(cls, path, False)
        if table is None:
            raise StartError(f"there is no bucket table at {path}")
        fcntl.flock(table.fd, fcntl.LOCK_SH)
        return table

    cdef bint claim_slot(self, Probe* probe, int64_t tat, int64_t now_ns) noexcept nogil:
        """Put the tag into a free slot, or evict the bucket that will be full first. False: a slot changed, try again.

        Of the groups the first that is less than half full, else the emptiest: filling up the first one instead would
        overflow 0.7 % of the buckets at 70 % load, this 0.005 %."""
        cdef Slot* chosen = NULL
        cdef Slot* slot
        cdef Slot* free_slot
        cdef Slot* victim = NULL
        cdef int64_t soonest = 0
        cdef int64_t own
        cdef int most_free = 0
        cdef int group, place, free
        for group in range(3):
            free_slot, free = NULL, 0
            for place in range(4):
                slot = probe.groups[group] + place
                own = load_i64(&slot.tat)
                if load_u64(&slot.tag) == 0 or own <= now_ns - STALE_NS:
                    free += 1
                    if free_slot == NULL:
                        free_slot = slot
                elif victim == NULL or own < soonest:
                    victim, soonest = slot, own
            if free > most_free:
                chosen, most_free = free_slot, free
            if free > 2:
                break
        if chosen != NULL:
            return self.take_slot(probe, chosen, True, tat, now_ns)
        return self.take_slot(probe, victim, False, tat, now_ns)

    cdef bint take_slot(self, Probe* probe, Slot* slot, bint must_be_free, int64_t tat, int64_t now_ns) noexcept nogil:
        cdef uint64_t old_tag = load_u64(&slot.tag)
        cdef int64_t old_tat = load_i64(&slot.tat)
        cdef bint is_free = old_tag == 0 or old_tat <= now_ns - STALE_NS
        if (must_be_free and not is_free) or not cas16(slot, old_tag, old_tat, probe.tag, tat):
            return False
        if old_tag != 0 and old_tat > now_ns:
            count(&self.header.evictions)
        probe.slot = slot
        return True

    @classmethod
    def _groups_for(cls, max_entries):
        """How many 64-byte groups a table for so many entries has."""
        return groups_for(max_entries)

    def _magic(self):
        """What kind of table this is."""
        return BUCKETS

    def _is_valid(self):
        cdef Header* header = self.header
        cdef uint64_t slots_bytes = len(self.pages) - SLOTS_AT  # open_valid made sure of one neighbourhood
        return (header.magic == self._magic() and header.version == FORMAT and header.mutex_bytes == sizeof(pthread_mutex_t)
                and header.groups == slots_bytes // GROUP_SPAN and slots_bytes % (NEAR_GROUPS * GROUP_SPAN) == 0
                and header.home_bytes <= HOME_BYTES)

    def _renew_mutexes(self):
        """Only with nobody attached; whoever is still there goes on with the mutexes as they are (False)."""
        cdef pthread_mutexattr_t attributes
        cdef int stripe
        cdef int fault = 0
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self.fd, fcntl.LOCK_SH)
            return False
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)
        fault = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)
        for stripe in range(STRIPES):
            fault = fault or pthread_mutex_init(mutex_at(self.header, stripe), &attributes)
        fcntl.flock(self.fd, fcntl.LOCK_SH)
        if fault:
            raise StartError(f"can't make mutexes for the bucket table: {os.strerror(fault)}")
        return True

    def _write_home(self, home):
        data = os.fsencode(home)
        memcpy(self.header.home, <char*>data, len(data))
        self.header.home_bytes = len(data)

    def _format(self, uint64_t groups, boot_id, home, BucketFile old):
        """Write the header of a new table; a resized one keeps who it is."""
        secrets = os.urandom(32) if old is None else old.holder_id + old.hash_key
        memcpy(self.header.boot_id, <char*>boot_id, 16)
        memcpy(self.header.holder_id, <char*>secrets, 16)
        memcpy(self.header.hash_key, <char*>secrets + 16, 16)
        self.header.version, self.header.mutex_bytes = FORMAT, sizeof(pthread_mutex_t)
        self.header.groups = groups
        self.header.evictions = 0 if old is None else old.header.evictions
        self.header.magic = self._magic()
        self._write_home(home)
        self.take_header()

    def _copy_live(self, BucketFile old not None, int64_t now_ns):
        cdef Probe probe
        cdef uint64_t place
        for place in range(old.groups * 4):
            if old.slots[place].tag != 0 and old.slots[place].tat > now_ns:
                place_probe(&probe, self.slots, self.groups, old.slots[place].tag)
                while not self.claim_slot(&probe, old.slots[place].tat, now_ns):
                    pass

    cdef int take_header(self) except -1:
        self.groups = self.header.groups
        self.key.k0, self.key.k1 = self.header.hash_key[0], self.header.hash_key[1]
        return 0

    cdef Header* open_header(self) except NULL:
        if self.header == NULL:
            raise StoreError("the bucket table is closed")
        return self.header

    @property
    def boot_id(self):
        return PyBytes_FromStringAndSize(<char*>self.open_header().boot_id, 16)

    @property
    def holder_id(self):
        return PyBytes_FromStringAndSize(<char*>self.open_header().holder_id, 16)

    @property
    def hash_key(self):
        return PyBytes_FromStringAndSize(<char*>self.open_header().hash_key, 16)

    @property
    def home(self):
        cdef Header* header = self.open_header()
        return os.fsdecode(PyBytes_FromStringAndSize(<char*>header.home, header.home_bytes))

    @property
    def evictions(self):
        return load_u64(&self.open_header().evictions)

    @property
    def capacity(self):
        return self.groups * 4

    def live(self, int64_t now_ns):
        """How many buckets are not full. Reads the whole table."""
        cdef uint64_t place
        cdef uint64_t found = 0
        self.open_header()
        for place in range(self.groups * 4):
            found += load_u64(&self.slots[place].tag) != 0 and load_i64(&self.slots[place].tat) > now_ns
        return found

    def close(self):
        """Unmap. Calling it twice is harmless; charging afterwards raises StoreError."""
        self.header = NULL
        self.slots = NULL
        self.let_go()


def groups_for(max_buckets):
    """As many groups, in whole neighbourhoods, as hold `max_buckets` live buckets at 70 % load."""
    if not 1 <= max_buckets <= 1 << 40:
        raise ValueError("max_buckets must be 1 to 2^40")
    return -(-max_buckets * 10 // (7 * 4 * NEAR_GROUPS)) * NEAR_GROUPS


def read_home(path):
    """The data folder that the table at `path` belongs to; None if that is no table of this format."""
    cdef Header header
    fd = mapped.open_own(path)
    if fd is None:
        return None
    try:
        head = os.pread(fd, sizeof(Header), 0)
    finally:
        os.close(fd)
    if len(head) != sizeof(Header):
        return None
    memcpy(&header, <char*>head, sizeof(Header))
    if header.magic not in (BUCKETS, LEASES) or header.version != FORMAT or header.home_bytes > HOME_BYTES:
        return None
    return os.fsdecode(PyBytes_FromStringAndSize(<char*>header.home, header.home_bytes))


def file_bytes(max_buckets):
    """How large the file of a table for `max_buckets` is."""
    return SLOTS_AT + groups_for(max_buckets) * GROUP_SPAN


cdef BucketFile over(cls, path, fd, pages):
    """A table object over mapped pages; takes the descriptor."""
    cdef BucketFile table = cls.__new__(cls)
    cdef char* at = table.hold(pages, fd)
    table.path = path
    table.header = <Header*>at
    table.slots = <Slot*>(at + SLOTS_AT)
    return table


cdef BucketFile open_valid(cls, path, bint allocate):
    """The file at `path` if it is a whole table of this format; None if there is none, or it is damaged."""
    cdef BucketFile table
    fd = mapped.open_own(path)
    if fd is None:
        return None
    size = os.fstat(fd).st_size
    if size < SLOTS_AT + NEAR_GROUPS * GROUP_SPAN:
        os.close(fd)
        return None
    if allocate:
        os.posix_fallocate(fd, 0, size)  # a file restored by a copying tool may have holes
    table = over(cls, path, fd, mapped.share(fd, size))
    if not table._is_valid():
        table.close()
        return None
    table.take_header()
    return table


def new_table(cls, path, uint64_t groups, boot_id, home, BucketFile old=None, now_ns=0):
    """Replace the file at `path` by a table with the live buckets of `old`, or none."""
    cdef BucketFile table

    def fill(pages):
        cdef BucketFile unnamed = over(cls, path, -1, pages)
        unnamed._format(groups, boot_id, home, old)
        if old is not None:
            unnamed._copy_live(old, now_ns)
        unnamed.close()

    fd, pages = mapped.create(path, <uint64_t>SLOTS_AT + groups * GROUP_SPAN, fill)
    table = over(cls, path, fd, pages)
    table.take_header()
    table._renew_mutexes()
    return table
