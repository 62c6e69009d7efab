"""How values stand in a record: what reads them, inline for the sibling modules, and the one call that writes them.

Every `get_x` moves `at` behind the value and never reads at `end` or past it; -1 means that the bytes are no such value
(then `at` is anywhere between). Text is handed out where it lies.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum:                          # analytics.schema.Kind
    KIND_TEXT = 1
    KIND_WORD = 2
    KIND_ID = 3
    KIND_U32 = 4
    KIND_U64 = 5
    KIND_I64 = 6
    KIND_SECONDS = 7
    KIND_TEXT_MAP = 8
    KIND_TEXTS_MAP = 9

cdef enum:
    MAX_COLUMNS = 64
    UUID_BYTES = 16
    UUID_CHARS = 36


cdef inline int get_varuint(const uint8_t** at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """LEB128, at most 64 bits. 0, or -1: cut off, or too large."""
    cdef uint64_t found = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at[0] < end:
        byte = at[0][0]
        at[0] += 1
        if shift == 63 and byte > 1:
            return -1
        found |= <uint64_t>(byte & 0x7f) << shift
        if byte < 0x80:
            value[0] = found
            return 0
        shift += 7
        if shift > 63:
            return -1
    return -1


cdef inline int get_u32(const uint8_t** at, const uint8_t* end, uint32_t* value) noexcept nogil:
    """KIND_U32."""
    cdef uint64_t wide = 0
    if get_varuint(at, end, &wide) or wide > 0xffffffffULL:
        return -1
    value[0] = <uint32_t>wide
    return 0


cdef inline int get_i64(const uint8_t** at, const uint8_t* end, int64_t* value) noexcept nogil:
    """KIND_I64: zigzag, small negative numbers are short too."""
    cdef uint64_t wide = 0
    if get_varuint(at, end, &wide):
        return -1
    value[0] = <int64_t>((wide >> 1) ^ (0 - (wide & 1)))
    return 0


cdef inline int get_seconds(const uint8_t** at, const uint8_t* end, uint32_t* value) noexcept nogil:
    """KIND_SECONDS: four bytes, little-endian."""
    if end - at[0] < 4:
        return -1
    memcpy(value, at[0], 4)
    at[0] += 4
    return 0


cdef inline int get_span(const uint8_t** at, const uint8_t* end, uint64_t size, const uint8_t** text) noexcept nogil:
    if size > <uint64_t>(end - at[0]):
        return -1
    text[0] = at[0]
    at[0] += size
    return 0


cdef inline int get_text(
    const uint8_t** at, const uint8_t* end, const uint8_t** text, uint64_t* size
) noexcept nogil:
    """KIND_TEXT, KIND_WORD, and each string in a map: UTF-8 (any bytes where bytes were recorded)."""
    if get_varuint(at, end, size):
        return -1
    return get_span(at, end, size[0], text)


cdef inline int get_id(const uint8_t** at, const uint8_t* end, const uint8_t** text, uint64_t* size) noexcept nogil:
    """KIND_ID. 1: `text` has the 16 bytes of a UUID (`write_uuid` spells them); 0: it is the text itself; -1."""
    if get_varuint(at, end, size):
        return -1
    if size[0] == 0:
        size[0] = UUID_BYTES
        return -1 if get_span(at, end, UUID_BYTES, text) else 1
    size[0] -= 1
    return get_span(at, end, size[0], text)


cdef inline int skip_texts(const uint8_t** at, const uint8_t* end, uint64_t count) noexcept nogil:
    cdef const uint8_t* text = NULL
    cdef uint64_t size = 0
    while count:
        if get_text(at, end, &text, &size):
            return -1
        count -= 1
    return 0


cdef inline int skip_value(int kind, const uint8_t** at, const uint8_t* end) noexcept nogil:
    """Any value of `kind`. Maps: a count, then so many pairs; work is bounded by the bytes there are."""
    cdef const uint8_t* text = NULL
    cdef uint64_t size = 0
    cdef uint64_t pairs = 0
    cdef uint32_t small = 0
    if kind == KIND_TEXT or kind == KIND_WORD:
        return get_text(at, end, &text, &size)
    if kind == KIND_ID:
        return -1 if get_id(at, end, &text, &size) < 0 else 0
    if kind == KIND_U32:
        return get_u32(at, end, &small)
    if kind == KIND_U64 or kind == KIND_I64:
        return get_varuint(at, end, &size)
    if kind == KIND_SECONDS:
        return get_seconds(at, end, &small)
    if get_varuint(at, end, &pairs):
        return -1
    while pairs:
        if get_text(at, end, &text, &size):
            return -1
        size = 1
        if kind == KIND_TEXTS_MAP and get_varuint(at, end, &size):
            return -1
        if skip_texts(at, end, size):
            return -1
        pairs -= 1
    return 0


cdef inline void write_uuid(uint8_t* out, const uint8_t* raw) noexcept nogil:
    """36 characters, lower case."""
    cdef const char* digits = "0123456789abcdef"
    cdef int place
    for place in range(UUID_BYTES):
        if place == 4 or place == 6 or place == 8 or place == 10:
            out[0] = c"-"
            out += 1
        out[0] = <uint8_t>digits[raw[place] >> 4]
        out[1] = <uint8_t>digits[raw[place] & 15]
        out += 2


cdef int read_kinds(object kinds, uint8_t* out) except -1
cdef uint8_t* put_values(
    uint8_t* out, const uint8_t* limit, const uint8_t* kinds, int count, tuple values
) except? NULL
