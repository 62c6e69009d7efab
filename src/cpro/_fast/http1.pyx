"""Strict HTTP/1.1: requests in, responses in, and the few kinds of message we send (RFC 9112, RFC 9110).

A pure state machine without I/O: `feed` bytes, take messages, send what the builders return.
`http1_message` has the part common to both directions (buffer, head, framing) and says how memory is laid out and
who owns it; `http1_chunked` decodes chunked bodies. Here is what tells requests from responses, and the builders.

Strictness: where RFC 9112 lets a recipient choose between repairing and refusing, we refuse, because two parsers
that repair differently are what request smuggling is made of. Nothing malformed is ever forwarded.
Each builder makes exactly one allocation of the final size. `build_forward` copies runs of kept header lines as
blocks, so that what the application sees is byte for byte what Centrifugo sent.
Objects: a `Request` is recycled through a free list; nothing is created per header.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from cpro._fast.http1_message cimport (
    EXPECT_CONTINUE, EXPECT_NOTHING, EXPECT_UNKNOWN, MAX_FIELDS,
    PHASE_CHUNKS, PHASE_DEAD, PHASE_DONE, PHASE_LENGTH, PHASE_START, PHASE_UNTIL_EOF,
    Field, Message, MessageParser, host_and_port, same_name, spells, target_end, token_end,
)

IDLE = AT_REST
HEAD = IN_HEAD
BODY = IN_BODY


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Request(Message):
    """A complete request."""

    @property
    def is_post(self) -> bool:
        return self.posts

    @property
    def method(self) -> bytes:
        return self.cut(0, self.method_end)

    @property
    def target(self) -> bytes:
        return self.cut(self.method_end + 1, self.target_end)

    @property
    def path(self) -> bytes:
        if self.empty_path:
            return b"/"                             # RFC 9110 section 4.2.3
        return self.cut(self.path_start, self.path_end)

    @property
    def query(self) -> bytes:
        cdef uint32_t start = self.path_end + (self.path_end < self.target_end)
        return self.cut(start, self.target_end)


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Response(Message):
    """A complete response."""

    @property
    def status(self) -> int:
        return self.code


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class RequestParser(MessageParser):
    """Requests of one connection, in order. A parser that has raised is dead."""

    def feed(self, bytes data not None):
        self.push(data)

    def next_request(self):
        return <Request>self.advance()

    def take_continue(self):
        cdef Message m = self.message
        cdef Py_ssize_t got
        if m is None or m.expect != EXPECT_CONTINUE:
            return False
        if self.phase == PHASE_LENGTH:
            got = self.end - self.start - m.head_size
        elif self.phase == PHASE_CHUNKS:
            got = self.end - self.start + self.chunks.begun
        else:
            return False
        m.expect = EXPECT_NOTHING                   # once; and who has begun to send does not wait for us
        return got == 0

    @property
    def state(self) -> int:
        return self.stage()

    cdef int stage(self) noexcept:
        if self.phase == PHASE_LENGTH or self.phase == PHASE_CHUNKS:
            return IN_BODY
        if self.phase == PHASE_START:
            self.skip_empty_line()
            return IN_HEAD if self.start < self.end else AT_REST
        return IN_HEAD

    @property
    def buffered_bytes(self) -> int:
        return self.held_bytes()

    cdef Py_ssize_t held_bytes(self) noexcept:
        return self.end - self.start + (self.chunks.used if self.chunks is not None else 0)

    def take_rest(self) -> bytes:
        cdef bytes rest = b"" if self.buffer is None else self.buffer[self.start:self.end]
        self.release()
        return rest

    cdef Message new_message(self):
        return <Message>Request.__new__(Request)

    cdef int on_start_line(self, Message m, const uint8_t *p, uint32_t end) except -1:
        cdef uint32_t method = token_end(p, 0, end), last
        if method == 0 or method == end or p[method] != c' ':
            self.fail(400, "malformed method")
        last = target_end(p, method + 1, end)
        if last == method + 1 or last == end or p[last] != c' ':
            self.fail(400, "malformed request target")
        if end - last != 9 or memcmp(p + last + 1, b"HTTP/1.", 7) != 0 or not c'0' <= p[end - 1] <= c'1':
            self.fail(400, "unsupported HTTP version")
        m.method_end = method
        m.target_end = last
        m.minor_version = p[end - 1] - c'0'
        m.posts = method == 4 and memcmp(p, b"POST", 4) == 0
        return self.on_target(m, p, method + 1, last)

    cdef int on_target(self, Message m, const uint8_t *p, uint32_t start, uint32_t end) except -1:
        """The four forms of RFC 9112 section 3.2."""
        cdef const uint8_t *query
        m.path_start = start
        m.path_end = end
        if m.method_end == 7 and memcmp(p, b"CONNECT", 7) == 0:
            if host_and_port(p, start, end) != 1:
                self.fail(400, "malformed authority-form target")
            m.path_start = end
            return 0
        if p[start] == c'*':
            if end - start != 1 or m.method_end != 7 or memcmp(p, b"OPTIONS", 7) != 0:
                self.fail(400, "malformed request target")
            return 0
        if p[start] != c'/':
            self.on_absolute(m, p, start, end)
        query = <const uint8_t *>memchr(p + m.path_start, c'?', end - m.path_start)
        if query != NULL:
            m.path_end = <uint32_t>(query - p)
        return 0

    cdef int on_absolute(self, Message m, const uint8_t *p, uint32_t start, uint32_t end) except -1:
        cdef uint32_t i = start, authority
        while i < end and p[i] != c':':
            i += 1
        if not spells(p + start, i - start, b"http", 4) and not spells(p + start, i - start, b"https", 5):
            self.fail(400, "malformed request target")
        if end - i < 3 or p[i + 1] != c'/' or p[i + 2] != c'/':
            self.fail(400, "malformed request target")
        authority = i + 3
        i = authority
        while i < end and p[i] != c'/' and p[i] != c'?':
            i += 1
        if host_and_port(p, authority, i) < 0:      # user information too, RFC 9110 section 4.2.4
            self.fail(400, "malformed authority in request target")
        m.path_start = i
        m.empty_path = i == end or p[i] == c'?'
        return 0

    cdef int on_head(self, Message m, const uint8_t *p) except -1:
        cdef const Field *host
        if m.hosts > 1 or (m.hosts == 0 and m.minor_version == 1):
            self.fail(400, "repeated Host" if m.hosts else "missing Host")
        if m.hosts:
            host = &m.fields[m.host]
            if host.value < host.value_end and host_and_port(p, host.value, host.value_end) < 0:
                self.fail(400, "malformed Host")
        self.check_framing(m)
        if m.expect == EXPECT_UNKNOWN:
            self.fail(417, "unknown expectation")
        if m.minor_version == 0 or (m.content_length <= 0 and not m.chunked):
            m.expect = EXPECT_NOTHING               # RFC 9110 section 10.1.1
        return self.expect_body(m, -1 if m.chunked else <Py_ssize_t>max(m.content_length, 0))


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class ResponseParser(MessageParser):
    """Responses of one connection, one at a time; every fault is a 502 and ends the connection."""

    def __cinit__(self, Py_ssize_t max_head_bytes, Py_ssize_t max_body_bytes):
        self.only_fault = 502
        self.empty_line = 2

    def expect(self, bint is_head=False):
        """Gets ready for the response to the next request."""
        self.ready(is_head)

    cdef int ready(self, bint is_head) except -1:
        if self.excess or self.phase == PHASE_DEAD or (self.started and self.phase != PHASE_DONE):
            # whatever came, it answers no request of ours: reading it as the next reply would mix up users
            self.fail(502, "the connection is not at the start of a response")
        self.phase = PHASE_START
        self.is_head = is_head
        self.started = False
        return 0

    def feed(self, bytes data not None):
        if PyBytes_GET_SIZE(data) == 0:
            return
        if self.phase == PHASE_DONE:
            self.excess = True
            return
        self.started = True
        self.push(data)

    def next_response(self):
        return self.reply()

    cdef Response reply(self):
        cdef Response response
        while True:
            response = <Response>self.advance()
            if response is None or response.code >= 200:
                return self.deliver(response)
            self.empty_line = 2                     # an interim response, RFC 9110 section 15.2

    def feed_eof(self):
        """The peer has closed: completes a body that lasts until then."""
        cdef Response response = self.reply()
        if response is not None or self.phase == PHASE_DONE or not self.started:
            return response
        if self.phase != PHASE_UNTIL_EOF:
            self.fail(502, "truncated response")
        self.need = self.end - self.start
        self.phase = PHASE_LENGTH
        return self.reply()

    @property
    def has_excess(self) -> bool:
        return self.excess

    cdef Response deliver(self, Response response):
        if response is not None:
            self.excess = self.start < self.end
            self.release()
            self.empty_line = 2
            self.phase = PHASE_DONE
        return response

    cdef Message new_message(self):
        return <Message>Response.__new__(Response)

    cdef int on_start_line(self, Message m, const uint8_t *p, uint32_t end) except -1:
        """A missing space before an empty reason is the one slip that is too common to refuse."""
        cdef int i
        if end < 12 or memcmp(p, b"HTTP/1.", 7) != 0 or not c'0' <= p[7] <= c'1' or p[8] != c' ':
            self.fail(502, "malformed status line")
        for i in range(9, 12):
            if not c'0' <= p[i] <= c'9':
                self.fail(502, "malformed status code")
            m.code = m.code * 10 + (p[i] - c'0')
        if m.code < 100 or (end > 12 and p[12] != c' '):
            self.fail(502, "malformed status code")
        m.minor_version = p[7] - c'0'
        return 0

    cdef int on_head(self, Message m, const uint8_t *p) except -1:
        """RFC 9112 section 6.3."""
        self.check_framing(m)
        if m.code == 101:
            self.fail(502, "unasked-for upgrade")
        if self.is_head or m.code < 200 or m.code == 204 or m.code == 304:
            return self.expect_body(m, 0)
        if m.chunked or m.content_length >= 0:
            return self.expect_body(m, -1 if m.chunked else <Py_ssize_t>m.content_length)
        m.keep_alive = False
        self.phase = PHASE_UNTIL_EOF
        return 0


# -- builders -------------------------------------------------------------------------------------------------

cdef dict REASONS = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found",
    405: b"Method Not Allowed",
    413: b"Content Too Large", 417: b"Expectation Failed", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Gateway Timeout",
}

cdef enum:
    SIZE_TEXT = 20                  # digits of 2**63


cdef int size_text(char *text, Py_ssize_t size) noexcept:
    """Decimal digits of size at the end of text; returns how many."""
    cdef int n = 0
    while True:
        n += 1
        text[SIZE_TEXT - n] = <char>(c'0' + size % 10)
        size //= 10
        if size == 0:
            return n


cdef inline char *put(char *to, const char *p, Py_ssize_t n) noexcept:
    memcpy(to, p, n)
    return to + n


cdef inline char *put_bytes(char *to, bytes data) noexcept:
    return put(to, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef bint is_hop_by_hop(const uint8_t *name, Py_ssize_t size) noexcept:
    """RFC 9110 section 7.6.1, and the four that we write or answer ourselves."""
    if size == 2:
        return same_name(name, b"te", 2)
    if size == 4:
        return same_name(name, b"host", 4)
    if size == 6:
        return same_name(name, b"expect", 6)
    if size == 7:
        return same_name(name, b"trailer", 7) or same_name(name, b"upgrade", 7)
    if size == 10:
        return same_name(name, b"connection", 10) or same_name(name, b"keep-alive", 10)
    if size == 14:
        return same_name(name, b"content-length", 14)
    if size == 16:
        return same_name(name, b"proxy-connection", 16)
    if size == 17:
        return same_name(name, b"transfer-encoding", 17)
    if size == 18:
        return same_name(name, b"proxy-authenticate", 18)
    return size == 19 and same_name(name, b"proxy-authorization", 19)


cdef inline uint8_t lower(uint8_t c) noexcept:
    return c | 0x20 if c'A' <= c <= c'Z' else c


cdef bint same_text(const uint8_t *a, const uint8_t *b, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    for i in range(size):
        if lower(a[i]) != lower(b[i]):
            return False
    return True


cdef void drop_named(Message m, const Field *connection, uint8_t *dropped) noexcept:
    """Marks the fields that one Connection header names. Both counts are at most MAX_FIELDS, checked on parsing."""
    cdef uint32_t i = connection.value, first, last, k
    cdef const Field *f
    while i < connection.value_end:
        while i < connection.value_end and m.p[i] in (c' ', c'\t', c','):
            i += 1
        first = i
        while i < connection.value_end and m.p[i] != c',':
            i += 1
        last = i
        while last > first and m.p[last - 1] in (c' ', c'\t'):
            last -= 1
        for k in range(m.field_count):
            f = &m.fields[k]
            if f.name_end - f.name == last - first and same_text(m.p + f.name, m.p + first, last - first):
                dropped[k] = True


cdef int mark_dropped(Message m, tuple drop, uint8_t *dropped) except -1:
    cdef uint32_t i
    cdef Py_ssize_t at
    cdef const Field *f
    cdef bytes name
    for i in range(m.field_count):
        f = &m.fields[i]
        dropped[i] = is_hop_by_hop(m.p + f.name, f.name_end - f.name)
    for name in drop:
        if name is None:
            raise TypeError("names to drop must be bytes")
        at = m.find(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), 0)
        while at >= 0:
            dropped[at] = True
            at = m.find(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), at + 1)
    if m.options:
        for i in range(m.field_count):
            f = &m.fields[i]
            if spells(m.p + f.name, f.name_end - f.name, b"connection", 10):
                drop_named(m, f, dropped)
    return 0


cdef inline uint32_t line_start(Message m, uint32_t i) noexcept:
    """Of field i; of the empty line for the one after the last."""
    return m.fields[i].name if i < m.field_count else m.head_size - 2


def build_forward(Request request not None, bytes head_prefix not None, tuple drop not None):
    return forwarded(request, head_prefix, drop)


cdef bytes forwarded(Request request, bytes head_prefix, tuple drop):
    cdef uint8_t[MAX_FIELDS] dropped
    cdef char[SIZE_TEXT] text
    cdef uint32_t i, run = 0, start
    cdef Py_ssize_t kept = 0
    cdef int digits
    cdef bytes out
    cdef char *to
    mark_dropped(request, drop, dropped)
    for i in range(request.field_count):
        if not dropped[i]:
            kept += line_start(request, i + 1) - line_start(request, i)
    digits = size_text(text, request.body_size)
    out = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(head_prefix) + kept + 20 + digits + request.body_size)
    to = put_bytes(PyBytes_AS_STRING(out), head_prefix)
    for i in range(request.field_count + 1):
        if i < request.field_count and not dropped[i]:
            continue
        if run < i:                                 # kept lines since the last dropped one
            start = line_start(request, run)
            to = put(to, <const char *>request.p + start, line_start(request, i) - start)
        run = i + 1
    to = put(to, b"Content-Length: ", 16)
    to = put(to, text + SIZE_TEXT - digits, digits)
    to = put(to, b"\r\n\r\n", 4)
    put(to, <const char *>request.body_p, request.body_size)
    return out


def build_reply(
    bytes body not None, bint keep_alive=True, bytes content_type not None=b"application/json", bytes extra not None=b"",
):
    return replied(body, keep_alive, content_type, extra)


cdef bytes replied(bytes body, bint keep_alive, bytes content_type, bytes extra):
    cdef char[SIZE_TEXT] text
    cdef Py_ssize_t size
    cdef int digits
    cdef bytes out
    cdef char *to
    digits = size_text(text, PyBytes_GET_SIZE(body))
    size = 31 + PyBytes_GET_SIZE(content_type) + 18 + digits + (0 if keep_alive else 19) + 4
    size += PyBytes_GET_SIZE(extra) + PyBytes_GET_SIZE(body)
    out = PyBytes_FromStringAndSize(NULL, size)
    to = put(PyBytes_AS_STRING(out), b"HTTP/1.1 200 OK\r\nContent-Type: ", 31)
    to = put_bytes(to, content_type)
    to = put(to, b"\r\nContent-Length: ", 18)
    to = put(to, text + SIZE_TEXT - digits, digits)
    if not keep_alive:
        to = put(to, b"\r\nConnection: close", 19)
    to = put(to, b"\r\n", 2)
    to = put_bytes(to, extra)
    to = put(to, b"\r\n", 2)
    put_bytes(to, body)
    return out


def build_status(
    int status, bint keep_alive=True, bytes extra not None=b"", bytes body not None=b"", bytes content_type not None=b"",
):
    if not 100 <= status <= 999:
        raise ValueError("a status has three digits")
    if status == 204:  # which has no body, and must not have its length (RFC 9110 section 8.6)
        return b"HTTP/1.1 204 %b\r\n%b%b\r\n" % (
            REASONS.get(status, b""), b"" if keep_alive else b"Connection: close\r\n", extra,
        )
    return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n%b%b\r\n%b" % (
        status, REASONS.get(status, b""), b"Content-Type: %b\r\n" % content_type if body and content_type else b"",
        len(body), b"" if keep_alive else b"Connection: close\r\n", extra, body,
    )
