"""What HTTP/1.1 requests and responses have in common: the message as a view, and its incremental parser.

Layout: a `Message` is offsets into one immutable `bytes`; a header is a `Field` of four offsets, never an object.
Sixteen fields lie inside the message, longer heads move to one block of 256 on the heap.

Ownership: input that arrives whole is referenced, not copied. Input that arrives in pieces is gathered in a `bytes`
that only the parser holds (`owned`), with spare room that doubles. A finished message takes a reference to the
buffer; from then on nobody writes to it, and a pipelined rest is copied out when more input comes.
An idle parser holds no buffer at all.

Complexity: every head byte is looked at once for the end of its line (`scan` remembers where) and once as part of a
complete line; bodies are not scanned. Fed byte by byte or at once, the work is linear in the input.

Which fault is reported depends only on the bytes, not on how they were cut: a control character, bare CR or bare LF
at its own byte, anything else about a line at its LF, anything about the whole head at its last LF.
Offsets of a message under construction count from `start`, so that the buffer may move under it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cpro._fast.http1_chunked cimport ChunkDecoder

from cpro.errors import ProtocolError


cdef extern from *:
    """
    #include <string.h>
    /* 8 bytes, the first one lowest, so that the lowest hit of a mask is the first. */
    static inline uint64_t load_le(const uint8_t *p) {
        uint64_t w; memcpy(&w, p, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        w = __builtin_bswap64(w);
    #endif
        return w;
    }
    #define EACH(b) (0x0101010101010101ULL * (b))
    /* Top bits of bytes < 0x20 or == 0x7f; exact up to and including the first one (a borrow only runs upwards). */
    static inline uint64_t controls(uint64_t w) {
        uint64_t del = w ^ EACH(0x7f);
        return (((w - EACH(0x20)) & ~w) | ((del - EACH(0x01)) & ~del)) & EACH(0x80);
    }
    #define first_hit(mask) (__builtin_ctzll(mask) >> 3)
    """
    uint64_t load_le(const uint8_t *p) nogil
    uint64_t controls(uint64_t w) nogil
    int first_hit(uint64_t mask) nogil


cdef enum:
    TOKEN = 1, TARGET = 2, REG_NAME = 4, LITERAL = 8, HEX = 16, DIGIT = 32

cdef enum:
    FIRST_ROOM = 512
    MAX_DIGITS = 18                 # always fits in 63 bits

cdef uint8_t KIND[256]


def _fill_kinds():
    digits = b"0123456789"
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    unreserved_and_sub_delims = digits + letters + b"-._~" + b"!$&'()*+,;="
    kinds = {
        TOKEN: digits + letters + b"!#$%&'*+-.^_`|~",                   # RFC 9110 section 5.6.2
        TARGET: bytes(c for c in range(0x21, 0x7F) if c != ord("#")),   # a fragment is never sent, RFC 9112 section 3.2
        REG_NAME: unreserved_and_sub_delims,                            # RFC 3986 section 3.2.2
        LITERAL: unreserved_and_sub_delims + b":",
        HEX: digits + b"abcdefABCDEF",
        DIGIT: digits,
    }
    for kind, members in kinds.items():
        for c in members:
            KIND[<int>c] |= <int>kind


_fill_kinds()


cdef uint32_t token_end(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil:
    while i < end and KIND[p[i]] & TOKEN:
        i += 1
    return i


cdef uint32_t target_end(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil:
    while i < end and KIND[p[i]] & TARGET:
        i += 1
    return i


cdef int host_and_port(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil:
    cdef uint32_t first = i
    if i < end and p[i] == c'[':
        i += 1
        while i < end and KIND[p[i]] & LITERAL:
            i += 1
        if i == end or p[i] != c']' or i == first + 1:
            return -1
        i += 1
    else:
        while i < end and (KIND[p[i]] & REG_NAME or is_escape(p, i, end)):
            i += 1
    if i == first:
        return -1
    if i == end:
        return 0
    if p[i] != c':':
        return -1
    first = i + 1
    i = first
    while i < end and KIND[p[i]] & DIGIT:
        i += 1
    return -1 if i < end else i > first


cdef bint is_escape(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil:
    return p[i] == c'%' and end - i > 2 and KIND[p[i + 1]] & HEX != 0 and KIND[p[i + 2]] & HEX != 0


cdef bint is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef Py_ssize_t line_stop(const uint8_t *p, Py_ssize_t i, Py_ssize_t stop) noexcept nogil:
    """Index of the first byte that can't stand inside a line (a control character but HTAB), or stop."""
    cdef uint64_t hits
    while stop - i >= 8:
        hits = controls(load_le(p + i))
        if hits == 0:
            i += 8
            continue
        i += first_hit(hits)
        if p[i] != c'\t':
            return i
        i += 1
    while i < stop and (p[i] >= 0x20 or p[i] == c'\t') and p[i] != 0x7F:
        i += 1
    return i


@cython.freelist(64)
@cython.no_gc
@cython.auto_pickle(False)
cdef class Message:
    """A received message: offsets into the bytes it came in. Made by parsers only."""

    def __init__(self):
        raise TypeError("messages are made by their parsers")

    def __dealloc__(self):
        if self.fields != NULL and self.fields != self.inline_fields:
            free(self.fields)

    cdef Field *add_field(self) except NULL:
        cdef Field *block
        if self.field_count == INLINE_FIELDS:
            block = <Field *>malloc(MAX_FIELDS * sizeof(Field))
            if block == NULL:
                raise MemoryError
            memcpy(block, self.inline_fields, sizeof(self.inline_fields))
            self.fields = block
        elif self.field_count == 0:
            self.fields = self.inline_fields
        self.field_count += 1
        return &self.fields[self.field_count - 1]

    cdef Py_ssize_t find(self, const uint8_t *name, Py_ssize_t size, Py_ssize_t start) noexcept:
        cdef Py_ssize_t i
        cdef const Field *f
        for i in range(start, <Py_ssize_t>self.field_count):
            f = &self.fields[i]
            if <Py_ssize_t>(f.name_end - f.name) == size and same_name(self.p + f.name, name, size):
                return i
        return -1

    cdef bytes cut(self, Py_ssize_t start, Py_ssize_t end):
        return PyBytes_FromStringAndSize(<const char *>self.p + start, end - start)

    @property
    def body(self) -> bytes:
        if self.body_owner is not None:
            return self.body_owner
        return PyBytes_FromStringAndSize(<const char *>self.body_p, self.body_size)

    def header(self, bytes name not None) -> bytes | None:
        """The first value of the header with this lower-case name, without white space around it."""
        cdef Py_ssize_t i = self.find(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), 0)
        if i < 0:
            return None
        return self.cut(self.fields[i].value, self.fields[i].value_end)

    def header_count(self, bytes name not None) -> int:
        """How many headers have this lower-case name."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(name)
        cdef Py_ssize_t count = 0, i = self.find(p, PyBytes_GET_SIZE(name), 0)
        while i >= 0:
            count += 1
            i = self.find(p, PyBytes_GET_SIZE(name), i + 1)
        return count

    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers in order, names as received."""
        cdef list pairs = []
        cdef uint32_t i
        cdef const Field *f
        for i in range(self.field_count):
            f = &self.fields[i]
            pairs.append((self.cut(f.name, f.name_end), self.cut(f.value, f.value_end)))
        return pairs


