"""How many connections the workers of a node hold open, in all and from each address: one file, mapped by all of them.

Memory. A header, then one block per worker: a 64-byte line whose first word counts the worker's connections, and groups
of eight words {40-bit tag, 24-bit count}, one for each address that has any. An address is known by a keyed SipHash, so
that nobody can choose addresses that meet; it may stand in any word of two groups. A word that counts none is free.

Ownership. Only worker i writes block i, so nothing is ever locked. Whoever lets a connection in adds it to its own
block first, and then sums what all blocks say: with a full barrier between the two, of two workers that take the last
place at once at least one sees the other. So the limits are never exceeded; both may see it, and then neither lets in.

A crash leaves a block whose connections are gone with their process. The supervisor clears it when it has seen the
end of that process, before another is started in its place.
"""

import os

from libc.string cimport memcpy, memset

from cpro._fast.hashing cimport sip13

from cpro._fast import mapped
from cpro.errors import StartError, StoreError


cdef extern from "cas16.h":
    void fence "cpro_fence"() noexcept nogil
    uint64_t read_u64 "cpro_read_u64"(const uint64_t* at) noexcept nogil
    void write_u64 "cpro_write_u64"(uint64_t* at, uint64_t value) noexcept nogil
    uint64_t scale "cpro_scale"(uint64_t word, uint64_t range) noexcept nogil

cdef uint64_t MAGIC = 0x3164776f72637063ULL  # "cpcrowd1"
cdef uint64_t MOST_BLOCKS = 1 << 20
cdef uint64_t MOST_GROUPS = 1 << 28
cdef uint64_t COUNT_MASK = (1 << COUNT_BITS) - 1
cdef uint64_t SPACIOUS = 2  # words for each address: at that load both groups of an address are never full

REFUSED, UNCOUNTED = -1, 0
"""What `enter` may say instead of a place: no more connections; or a connection whose address isn't counted."""


cdef inline uint64_t block_span(uint64_t groups) noexcept nogil:
    return FIRST_AT + groups * GROUP_WORDS * sizeof(uint64_t)


cdef void look_for(Sought* sought, const CrowdHeader* header, bytes address):
    cdef const uint8_t* data = <const uint8_t*><const char*>address
    cdef uint64_t first = sip13(&header.key, 1, data, <size_t>len(address))
    cdef uint64_t second = sip13(&header.key, 2, data, <size_t>len(address))
    sought.tag = sip13(&header.key, 3, data, <size_t>len(address)) & ~COUNT_MASK
    sought.groups[0] = scale(first, header.groups)
    sought.groups[1] = scale(second, header.groups)


