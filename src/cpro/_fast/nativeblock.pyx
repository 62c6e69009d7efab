"""Reads the blocks that `columns` builds, for sinks other than ClickHouse: a column as Python values or Arrow buffers.

A block is parsed once, into the places of its columns; nothing is copied until a column is asked for. Every length is
checked against the bytes there are (ValueError), for blocks come back from files, too. Only the types of analytics'
tables are known; text that is no UTF-8 is replaced where it becomes str, and left as it is in buffers.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cpro._fast.rows cimport get_text, get_varuint

cdef enum:
    MOST_BYTES = 0x7fffffff         # Arrow's offsets are 32 bits wide

cdef enum Shape:
    STRING
    WORD
    FOUR_BYTES
    EIGHT_BYTES
    EIGHT_BYTES_SIGNED
    MAP_OF_STRINGS
    MAP_OF_LISTS

SHAPES = {
    "String": STRING,
    "LowCardinality(String)": WORD,
    "UInt32": FOUR_BYTES,
    "DateTime": FOUR_BYTES,
    "UInt64": EIGHT_BYTES,
    "Int64": EIGHT_BYTES_SIGNED,
    "Map(String, String)": MAP_OF_STRINGS,
    "Map(String, Array(String))": MAP_OF_LISTS,
}


cdef inline uint64_t u64_at(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline int64_t i64_at(const uint8_t* at) noexcept nogil:
    return <int64_t>u64_at(at)


cdef inline uint32_t u32_at(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef class NativeBlock:
    """`rows`; `columns`: name -> type."""

    cdef readonly size_t rows
    cdef readonly dict columns
    cdef bytes data
    cdef const uint8_t* start
    cdef const uint8_t* end
    cdef dict places                # name -> (shape, offsets of its parts, counts of nested ones)

    def __cinit__(self, bytes data not None):
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(data)
        cdef uint64_t width, rows
        if PyBytes_GET_SIZE(data) > MOST_BYTES:
            raise ValueError("a block of 2 GiB or more")
        self.data, self.start, self.end = data, at, at + PyBytes_GET_SIZE(data)
        self.columns, self.places = {}, {}
        if not PyBytes_GET_SIZE(data):
            return
        if get_varuint(&at, self.end, &width) < 0 or get_varuint(&at, self.end, &rows) < 0:
            raise ValueError("not a block")
        self.rows = rows
        for _ in range(width):
            self._place(&at)
        if at != self.end:
            raise ValueError("a block with something behind it")

    cdef int _place(self, const uint8_t** at) except -1:
        cdef str name = self._text(at)
        cdef str type_ = self._text(at)
        if type_ not in SHAPES or name in self.places:
            raise ValueError("not a block of analytics")
        self.columns[name] = type_
        self.places[name] = self._parts(SHAPES[type_], at)
        return 0

    cdef tuple _parts(self, int shape, const uint8_t** at):
        """Moves behind the column."""
        cdef size_t first = at[0] - self.start
        cdef size_t pairs, items, second, third
        if shape == WORD:
            return self._word_parts(at)
        if shape == STRING:
            self._skip_strings(at, self.rows)
            return shape, first
        if shape == FOUR_BYTES or shape == EIGHT_BYTES or shape == EIGHT_BYTES_SIGNED:
            self._skip(at, self.rows, 4 if shape == FOUR_BYTES else 8)
            return shape, first
        pairs = items = self._skip_ends(at, self.rows)
        second = at[0] - self.start
        self._skip_strings(at, pairs)
        third = at[0] - self.start
        if shape == MAP_OF_LISTS:
            items = self._skip_ends(at, pairs)
        self._skip_strings(at, items)
        return shape, first, second, pairs, third, items

    cdef tuple _word_parts(self, const uint8_t** at):
        cdef size_t texts, count, keys
        cdef uint64_t flags
        self._skip(at, 3, 8)
        flags, count = u64_at(at[0] - 16), u64_at(at[0] - 8)
        texts = at[0] - self.start
        self._skip_strings(at, count)
        self._skip(at, 1, 8)
        keys = at[0] - self.start
        if u64_at(at[0] - 8) != self.rows or flags & ~3ULL != 0x600 or flags & 3 == 3:
            raise ValueError("not a dictionary of analytics")
        self._skip(at, self.rows, 1 << (flags & 3))
        return WORD, keys, 1 << (flags & 3), texts, count

    cdef int _skip(self, const uint8_t** at, uint64_t count, uint64_t width) except -1:
        if count > <uint64_t>(self.end - at[0]) // width:
            raise ValueError("a block that is cut off")
        at[0] += count * width
        return 0

    cdef int _skip_strings(self, const uint8_t** at, uint64_t count) except -1:
        cdef const uint8_t* text
        cdef uint64_t size
        for _ in range(count):
            if get_text(at, self.end, &text, &size) < 0:
                raise ValueError("a block that is cut off")
        return 0

    cdef size_t _skip_ends(self, const uint8_t** at, uint64_t count) except? 0:
        """Cumulative end offsets; returns the last one."""
        cdef uint64_t before = 0, following
        cdef uint64_t place
        cdef const uint8_t* from_ = at[0]
        self._skip(at, count, 8)
        for place in range(count):
            following = u64_at(from_ + 8 * place)
            if following < before or following > MOST_BYTES:
                raise ValueError("offsets that do not rise")
            before = following
        return before

    cdef str _text(self, const uint8_t** at):
        cdef const uint8_t* text
        cdef uint64_t size
        if get_text(at, self.end, &text, &size) < 0:
            raise ValueError("a block that is cut off")
        return PyUnicode_DecodeUTF8(<const char*>text, size, "replace")

    cdef list _strings(self, size_t offset, size_t count):
        cdef const uint8_t* at = self.start + offset
        return [self._text(&at) for _ in range(count)]

    cdef list _numbers(self, int shape, size_t offset):
        cdef const uint8_t* at = self.start + offset
        if shape == FOUR_BYTES:
            return [u32_at(at + 4 * row) for row in range(self.rows)]
        if shape == EIGHT_BYTES:
            return [u64_at(at + 8 * row) for row in range(self.rows)]
        return [i64_at(at + 8 * row) for row in range(self.rows)]

    cdef list _cut(self, list values, size_t offset, size_t count):
        """`values` in `count` lists that end where the offsets say."""
        cdef size_t before = 0, following, place
        cdef list found = []
        for place in range(count):
            following = u64_at(self.start + offset + 8 * place)
            found.append(values[before:following])
            before = following
        return found

    cdef inline uint32_t _key(self, size_t offset, int width, size_t row, uint32_t count) except? 0:
        cdef uint32_t key = 0
        memcpy(&key, self.start + offset + row * width, width)
        if key >= count:
            raise ValueError("a word that is not in the dictionary")
        return key

    cdef list _words(self, size_t offset, int width, size_t texts, size_t count):
        cdef list words = self._strings(texts, count)
        return [words[self._key(offset, width, row, count)] for row in range(self.rows)]

    def values(self, str name not None) -> list:
        """str, int (DateTime: seconds since 1970), or dict, one for each row. KeyError for no such column."""
        cdef int shape = self.places[name][0]
        _, first, *more = self.places[name]
        if shape == STRING:
            return self._strings(first, self.rows)
        if shape == WORD:
            return self._words(first, more[0], more[1], more[2])
        if shape != MAP_OF_STRINGS and shape != MAP_OF_LISTS:
            return self._numbers(shape, first)
        second, pairs, third, items = more
        keys = self._strings(second, pairs)
        if shape == MAP_OF_STRINGS:
            values = self._strings(third, items)
        else:
            values = self._cut(self._strings(third + 8 * pairs, items), third, pairs)
        return [dict(some) for some in self._cut(list(zip(keys, values)), first, self.rows)]

    def buffers(self, str name not None) -> tuple:
        """As Arrow lays them out, offsets being i32 that start with 0, and one more than values.

        String: offsets, bytes. LowCardinality: i32 keys, offsets, bytes of the dictionary. Numbers: themselves.
        Maps: offsets; offsets and bytes of keys; for lists their offsets; offsets and bytes of values."""
        cdef int shape = self.places[name][0]
        _, first, *more = self.places[name]
        if shape == STRING:
            return self._string_buffers(first, self.rows)
        if shape == WORD:
            return (self._keys(first, more[0], more[2]), *self._string_buffers(more[1], more[2]))
        if shape != MAP_OF_STRINGS and shape != MAP_OF_LISTS:
            width = 4 if shape == FOUR_BYTES else 8
            return (self.data[first:first + width * self.rows],)
        second, pairs, third, items = more
        maps = (self._offsets(first, self.rows), *self._string_buffers(second, pairs))
        if shape == MAP_OF_STRINGS:
            return (*maps, *self._string_buffers(third, items))
        return (*maps, self._offsets(third, pairs), *self._string_buffers(third + 8 * pairs, items))

    cdef tuple _string_buffers(self, size_t offset, size_t count):
        cdef const uint8_t* at = self.start + offset
        cdef const uint8_t* text
        cdef uint64_t size = 0
        cdef int32_t end = 0
        cdef bytes offsets = PyBytes_FromStringAndSize(NULL, 4 * (count + 1))
        cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(offsets)
        cdef size_t place
        memcpy(to, &end, 4)
        for place in range(count):
            get_text(&at, self.end, &text, &size)
            end += <int32_t>size
            memcpy(to + 4 * (place + 1), &end, 4)
        return offsets, self._joined(offset, count, end)

    cdef bytes _joined(self, size_t offset, size_t count, size_t total):
        """The strings without their lengths."""
        cdef const uint8_t* at = self.start + offset
        cdef const uint8_t* text = NULL
        cdef uint64_t size = 0
        cdef bytes joined = PyBytes_FromStringAndSize(NULL, total)
        cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(joined)
        for _ in range(count):
            get_text(&at, self.end, &text, &size)
            memcpy(to, text, size)
            to += size
        return joined

    cdef bytes _offsets(self, size_t offset, size_t count):
        cdef bytes offsets = PyBytes_FromStringAndSize(NULL, 4 * (count + 1))
        cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(offsets)
        cdef int32_t end = 0
        cdef size_t place
        memcpy(to, &end, 4)
        for place in range(count):
            end = <int32_t>u64_at(self.start + offset + 8 * place)
            memcpy(to + 4 * (place + 1), &end, 4)
        return offsets

    cdef bytes _keys(self, size_t offset, int width, uint32_t count):
        cdef bytes keys = PyBytes_FromStringAndSize(NULL, 4 * self.rows)
        cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(keys)
        cdef uint32_t key
        cdef size_t row
        for row in range(self.rows):
            key = self._key(offset, width, row, count)
            memcpy(to + 4 * row, &key, 4)
        return keys
