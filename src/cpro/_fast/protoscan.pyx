"""Walking over Protobuf without building anything, by the rules of Go's generated code (vtprotobuf).

They are those of the encoding, taken as far as C would: a field's number is cut to 32 bits, a varint to its type's,
and bytes are not checked to be UTF-8. Groups are skipped. Nothing is owned here; work is linear.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef enum:
    MAX_VARINT_BYTES = 10
    WIRE_FIXED64 = 1, WIRE_GROUP = 3, WIRE_GROUP_END = 4, WIRE_FIXED32 = 5


cdef Py_ssize_t read_varint(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, uint64_t *value) noexcept nogil:
    cdef uint64_t number = 0
    cdef Py_ssize_t k, stop = min(end, i + MAX_VARINT_BYTES)
    cdef int shift = 0
    for k in range(i, stop):
        number |= <uint64_t>(p[k] & 0x7F) << shift
        shift += 7
        if p[k] < 0x80:
            value[0] = number
            return k + 1
    return MALFORMED_PROTO


cdef Py_ssize_t read_length(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, uint64_t *value) noexcept nogil:
    cdef Py_ssize_t after = read_varint(p, i, end, value)
    if after - i == MAX_VARINT_BYTES and p[after - 1] > 1:
        return MALFORMED_PROTO
    return after


cdef Py_ssize_t read_field(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, Field *field) noexcept nogil:
    cdef uint64_t tag = 0
    field.at = i
    i = read_varint(p, i, end, &tag)
    if i < 0:
        return MALFORMED_PROTO
    field.number = <int32_t>(tag >> 3)
    field.wire = tag & 7
    field.value = 0
    if field.number <= 0 or field.wire == WIRE_GROUP_END:
        return MALFORMED_PROTO
    if field.wire == WIRE_GROUP:
        i = skip_group(p, i, end)
    else:
        i = read_content(p, i, end, field)
    field.end = i
    return i


cdef Py_ssize_t read_content(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, Field *field) noexcept nogil:
    cdef uint64_t size = 0
    if field.wire == WIRE_VARINT:
        return read_varint(p, i, end, &field.value)
    if field.wire == WIRE_FIXED64:
        size = 8
    elif field.wire == WIRE_FIXED32:
        size = 4
    elif field.wire == WIRE_BYTES:
        i = read_varint(p, i, end, &size)
        if i < 0:
            return MALFORMED_PROTO
    else:
        return MALFORMED_PROTO
    if size > <uint64_t>(end - i):
        return MALFORMED_PROTO
    field.start = i
    return i + <Py_ssize_t>size


cdef Py_ssize_t skip_group(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """Index behind the group whose tag ends before i. Which group an end belongs to is not checked, as in Go."""
    cdef Py_ssize_t depth = 1
    cdef uint64_t tag = 0
    cdef Field inner
    while depth:
        i = read_varint(p, i, end, &tag)
        if i < 0:
            return MALFORMED_PROTO
        inner.wire = tag & 7
        if inner.wire == WIRE_GROUP:
            depth += 1
        elif inner.wire == WIRE_GROUP_END:
            depth -= 1
        else:
            i = read_content(p, i, end, &inner)
            if i < 0:
                return MALFORMED_PROTO
    return i


cdef bytes varint(uint64_t value):
    cdef uint8_t[MAX_VARINT_BYTES] digits
    cdef int size = 0
    while value >= 0x80:
        digits[size] = <uint8_t>(value | 0x80)
        value >>= 7
        size += 1
    digits[size] = <uint8_t>value
    return PyBytes_FromStringAndSize(<const char *>digits, size + 1)


cdef bytes bytes_field(int number, bytes inside):
    return varint(<uint64_t>number << 3 | WIRE_BYTES) + varint(PyBytes_GET_SIZE(inside)) + inside


cdef bytes delimited(bytes message):
    return varint(PyBytes_GET_SIZE(message)) + message
