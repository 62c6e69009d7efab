"""Chunked transfer coding, decoded strictly and byte by byte (RFC 9112 section 7.1).

Layout: `STEP[state][kind of byte]` is the whole grammar of chunk framing; a pair that is absent from the table
is the protocol error. Chunk data is not stepped through but copied in runs.
Ownership: the decoder owns one growing `bytes` (doubling, so decoding is linear) until `take` hands it out.
Every input byte is consumed as it comes, hence nothing has to be buffered or scanned twice.
Extensions and trailers are validated and discarded. Together with leading zeros they may use up one budget
(the head's limit), since a sender could otherwise keep us busy for ever without a byte of body.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1
    PyObject *fresh_bytes "PyBytes_FromStringAndSize" (const char *p, Py_ssize_t size) except NULL


# Kinds of bytes. HEX is a subset of the token characters, kept apart because only it starts a size.
cdef enum:
    CR, LF, WS, HEX, TOKEN, SEMICOLON, EQUALS, QUOTE, BACKSLASH, COLON, VISIBLE, OBS, CTL, KINDS

# Bytes that lead to a state from EXT on are charged to the budget.
cdef enum:
    ERROR, SIZE_START, SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF, END_LF, DONE,
    SIZE_WS, EXT, EXT_NAME, EXT_NAME_WS, EXT_EQUALS, EXT_VALUE, EXT_VALUE_WS, EXT_QUOTED, EXT_ESCAPE, EXT_QUOTED_END,
    TRAILER_NAME, TRAILER_VALUE, STATES

cdef enum:
    MAX_DIGITS = 16                 # what fits in 64 bits
    FIRST_ROOM = 256

cdef uint8_t KIND[256]
cdef uint8_t STEP[STATES][KINDS]


def _kind(byte: int) -> int:
    single = {
        b"\r": CR, b"\n": LF, b" ": WS, b"\t": WS,
        b";": SEMICOLON, b"=": EQUALS, b'"': QUOTE, b"\\": BACKSLASH, b":": COLON,
    }
    char = bytes([byte])
    if char in single:
        return single[char]
    if byte >= 0x80:
        return OBS
    if byte < 0x20 or byte == 0x7F:
        return CTL
    if char in b"0123456789abcdefABCDEF":
        return HEX
    return TOKEN if char.isalnum() or char in b"!#$%&'*+-.^_`|~" else VISIBLE


def _grammar() -> dict:
    token = (HEX, TOKEN)
    quotable = (WS, HEX, TOKEN, SEMICOLON, EQUALS, COLON, VISIBLE, OBS)
    any_value = (*quotable, QUOTE, BACKSLASH)
    return {
        SIZE_START: [((HEX,), SIZE)],
        SIZE: [((HEX,), SIZE), ((WS,), SIZE_WS), ((SEMICOLON,), EXT), ((CR,), SIZE_LF)],
        SIZE_WS: [((WS,), SIZE_WS), ((SEMICOLON,), EXT)],
        EXT: [((WS,), EXT), (token, EXT_NAME)],
        EXT_NAME: [
            (token, EXT_NAME), ((WS,), EXT_NAME_WS), ((EQUALS,), EXT_EQUALS), ((SEMICOLON,), EXT), ((CR,), SIZE_LF),
        ],
        EXT_NAME_WS: [((WS,), EXT_NAME_WS), ((EQUALS,), EXT_EQUALS), ((SEMICOLON,), EXT)],
        EXT_EQUALS: [((WS,), EXT_EQUALS), (token, EXT_VALUE), ((QUOTE,), EXT_QUOTED)],
        EXT_VALUE: [(token, EXT_VALUE), ((WS,), EXT_VALUE_WS), ((SEMICOLON,), EXT), ((CR,), SIZE_LF)],
        EXT_VALUE_WS: [((WS,), EXT_VALUE_WS), ((SEMICOLON,), EXT)],
        EXT_QUOTED: [(quotable, EXT_QUOTED), ((BACKSLASH,), EXT_ESCAPE), ((QUOTE,), EXT_QUOTED_END)],
        EXT_ESCAPE: [(any_value, EXT_QUOTED)],
        EXT_QUOTED_END: [((WS,), EXT_VALUE_WS), ((SEMICOLON,), EXT), ((CR,), SIZE_LF)],
        SIZE_LF: [((LF,), DATA)],                       # TRAILER when the size is 0
        DATA_CR: [((CR,), DATA_LF)],
        DATA_LF: [((LF,), SIZE_START)],
        TRAILER: [((CR,), END_LF), (token, TRAILER_NAME)],
        TRAILER_NAME: [(token, TRAILER_NAME), ((COLON,), TRAILER_VALUE)],
        TRAILER_VALUE: [(any_value, TRAILER_VALUE), ((CR,), TRAILER_LF)],
        TRAILER_LF: [((LF,), TRAILER)],
        END_LF: [((LF,), DONE)],
    }


def _fill_tables():
    for byte in range(256):
        KIND[byte] = _kind(byte)
    for state, edges in _grammar().items():
        for kinds, target in edges:
            for kind in kinds:
                STEP[<int>state][<int>kind] = target


_fill_tables()


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class ChunkDecoder:
    """Decodes one body. `max_body` bounds the decoded size (413), `budget` the rest (431)."""

    def __cinit__(self, Py_ssize_t max_body, Py_ssize_t budget):
        self.max_body = max_body
        self.budget = budget
        self.state = SIZE_START
        self.reason = ""

    def __dealloc__(self):
        Py_XDECREF(self.body)

    cdef bint done(self) noexcept:
        return self.state == DONE

    cdef Py_ssize_t decode(self, const uint8_t *p, Py_ssize_t n) except -1:
        cdef Py_ssize_t i = 0, run
        if n:
            self.begun = True
        while i < n and self.state != DONE:
            if self.state != DATA:
                if not self.framing_byte(p[i]):
                    return i
                i += 1
                continue
            run = n - i
            if <uint64_t>run > self.size:
                run = <Py_ssize_t>self.size
            self.append(p + i, run)
            i += run
            self.size -= <uint64_t>run
            if self.size == 0:
                self.state = DATA_CR
        return i

    cdef bint framing_byte(self, uint8_t c) noexcept:
        """One step of the table; False when the byte is a fault."""
        cdef uint8_t state = STEP[self.state][KIND[c]]
        if state == ERROR:
            return self.fail(400, "malformed chunk framing")
        if self.state == SIZE_LF:
            return self.size_line_end()
        self.state = state
        if state == SIZE:
            return self.size_digit(c)
        if state >= SIZE_WS:
            self.budget -= 1
            if self.budget < 0:
                return self.fail(431, "chunk extensions or trailers are too large")
        return True

    cdef bint size_digit(self, uint8_t c) noexcept:
        cdef uint8_t digit = c - <uint8_t>c'0' if c <= <uint8_t>c'9' else (c | 0x20) - <uint8_t>c'a' + 10
        if digit == 0 and self.size == 0:
            self.budget -= 1
            return self.budget >= 0 or self.fail(431, "chunk size has too many leading zeros")
        self.digits += 1
        if self.digits > MAX_DIGITS:
            return self.fail(400, "chunk size is too large to be real")
        self.size = self.size << 4 | digit
        return True

    cdef bint size_line_end(self) noexcept:
        self.digits = 0
        if self.size > <uint64_t>(self.max_body - self.used):
            return self.fail(413, "body is too large")
        self.state = DATA if self.size else TRAILER
        return True

    cdef bint fail(self, int status, str reason) noexcept:
        self.fault = status
        self.reason = reason
        return False

    cdef int append(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Copies a run of chunk data; room follows what arrived, never what was announced."""
        cdef Py_ssize_t room = PyBytes_GET_SIZE(<object>self.body) if self.body != NULL else 0
        if n > room - self.used:
            room = min(self.max_body, max(2 * (self.used + n), <Py_ssize_t>FIRST_ROOM))
            self.work += self.used
            if self.body == NULL:
                self.body = fresh_bytes(NULL, room)
            else:
                _PyBytes_Resize(&self.body, room)
        memcpy(PyBytes_AS_STRING(<object>self.body) + self.used, p, n)
        self.work += n
        self.used += n
        return 0

    cdef bytes take(self):
        cdef bytes body
        if self.body == NULL:
            return b""
        _PyBytes_Resize(&self.body, self.used)
        body = <bytes>self.body
        Py_XDECREF(self.body)
        self.body = NULL
        return body
