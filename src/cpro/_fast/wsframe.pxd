"""RFC 6455 framing: events, the reader of what clients send, and the writer of frames."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10

cdef enum:
    FIN = 0x80, RSV1 = 0x40, RSV2 = 0x20, RSV3 = 0x10, MASKED = 0x80
    MAX_HEAD = 14
    MAX_CONTROL = 125


cdef class Event:
    cdef readonly bytes payload
    cdef readonly bytes reason
    cdef readonly bytes raw
    cdef readonly Py_ssize_t end
    cdef readonly int opcode
    cdef readonly int code
    cdef readonly bint compressed


cdef class ClientFrames:
    cdef uint8_t *message           # what has come of a message that did not come whole; NULL when idle
    cdef Py_ssize_t message_size
    cdef Py_ssize_t message_room
    cdef int64_t declared           # bytes of the message so far, as its frames' heads say
    cdef int64_t limit
    cdef int64_t remaining          # of the payload of the frame under way
    cdef uint32_t key_at            # how far that payload has got, modulo 4
    cdef int head_size              # bytes in `head`
    cdef int control_size           # bytes in `control`
    cdef readonly int fault_code
    cdef readonly bytes fault_reason
    cdef bint allow_compressed
    cdef bint in_payload
    cdef bint in_message            # a fragment has come, the last one hasn't
    cdef bint closed
    cdef bint compressed
    cdef uint8_t opcode             # of the frame under way
    cdef uint8_t message_opcode
    cdef bint final
    cdef uint8_t[4] key
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t[MAX_CONTROL] control

    cdef int fail(self, int code, bytes reason) except -1
    cdef Py_ssize_t take_head(self, const uint8_t *p, Py_ssize_t size) except -1
    cdef int check_head(self) except -1
    # Takes the complete head. False: the connection has failed.
    cdef bint begin_frame(self) except -1
    cdef int begin_message(self) except -1
    cdef Event whole_message(self, const uint8_t *p, Py_ssize_t size)
    cdef Event message_event(self, bytes payload)
    cdef int take_payload(self, const uint8_t *p, Py_ssize_t size) except -1
    cdef Event end_frame(self)
    cdef Event end_control(self)
    cdef int keep(self, const uint8_t *p, Py_ssize_t size) except -1
    cdef void forget_message(self) noexcept

cdef Event new_event(int opcode, bytes payload)
# Size of the head whose first two bytes are these.
cdef inline int size_of_head(const uint8_t *head) noexcept nogil:
    cdef int length = head[1] & 0x7F
    return 2 + (8 if length == 127 else 2 if length == 126 else 0) + (4 if head[1] & MASKED else 0)

cdef inline uint64_t length_in(const uint8_t *head) noexcept nogil:
    cdef uint64_t length = head[1] & 0x7F
    cdef int k, size = 8 if length == 127 else 2 if length == 126 else 0
    if size:
        length = 0
        for k in range(2, 2 + size):
            length = length << 8 | head[k]
    return length
