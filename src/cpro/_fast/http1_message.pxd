"""What requests and responses share: the view over a received message, and the parser that fills it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from cpro._fast.http1_chunked cimport ChunkDecoder


cdef enum:
    INLINE_FIELDS = 16
    MAX_FIELDS = 256                # header fields, and options named by Connection

cdef enum:
    EXPECT_NOTHING, EXPECT_CONTINUE, EXPECT_UNKNOWN

cdef enum:
    PHASE_START, PHASE_HEAD, PHASE_LENGTH, PHASE_CHUNKS, PHASE_UNTIL_EOF, PHASE_DONE, PHASE_DEAD

cdef struct Field:                  # offsets from the first byte of the start line
    uint32_t name
    uint32_t name_end
    uint32_t value                  # without the white space around it
    uint32_t value_end


cdef class Message:
    cdef const uint8_t *p           # first byte of the start line, inside `owner`; NULL until the message is complete
    cdef const uint8_t *body_p      # inside `owner` or `body_owner`
    cdef bytes owner
    cdef bytes body_owner           # only for chunked bodies
    cdef Py_ssize_t body_size
    cdef int64_t content_length     # -1 when there was none
    cdef Field *fields              # `inline_fields`, or 256 on the heap for the rare long head
    cdef uint32_t field_count
    cdef uint32_t head_size         # start line to empty line, both included; 0 while incomplete
    cdef uint32_t line_end          # of the start line, without CRLF; 0 until it is parsed
    cdef uint32_t method_end        # requests
    cdef uint32_t target_end
    cdef uint32_t path_start
    cdef uint32_t path_end
    cdef uint32_t host              # index of the first Host field
    cdef uint32_t hosts
    cdef uint32_t options           # Connection options seen
    cdef int code                   # of responses
    cdef uint8_t expect
    cdef bint chunked
    cdef bint says_close
    cdef bint says_keep_alive
    cdef bint posts
    cdef bint empty_path            # http://host?query, whose path is /
    cdef readonly int minor_version
    cdef readonly bint keep_alive
    cdef Field[INLINE_FIELDS] inline_fields

    cdef Field *add_field(self) except NULL
    # Index of the first field from `start` on with this lower-case name, or -1.
    cdef Py_ssize_t find(self, const uint8_t *name, Py_ssize_t size, Py_ssize_t start) noexcept
    cdef bytes cut(self, Py_ssize_t start, Py_ssize_t end)


cdef class MessageParser:
    cdef bytes buffer               # the input not yet given away; None when there is none
    cdef bint owned                 # nobody else holds `buffer`: there is spare room behind `end` to append to
    cdef Py_ssize_t start           # in `buffer`: first byte of the message, or of the chunked data to come
    cdef Py_ssize_t line            # start of the line being received
    cdef Py_ssize_t scan            # where looking for its end goes on
    cdef Py_ssize_t end             # end of the input
    cdef Py_ssize_t need            # size of the whole message, once known
    cdef Py_ssize_t max_head
    cdef Py_ssize_t max_body
    cdef Message message            # the one being received
    cdef ChunkDecoder chunks
    cdef int only_fault             # status of every fault, 0: each its own
    cdef uint8_t phase
    cdef uint8_t empty_line         # the one before a request: 0 nothing seen, 1 CR, 2 CRLF or not allowed
    cdef readonly Py_ssize_t work_bytes

    cdef int push(self, bytes data) except -1
    # The next message once it is complete, None when more input is needed.
    cdef Message advance(self)

    # For the two kinds of parser to fill in.
    cdef Message new_message(self)
    cdef int on_start_line(self, Message m, const uint8_t *p, uint32_t end) except -1
    cdef int on_head(self, Message m, const uint8_t *p) except -1

    cdef int fail(self, int status, str reason) except -1
    cdef int skip_empty_line(self) noexcept
    cdef void release(self) noexcept
    cdef int grow(self, const uint8_t *data, Py_ssize_t n) except -1
    cdef bint begin(self) except -1
    cdef bint read_head(self) except -1
    cdef int parse_line(self, Message m, const uint8_t *p, uint32_t line, uint32_t end) except -1
    cdef int on_field(self, Message m, const uint8_t *p, Field *f) except -1
    cdef int on_length(self, Message m, const uint8_t *p, const Field *f) except -1
    cdef int on_connection(self, Message m, const uint8_t *p, const Field *f) except -1
    cdef int check_framing(self, Message m) except -1
    cdef int expect_body(self, Message m, Py_ssize_t size) except -1
    cdef bint read_chunks(self, Message m) except -1
    cdef void bind_head(self, Message m) noexcept
    cdef Message finish(self)


# Each returns the index of the first byte that is not of its kind, at most `end`.
cdef uint32_t token_end(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil
cdef uint32_t target_end(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil
# uri-host [":" port] (RFC 9110 section 7.2): -1 no, 0 without port, 1 with port
cdef int host_and_port(const uint8_t *p, uint32_t i, uint32_t end) noexcept nogil


cdef inline bint same_name(const uint8_t *p, const uint8_t *lower, Py_ssize_t size) noexcept nogil:
    """Whether p spells the lower-case name, whatever its case."""
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(size):
        c = p[i]
        if c'A' <= c <= c'Z':
            c |= 0x20
        if c != lower[i]:
            return False
    return True


cdef inline bint spells(const uint8_t *p, Py_ssize_t size, const char *lower, Py_ssize_t lower_size) noexcept nogil:
    return size == lower_size and same_name(p, <const uint8_t *>lower, size)
