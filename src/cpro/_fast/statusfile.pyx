"""When each user was last active and last online: one generation of a node's table, mapped by all its processes.

Memory. A header page, then 512-byte blocks of 21 slots {low u64, high u64, times u64}, 24 bytes each. A user is known by
128 bits of keyed SipHash; `high` chooses the slot where the search begins, which goes on slot by slot until a free one.
`times` holds both times, so one compare-and-swap sets both.

Ownership. A slot that has a user keeps it for as long as the file lives: users can't be taken for each other, whatever
two processes do at once. Slots of users who are gone come back when the table moves into its next generation, a new
file: whoever runs short of room makes it, names it in `following`, copies, and marks the old file as moved.

Moving. From `following` on, whoever updates writes to both files, the old one first. The writer stores its time, then
reads `following`; the mover stores `following`, then reads times; with a full barrier between each pair at least one
of the two sees what the other did. Times only grow, so it doesn't matter if both carry the same one over. Who forgets
a user goes by the same rule; what is forgotten in the old file while it is copied, the mover forgets in the new one.

A crash leaves at worst a slot whose `high` is missing: it belongs to whoever comes next with that `low`. After a power
cut, blocks may be older than others; then the table moves too, and what is incomplete stays behind.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cpro._fast.hashing cimport sip13

from cpro._fast import mapped
from cpro.errors import StoreError


cdef extern from "cas16.h":
    bint cas64 "cpro_cas64"(uint64_t* at, uint64_t old, uint64_t fresh) noexcept nogil
    uint64_t swap64 "cpro_swap64"(uint64_t* at, uint64_t fresh) noexcept nogil
    void fence "cpro_fence"() noexcept nogil
    uint64_t load_u64 "cpro_load_u64"(const uint64_t* at) noexcept nogil
    void store_u64 "cpro_store_u64"(uint64_t* at, uint64_t value) noexcept nogil
    void count "cpro_count"(uint64_t* at) noexcept nogil
    uint64_t scale "cpro_scale"(uint64_t word, uint64_t range) noexcept nogil

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    FORMAT = 1

cdef uint64_t MAGIC = 0x7375746174737063ULL  # "cpstatus"
cdef uint64_t MOST_SLOTS = 1ULL << 40

DONE, FOLLOW, FULL = 0, 1, 2
"""What `update` says: stored; stored, and the following generation wants it too; no room."""


cdef inline uint64_t moment(int64_t seconds) noexcept nogil:
    """Before 1970 nobody was heard of."""
    return <uint64_t>seconds if seconds > 0 else 0


cdef inline uint64_t last_of(uint64_t times) noexcept nogil:
    """The later of both."""
    cdef uint64_t active = times >> 32
    cdef uint64_t online = <uint32_t>times
    return active if active > online else online


cdef inline uint64_t later(uint64_t times, uint64_t active, uint64_t online, uint64_t step) noexcept nogil:
    """Both times, none moved back; `online` is only moved if it is by `step` seconds."""
    cdef uint64_t old_active = times >> 32
    cdef uint64_t old_online = <uint32_t>times
    if online < old_online + step:
        online = old_online
    return (active if active > old_active else old_active) << 32 | online


cdef inline int store_later(uint64_t* at, uint64_t active, uint64_t online, uint64_t oldest, uint64_t step) noexcept nogil:
    """Whether anything had to be stored; times that have expired no longer count."""
    cdef uint64_t old
    cdef uint64_t fresh
    while True:
        old = load_u64(at)
        fresh = later(0 if last_of(old) <= oldest else old, active, online, step)
        if fresh == old:
            return 0
        if cas64(at, old, fresh):
            return 1


cdef int hash_user(const SipKey* key, str user, uint64_t* low, uint64_t* high) except -1:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(user, &size)
    low[0] = sip13(key, 1, <const uint8_t*>data, <size_t>size) or 1
    high[0] = sip13(key, 2, <const uint8_t*>data, <size_t>size) or 1
    return 0


cdef class StatusFile(Mapping):
    """One generation. Made by `create` or `open`, never by its constructor."""

    def __init__(self):
        raise TypeError("use create or open")

    @classmethod
    def create(cls, path, number, uint64_t slots, bytes hash_key not None, bytes boot_id not None):
        """An empty one in place of whatever `path` was; it has its name only when it is whole. StartError: no room."""
        if len(hash_key) != 16 or len(boot_id) != 16 or not 1 <= slots <= MOST_SLOTS:
            raise ValueError("a key and a boot id have 16 bytes, and there is at least one slot")

        def fill(pages):
            cdef StatusFile unnamed = over(cls, path, number, -1, pages)
            memcpy(unnamed.header.boot_id, <char*>boot_id, 16)
            memcpy(unnamed.header.hash_key, <char*>hash_key, 16)
            unnamed.header.version = FORMAT
            unnamed.header.slots = whole_blocks(slots) * BLOCK_SLOTS
            unnamed.header.magic = MAGIC
            unnamed.close()

        fd, pages = mapped.create(path, file_bytes(slots), fill)
        return take(over(cls, path, number, fd, pages))

    @classmethod
    def open(cls, path, number):
        """The one at `path`; None if there is none, or it is no whole file of this format."""
        cdef StatusFile file
        fd = mapped.open_own(path)
        if fd is None:
            return None
        size = os.fstat(fd).st_size
        if size < HEADER_SPAN + BLOCK_SPAN or (size - HEADER_SPAN) % BLOCK_SPAN:
            os.close(fd)
            return None
        os.posix_fallocate(fd, 0, size)  # a file restored by a copying tool may have holes
        file = over(cls, path, number, fd, mapped.share(fd, size))
        if (file.header.magic != MAGIC or file.header.version != FORMAT
                or file.header.slots != <uint64_t>((size - HEADER_SPAN) // BLOCK_SPAN * BLOCK_SLOTS)):
            file.close()
            return None
        return take(file)

    def update(self, str user not None, uint32_t active, uint32_t online, int64_t oldest, uint32_t step=0):
        """Move both times on, `online` only by `step` seconds or more; a 0 moves nothing. DONE, FOLLOW or FULL.

        What is not later than `oldest` has expired."""
        cdef uint64_t low = 0
        cdef uint64_t high = 0
        cdef Slot* slot
        cdef StatusHeader* header = self.open_header()
        hash_user(&self.key, user, &low, &high)
        slot = self.claim(low, high)
        if slot == NULL:
            return FULL
        if store_later(&slot.times, active, online, moment(oldest), step):
            fence()
        return FOLLOW if load_u64(&header.following) != 0 else DONE

    def get(self, str user not None, int64_t oldest):
        """(active, online); 0 where nothing is known."""
        cdef uint64_t low = 0
        cdef uint64_t high = 0
        cdef uint64_t times
        cdef Slot* slot
        self.open_header()
        hash_user(&self.key, user, &low, &high)
        slot = self.find(low, high)
        if slot == NULL:
            return 0, 0
        times = load_u64(&slot.times)
        if last_of(times) <= moment(oldest):
            return 0, 0
        return times >> 32, <uint32_t>times

    def get_many(self, users, int64_t oldest):
        """The same for many, in their order."""
        return [self.get(user, oldest) for user in users]

    def forget(self, str user not None):
        """Both times are unknown again."""
        cdef uint64_t low = 0
        cdef uint64_t high = 0
        cdef Slot* slot
        self.open_header()
        hash_user(&self.key, user, &low, &high)
        slot = self.find(low, high)
        if slot != NULL:
            swap64(&slot.times, 0)
            fence()

    def live(self, int64_t oldest):
        """How many users are known. Reads the whole file."""
        cdef uint64_t place
        cdef uint64_t found = 0
        cdef Slot* slot
        self.open_header()
        with nogil:
            for place in range(self.slots):
                slot = self.slot_at(place)
                found += load_u64(&slot.low) != 0 and load_u64(&slot.high) != 0 and last_of(load_u64(&slot.times)) > moment(oldest)
        return found

    def recount(self):
        """OWNER, alone. Set `used` right: what a crash left is not to be trusted."""
        cdef uint64_t place
        cdef uint64_t found = 0
        self.open_header()
        for place in range(self.slots):
            found += self.slot_at(place).low != 0
        store_u64(&self.header.used, found)

    def move_into(self, StatusFile other not None, int64_t oldest):
        """MOVER, one at a time. Copy everybody who has not expired; False if `other` has no room for them all."""
        cdef int is_done
        self.open_header()
        other.open_header()
        if self.header.hash_key[:16] != other.header.hash_key[:16]:
            raise ValueError("two tables with different keys")
        fence()
        with nogil:
            is_done = self.copy_all(other, moment(oldest))
        return is_done == 1

    def end_move(self):
        """MOVER. From now on the following generation knows everything that this one does."""
        store_u64(&self.open_header().moved, 1)

    cdef int copy_all(self, StatusFile into, uint64_t oldest) noexcept nogil:
        cdef uint64_t place
        for place in range(self.slots):
            if not self.copy_slot(self.slot_at(place), into, oldest):
                return 0
        return 1

    cdef int copy_slot(self, Slot* slot, StatusFile into, uint64_t oldest) noexcept nogil:
        """0 = no room."""
        cdef Slot* other
        cdef uint64_t low = load_u64(&slot.low)
        cdef uint64_t high = load_u64(&slot.high)
        cdef uint64_t times = load_u64(&slot.times)
        if low == 0 or high == 0 or last_of(times) <= oldest:
            return 1
        other = into.claim(low, high)
        if other == NULL:
            return 0
        store_later(&other.times, times >> 32, <uint32_t>times, oldest, 0)
        fence()
        if load_u64(&slot.times) == 0:  # forgotten meanwhile
            cas64(&other.times, times, 0)
        return 1

    cdef Slot* slot_at(self, uint64_t place) noexcept nogil:
        return <Slot*>(self.blocks + place // BLOCK_SLOTS * BLOCK_SPAN + place % BLOCK_SLOTS * sizeof(Slot))

    cdef Slot* find(self, uint64_t low, uint64_t high) noexcept nogil:
        """NULL: the user has no slot."""
        cdef uint64_t place = scale(high, self.slots)
        cdef uint64_t owner
        cdef Slot* slot
        for _ in range(self.slots):
            slot = self.slot_at(place)
            owner = load_u64(&slot.low)
            if owner == 0:
                return NULL
            if owner == low and load_u64(&slot.high) == high:
                return slot
            place += 1
            if place == self.slots:
                place = 0
        return NULL

    cdef Slot* claim(self, uint64_t low, uint64_t high) noexcept nogil:
        """The user's slot, taken if need be; NULL: no room. Nobody waits for anybody: who finds a slot with its `low`
        and no `high` completes it."""
        cdef uint64_t place = scale(high, self.slots)
        cdef uint64_t owner
        cdef Slot* slot
        for _ in range(self.slots):
            slot = self.slot_at(place)
            owner = load_u64(&slot.low)
            if owner == 0:
                if load_u64(&self.header.used) >= self.slots - self.slots // SPARE:
                    return NULL
                if cas64(&slot.low, 0, low):
                    count(&self.header.used)
                owner = load_u64(&slot.low)
            if owner == low:
                if load_u64(&slot.high) == 0:
                    cas64(&slot.high, 0, high)
                if load_u64(&slot.high) == high:
                    return slot
            place += 1
            if place == self.slots:
                place = 0
        return NULL

    cdef StatusHeader* open_header(self) except NULL:
        if self.header == NULL:
            raise StoreError("the status file is closed")
        return self.header

    @property
    def boot_id(self):
        return PyBytes_FromStringAndSize(<char*>self.open_header().boot_id, 16)

    @property
    def hash_key(self):
        return PyBytes_FromStringAndSize(<char*>self.open_header().hash_key, 16)

    @property
    def slots(self):
        return self.slots

    @property
    def used(self):
        return load_u64(&self.open_header().used)

    @property
    def following(self):
        return load_u64(&self.open_header().following)

    @following.setter
    def following(self, uint64_t number):
        """MOVER. From now on updates go to both."""
        swap64(&self.open_header().following, number)

    @property
    def moved(self):
        return load_u64(&self.open_header().moved) == 1

    def sync(self):
        """Have the disk hold what is here now; blocks (fdatasync(2) writes mapped pages too)."""
        self.open_header()
        os.fdatasync(self.fd)

    def close(self):
        """Unmap. Calling it twice is harmless; using it afterwards raises StoreError."""
        self.header = NULL
        self.let_go()


def file_bytes(uint64_t slots):
    """How large the file of so many slots is."""
    return HEADER_SPAN + whole_blocks(slots) * BLOCK_SPAN


cdef uint64_t whole_blocks(uint64_t slots):
    return (slots + BLOCK_SLOTS - 1) // BLOCK_SLOTS


cdef StatusFile over(cls, path, number, fd, pages):
    """A file object over mapped pages; takes the descriptor."""
    cdef StatusFile file = cls.__new__(cls)
    cdef char* at = file.hold(pages, fd)
    file.path = path
    file.number = number
    file.header = <StatusHeader*>at
    file.blocks = at + HEADER_SPAN
    return file


cdef StatusFile take(StatusFile file):
    """Remember what the header says and never changes."""
    file.slots = file.header.slots
    memcpy(&file.key, file.header.hash_key, 16)
    return file
