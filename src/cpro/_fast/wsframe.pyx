"""RFC 6455 framing: what clients send, read; frames, written. No I/O, no clock.

Which faults there are, their codes and words follow the library that Centrifugo uses (centrifuge/internal/websocket,
a fork of gorilla's), so that a client cannot tell who closed on it. Where that is more lenient than the RFC so are we:
a close of one byte counts as one without a code; lengths may take more bytes than they need; with compression
negotiated RSV1 is ignored on all but the first frame of a message; text need not be UTF-8.

Memory: a message that lies whole in one piece of input costs its event and its payload, nothing else. Anything else
is gathered in a block from malloc that doubles, never beyond the limit, and goes when the message ends: at most the
limit of bytes per connection, in return for as many bytes really sent. Control frames, which may come between the
fragments of a message, have 125 bytes of their own.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef extern from *:
    """
    #include <string.h>
    /* Eight bytes at a time; `at` is how many bytes of the payload went before. */
    static void apply_mask(uint8_t *to, const uint8_t *from, Py_ssize_t size, const uint8_t *key, uint32_t at) {
        uint8_t turned[8];
        uint64_t word, mask;
        Py_ssize_t i = 0;
        for (int k = 0; k < 8; k++) turned[k] = key[(at + k) & 3];
        memcpy(&mask, turned, 8);
        for (; i + 8 <= size; i += 8) { memcpy(&word, from + i, 8); word ^= mask; memcpy(to + i, &word, 8); }
        for (; i < size; i++) to[i] = from[i] ^ turned[i & 7];
    }
    """
    void apply_mask(uint8_t *to, const uint8_t *src, Py_ssize_t size, const uint8_t *key, uint32_t at) nogil

cdef enum:
    FIRST_ROOM = 512

TEXT = OP_TEXT
BINARY = OP_BINARY
CLOSE = OP_CLOSE
PING = OP_PING
PONG = OP_PONG
NO_STATUS = 1005
DROP = 1006
PROTOCOL_ERROR = 1002
TOO_BIG = 1009


@cython.freelist(64)
@cython.no_gc
@cython.auto_pickle(False)
cdef class Event:
    """A whole message or a control frame. Made by readers of frames only."""

    def __init__(self):
        raise TypeError("events are made by readers of frames")

    def __repr__(self) -> str:
        return f"<Event {self.opcode} {self.payload!r}>"


cdef Event new_event(int opcode, bytes payload):
    cdef Event event = Event.__new__(Event)
    event.opcode = opcode
    event.payload = payload
    event.reason = b""
    return event


@cython.no_gc
@cython.auto_pickle(False)
cdef class ClientFrames:
    """What a client sends."""

    def __cinit__(self, int64_t max_message_bytes, bint allow_compressed=False):
        if not 0 < max_message_bytes <= 1 << 40:
            raise ValueError("max_message_bytes must be between 1 and 1 TiB")
        self.limit = max_message_bytes
        self.allow_compressed = allow_compressed
        self.fault_reason = b""

    def __dealloc__(self):
        free(self.message)

    def feed(self, bytes data not None) -> list[Event]:
        """The messages and control frames that `data` completes, in order."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t i = 0, size = PyBytes_GET_SIZE(data), part
        cdef list events = []
        cdef Event event
        while i < size and not self.fault_code and not self.closed:
            if not self.in_payload:
                part = self.take_head(p + i, size - i)
                i += part
                if not self.in_payload:
                    continue            # more of the head is needed, or there is a fault
            part = min(self.remaining, size - i)
            if part == self.remaining and self.final and not self.in_message and self.opcode < OP_CLOSE:
                event = self.whole_message(p + i, part)
            else:
                self.take_payload(p + i, part)
                event = None if self.remaining else self.end_frame()
            i += part
            if event is not None:
                events.append(event)
        return events

    @property
    def is_between_messages(self) -> bool:
        return not (self.in_payload or self.in_message or self.head_size)

    cdef int fail(self, int code, bytes reason) except -1:
        self.fault_code = code
        self.fault_reason = reason
        self.in_payload = False
        self.forget_message()
        return 0

    # -- heads ------------------------------------------------------------------------------------------------------

    cdef Py_ssize_t take_head(self, const uint8_t *p, Py_ssize_t size) except -1:
        """How many bytes went to the head; `in_payload` when it is complete."""
        cdef Py_ssize_t part, taken = 0
        if self.head_size < 2:
            taken = min(2 - self.head_size, size)
            memcpy(self.head + self.head_size, p, taken)
            self.head_size += <int>taken
            if self.head_size < 2:
                return taken
            self.check_head()
            if self.fault_code:
                return taken
        part = min(size_of_head(self.head) - self.head_size, size - taken)
        memcpy(self.head + self.head_size, p + taken, part)
        self.head_size += <int>part
        if self.head_size == size_of_head(self.head):
            self.head_size = 0
            self.in_payload = self.begin_frame()
        return taken + part

    cdef int check_head(self) except -1:
        """All that is wrong with the first two bytes, in one reason."""
        cdef uint8_t first = self.head[0], second = self.head[1], opcode = first & 0x0F
        cdef list wrong = []
        if first & RSV1 and not (self.allow_compressed and (opcode == OP_TEXT or opcode == OP_BINARY)):
            wrong.append(b"RSV1 set")
        if first & RSV2:
            wrong.append(b"RSV2 set")
        if first & RSV3:
            wrong.append(b"RSV3 set")
        if OP_CLOSE <= opcode <= OP_PONG:
            if second & 0x7F > MAX_CONTROL:
                wrong.append(b"len > 125 for control")
            if not first & FIN:
                wrong.append(b"FIN not set on control")
        elif opcode == OP_TEXT or opcode == OP_BINARY:
            if self.in_message:
                wrong.append(b"data before FIN")
        elif opcode == OP_CONTINUATION:
            if not self.in_message:
                wrong.append(b"continuation after FIN")
        else:
            wrong.append(b"bad opcode %d" % opcode)
        if not second & MASKED:
            wrong.append(b"bad MASK")
        if wrong:
            self.fail(PROTOCOL_ERROR, b", ".join(wrong)[:MAX_CONTROL - 2])
        return 0

    cdef bint begin_frame(self) except -1:
        cdef uint64_t length = length_in(self.head)
        if length > <uint64_t>INT64_MAX:
            self.fail(DROP, b"")
            return False
        self.opcode = self.head[0] & 0x0F
        self.final = self.head[0] & FIN != 0
        self.remaining = <int64_t>length
        self.key_at = 0
        memcpy(self.key, self.head + size_of_head(self.head) - 4, 4)
        self.control_size = 0
        if self.opcode < OP_CLOSE:
            self.begin_message()
        return self.fault_code == 0

    cdef int begin_message(self) except -1:
        """A data frame: of a new message, or one more of the one under way."""
        if self.opcode != OP_CONTINUATION:
            self.message_opcode = self.opcode
            self.compressed = self.head[0] & RSV1 != 0
            self.declared = 0
        if self.remaining > INT64_MAX - self.declared:
            return self.fail(DROP, b"")
        self.declared += self.remaining
        if self.declared > self.limit:
            return self.fail(TOO_BIG, b"")
        return 0

    # -- payloads ---------------------------------------------------------------------------------------------------

    cdef Event whole_message(self, const uint8_t *p, Py_ssize_t size):
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, size)
        if size:                        # a writable empty bytes object there is none
            apply_mask(<uint8_t *>PyBytes_AS_STRING(payload), p, size, self.key, 0)
        self.in_payload = False
        return self.message_event(payload)

    cdef Event message_event(self, bytes payload):
        cdef Event event = new_event(self.message_opcode, payload)
        event.compressed = self.compressed
        return event

    cdef int take_payload(self, const uint8_t *p, Py_ssize_t size) except -1:
        if self.opcode >= OP_CLOSE:
            apply_mask(self.control + self.control_size, p, size, self.key, self.key_at)
            self.control_size += <int>size
        elif size:
            self.in_message = True
            self.keep(p, size)
        self.key_at = (self.key_at + <uint32_t>size) & 3
        self.remaining -= size
        return 0

    cdef int keep(self, const uint8_t *p, Py_ssize_t size) except -1:
        cdef Py_ssize_t need = self.message_size + size, room = self.message_room
        cdef void *block
        if need > room:
            room = min(max(2 * need, <Py_ssize_t>FIRST_ROOM), <Py_ssize_t>self.limit)
            block = realloc(self.message, room)
            if block == NULL:
                raise MemoryError
            self.message = <uint8_t *>block
            self.message_room = room
        apply_mask(self.message + self.message_size, p, size, self.key, self.key_at)
        self.message_size = need
        return 0

    cdef Event end_frame(self):
        cdef Event event
        self.in_payload = False
        if self.opcode >= OP_CLOSE:
            return self.end_control()
        if not self.final:
            self.in_message = True
            return None
        event = self.message_event(PyBytes_FromStringAndSize(<const char *>self.message, self.message_size))
        self.forget_message()
        return event

    cdef void forget_message(self) noexcept:
        free(self.message)
        self.message = NULL
        self.message_size = self.message_room = 0
        self.in_message = False

    cdef Event end_control(self):
        cdef Event event = new_event(
            self.opcode, PyBytes_FromStringAndSize(<const char *>self.control, self.control_size)
        )
        if self.opcode != OP_CLOSE:
            return event
        event.code = NO_STATUS
        if self.control_size >= 2:
            event.code = self.control[0] << 8 | self.control[1]
            event.reason = event.payload[2:]
            if not is_valid_code(event.code):
                self.fail(PROTOCOL_ERROR, b"bad close code %d" % event.code)
                return None
            if not is_utf8(event.reason):
                self.fail(PROTOCOL_ERROR, b"invalid utf8 payload in close frame")
                return None
        self.closed = True
        self.forget_message()
        return event


