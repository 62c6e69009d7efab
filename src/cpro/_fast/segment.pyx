"""The file behind a segment of the journal: its layout, its mapping, and how it reaches the disk.

Memory. A header page: what identifies the segment (twice), then two marks, `committed` and `sealed_at`. From START on
records without a gap: u32 length | u32 CRC32C | u8 table | values. A record's length is at least 1, so that zeros, which
is what a new file holds, are no record. The CRC starts from a seed that only this segment has: what stands in a user's
text, or was left on the disk by another file, is never taken for a record.

Ownership. A worker makes its segments and holds an exclusive flock on each while it may still append; readers map the
file read-only. Everything of the writer happens with the interpreter's lock held (appending lets go of it nowhere), so
the thread that prepares segments and the one that appends need no lock between them. A segment is closed by the thread
that made it, or with a lock that the two share.

A file cut short or deleted, or one whose disk fails to make room: see guard.h; the rows go nowhere from then on, until
the thread that watches `is_whole` switches to another segment.
"""

import fcntl
import os

cimport cython
from libc.string cimport memcpy, memset

from cpro.errors import StoreError


cdef extern from "cas16.h":
    void store_u64 "cpro_store_u64"(uint64_t* at, uint64_t value) noexcept nogil

cdef extern from "guard.h":
    int install_guard "cpro_guard_install"() noexcept nogil
    int add_guard "cpro_guard_add"(const void* start, size_t size) noexcept nogil
    void remove_guard "cpro_guard_remove"(int place) noexcept nogil
    bint is_broken "cpro_guard_broken"(int place) noexcept nogil
    int populate_pages "cpro_populate_pages"(uint8_t* start, size_t size) noexcept nogil

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* at, size_t size, int protection, int flags, int fd, int64_t offset)
    int munmap(void* at, size_t size)
    int msync(void* at, size_t size, int flags)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MS_SYNC
    void* MAP_FAILED

cdef extern from "<unistd.h>" nogil:
    int close_fd "close"(int)

cdef extern from "<errno.h>" nogil:
    int errno

cdef enum:
    FORMAT = 1
    SMALLEST_SIZE = 2 * PAGE

cdef uint64_t MAGIC = 0x6c6e726a6f727063ULL  # "cprojrnl"
cdef uint64_t LARGEST_SIZE = 1ULL << 31

START = HEADER_SPAN
start_crc()


def crc32c(const uint8_t[::1] data not None, uint32_t seed=0):
    """As records have it; by the processor's instruction where it has one."""
    return checksum(seed, &data[0] if data.shape[0] else NULL, <size_t>data.shape[0])


def crc32c_by_table(const uint8_t[::1] data not None, uint32_t seed=0):
    """The same without the instruction."""
    return ~by_table(~seed, &data[0] if data.shape[0] else NULL, <size_t>data.shape[0]) & 0xffffffff


cdef uint32_t check_of(const Identity* identity) noexcept nogil:
    return checksum(0, <const uint8_t*>identity, sizeof(Identity) - sizeof(uint32_t))


cdef bint is_identity(const Identity* identity) noexcept nogil:
    """Whether it is one of this format, undamaged."""
    return identity.check == check_of(identity) and identity.magic == MAGIC and identity.format == FORMAT


cdef uint8_t* map_file(int fd, uint64_t size, bint to_write, int* guard) except NULL:
    """Map a file's first bytes, guarded against its getting shorter; unmapped by `unmap_file`."""
    cdef void* memory
    cdef int protection = PROT_READ | PROT_WRITE if to_write else PROT_READ
    cdef int fault = install_guard()
    if fault:
        raise StoreError(f"can't handle SIGBUS: {os.strerror(fault)}")
    memory = mmap(NULL, size, protection, MAP_SHARED, fd, 0)
    if memory == MAP_FAILED:
        raise StoreError(f"can't map a segment: {os.strerror(errno)}")
    guard[0] = add_guard(memory, size)
    if guard[0] < 0:
        munmap(memory, size)
        raise StoreError("too many segments are open in this process")
    return <uint8_t*>memory


cdef void unmap_file(const uint8_t* memory, uint64_t size, int guard) noexcept nogil:
    remove_guard(guard)
    munmap(<void*>memory, size)


