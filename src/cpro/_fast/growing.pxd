"""A buffer that grows: malloc'd bytes, doubled when full. Whoever holds one calls `release` on it in the end."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef struct Buffer:
    uint8_t* at
    size_t used
    size_t room


cdef inline int grow(Buffer* buffer, size_t more) noexcept nogil:
    cdef size_t least = 256
    cdef size_t room = max(buffer.room * 2, buffer.used + more, least)
    cdef void* at = realloc(buffer.at, room)
    if at == NULL:
        return -1
    buffer.at, buffer.room = <uint8_t*>at, room
    return 0


cdef inline int reserve(Buffer* buffer, size_t more) noexcept nogil:
    """Room for `more` bytes after `used`; -1: no memory, and the buffer is as it was."""
    if buffer.room - buffer.used >= more:
        return 0
    return grow(buffer, more)


cdef inline int append(Buffer* buffer, const void* data, size_t length) noexcept nogil:
    """-1: no memory."""
    if reserve(buffer, length) < 0:
        return -1
    memcpy(buffer.at + buffer.used, data, length)
    buffer.used += length
    return 0


cdef inline void release(Buffer* buffer) noexcept nogil:
    free(buffer.at)
    buffer.at, buffer.used, buffer.room = NULL, 0, 0


cdef inline int append_varuint(Buffer* buffer, uint64_t value) noexcept nogil:
    """LEB128. -1: no memory."""
    if reserve(buffer, 10) < 0:
        return -1
    buffer.used = put_varuint(buffer.at + buffer.used, value) - buffer.at
    return 0


cdef inline int append_text(Buffer* buffer, const uint8_t* text, uint64_t size) noexcept nogil:
    """A string as ClickHouse's Native format has it: its length, then its bytes. -1: no memory."""
    cdef uint8_t* to
    if reserve(buffer, size + 10) < 0:
        return -1
    to = put_varuint(buffer.at + buffer.used, size)
    memcpy(to, text, size)
    buffer.used = to + size - buffer.at
    return 0


cdef inline uint8_t* put_varuint(uint8_t* to, uint64_t value) noexcept nogil:
    while value > 127:
        to[0] = <uint8_t>(value | 128)
        value >>= 7
        to += 1
    to[0] = <uint8_t>value
    return to + 1
