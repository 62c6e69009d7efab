"""The server's side of a tapped WebSocket. No I/O, no clock.

The common case is a piece of input that holds whole frames, each one whole message with nothing but publications: for
each we look at the frame's head, at the first bytes of every line (a memchr per frame) or delimited message, and that
is all. No object is made, nothing is copied, and `feed` returns None.

Ownership: only what did not come whole is gathered, in a block from malloc that doubles and goes with the message's
end; while holding, also the frames themselves, as pieces of the input. Beyond the limit a message that passes is no longer
gathered; one that would have to be held is a fault. A fault ends the scan.

What is told apart by its first bytes is told apart as Centrifugo writes it (keys in the order of its struct, fields in
the order of their numbers). In another order a publication is given out needlessly; nothing is ever left out.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

from cpro._fast.jsonscan cimport has_literal, skip_string
from cpro._fast.protoscan cimport WIRE_BYTES, WIRE_VARINT, Field, read_field, read_length
from cpro._fast.wsframe cimport (
    FIN, MASKED, MAX_CONTROL, OP_BINARY, OP_CLOSE, OP_CONTINUATION, OP_PING, OP_PONG, OP_TEXT, RSV1, RSV2, RSV3, Event,
    length_in, new_event, size_of_head,
)

cdef enum:
    FIRST_ROOM = 512
    NO_STATUS = 1005
    REPLY_PUSH = 4                  # fields, see client.proto
    PUSH_ID = 1, PUSH_CHANNEL = 2, PUSH_PUB = 4, PUSH_JOIN = 5, PUSH_LEAVE = 6, PUSH_MESSAGE = 8


cdef bint is_mere_push(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """A line of JSON pushes a publication, join, leave or message."""
    cdef int how = 0
    if not has_literal(p, i, end, b'{"push":{"', 10):
        return False
    i += 9
    if has_literal(p, i, end, b'"id":', 5):
        i += 5
        while i < end and c'0' <= p[i] <= c'9':
            i += 1
        if i == end or p[i] != c',':
            return False
        i += 1
    if has_literal(p, i, end, b'"channel":', 10):
        i = skip_string(p, i + 10, end, &how)
        if i < 0 or i == end or p[i] != c',':
            return False
        i += 1
    return (
        has_literal(p, i, end, b'"pub":', 6) or has_literal(p, i, end, b'"join":', 7)
        or has_literal(p, i, end, b'"leave":', 8) or has_literal(p, i, end, b'"message":', 10)
    )


cdef bint are_mere_push_lines(const uint8_t *p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef const uint8_t *newline
    while i < size:
        newline = <const uint8_t *>memchr(p + i, c'\n', size - i)
        if not is_mere_push(p, i, size if newline == NULL else newline - p):
            return False
        if newline == NULL:
            return True
        i = newline - p + 1
    return True


cdef bint is_mere_push_message(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """A Protobuf Reply, of which the push comes first."""
    cdef Field f
    if i == end or read_field(p, i, end, &f) < 0 or f.number != REPLY_PUSH or f.wire != WIRE_BYTES or f.end != end:
        return False
    i = f.start
    while i < end:
        i = read_field(p, i, end, &f)
        if i < 0:
            return False
        if f.number == PUSH_PUB or f.number == PUSH_JOIN or f.number == PUSH_LEAVE or f.number == PUSH_MESSAGE:
            return True
        if f.number != PUSH_ID and f.number != PUSH_CHANNEL:
            return False
    return False


cdef bint are_mere_push_messages(const uint8_t *p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint64_t length = 0
    while i < size:
        i = read_length(p, i, size, &length)
        if i < 0 or length > <uint64_t>(size - i) or not is_mere_push_message(p, i, i + <Py_ssize_t>length):
            return False
        i += <Py_ssize_t>length
    return True


@cython.no_gc
@cython.auto_pickle(False)
cdef class ServerScan:
    """What a server sends to one client."""

    def __cinit__(self, bint protobuf, int64_t max_message_bytes, bint holds=True, bint allow_compressed=False):
        if not 0 < max_message_bytes <= 1 << 40:
            raise ValueError("max_message_bytes must be between 1 and 1 TiB")
        self.protobuf = protobuf
        self.limit = max_message_bytes
        self.holds = holds
        self.allow_compressed = allow_compressed
        self.fault = ""
        if holds:
            self.held_frame = []
            self.held_message = []

    def __dealloc__(self):
        free(self.message)

    def feed(self, bytes data not None) -> list[Event] | None:
        """What `data` completes and the door should know."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t i = 0, size = PyBytes_GET_SIZE(data), part
        cdef list events = None
        cdef Event event
        self.data = data
        self.frame_at = 0
        self.boundary = 0 if self.is_between() else -1
        while i < size and not self.fault:
            part = 0 if self.holds or not self.is_between() else self.whole_message(p + i, size - i)
            if part:
                event = self.told_message(p + i, part)
            else:
                if not self.in_payload:
                    if self.head_size == 0:
                        self.frame_at = i
                    i += self.take_head(p + i, size - i)
                    if not self.in_payload:
                        continue
                part = min(self.remaining, size - i)
                self.take_payload(p + i, part)
                event = None if self.remaining else self.end_frame(i + part)
            i += part
            if self.is_between():
                self.boundary = i
            if event is not None:
                event.end = i
                if events is None:
                    events = []
                events.append(event)
        self.hold_rest(size)
        self.data = None
        return events

    def release(self) -> bytes:
        """Stop holding; the frames under way."""
        cdef bytes rest = b"".join(self.held_message + self.held_frame) if self.holds else b""
        self.holds = False
        self.held_message = self.held_frame = None
        return rest

    @property
    def is_between_messages(self) -> bool:
        return self.is_between()

    cdef inline bint is_between(self) noexcept:
        return not (self.in_payload or self.in_message or self.head_size)

    cdef int fail(self, str fault) except -1:
        self.fault = fault
        self.in_payload = False
        self.forget_message()
        return 0

    # -- the short way ----------------------------------------------------------------------------------------------

    cdef Py_ssize_t whole_message(self, const uint8_t *p, Py_ssize_t size) noexcept:
        cdef uint64_t length
        cdef int head
        if size < 2 or p[1] & MASKED or (p[0] != (FIN | OP_TEXT) and p[0] != (FIN | OP_BINARY)):
            return 0
        head = size_of_head(p)
        if size < head:
            return 0
        length = length_in(p)
        if length > <uint64_t>(size - head):
            return 0
        return head + <Py_ssize_t>length

    cdef Event told_message(self, const uint8_t *p, Py_ssize_t size):
        """The event of a frame that is a whole message; None for mere pushes."""
        cdef int head = size_of_head(p)
        size = min(size - head, <Py_ssize_t>self.limit)
        if not self.is_telling(p + head, size):
            return None
        return new_event(p[0] & 0x0F, PyBytes_FromStringAndSize(<const char *>p + head, size))

    cdef bint is_telling(self, const uint8_t *p, Py_ssize_t size) noexcept:
        return not (are_mere_push_messages(p, size) if self.protobuf else are_mere_push_lines(p, size))

    # -- the long way -----------------------------------------------------------------------------------------------

    cdef Py_ssize_t take_head(self, const uint8_t *p, Py_ssize_t size) except -1:
        """How many bytes went to the head; `in_payload` when it is complete."""
        cdef Py_ssize_t part, taken = 0
        if self.head_size < 2:
            taken = min(2 - self.head_size, size)
            memcpy(self.head + self.head_size, p, taken)
            self.head_size += <int>taken
            if self.head_size < 2:
                return taken
        part = min(size_of_head(self.head) - self.head_size, size - taken)
        memcpy(self.head + self.head_size, p + taken, part)
        self.head_size += <int>part
        if self.head_size == size_of_head(self.head):
            self.head_size = 0
            self.in_payload = self.begin_frame()
        return taken + part

    cdef bint begin_frame(self) except -1:
        cdef uint64_t length = length_in(self.head)
        cdef uint8_t first = self.head[0]
        cdef bint is_control
        self.opcode = first & 0x0F
        self.final = first & FIN != 0
        is_control = self.opcode >= OP_CLOSE
        if self.opcode > OP_PONG or OP_BINARY < self.opcode < OP_CLOSE:
            self.fail("unknown opcode")
        elif self.head[1] & MASKED:
            self.fail("masked frame")
        elif first & (RSV2 | RSV3) or (first & RSV1 and (not self.allow_compressed or is_control)):
            self.fail("reserved bit set")
        elif is_control and (length > MAX_CONTROL or not self.final):
            self.fail("control frame that is long or fragmented")
        elif not is_control and (self.opcode == OP_CONTINUATION) != self.in_message:
            self.fail("message within a message" if self.in_message else "continuation of nothing")
        elif length > <uint64_t>INT64_MAX or (
            self.holds and not is_control and length > <uint64_t>(self.limit - self.message_size)
        ):
            self.fail("message is too long")
        else:
            self.remaining = <int64_t>length
            self.control_size = 0
            if not is_control and self.opcode != OP_CONTINUATION:
                self.message_opcode = self.opcode
                self.compressed = first & RSV1 != 0
        return not self.fault

    cdef int take_payload(self, const uint8_t *p, Py_ssize_t size) except -1:
        cdef Py_ssize_t need
        cdef void *block
        self.remaining -= size
        if self.opcode >= OP_CLOSE:
            memcpy(self.control + self.control_size, p, size)
            self.control_size += <int>size
            return 0
        self.in_message = True
        size = min(size, <Py_ssize_t>self.limit - self.message_size)
        need = self.message_size + size
        if need > self.message_room:
            self.message_room = min(max(2 * need, <Py_ssize_t>FIRST_ROOM), <Py_ssize_t>self.limit)
            block = realloc(self.message, self.message_room)
            if block == NULL:
                raise MemoryError
            self.message = <uint8_t *>block
        if size:
            memcpy(self.message + self.message_size, p, size)
        self.message_size = need
        return 0

    cdef Event end_frame(self, Py_ssize_t end):
        cdef Event event = None
        cdef bytes raw = self.frame_bytes(end) if self.holds else None
        self.in_payload = False
        if self.opcode >= OP_CLOSE:
            event = self.end_control()
        else:
            if self.holds:
                self.held_message.append(raw)
            if self.final:
                if self.holds:
                    raw = b"".join(self.held_message)
                    self.held_message.clear()
                event = self.end_message()
        if event is not None:
            event.raw = raw
        return event

    cdef Event end_message(self):
        cdef Event event = None
        if self.holds or self.compressed or self.is_telling(self.message, self.message_size):
            event = new_event(
                self.message_opcode, PyBytes_FromStringAndSize(<const char *>self.message, self.message_size)
            )
            event.compressed = self.compressed
        self.forget_message()
        return event

    cdef Event end_control(self):
        cdef Event event
        if self.opcode == OP_PONG and not self.holds:
            return None
        event = new_event(self.opcode, PyBytes_FromStringAndSize(<const char *>self.control, self.control_size))
        if self.opcode == OP_CLOSE:
            event.code = NO_STATUS
            if self.control_size >= 2:
                event.code = self.control[0] << 8 | self.control[1]
                event.reason = event.payload[2:]
        return event

    cdef void forget_message(self) noexcept:
        free(self.message)
        self.message = NULL
        self.message_size = self.message_room = 0
        self.in_message = False

    # -- holding ----------------------------------------------------------------------------------------------------

    cdef bytes frame_bytes(self, Py_ssize_t end):
        """The frame that ends there, from this feed and those before."""
        self.held_frame.append(self.data[self.frame_at:end])
        raw = b"".join(self.held_frame)
        self.held_frame.clear()
        return raw

    cdef int hold_rest(self, Py_ssize_t size) except -1:
        if self.holds and (self.in_payload or self.head_size) and not self.fault:
            self.held_frame.append(self.data[self.frame_at:size])
        return 0