cdef inline uint64_t* group_of(uint64_t* block, uint64_t group) noexcept nogil:
    return block + (FIRST_AT // sizeof(uint64_t)) + group * GROUP_WORDS


cdef uint64_t count_of(uint64_t* block, const Sought* sought) noexcept nogil:
    """What one block says of an address."""
    cdef uint64_t word
    cdef int choice, place
    for choice in range(2):
        for place in range(GROUP_WORDS):
            word = read_u64(group_of(block, sought.groups[choice]) + place)
            if word & COUNT_MASK and word & ~COUNT_MASK == sought.tag:
                return word & COUNT_MASK
    return 0


cdef class CrowdFile(Mapping):
    """Made by `create` (the supervisor) or `attach` (workers)."""

    def __init__(self):
        raise TypeError("use CrowdFile.create or CrowdFile.attach")

    @staticmethod
    def create(path, uint64_t blocks, uint64_t addresses):
        """OWNER. Nobody is here yet; in the empty file at `path` (a memfd in /proc). Each worker has room for
        `addresses` addresses at a time."""
        cdef CrowdFile file
        cdef uint64_t groups = addresses * SPACIOUS // GROUP_WORDS + 2
        if not (1 <= blocks <= MOST_BLOCKS and addresses <= MOST_GROUPS and groups <= MOST_GROUPS):
            raise ValueError("too many blocks or addresses")
        file = over(mapped.fill_empty(path, HEADER_SPAN + blocks * block_span(groups)))
        key = os.urandom(16)
        file.header.magic, file.header.blocks, file.header.groups = MAGIC, blocks, groups
        memcpy(&file.header.key, <char*>key, 16)
        return file

    @staticmethod
    def attach(path):
        """The file that `create` made at `path`."""
        cdef CrowdFile file
        cdef CrowdHeader* header
        pages = mapped.attach(path, HEADER_SPAN, "crowd file")
        size = len(pages)
        file = over(pages)
        header = file.header
        if (header.magic != MAGIC or not 1 <= header.blocks <= MOST_BLOCKS or not 1 <= header.groups <= MOST_GROUPS
                or <uint64_t>size != HEADER_SPAN + header.blocks * block_span(header.groups)):
            file.close()
            raise StartError(f"{path} is not a crowd file")
        return file

    def block(self, int64_t index):
        """The connections of worker `index`, which nobody else may write."""
        cdef CrowdHeader* header = self.open_header()
        cdef Crowd crowd
        if not 0 <= index < <int64_t>header.blocks:
            raise IndexError(f"there are {header.blocks} blocks, not one of number {index}")
        crowd = Crowd.__new__(Crowd)
        crowd.hold(self.pages, -1)
        crowd.file = self
        crowd.at = block_at(header, index)
        crowd.number = index
        return crowd

    def clear(self, int64_t index):
        """OWNER, when worker `index` has ended: its connections are gone."""
        cdef CrowdHeader* header = self.open_header()
        if not 0 <= index < <int64_t>header.blocks:
            raise IndexError(f"there are {header.blocks} blocks, not one of number {index}")
        memset(block_at(header, index), 0, block_span(header.groups))
        fence()

    def close(self):
        """Let go of the file; blocks in use keep it mapped. Calling it twice is harmless."""
        self.header = NULL
        self.let_go()

    cdef CrowdHeader* open_header(self) except NULL:
        if self.header == NULL:
            raise StoreError("the crowd file is closed")
        return self.header


cdef inline uint64_t* block_at(CrowdHeader* header, uint64_t index) noexcept nogil:
    return <uint64_t*>(<char*>header + HEADER_SPAN + index * block_span(header.groups))


cdef CrowdFile over(pages):
    cdef CrowdFile file = CrowdFile.__new__(CrowdFile)
    file.header = <CrowdHeader*>file.hold(pages, -1)
    return file


cdef class Crowd(Mapping):
    """One worker's connections. Made by `CrowdFile.block`."""

    def __init__(self):
        raise TypeError("use CrowdFile.block")

    def enter(self, bytes address not None, uint64_t most, uint64_t most_per_address):
        """Count a connection in; 0: no limit. Its place, to be given to `leave`, or REFUSED."""
        cdef Sought sought
        cdef uint64_t* slot = NULL
        cdef CrowdHeader* header = self.file.open_header()
        if address:
            look_for(&sought, header, address)
            slot = self.slot_for(&sought)
            if slot == NULL and most_per_address:
                return REFUSED  # more addresses are here than can be told apart
        self.add(slot, sought.tag if slot != NULL else 0, 1)
        fence()
        if (most and self.total() > most) or (slot != NULL and most_per_address and self.others(&sought) > most_per_address):
            self.add(slot, 0, -1)
            return REFUSED
        return UNCOUNTED if slot == NULL else slot - self.at

    def leave(self, int64_t place):
        """The connection that has this place is gone."""
        cdef CrowdHeader* header = self.file.open_header()
        if place and not FIRST_AT // <int64_t>sizeof(uint64_t) <= place < <int64_t>(block_span(header.groups) // sizeof(uint64_t)):
            raise IndexError(place)
        self.add(self.at + place if place else NULL, 0, -1)

    def count(self, bytes address=b""):
        """How many connections the node has, from one address or in all."""
        cdef Sought sought
        cdef CrowdHeader* header = self.file.open_header()
        if not address:
            return self.total()
        look_for(&sought, header, address)
        return self.others(&sought)

    cdef int add(self, uint64_t* slot, uint64_t tag, int64_t change) except -1:
        """Change this worker's counts; a word that counts nobody is given `tag`."""
        cdef uint64_t word
        if slot != NULL:
            word = read_u64(slot)
            if change < 0 and not word & COUNT_MASK:
                raise ValueError("nobody is there")
            write_u64(slot, (word if word & COUNT_MASK else tag) + <uint64_t>change)
        write_u64(self.at, read_u64(self.at) + <uint64_t>change)
        return 0

    cdef uint64_t* slot_for(self, Sought* sought) noexcept nogil:
        """The word of an address in this block; if it has none a free one, in the emptier group. NULL: no room."""
        cdef uint64_t* free_slots[2]
        cdef uint64_t* slot
        cdef uint64_t word
        cdef int choice, place
        cdef int used[2]
        for choice in range(2):
            used[choice] = 0
            free_slots[choice] = NULL
            for place in range(GROUP_WORDS):
                slot = group_of(self.at, sought.groups[choice]) + place
                word = read_u64(slot)
                if not word & COUNT_MASK:
                    free_slots[choice] = slot
                elif word & ~COUNT_MASK == sought.tag:
                    return slot if word & COUNT_MASK < COUNT_MASK else NULL
                else:
                    used[choice] += 1
        return free_slots[1] if used[1] < used[0] else free_slots[0]

    cdef uint64_t others(self, Sought* sought) noexcept nogil:
        """Connections from an address, over all blocks."""
        cdef uint64_t index
        cdef uint64_t sum_ = 0
        for index in range(self.file.header.blocks):
            sum_ += count_of(block_at(self.file.header, index), sought)
        return sum_

    cdef uint64_t total(self) noexcept nogil:
        cdef uint64_t index
        cdef uint64_t sum_ = 0
        for index in range(self.file.header.blocks):
            sum_ += read_u64(block_at(self.file.header, index))
        return sum_
