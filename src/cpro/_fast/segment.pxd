"""A segment's memory, and the class that writes it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "crc32c.h":
    void start_crc "cpro_crc_start"() noexcept nogil  # in each module that uses the following
    uint32_t checksum "cpro_crc32c"(uint32_t seed, const uint8_t* data, size_t size) noexcept nogil
    uint32_t by_table "cpro_crc_by_table"(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil

cdef enum:
    HEADER_SPAN = 4096              # then records
    COPY_AT = 1024                  # where the second copy of what identifies the segment lies
    RECORD_HEAD = 8                 # u32 length of what follows, u32 its CRC32C, seeded by the segment's id
    SHORTEST_RECORD = 9             # with the number of its table, and no values
    MARKS_AT = 2048
    PAGE = 4096


cdef struct Identity:               # written once, at 0 and at COPY_AT
    uint64_t magic
    uint32_t format
    uint32_t version                # of the rows
    uint8_t id[16]
    uint64_t size                   # of the file when it was made, bytes
    uint32_t unused
    uint32_t check                  # CRC32C of all before


cdef struct Marks:                  # at MARKS_AT
    uint64_t committed              # end of the last record; store-release by the writer, load-acquire by readers
    uint8_t beside_committed[56]
    uint64_t sealed_at              # 0, or the end of the last record: nobody will append any more


cdef inline uint32_t seed_of(const Identity* identity) noexcept nogil:
    return checksum(0, identity.id, 16)


cdef bint is_identity(const Identity* identity) noexcept nogil
cdef uint8_t* map_file(int fd, uint64_t size, bint to_write, int* guard) except NULL
cdef void unmap_file(const uint8_t* memory, uint64_t size, int guard) noexcept nogil


cdef class Segment:
    cdef readonly str path
    cdef readonly str id
    cdef readonly uint64_t size
    cdef readonly uint64_t rows     # appended to it
    cdef int fd
    cdef int guard                  # its place among the mappings that survive a truncated file
    cdef uint8_t* memory            # NULL once closed
    cdef Marks* marks
    cdef uint64_t end               # = committed, the writer's own copy
    cdef uint64_t synced            # what lies before is on the disk
    cdef uint64_t populated         # what lies before has its pages
    cdef uint32_t seed

    cdef int open_memory(self) except -1