@cython.auto_pickle(False)
cdef class Segment:
    """A file that rows are appended to. Made by `create`."""

    def __cinit__(self):
        self.fd = self.guard = -1
        self.memory = NULL

    def __init__(self):
        raise TypeError("use Segment.create")

    def __dealloc__(self):
        if self.memory != NULL:
            unmap_file(self.memory, self.size, self.guard)
        if self.fd >= 0:
            close_fd(self.fd)

    @classmethod
    def create(cls, path, uint64_t size, uint32_t version):
        """A new file with room for `size` bytes, locked, under its name only when it is complete.

        It is on the disk after the first `sync` that has something to write. StoreError: it can't be made; then
        nothing is left of it."""
        cdef Segment segment = cls.__new__(cls)
        unfinished = path + ".new"
        if not SMALLEST_SIZE <= size <= LARGEST_SIZE or size % PAGE:
            raise ValueError(f"a segment has {SMALLEST_SIZE} to {LARGEST_SIZE} bytes, in whole pages")
        segment.path, segment.size = path, size
        try:
            segment.fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                segment._fill(version)
                os.rename(unfinished, path)
            except BaseException:
                os.unlink(unfinished)
                raise
        except OSError as fault:
            raise StoreError(f"can't create {path}: {fault.strerror}") from fault
        return segment

    def _fill(self, uint32_t version):
        cdef Identity identity
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(self.fd, 0, self.size)
        self.memory = map_file(self.fd, self.size, True, &self.guard)
        name = os.urandom(16)
        memset(&identity, 0, sizeof(Identity))
        identity.magic, identity.format, identity.version, identity.size = MAGIC, FORMAT, version, self.size
        memcpy(identity.id, <const uint8_t*>name, 16)
        identity.check = check_of(&identity)
        memcpy(self.memory, &identity, sizeof(Identity))
        memcpy(self.memory + COPY_AT, &identity, sizeof(Identity))
        self.id, self.seed = name.hex(), seed_of(&identity)
        self.marks = <Marks*>(self.memory + MARKS_AT)
        self.end = self.synced = HEADER_SPAN
        store_u64(&self.marks.committed, self.end)

    cdef int open_memory(self) except -1:
        if self.memory == NULL:
            raise StoreError(f"{self.path} is closed")
        return 0

    @property
    def committed(self):
        return self.end

    @property
    def is_whole(self):
        """Whether the file still has its name and all its bytes. False for good once a page of it was missing."""
        self.open_memory()
        try:
            facts = os.fstat(self.fd)
        except OSError:
            return False
        return facts.st_nlink > 0 and <uint64_t>facts.st_size >= self.size and not is_broken(self.guard)

    def populate(self, uint64_t ahead_bytes):
        """Make the pages of the next `ahead_bytes` writable now, so that no append has to wait for the file system.

        Does nothing while more than half of them are."""
        cdef uint64_t first, end
        self.open_memory()
        if self.populated > self.end + ahead_bytes // 2:
            return
        first = max(self.populated, self.end // PAGE * PAGE)
        end = min(self.size, (self.end + ahead_bytes + PAGE - 1) // PAGE * PAGE)
        if end > first:
            with nogil:
                populate_pages(self.memory + first, end - first)
            self.populated = end

    def sync(self):
        """Write what was appended since the last time to the disk, then the marks; the first time also the file's name.

        False: there was nothing to write. StoreError: the disk failed; as much is tried again the next time."""
        cdef uint64_t first, end
        cdef int fault = 0
        self.open_memory()
        first, end = self.synced // PAGE * PAGE, self.end
        if end == self.synced:
            return False
        with nogil:
            if msync(self.memory + first, end - first, MS_SYNC) or msync(self.memory, HEADER_SPAN, MS_SYNC):
                fault = errno
            populate_pages(self.memory, HEADER_SPAN)  # written back, they are read-only: the next append would fault
            populate_pages(self.memory + end // PAGE * PAGE, PAGE if end < self.size else 0)
        if fault:
            raise StoreError(f"can't sync {self.path}: {os.strerror(fault)}")
        if self.synced == HEADER_SPAN:
            sync_folder(os.path.dirname(self.path))
        self.synced = end
        return True

    def seal(self):
        """Nobody will append any more; readers learn it from now on."""
        self.open_memory()
        store_u64(&self.marks.sealed_at, self.end)

    def close(self):
        """Unmap and let go of the lock; a sealed file gives back the room it did not need. Harmless when closed."""
        if self.memory == NULL:
            return
        if self.marks.sealed_at and not is_broken(self.guard):
            cut(self.fd, (self.end + PAGE - 1) // PAGE * PAGE)
        unmap_file(self.memory, self.size, self.guard)
        self.memory, self.marks = NULL, NULL
        os.close(self.fd)
        self.fd = -1


def cut(fd, uint64_t end):
    try:
        if <uint64_t>os.fstat(fd).st_size > end:
            os.ftruncate(fd, end)
    except OSError:
        pass  # it stays as large as it was


def sync_folder(path):
    """The names in it are on the disk then. StoreError: the disk failed, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as fault:
        raise StoreError(f"can't sync {path}: {fault.strerror}") from fault