cdef bint is_valid_code(int code):
    """What a client may close with: registered codes that may be sent, and those for libraries and applications."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1013 or 3000 <= code <= 4999


cdef bint is_utf8(bytes text):
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def build_frame(
    int opcode, bytes payload not None, *, mask_key: int | None = None, bint fin=True, bint compressed=False
) -> bytes:
    """One frame; see the pyi."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    cdef bint is_control = opcode >= OP_CLOSE
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t *p
    cdef bytes frame
    cdef int at
    if not (OP_CONTINUATION <= opcode <= OP_BINARY or OP_CLOSE <= opcode <= OP_PONG):
        raise ValueError("unknown opcode")
    if is_control and (size > MAX_CONTROL or not fin or compressed):
        raise ValueError("a control frame must be short, final and uncompressed")
    head[0] = <uint8_t>(opcode | (FIN if fin else 0) | (RSV1 if compressed else 0))
    at = write_length(head, size)
    if mask_key is not None:
        at = write_key(head, at, mask_key)
    frame = PyBytes_FromStringAndSize(NULL, at + size)
    p = <uint8_t *>PyBytes_AS_STRING(frame)
    memcpy(p, head, at)
    if mask_key:
        apply_mask(p + at, <const uint8_t *>PyBytes_AS_STRING(payload), size, head + at - 4, 0)
    else:
        memcpy(p + at, PyBytes_AS_STRING(payload), size)
    return frame


