"""Rows appended to the segments of a worker, and read by another process meanwhile; the file itself: `segment`.

Ordering. A record is complete before `committed` moves behind it (store-release); a reader loads `committed` first
(acquire) and looks no further. `sealed_at` is set after the last record: whoever sees it sees all of them.

A crash of the writer (kill -9) leaves pages that the kernel keeps: every append that returned is there, for `committed`
covers it. The flock goes with the process, which tells readers that nobody will append any more.

A crash of the machine leaves, of each page, some version since the last `sync`. Records below the end that `sync` saw
are whole. `committed` itself may be newer than the records it covers: those have zeros somewhere, their CRC is wrong,
they are skipped and counted. It may be older too; a reader of a segment whose writer is gone goes on behind it as long
as it finds records.
"""

import fcntl
import os
import stat

cimport cython
from libc.string cimport memcpy

from cpro._fast.rows cimport put_values, read_kinds
from cpro._fast.segment cimport (
    COPY_AT, HEADER_SPAN, MARKS_AT, PAGE, RECORD_HEAD, SHORTEST_RECORD, Identity, checksum, is_identity, map_file,
    seed_of, start_crc, unmap_file,
)
from cpro._fast.segment import START
from cpro.errors import StoreError


cdef extern from "cas16.h":
    uint64_t load_u64 "cpro_load_u64"(const uint64_t* at) noexcept nogil
    void store_u64 "cpro_store_u64"(uint64_t* at, uint64_t value) noexcept nogil

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void* at, size_t size, int advice)
    int MADV_DONTNEED

cdef extern from "<unistd.h>" nogil:
    int close_fd "close"(int)
    Py_ssize_t write(int fd, const void* data, size_t size)

cdef enum:
    RELEASE_BYTES = 1 << 20
    RESYNC_ROUNDS = 4               # so many times a segment's size is read at most to find the next record

start_crc()


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
        self.memory = map_file(self.fd, self.size, False, &self.guard)
        self.marks = <const Marks*>(self.memory + MARKS_AT)

    def _identify(self, head, uint64_t file_size):
        cdef Identity identity
        cdef const uint8_t* first = <const uint8_t*>head
        if len(head) < HEADER_SPAN:
            raise StoreError(f"{self.path} is not a segment")
        memcpy(&identity, first, sizeof(Identity))
        if not is_identity(&identity):
            memcpy(&identity, first + COPY_AT, sizeof(Identity))
        if not is_identity(&identity):
            raise StoreError(f"{self.path} is not a segment, or one of another format")
        self.id, self.version, self.seed = identity.id[:16].hex(), <int>identity.version, seed_of(&identity)
        self.size = min(identity.size, file_size)

    def __dealloc__(self):
        if self.memory != NULL:
            unmap_file(self.memory, self.size, self.guard)
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
            unmap_file(self.memory, self.size, self.guard)
            self.memory = NULL
        self._close_file()
