"""Segments of the journal: how a worker appends rows to a mapped file, and how another process reads them meanwhile.

Memory. A header page: what identifies the segment (twice), then two marks, `committed` and `sealed_at`. From START on
records without a gap: u32 length | u32 CRC32C | u8 table | values. A record's length is at least 1, so that zeros, which
is what a new file holds, are no record. The CRC starts from a seed that only this segment has: what stands in a user's
text, or was left on the disk by another file, is never taken for a record.

Ownership. A worker makes its segments and holds an exclusive flock on each while it may still append; readers map the
file read-only. Everything of the writer happens with the interpreter's lock held (appending lets go of it nowhere), so
the thread that prepares segments and the one that appends need no lock between them. A segment is closed by the thread
that made it.

Ordering. A record is complete before `committed` moves behind it (store-release); a reader loads `committed` first
(acquire) and looks no further. `sealed_at` is set after the last record: whoever sees it sees all of them.

A crash of the writer (kill -9) leaves pages that the kernel keeps: every append that returned is there, for `committed`
covers it. The flock goes with the process, which tells readers that nobody will append any more.

A crash of the machine leaves, of each page, some version since the last `sync`. Records below the end that `sync` saw
are whole. `committed` itself may be newer than the records it covers: those have zeros somewhere, their CRC is wrong,
they are skipped and counted. It may be older too; a reader of a segment whose writer is gone goes on behind it as long
as it finds records.

A file cut short or deleted, or one whose disk fails to make room: see guard.h; the rows go nowhere from then on, until
the thread that watches `is_whole` switches to another segment.
"""

import fcntl
import os
import stat

cimport cython
from libc.string cimport memcpy, memset

from cpro._fast.rows cimport put_values, read_kinds
from cpro.errors import StoreError


cdef extern from "cas16.h":
    uint64_t load_u64 "cpro_load_u64"(const uint64_t* at) noexcept nogil
    void store_u64 "cpro_store_u64"(uint64_t* at, uint64_t value) noexcept nogil

