"""Values of a row to bytes, and back: the formats of `analytics.schema.Kind`.

    TEXT, WORD   varuint size | bytes                        str is written as UTF-8, a lone surrogate as U+FFFD
    ID           varuint 0 | 16 bytes                        for the canonical text of a UUID, in lower case
                 varuint size + 1 | bytes                    for any other
    U32, U64     varuint                                     LEB128
    I64          varuint of the zigzag
    SECONDS      4 bytes, little-endian
    TEXT_MAP     varuint n | n × (text, text)
    TEXTS_MAP    varuint n | n × (text | varuint m | m × text)

No state. Writing calls no Python code and allocates nothing, so nobody else runs between the first byte and the last.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Check, PyDict_Next, PyDict_Size
from cpython.list cimport PyList_Check
from cpython.long cimport PyLong_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8


cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    int PyUnicode_KIND(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    uint32_t PyUnicode_READ(int kind, const void* data, Py_ssize_t place) noexcept nogil
    Py_ssize_t PySequence_Fast_GET_SIZE(object items) noexcept
    PyObject* PySequence_Fast_GET_ITEM(object items, Py_ssize_t place) noexcept

cdef enum:
    VARUINT_BYTES = 10              # the longest
    NONE = 0xff                     # no digit
    FIRST_GUESS = 4096
    LARGEST = 1 << 30

cdef struct Out:
    uint8_t* at
    const uint8_t* limit

cdef uint8_t[256] digit_of
for _place in range(256):
    digit_of[_place] = "0123456789abcdef".index(chr(_place)) if chr(_place) in "0123456789abcdef" else NONE


cdef int read_kinds(object kinds, uint8_t* out) except -1:
    """Check kinds into an array of MAX_COLUMNS; returns how many."""
    cdef int count = 0
    if len(kinds) > MAX_COLUMNS:
        raise ValueError(f"a table has at most {MAX_COLUMNS} columns")
    for kind in kinds:
        if not KIND_TEXT <= kind <= KIND_TEXTS_MAP:
            raise ValueError(f"there is no kind {kind}")
        out[count] = kind
        count += 1
    return count


cdef uint8_t* put_values(
    uint8_t* out, const uint8_t* limit, const uint8_t* kinds, int count, tuple values
) except? NULL:
    """Write the values at `out`; returns where they end. NULL without an exception: not enough room before `limit`.

    A value of the wrong type raises TypeError, a number out of its range OverflowError."""
    cdef Out target
    cdef int place, full
    target.at, target.limit = out, limit
    if values is None or PyTuple_GET_SIZE(values) != count:
        raise TypeError(f"this table has {count} columns")
    for place in range(count):
        full = put_value(&target, kinds[place], <object>PyTuple_GET_ITEM(values, place))
        if full:
            return NULL
    return target.at


# Every put_x returns 0, or 1 when there may be no room; a few bytes at the limit stay unused, for one cheap check.


cdef inline int put_value(Out* out, int kind, object value) except -1:
    if kind == KIND_TEXT or kind == KIND_WORD:
        return put_text(out, value, 0)
    if kind == KIND_ID:
        return put_id(out, value)
    if kind == KIND_TEXT_MAP or kind == KIND_TEXTS_MAP:
        return put_map(out, kind == KIND_TEXTS_MAP, value)
    return put_number(out, kind, value)


cdef inline int put_varuint(Out* out, uint64_t value) noexcept nogil:
    if out.limit - out.at < VARUINT_BYTES:
        return 1
    while value >= 0x80:
        out.at[0] = <uint8_t>value | 0x80
        out.at += 1
        value >>= 7
    out.at[0] = <uint8_t>value
    out.at += 1
    return 0


cdef inline int put_number(Out* out, int kind, object value) except -1:
    cdef int64_t signed
    cdef uint32_t seconds
    if not PyLong_Check(value):
        raise TypeError(f"an int is wanted, not {type(value).__name__}")
    if kind == KIND_U32:
        return put_varuint(out, <uint32_t>value)
    if kind == KIND_U64:
        return put_varuint(out, <uint64_t>value)
    if kind == KIND_I64:
        signed = value
        return put_varuint(out, (<uint64_t>signed << 1) ^ <uint64_t>(signed >> 63))
    seconds = value
    if out.limit - out.at < 4:
        return 1
    memcpy(out.at, &seconds, 4)
    out.at += 4
    return 0


cdef inline int put_span(Out* out, const void* data, uint64_t size, int more) noexcept nogil:
    """Size and bytes; `more` is added to the size that is written."""
    if <uint64_t>(out.limit - out.at) < size + VARUINT_BYTES:
        return 1
    put_varuint(out, size + more)
    memcpy(out.at, data, size)
    out.at += size
    return 0


cdef inline int put_text(Out* out, object value, int more) except -1:
    if PyUnicode_Check(value):
        if PyUnicode_IS_COMPACT_ASCII(value):
            return put_span(out, PyUnicode_DATA(value), <uint64_t>PyUnicode_GET_LENGTH(value), more)
        return put_unicode(out, value, more)
    if PyBytes_Check(value):
        return put_span(out, PyBytes_AS_STRING(value), <uint64_t>PyBytes_GET_SIZE(value), more)
    raise TypeError(f"str or bytes are wanted, not {type(value).__name__}")


cdef int put_unicode(Out* out, object value, int more) noexcept:
    """UTF-8 straight from the string's own characters: no object, no copy kept with the string."""
    cdef int kind = PyUnicode_KIND(value)
    cdef const void* data = PyUnicode_DATA(value)
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(value)
    cdef Py_ssize_t place
    cdef uint64_t size = <uint64_t>length
    cdef uint32_t point
    for place in range(length):
        point = PyUnicode_READ(kind, data, place)
        size += (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)
    if <uint64_t>(out.limit - out.at) < size + VARUINT_BYTES:
        return 1
    put_varuint(out, size + more)
    for place in range(length):
        out.at = put_point(out.at, PyUnicode_READ(kind, data, place))
    return 0


