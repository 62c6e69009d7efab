"""Walking over Protobuf: varints, lengths, fields."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    MALFORMED_PROTO = -1

cdef enum:
    WIRE_VARINT = 0, WIRE_BYTES = 2

cdef struct Field:
    int number
    int wire
    uint64_t value                  # of a varint
    Py_ssize_t at                   # where its tag begins
    Py_ssize_t start                # of bytes: what is inside, from start to end
    Py_ssize_t end                  # index behind the field, whatever it is

# Index behind the varint at i, or MALFORMED_PROTO. Bits beyond 64 are lost, as they are in Go's generated code.
cdef Py_ssize_t read_varint(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, uint64_t *value) noexcept nogil
# The same for the length before a message, where bits beyond 64 are a fault.
cdef Py_ssize_t read_length(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, uint64_t *value) noexcept nogil
# Fills in the field at i < end; index behind it, or MALFORMED_PROTO.
cdef Py_ssize_t read_field(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, Field *field) noexcept nogil
# A varint as bytes; a field of bytes; the whole with its length in front.
cdef bytes varint(uint64_t value)
cdef bytes bytes_field(int number, bytes inside)
cdef bytes delimited(bytes message)
