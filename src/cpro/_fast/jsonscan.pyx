"""Walking over JSON without building anything, by the rules of the decoder that Centrifugo uses (segmentio/encoding).

Those rules are RFC 8259's, also in what they refuse, with two additions. A literal is found by its first letters: it is
whoever reads on that trips over `nullx`. And what isn't UTF-8 in a string is no fault: each byte of it reads as U+FFFD
(as does half a surrogate pair), while the bytes are passed on as they are.

Nothing is owned here, and nothing allocated but texts. Work is linear; nesting costs a bit per level, on the stack.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp


cdef extern from *:
    """
    #include <string.h>
    #define EACH(b) (0x0101010101010101ULL * (b))
    #define TOP EACH(0x80)
    static inline uint64_t load_le(const uint8_t *p) {
        uint64_t w; memcpy(&w, p, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        w = __builtin_bswap64(w);
    #endif
        return w;
    }
    /* Top bits of bytes that end or interrupt a string's plain run: quote, backslash, control characters. Exact up to
       and including the first one (a borrow only runs upwards). */
    static inline uint64_t stops(uint64_t w) {
        uint64_t quote = w ^ EACH('"'), slash = w ^ EACH('\\\\');
        return ((w - EACH(0x20)) & ~w & TOP) | ((quote - EACH(1)) & ~quote & TOP) | ((slash - EACH(1)) & ~slash & TOP);
    }
    #define first_hit(mask) (__builtin_ctzll(mask) >> 3)
    #define tops(w) ((w) & TOP)
    /* The bytes below the first hit. */
    #define below(mask) (((mask) & -(mask)) - 1)
    """
    uint64_t load_le(const uint8_t *p) nogil
    uint64_t stops(uint64_t w) nogil
    uint64_t tops(uint64_t w) nogil
    uint64_t below(uint64_t mask) nogil
    int first_hit(uint64_t mask) nogil

cdef enum:
    REPLACEMENT = 0xFFFD
    MAX_DIGITS = 18                 # always fits in 63 bits


cdef bint has_literal(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, const char *word, Py_ssize_t size) noexcept nogil:
    return end - i >= size and memcmp(p + i, word, size) == 0


cdef int hex_of(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """The number in four hexadecimal digits, or -1."""
    cdef int value = 0, digit
    cdef Py_ssize_t k
    if end - i < 4:
        return -1
    for k in range(i, i + 4):
        if c'0' <= p[k] <= c'9':
            digit = p[k] - c'0'
        elif c'a' <= (p[k] | 0x20) <= c'f':
            digit = (p[k] | 0x20) - c'a' + 10
        else:
            return -1
        value = value << 4 | digit
    return value


cdef Py_ssize_t skip_string(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, int *how) noexcept nogil:
    cdef uint64_t w, hits
    cdef int found = STRING_PLAIN
    if i >= end or p[i] != c'"':
        return MALFORMED_JSON
    i += 1
    while True:
        while end - i >= 8:
            w = load_le(p + i)
            hits = stops(w)
            if hits == 0:
                if tops(w):
                    found |= STRING_NOT_ASCII
                i += 8
                continue
            if tops(w) & below(hits):
                found |= STRING_NOT_ASCII
            i += first_hit(hits)
            break
        else:
            while i < end and p[i] != c'"' and p[i] != c'\\' and p[i] >= 0x20:
                if p[i] >= 0x80:
                    found |= STRING_NOT_ASCII
                i += 1
        if i >= end or p[i] < 0x20:
            return MALFORMED_JSON
        if p[i] == c'"':
            how[0] = found
            return i + 1
        found |= STRING_ESCAPED
        i = skip_escape(p, i + 1, end)
        if i < 0:
            return MALFORMED_JSON


cdef Py_ssize_t skip_escape(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """Index behind the escape whose backslash stands before i."""
    if i >= end:
        return MALFORMED_JSON
    if p[i] == c'u':
        return i + 5 if hex_of(p, i + 1, end) >= 0 else MALFORMED_JSON
    if p[i] in (c'"', c'\\', c'/', c'n', c'r', c't', c'f', c'b'):
        return i + 1
    return MALFORMED_JSON


cdef Py_ssize_t skip_digits(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    while i < end and c'0' <= p[i] <= c'9':
        i += 1
    return i


cdef Py_ssize_t skip_number(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t first
    if p[i] == c'-':
        i += 1
    first = i
    i = skip_digits(p, i, end)
    if i == first:
        return MALFORMED_JSON
    if p[first] == c'0':
        i = first + 1               # digits behind a zero are for whoever reads on to trip over
    if i < end and p[i] == c'.':
        first = i + 1
        i = skip_digits(p, first, end)
        if i == first:
            return MALFORMED_JSON
    if i < end and (p[i] | 0x20) == c'e':
        i += 1
        if i < end and (p[i] == c'+' or p[i] == c'-'):
            i += 1
        first = i
        i = skip_digits(p, first, end)
        if i == first:
            return MALFORMED_JSON
    return i


cdef Py_ssize_t skip_scalar(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    cdef int how = 0
    cdef uint8_t first = p[i]
    if first == c'"':
        return skip_string(p, i, end, &how)
    if first == c'-' or c'0' <= first <= c'9':
        return skip_number(p, i, end)
    if has_literal(p, i, end, b"null", 4) or has_literal(p, i, end, b"true", 4):
        return i + 4
    if has_literal(p, i, end, b"false", 5):
        return i + 5
    return MALFORMED_JSON


cdef Py_ssize_t skip_key(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    """Index of the value that belongs to the key at i."""
    cdef int how = 0
    i = skip_string(p, i, end, &how)
    if i < 0:
        return MALFORMED_JSON
    i = skip_space(p, i, end)
    if i == end or p[i] != c':':
        return MALFORMED_JSON
    return skip_space(p, i + 1, end)


cdef Py_ssize_t skip_value(const uint8_t *p, Py_ssize_t i, Py_ssize_t end) noexcept nogil:
    cdef uint64_t[DEPTH_WORDS] is_object
    cdef uint32_t depth = 0
    cdef uint8_t opening
    cdef bint inside_object
    while True:
        if i >= end:
            return MALFORMED_JSON
        opening = p[i]
        if opening == c'{' or opening == c'[':
            i = skip_space(p, i + 1, end)
            if i == end:
                return MALFORMED_JSON
            if p[i] == opening + 2:             # } and ] stand two behind { and [ in ASCII
                i += 1
            elif depth == MAX_DEPTH:
                return TOO_DEEP
            else:
                if opening == c'{':
                    is_object[depth >> 6] |= <uint64_t>1 << (depth & 63)
                    i = skip_key(p, i, end)
                    if i < 0:
                        return MALFORMED_JSON
                else:
                    is_object[depth >> 6] &= ~(<uint64_t>1 << (depth & 63))
                depth += 1
                continue
        else:
            i = skip_scalar(p, i, end)
            if i < 0:
                return MALFORMED_JSON
        while True:                             # a value ends at i: close what ends with it
            if depth == 0:
                return i
            i = skip_space(p, i, end)
            if i == end:
                return MALFORMED_JSON
            inside_object = (is_object[(depth - 1) >> 6] >> ((depth - 1) & 63)) & 1
            if p[i] == c',':
                i = skip_space(p, i + 1, end)
                if inside_object:
                    i = skip_key(p, i, end)
                    if i < 0:
                        return MALFORMED_JSON
                break
            if p[i] != (c'}' if inside_object else c']'):
                return MALFORMED_JSON
            i += 1
            depth -= 1


cdef Py_ssize_t read_int(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, int64_t *value) noexcept nogil:
    cdef bint negative = i < end and p[i] == c'-'
    cdef int64_t number = 0
    cdef Py_ssize_t first = i + negative, k
    i = skip_digits(p, first, end)
    if i == first or (p[first] == c'0' and i - first > 1):
        return MALFORMED_JSON
    if i < end and (p[i] == c'.' or (p[i] | 0x20) == c'e'):
        return MALFORMED_JSON
    if i - first > MAX_DIGITS:
        return TOO_DEEP
    for k in range(first, i):
        number = number * 10 + (p[k] - c'0')
    value[0] = -number if negative else number
    return i


cdef int next_rune(const uint8_t *p, Py_ssize_t *at, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t i = at[0]
    cdef int high, low
    if p[i] < 0x80 and p[i] != c'\\':
        at[0] = i + 1
        return p[i]
    if p[i] != c'\\':
        return next_utf8(p, at, end)
    at[0] = i + 2
    if p[i + 1] != c'u':
        return unescaped(p[i + 1])
    at[0] = i + 6
    high = hex_of(p, i + 2, end)
    if not 0xD800 <= high <= 0xDFFF:
        return high
    if high < 0xDC00 and end - i >= 12 and p[i + 6] == c'\\' and p[i + 7] == c'u':
        low = hex_of(p, i + 8, end)
        if 0xDC00 <= low <= 0xDFFF:
            at[0] = i + 12
            return 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00))
    return REPLACEMENT


cdef int unescaped(uint8_t c) noexcept nogil:
    if c == c'n':
        return c'\n'
    if c == c'r':
        return c'\r'
    if c == c't':
        return c'\t'
    if c == c'b':
        return 8
    if c == c'f':
        return 12
    return c


cdef int next_utf8(const uint8_t *p, Py_ssize_t *at, Py_ssize_t end) noexcept nogil:
    """RFC 3629; a byte that is no part of it counts alone, as in Go."""
    cdef Py_ssize_t i = at[0], size, k
    cdef int rune
    cdef uint8_t lead = p[i]
    at[0] = i + 1
    if 0xC2 <= lead <= 0xDF:
        size, rune = 2, lead & 0x1F
    elif 0xE0 <= lead <= 0xEF:
        size, rune = 3, lead & 0x0F
    elif 0xF0 <= lead <= 0xF4:
        size, rune = 4, lead & 0x07
    else:
        return REPLACEMENT
    if end - i < size:
        return REPLACEMENT
    for k in range(i + 1, i + size):
        if p[k] & 0xC0 != 0x80:
            return REPLACEMENT
        rune = rune << 6 | (p[k] & 0x3F)
    if (size == 3 and (rune < 0x800 or 0xD800 <= rune <= 0xDFFF)) or (size == 4 and not 0x10000 <= rune <= 0x10FFFF):
        return REPLACEMENT
    at[0] = i + size
    return rune


cdef str text_of(const uint8_t *p, const Text *text):
    cdef Py_ssize_t at = text.start
    cdef list runes
    if text.how == STRING_PLAIN:
        return PyUnicode_DecodeASCII(<const char *>p + text.start, text.end - text.start, NULL)
    if text.how == STRING_NOT_ASCII:
        try:
            return PyUnicode_DecodeUTF8(<const char *>p + text.start, text.end - text.start, NULL)
        except UnicodeDecodeError:
            pass                    # Python and Go replace what is wrong by different numbers of U+FFFD
    runes = []
    while at < text.end:
        runes.append(chr(next_rune(p, &at, text.end)))
    return "".join(runes)