cdef inline uint8_t* put_point(uint8_t* at, uint32_t point) noexcept nogil:
    if point < 0x80:
        at[0] = <uint8_t>point
        return at + 1
    if point < 0x800:
        at[0] = <uint8_t>(0xc0 | point >> 6)
        at[1] = <uint8_t>(0x80 | (point & 0x3f))
        return at + 2
    if 0xd800 <= point < 0xe000:
        point = 0xfffd
    if point < 0x10000:
        at[0] = <uint8_t>(0xe0 | point >> 12)
        at[1] = <uint8_t>(0x80 | (point >> 6 & 0x3f))
        at[2] = <uint8_t>(0x80 | (point & 0x3f))
        return at + 3
    at[0] = <uint8_t>(0xf0 | point >> 18)
    at[1] = <uint8_t>(0x80 | (point >> 12 & 0x3f))
    at[2] = <uint8_t>(0x80 | (point >> 6 & 0x3f))
    at[3] = <uint8_t>(0x80 | (point & 0x3f))
    return at + 4


cdef inline int put_id(Out* out, object value) except -1:
    cdef const uint8_t* text = NULL
    if PyUnicode_Check(value):
        if PyUnicode_IS_COMPACT_ASCII(value) and PyUnicode_GET_LENGTH(value) == UUID_CHARS:
            text = <const uint8_t*>PyUnicode_DATA(value)
    elif PyBytes_Check(value) and PyBytes_GET_SIZE(value) == UUID_CHARS:
        text = <const uint8_t*>PyBytes_AS_STRING(value)
    if text != NULL:
        if out.limit - out.at < 1 + UUID_BYTES:
            return 1
        if read_uuid(text, out.at + 1):
            out.at[0] = 0
            out.at += 1 + UUID_BYTES
            return 0
    return put_text(out, value, 1)


cdef inline bint read_uuid(const uint8_t* text, uint8_t* raw) noexcept nogil:
    """16 bytes at `raw`; False (and anything there) unless all 36 characters are those of `write_uuid`."""
    cdef uint8_t high, low
    cdef uint8_t wrong = 0
    cdef int place
    for place in range(UUID_BYTES):
        if place == 4 or place == 6 or place == 8 or place == 10:
            wrong |= text[0] ^ <uint8_t>c"-"
            text += 1
        high, low = digit_of[text[0]], digit_of[text[1]]
        wrong |= (high | low) & 0xf0
        raw[place] = <uint8_t>(high << 4 | low)
        text += 2
    return wrong == 0


