"""The decoder of one chunked body; see the .pyx for who owns what."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t


cdef class ChunkDecoder:
    cdef PyObject *body             # ours alone until `take`: a bytes object with spare room behind `used`
    cdef Py_ssize_t used            # decoded bytes
    cdef Py_ssize_t max_body
    cdef Py_ssize_t budget          # bytes of extensions, leading zeros and trailers still tolerated
    cdef uint64_t size              # while in a size line: its value; in DATA: bytes of the chunk still to come
    cdef uint8_t digits             # significant digits seen in this size line
    cdef uint8_t state
    cdef bint begun                 # at least one byte was decoded
    cdef int fault                  # HTTP status of the fault that stopped us, or 0
    cdef str reason
    cdef Py_ssize_t work            # bytes copied, for the tests of linearity

    # Decodes from p; returns how many bytes belong to this message. Look at `fault` and `done()` after.
    cdef Py_ssize_t decode(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef bint done(self) noexcept
    # The decoded body, once; the decoder is empty afterwards.
    cdef bytes take(self)

    cdef bint framing_byte(self, uint8_t c) noexcept
    cdef bint size_digit(self, uint8_t c) noexcept
    cdef bint size_line_end(self) noexcept
    cdef bint fail(self, int status, str reason) noexcept
    cdef int append(self, const uint8_t *p, Py_ssize_t n) except -1