cdef extern from "crc32c.h":
    void start_crc "cpro_crc_start"() noexcept nogil
    uint32_t checksum "cpro_crc32c"(uint32_t seed, const uint8_t* data, size_t size) noexcept nogil
    uint32_t by_table "cpro_crc_by_table"(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil

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
    int madvise(void* at, size_t size, int advice)
    int MADV_DONTNEED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MS_SYNC
    void* MAP_FAILED

cdef extern from "<unistd.h>" nogil:
    int close_fd "close"(int)
    Py_ssize_t write(int fd, const void* data, size_t size)

cdef extern from "<errno.h>" nogil:
    int errno

cdef enum:
    FORMAT = 1
    MARKS_AT = 2048
    PAGE = 4096
    SMALLEST_SIZE = 2 * PAGE
    SHORTEST_RECORD = RECORD_HEAD + 1
    RELEASE_BYTES = 1 << 20
    RESYNC_ROUNDS = 4               # so many times a segment's size is read at most to find the next record

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


cdef inline uint32_t check_of(const Identity* identity) noexcept nogil:
    return checksum(0, <const uint8_t*>identity, sizeof(Identity) - sizeof(uint32_t))


cdef inline uint32_t seed_of(const Identity* identity) noexcept nogil:
    return checksum(0, identity.id, 16)


cdef uint8_t* map_file(int fd, uint64_t size, int protection, int* guard) except NULL:
    """Map a file's first bytes, guarded against its getting shorter."""
    cdef void* memory
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
            remove_guard(self.guard)
            munmap(self.memory, self.size)
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
        self.memory = map_file(self.fd, self.size, PROT_READ | PROT_WRITE, &self.guard)
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
        remove_guard(self.guard)
        munmap(self.memory, self.size)
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


@cython.auto_pickle(False)
cdef class Journal:
    """Where a worker's rows go: a segment, and the one that comes next."""

    def __init__(self, int wake_fd=-1):
        self.wake_fd = wake_fd
        self.retired = []

    @property
    def segment(self):
        return self.segment

    @property
    def spare(self):
        return self.spare

    @property
    def appended(self):
        return [self.appended_rows[table] for table in range(MAX_TABLES)]

    @property
    def dropped(self):
        return [self.dropped_rows[table] for table in range(MAX_TABLES)]

    def switch(self, Segment segment):
        """Go on in this segment (None: nowhere); the one so far is sealed, and its maker finds it in `retired`."""
        if segment is not None:
            segment.open_memory()
        if self.segment is not None:
            self.segment.seal()
            self.retired.append(self.segment)
        self.segment = segment

    def offer(self, Segment segment not None):
        """Have this one ready; the first append that finds no room in the current one goes on in it."""
        segment.open_memory()
        if self.spare is not None:
            raise ValueError("there is a spare segment already")
        self.spare = segment
        self.starving = False

    def take_back(self):
        """The spare segment, which is not to be used now; None if there is none."""
        spare, self.spare = self.spare, None
        return spare

    def detach(self):
        """Go on nowhere, and wake nobody any more: what is appended from now on drops."""
        self.switch(None)
        self.wake_fd = -1

    cdef bint take_spare(self) except -1:
        """The spare one becomes the current one: once per segment, so telling its maker may cost a system call."""
        self.switch(self.spare)
        self.spare = None
        self.wake()
        return True

    cdef void wake(self) noexcept:
        cdef uint64_t one = 1
        if self.wake_fd >= 0:
            write(self.wake_fd, &one, 8)  # an eventfd that is full wakes as well


@cython.final
@cython.auto_pickle(False)
cdef class RowWriter:
    """Appends rows of one table."""

    def __init__(self, Journal journal not None, int table, kinds):
        if not 1 <= table < MAX_TABLES:
            raise ValueError(f"a table's number is 1 to {MAX_TABLES - 1}")
        self.journal, self.table = journal, table
        self.count = read_kinds(kinds, self.kinds)

    def append(self, tuple values not None):
        """True: the row is safe should this process be killed. False: there was no room; it is counted as dropped."""
        return self.append_raw(values)

    cdef bint append_raw(self, tuple values) except -1:
        cdef Journal journal = self.journal
        if journal.segment is not None and put_record(journal.segment, self, values):
            journal.appended_rows[self.table] += 1
            return True
        if journal.spare is not None and put_record(journal.spare, self, values):  # it stays spare for what is too large
            journal.take_spare()
            journal.appended_rows[self.table] += 1
            return True
        journal.dropped_rows[self.table] += 1
        if journal.spare is None and not journal.starving:
            journal.starving = True
            journal.wake()
        return False


cdef inline bint put_record(Segment segment, RowWriter row, tuple values) except -1:
    """False: no room, and nothing has happened, but that there may be other bytes behind the end."""
    cdef uint8_t* record = segment.memory + segment.end
    cdef uint8_t* end
    cdef uint32_t[2] head
    if segment.size - segment.end < SHORTEST_RECORD:
        return False
    end = put_values(record + SHORTEST_RECORD, segment.memory + segment.size, row.kinds, row.count, values)
    if end == NULL:
        return False
    record[RECORD_HEAD] = <uint8_t>row.table
    head[0] = <uint32_t>(end - record - RECORD_HEAD)
    head[1] = checksum(segment.seed, record + RECORD_HEAD, head[0])
    memcpy(record, head, RECORD_HEAD)
    segment.end += RECORD_HEAD + head[0]
    store_u64(&segment.marks.committed, segment.end)
    segment.rows += 1
    return True


@cython.auto_pickle(False)
cdef class SegmentReader:
    """One segment, as far as it is written. For one thread at a time."""

    START = HEADER_SPAN

    def __cinit__(self):
        self.fd = self.guard = -1
        self.memory = NULL

    def __init__(self, str path not None):
        """StoreError: there is no such file, or it is no segment of this format."""
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            facts = os.fstat(self.fd)
            head = os.pread(self.fd, HEADER_SPAN, 0) if stat.S_ISREG(facts.st_mode) else b""
        except OSError as fault:
            raise StoreError(f"can't read {path}: {fault.strerror}") from fault
        self._identify(head, facts.st_size)
        self.memory = map_file(self.fd, self.size, PROT_READ, &self.guard)
        self.marks = <const Marks*>(self.memory + MARKS_AT)

    def _identify(self, head, uint64_t file_size):
        cdef Identity identity
        cdef const uint8_t* first = <const uint8_t*>head
        if len(head) < HEADER_SPAN:
            raise StoreError(f"{self.path} is not a segment")
        memcpy(&identity, first, sizeof(Identity))
        if identity.check != check_of(&identity):
            memcpy(&identity, first + COPY_AT, sizeof(Identity))
        if identity.check != check_of(&identity) or identity.magic != MAGIC or identity.format != FORMAT:
            raise StoreError(f"{self.path} is not a segment, or one of another format")
        self.id, self.version, self.seed = identity.id[:16].hex(), <int>identity.version, seed_of(&identity)
        self.size = min(identity.size, file_size)

    def __dealloc__(self):
        if self.memory != NULL:
            remove_guard(self.guard)
            munmap(<void*>self.memory, self.size)
        if self.fd >= 0:
            close_fd(self.fd)

    cdef int open_memory(self) except -1:
        if self.memory == NULL:
            raise StoreError(f"{self.path} is closed")
        return 0

    @property
    def committed(self):
        """Where the last record ends by now. Ask `sealed` first: what is committed after it was True is all there is."""
        self.open_memory()
        if self.final:
            return self.final
        return min(max(load_u64(&self.marks.committed), <uint64_t>HEADER_SPAN), self.size)

    @property
    def sealed(self):
        """Whether nobody will append any more: the writer says so, or its process is gone. Costs system calls."""
        cdef uint64_t sealed_at, end
        self.open_memory()
        if self.final:
            return True
        sealed_at = load_u64(&self.marks.sealed_at)
        if sealed_at == 0 and self._has_writer():
            return False
        end = max(self._plausible(sealed_at), self._plausible(load_u64(&self.marks.committed)))
        if load_u64(&self.marks.sealed_at) == 0:
            with nogil:
                end = self._find_end(end)
        self.final = end if end else self.size
        self._close_file()
        return True

    def _close_file(self):
        """The mapping does without it; a long backlog is many segments, and a process may open few files."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _has_writer(self):
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as fault:
            raise StoreError(f"can't lock {self.path}: {fault.strerror}") from fault
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return False

    cdef uint64_t _plausible(self, uint64_t mark) noexcept nogil:
        return mark if HEADER_SPAN <= mark <= self.size else 0

    cdef uint64_t _find_end(self, uint64_t marked) noexcept nogil:
        """Where the records end when the writer could not say: `committed` may be damaged, or older than they are."""
        cdef Record record
        cdef uint64_t end = HEADER_SPAN
        while self._is_good(end, self.size, &record):
            end = record.next
        end = max(end, marked)
        while self._is_good(end, self.size, &record):
            end = record.next
        return end

    cdef bint _is_good(self, uint64_t offset, uint64_t limit, Record* record) noexcept nogil:
        cdef uint32_t[2] head
        cdef const uint8_t* at = self.memory + offset
        if limit < SHORTEST_RECORD or offset > limit - SHORTEST_RECORD:
            return False
        memcpy(head, at, RECORD_HEAD)
        if head[0] == 0 or head[0] > limit - offset - RECORD_HEAD:
            return False
        if checksum(self.seed, at + RECORD_HEAD, head[0]) != head[1]:
            return False
        record.table = at[RECORD_HEAD]
        record.values = at + SHORTEST_RECORD
        record.next = offset + RECORD_HEAD + head[0]
        record.end = self.memory + record.next
        return True

    cdef bint next_good(self, uint64_t offset, uint64_t limit, Record* record) noexcept nogil:
        cdef uint64_t after
        offset, limit = max(offset, <uint64_t>HEADER_SPAN), min(limit, self.size)
        while offset < limit:
            if self._is_good(offset, limit, record):
                return True
            after = self._skip(offset, limit)
            if offset >= self.walked:
                self.bad += 1
                self.lost_bytes += after - offset
                self.walked = after
            offset = after
        return False

    cdef void _release(self, uint64_t start, uint64_t limit) noexcept nogil:
        cdef uint64_t end = min(start, self.size) // PAGE * PAGE
        if end > self.released and (end - self.released >= RELEASE_BYTES or start >= limit):
            madvise(<void*>(self.memory + self.released), end - self.released, MADV_DONTNEED)
            self.released = end

    cdef uint64_t _skip(self, uint64_t offset, uint64_t limit) noexcept nogil:
        """Where to go on behind a bad record: at the next place where a good one starts, else at the limit.

        What a user wrote can't be one (the seed), but may look like many, each of which costs a checksum: when that
        becomes too much, only the place is tried that the bad one's own length names."""
        cdef Record record
        cdef uint32_t length = 0
        cdef uint64_t budget = self.size * RESYNC_ROUNDS
        cdef uint64_t at
        for at in range(offset + 1, max(limit, <uint64_t>SHORTEST_RECORD) - SHORTEST_RECORD + 1):
            memcpy(&length, self.memory + at, 4)
            if length == 0 or length > limit - at - RECORD_HEAD:
                continue
            if length > budget:
                memcpy(&length, self.memory + offset, 4)
                at = offset + RECORD_HEAD + length
                return at if self._is_good(at, limit, &record) else limit
            budget -= length
            if self._is_good(at, limit, &record):
                return at
        return limit

    def end_of(self, uint64_t start, uint64_t most_rows, uint64_t most_bytes):
        """(where a batch from `start` ends, its rows). At least one row if there is one; never part of one.

        What is damaged on the way is passed over, and counted the first time. End > start with no rows: only damage.
        Memory for what lies before `start` is given back; it can still be read."""
        cdef Record record
        cdef uint64_t limit = self.committed
        cdef uint64_t end = start
        cdef uint64_t rows = 0
        with nogil:
            self._release(start, limit)
            while rows < most_rows and end < limit:
                if not self.next_good(end, limit, &record):
                    end = limit
                elif rows and record.next - start > most_bytes:
                    break
                else:
                    end = record.next
                    rows += 1
        return end, rows

    def records(self, uint64_t start, uint64_t end):
        """The good ones in between, as (table, values as bytes); for tests and tools."""
        cdef Record record
        self.open_memory()
        found = []
        while self.next_good(start, end, &record):
            found.append((record.table, record.values[:record.end - record.values]))
            start = record.next
        return found

    def close(self):
        """Unmap. Calling it twice is harmless; reading afterwards raises StoreError."""
        if self.memory != NULL:
            remove_guard(self.guard)
            munmap(<void*>self.memory, self.size)
            self.memory = NULL
        self._close_file()