cdef int put_map(Out* out, bint of_lists, object value) except -1:
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef Py_ssize_t place = 0
    if not PyDict_Check(value):
        raise TypeError(f"a dict is wanted, not {type(value).__name__}")
    if put_varuint(out, <uint64_t>PyDict_Size(value)):
        return 1
    while PyDict_Next(value, &place, &key, &item):
        if put_text(out, <object>key, 0):
            return 1
        if of_lists:
            if put_list(out, <object>item):
                return 1
        elif put_text(out, <object>item, 0):
            return 1
    return 0


cdef int put_list(Out* out, object items) except -1:
    cdef Py_ssize_t place
    if not (PyList_Check(items) or PyTuple_Check(items)):
        raise TypeError(f"a list of str is wanted, not {type(items).__name__}")
    if put_varuint(out, <uint64_t>PySequence_Fast_GET_SIZE(items)):
        return 1
    for place in range(PySequence_Fast_GET_SIZE(items)):
        if put_text(out, <object>PySequence_Fast_GET_ITEM(items, place), 0):
            return 1
    return 0


def encode(kinds, tuple values not None):
    """The values as they stand in a record, for tests and tools."""
    cdef uint8_t[MAX_COLUMNS] own
    cdef uint8_t* end
    cdef int count = read_kinds(kinds, own)
    cdef Py_ssize_t room = FIRST_GUESS
    while room <= LARGEST:
        data = PyBytes_FromStringAndSize(NULL, room)
        end = put_values(<uint8_t*>PyBytes_AS_STRING(data), <uint8_t*>PyBytes_AS_STRING(data) + room, own, count, values)
        if end != NULL:
            return data[:end - <uint8_t*>PyBytes_AS_STRING(data)]
        room *= 8
    raise OverflowError("a row of more than 1 GiB")


def decode(kinds, bytes data not None):
    """What was encoded: text as str, whatever it was recorded from. ValueError: these are no such values."""
    cdef uint8_t[MAX_COLUMNS] own
    cdef int count = read_kinds(kinds, own)
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef const uint8_t* end = at + PyBytes_GET_SIZE(data)
    values = [take_value(&at, end, own[place]) for place in range(count)]
    if at != end:
        raise ValueError("more bytes than values")
    return tuple(values)


cdef object take_value(const uint8_t** at, const uint8_t* end, int kind):
    cdef uint32_t small = 0
    cdef uint64_t wide = 0
    cdef int64_t signed = 0
    if kind == KIND_TEXT or kind == KIND_WORD:
        return take_text(at, end)
    if kind == KIND_ID:
        return take_id(at, end)
    if kind == KIND_TEXT_MAP or kind == KIND_TEXTS_MAP:
        return take_map(at, end, kind == KIND_TEXTS_MAP)
    if kind == KIND_I64:
        check(get_i64(at, end, &signed))
        return signed
    if kind == KIND_U64:
        check(get_varuint(at, end, &wide))
        return wide
    check(get_seconds(at, end, &small) if kind == KIND_SECONDS else get_u32(at, end, &small))
    return small


cdef inline int check(int fault) except -1:
    if fault < 0:
        raise ValueError("cut off, or no such value")
    return 0


cdef object take_text(const uint8_t** at, const uint8_t* end):
    cdef const uint8_t* text = NULL
    cdef uint64_t size = 0
    check(get_text(at, end, &text, &size))
    return PyUnicode_DecodeUTF8(<const char*>text, <Py_ssize_t>size, "replace")


cdef object take_id(const uint8_t** at, const uint8_t* end):
    cdef const uint8_t* text = NULL
    cdef uint64_t size = 0
    cdef uint8_t[UUID_CHARS] spelled
    cdef int is_uuid = get_id(at, end, &text, &size)
    check(is_uuid)
    if is_uuid:
        write_uuid(spelled, text)
        return PyUnicode_DecodeUTF8(<const char*>spelled, UUID_CHARS, NULL)
    return PyUnicode_DecodeUTF8(<const char*>text, <Py_ssize_t>size, "replace")


cdef object take_map(const uint8_t** at, const uint8_t* end, bint of_lists):
    cdef uint64_t pairs = 0
    check(get_varuint(at, end, &pairs))
    found = {}
    while pairs:
        key = take_text(at, end)
        found[key] = take_list(at, end) if of_lists else take_text(at, end)
        pairs -= 1
    return found


cdef object take_list(const uint8_t** at, const uint8_t* end):
    cdef uint64_t count = 0
    check(get_varuint(at, end, &count))
    found = []
    while count:
        found.append(take_text(at, end))
        count -= 1
    return found