@cython.no_gc
@cython.auto_pickle(False)
cdef class MessageParser:
    """Buffer, head and body framing; what start lines and heads mean is left to the two subclasses."""

    def __cinit__(self, Py_ssize_t max_head_bytes, Py_ssize_t max_body_bytes):
        if not 0 < max_head_bytes <= 1 << 30:
            raise ValueError("max_head_bytes must be between 1 and 1 GiB")
        if not 0 <= max_body_bytes <= 1 << 60:
            raise ValueError("max_body_bytes must be between 0 and 1 EiB")
        self.max_head = max_head_bytes
        self.max_body = max_body_bytes

    cdef Message new_message(self):
        raise NotImplementedError

    cdef int on_start_line(self, Message m, const uint8_t *p, uint32_t end) except -1:
        raise NotImplementedError

    cdef int on_head(self, Message m, const uint8_t *p) except -1:
        raise NotImplementedError

    cdef int fail(self, int status, str reason) except -1:
        self.phase = PHASE_DEAD
        self.release()
        self.message = None
        self.chunks = None
        raise ProtocolError(self.only_fault or status, reason)

    # -- the buffer -------------------------------------------------------------------------------------------

    cdef int push(self, bytes data) except -1:
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
        if n == 0 or self.phase == PHASE_DEAD:
            return 0
        if self.start == self.end:
            self.buffer = data
            self.owned = False
            self.start = 0
            self.end = n
        elif self.owned and n <= PyBytes_GET_SIZE(self.buffer) - self.end:
            memcpy(PyBytes_AS_STRING(self.buffer) + self.end, p, n)
            self.end += n
            self.work_bytes += n
        else:
            self.grow(p, n)
        return 0

    cdef int grow(self, const uint8_t *data, Py_ssize_t n) except -1:
        """Moves what is left, and the new data, into a buffer of our own with room for as much again."""
        cdef Py_ssize_t left = self.end - self.start
        cdef Py_ssize_t room = max(2 * (left + n), <Py_ssize_t>FIRST_ROOM)
        cdef bytes fresh
        cdef char *p
        if self.phase == PHASE_LENGTH:              # what follows this message belongs to the next
            room = min(room, max(self.need, left + n))
        fresh = PyBytes_FromStringAndSize(NULL, room)
        p = PyBytes_AS_STRING(fresh)
        memcpy(p, PyBytes_AS_STRING(self.buffer) + self.start, left)
        memcpy(p + left, data, n)
        self.work_bytes += left + n
        self.buffer = fresh
        self.owned = True
        self.scan -= self.start
        self.line -= self.start
        self.start = 0
        self.end = left + n
        return 0

    cdef void release(self) noexcept:
        self.buffer = None
        self.owned = False
        self.start = 0
        self.end = 0

    # -- the head ---------------------------------------------------------------------------------------------

    cdef Message advance(self):
        cdef Message m
        if self.phase == PHASE_START and not self.begin():
            return None
        if self.phase == PHASE_HEAD and not self.read_head():
            return None
        m = self.message
        if self.phase == PHASE_LENGTH:
            if self.end - self.start < self.need:
                return None
            self.bind_head(m)
            m.body_p = m.p + m.head_size
            m.body_size = self.need - m.head_size
            self.start += self.need
            return self.finish()
        if self.phase == PHASE_CHUNKS:
            return self.finish() if self.read_chunks(m) else None
        if self.phase == PHASE_DEAD:
            self.fail(400, "the connection has failed already")
        if self.phase == PHASE_UNTIL_EOF and self.end - self.start - m.head_size > self.max_body:
            self.fail(413, "body is too large")
        return None

    cdef int skip_empty_line(self) noexcept:
        """Consumes one CRLF before a start line (RFC 9112 section 2.2)."""
        cdef const uint8_t *p
        if self.empty_line == 2 or self.start == self.end:
            return 0
        p = <const uint8_t *>PyBytes_AS_STRING(self.buffer)
        if self.empty_line == 0:
            if p[self.start] != c'\r':
                self.empty_line = 2
                return 0
            self.empty_line = 1
            self.start += 1
        if self.start < self.end and p[self.start] == c'\n':
            self.empty_line = 2
            self.start += 1
        if self.start == self.end:
            self.release()
        return 0

    cdef bint begin(self) except -1:
        self.skip_empty_line()
        if self.start == self.end:
            return False
        if self.empty_line == 1:
            self.fail(400, "bare CR")
        self.line = self.start
        self.scan = self.start
        self.message = self.new_message()
        self.message.content_length = -1
        self.phase = PHASE_HEAD
        return True

    cdef bint read_head(self) except -1:
        """Takes complete lines up to the empty one; True when the head is complete."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(self.buffer) + self.start
        cdef Message m = self.message
        cdef Py_ssize_t have = self.end - self.start, stop = min(have, self.max_head)
        cdef Py_ssize_t line = self.line - self.start, scan = self.scan - self.start, at = scan
        while True:
            at = line_stop(p, at, stop)
            if at < stop and p[at] != c'\r':
                self.fail(400, "bare LF" if p[at] == c'\n' else "control character")
            if at + 1 >= stop:
                break
            if p[at + 1] != c'\n':
                self.fail(400, "bare CR")
            if at == line and m.line_end:
                m.head_size = <uint32_t>(at + 2)
                self.on_head(m, p)
                return True
            self.parse_line(m, p, <uint32_t>line, <uint32_t>at)
            at += 2
            line = at
        self.work_bytes += at - scan
        self.line = self.start + line
        self.scan = self.start + at
        if have > stop:
            self.fail(431, "head is too large")
        return False

    cdef int parse_line(self, Message m, const uint8_t *p, uint32_t line, uint32_t end) except -1:
        cdef uint32_t colon
        cdef Field *f
        if m.line_end == 0:
            self.on_start_line(m, p, end)
            m.line_end = end
            return 0
        colon = token_end(p, line, end)
        if colon == line or colon == end or p[colon] != c':':
            # also white space before the colon and line folding, RFC 9112 sections 5.1 and 5.2
            self.fail(400, "malformed header name")
        if m.field_count == MAX_FIELDS:
            self.fail(431, "too many headers")
        f = m.add_field()
        f.name = line
        f.name_end = colon
        colon += 1
        while colon < end and is_blank(p[colon]):
            colon += 1
        while end > colon and is_blank(p[end - 1]):
            end -= 1
        f.value = colon
        f.value_end = end
        return self.on_field(m, p, f)

    cdef int on_field(self, Message m, const uint8_t *p, Field *f) except -1:
        """Notes what decides about framing and the connection; the length tells most names apart."""
        cdef const uint8_t *name = p + f.name
        cdef uint32_t size = f.name_end - f.name
        if size == 4:
            if same_name(name, b"host", 4):
                if m.hosts == 0:
                    m.host = m.field_count - 1
                m.hosts += 1
        elif size == 6:
            if same_name(name, b"expect", 6) and m.expect != EXPECT_UNKNOWN:
                m.expect = EXPECT_UNKNOWN
                if spells(p + f.value, f.value_end - f.value, b"100-continue", 12):
                    m.expect = EXPECT_CONTINUE
        elif size == 10:
            if same_name(name, b"connection", 10):
                return self.on_connection(m, p, f)
        elif size == 14:
            if same_name(name, b"content-length", 14):
                return self.on_length(m, p, f)
        elif size == 17:
            if same_name(name, b"transfer-encoding", 17):
                if m.chunked or not spells(p + f.value, f.value_end - f.value, b"chunked", 7):
                    self.fail(400, "unsupported transfer coding")
                m.chunked = True
        return 0

    cdef int on_length(self, Message m, const uint8_t *p, const Field *f) except -1:
        cdef int64_t length = 0
        cdef uint32_t i, digits = 0
        if m.content_length >= 0:
            self.fail(400, "repeated Content-Length")
        if f.value == f.value_end:
            self.fail(400, "empty Content-Length")
        for i in range(f.value, f.value_end):
            if not c'0' <= p[i] <= c'9':
                self.fail(400, "malformed Content-Length")
            digits += digits > 0 or p[i] != c'0'
            if digits > MAX_DIGITS:
                self.fail(400, "Content-Length is too large to be real")
            length = length * 10 + (p[i] - c'0')
        m.content_length = length
        return 0

    cdef int on_connection(self, Message m, const uint8_t *p, const Field *f) except -1:
        """Walks the comma-separated options; their number is bounded like that of headers."""
        cdef uint32_t i = f.value, first, last
        while True:
            while i < f.value_end and is_blank(p[i]):
                i += 1
            first = i
            while i < f.value_end and p[i] != c',':
                i += 1
            last = i
            while last > first and is_blank(p[last - 1]):
                last -= 1
            if spells(p + first, last - first, b"close", 5):
                m.says_close = True
            elif spells(p + first, last - first, b"keep-alive", 10):
                m.says_keep_alive = True
            m.options += 1
            if m.options > MAX_FIELDS:
                self.fail(431, "too many connection options")
            if i == f.value_end:
                return 0
            i += 1

    cdef int check_framing(self, Message m) except -1:
        """RFC 9112 sections 6.1 and 6.3, without the leniency they allow; then section 9.3."""
        if m.chunked and m.content_length >= 0:
            self.fail(400, "Content-Length with Transfer-Encoding")
        if m.chunked and m.minor_version == 0:
            self.fail(400, "Transfer-Encoding on HTTP/1.0")
        m.keep_alive = not m.says_close and (m.minor_version == 1 or m.says_keep_alive)
        return 0

    # -- the body ---------------------------------------------------------------------------------------------

    cdef int expect_body(self, Message m, Py_ssize_t size) except -1:
        """After the head: `size` bytes follow, or chunks when it is negative."""
        if size >= 0:
            if size > self.max_body:
                self.fail(413, "body is too large")
            self.need = m.head_size + size
            self.phase = PHASE_LENGTH
            return 0
        self.bind_head(m)
        self.start += m.head_size
        self.chunks = ChunkDecoder(self.max_body, self.max_head)
        self.phase = PHASE_CHUNKS
        return 0

    cdef bint read_chunks(self, Message m) except -1:
        cdef ChunkDecoder chunks = self.chunks
        cdef const uint8_t *p
        cdef str reason
        if self.start == self.end:
            return False
        p = <const uint8_t *>PyBytes_AS_STRING(self.buffer) + self.start
        self.start += chunks.decode(p, self.end - self.start)
        if chunks.fault:
            reason = chunks.reason
            self.fail(chunks.fault, reason)
        if not chunks.done():
            self.release()
            return False
        self.work_bytes += chunks.work
        m.body_owner = chunks.take()
        m.body_size = PyBytes_GET_SIZE(m.body_owner)
        m.body_p = <const uint8_t *>PyBytes_AS_STRING(m.body_owner)
        self.chunks = None
        return True

    cdef void bind_head(self, Message m) noexcept:
        """Gives the message its share of the buffer, which must not be written to any more."""
        m.owner = self.buffer
        m.p = <const uint8_t *>PyBytes_AS_STRING(self.buffer) + self.start
        self.owned = False

    cdef Message finish(self):
        cdef Message m = self.message
        self.message = None
        self.phase = PHASE_START
        self.empty_line = 0
        if self.start == self.end:
            self.release()
        return m