cdef int write_length(uint8_t *head, Py_ssize_t size) noexcept:
    """Size of the head so far."""
    cdef int k, digits = 0 if size < 126 else 2 if size < 1 << 16 else 8
    head[1] = <uint8_t>(size if digits == 0 else 126 if digits == 2 else 127)
    for k in range(digits):
        head[2 + k] = <uint8_t>(<uint64_t>size >> 8 * (digits - 1 - k))
    return 2 + digits


cdef int write_key(uint8_t *head, int at, mask_key) except -1:
    cdef uint32_t key
    cdef int k
    if not 0 <= mask_key < 1 << 32:
        raise ValueError("a masking key has 32 bits")
    key = mask_key
    head[1] |= MASKED
    for k in range(4):
        head[at + k] = <uint8_t>(key >> (24 - 8 * k))
    return at + 4


def build_close(int code, bytes reason not None = b"", *, mask_key: int | None = None) -> bytes:
    """A close frame; see the pyi."""
    if code == NO_STATUS:
        return build_frame(OP_CLOSE, b"", mask_key=mask_key)
    if code == DROP or not 1000 <= code <= 4999:
        raise ValueError("no code to be sent")
    return build_frame(OP_CLOSE, code.to_bytes(2) + reason[:MAX_CONTROL - 2], mask_key=mask_key)


@cython.no_gc
@cython.auto_pickle(False)
cdef class Masks:
    """Masking keys by xorshift32 (Marsaglia, 2003), whose state is never 0."""

    cdef uint32_t state

    def __cinit__(self, object seed not None):
        self.state = <uint32_t>(seed & 0xFFFFFFFF) or 0x9E3779B9

    def next(self) -> int:
        """The next key."""
        self.state ^= self.state << 13
        self.state ^= self.state >> 17
        self.state ^= self.state << 5
        return self.state
