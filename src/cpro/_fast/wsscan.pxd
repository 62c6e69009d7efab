"""The server's side of a tapped WebSocket: frame boundaries, and which messages are worth reading."""

from libc.stdint cimport int64_t, uint8_t

from cpro._fast.wsframe cimport MAX_CONTROL, MAX_HEAD, Event


cdef class ServerScan:
    cdef uint8_t *message           # payload so far of a message that did not come whole in one piece; else NULL
    cdef Py_ssize_t message_size
    cdef Py_ssize_t message_room
    cdef int64_t limit
    cdef int64_t remaining          # of the payload of the frame under way
    cdef bytes data                 # what is being fed; None between feeds
    cdef Py_ssize_t frame_at        # where in `data` the frame under way begins; 0 if before
    cdef list held_frame            # holding: pieces of the frame under way from earlier feeds
    cdef list held_message          # holding: whole frames of the message under way
    cdef int head_size
    cdef int control_size
    cdef readonly Py_ssize_t boundary
    cdef readonly str fault
    cdef readonly bint holds
    cdef bint protobuf
    cdef bint allow_compressed
    cdef bint in_payload
    cdef bint in_message
    cdef bint compressed
    cdef bint final
    cdef uint8_t opcode
    cdef uint8_t message_opcode
    cdef uint8_t[MAX_HEAD] head
    cdef uint8_t[MAX_CONTROL] control

    cdef int fail(self, str fault) except -1
    # Size of the frame at p when all of it is there and it is a whole, uncompressed message; else 0.
    cdef inline bint is_between(self) noexcept
    cdef Event told_message(self, const uint8_t *p, Py_ssize_t size)
    cdef Py_ssize_t whole_message(self, const uint8_t *p, Py_ssize_t size) noexcept
    cdef Py_ssize_t take_head(self, const uint8_t *p, Py_ssize_t size) except -1
    cdef bint begin_frame(self) except -1
    cdef int take_payload(self, const uint8_t *p, Py_ssize_t size) except -1
    cdef Event end_frame(self, Py_ssize_t end)
    cdef Event end_message(self)
    cdef Event end_control(self)
    cdef bint is_telling(self, const uint8_t *p, Py_ssize_t size) noexcept
    cdef bytes frame_bytes(self, Py_ssize_t end)
    cdef int hold_rest(self, Py_ssize_t size) except -1
    cdef void forget_message(self) noexcept

# A line of JSON, or a Protobuf Reply, pushes a publication, join, leave or message, and is written as Centrifugo does.
cdef bint is_mere_push(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil
cdef bint is_mere_push_message(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil
