"""Walking over JSON without building anything: white space, strings, whole values, plain integers, texts."""

from libc.stdint cimport int64_t, uint8_t

cdef enum:
    MALFORMED_JSON = -1
    TOO_DEEP = -2
    DEPTH_WORDS = 8
    MAX_DEPTH = 512                 # of one value: a bit each

cdef enum:                          # what is in a string beside printable ASCII; bits
    STRING_PLAIN = 0, STRING_ESCAPED = 1, STRING_NOT_ASCII = 2

cdef struct Text:                   # a string between its quotes: offsets into the payload
    int start
    int end
    int how


cdef inline Py_ssize_t skip_space(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    while i < end and p[i] <= c' ' and (p[i] == c' ' or p[i] == c'\n' or p[i] == c'\r' or p[i] == c'\t'):
        i += 1
    return i

# Index behind the closing quote of the string that opens at i, or MALFORMED_JSON. `how` tells what is in it.
cdef Py_ssize_t skip_string(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, int *how) noexcept nogil
# Index behind the value that begins at i, MALFORMED_JSON or TOO_DEEP.
cdef Py_ssize_t skip_value(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil
# Whether `null`, `true` or whatever stands at i; what follows is not looked at.
cdef bint has_literal(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, const char *word, Py_ssize_t size) noexcept nogil
# Index behind the integer at i, MALFORMED_JSON, or TOO_DEEP for more than 18 digits. No fraction, no leading zero.
cdef Py_ssize_t read_int(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, int64_t *value) noexcept nogil
# One character of a string's inside, at *at < end, as a code point; *at moves behind it. U+FFFD for what is none.
cdef int next_rune(const uint8_t *p, Py_ssize_t *at, Py_ssize_t end) noexcept nogil
# The text as Go reads it.
cdef str text_of(const uint8_t *p, const Text *text)
