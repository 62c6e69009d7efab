"""Records of the journal -> ClickHouse Native blocks (protocol revision 0), one block per table.

Layout: a column is one to four growing buffers that hold what will be sent, byte for byte; `block` copies them behind
their heads. Only words (LowCardinality) are kept wider, as u32, until the size of their dictionary is known. Numbers
are little-endian, as the machine's must be.

A record is taken whole or not at all: each column remembers where it ended before the row, and goes back there. Values
that an older record lacks at its end are defaults; values that a newer one has beyond the table's columns are left out.

Ownership: all memory is this object's, which one thread uses at a time (`add` runs without the GIL). `clear` keeps the
memory for the next batch, except of columns that grew far beyond the common.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from cpro._fast.growing cimport Buffer, append, append_text, append_varuint, put_varuint, release, reserve
from cpro._fast.hashing cimport read_word
from cpro._fast.journal cimport Record, SegmentReader
from cpro._fast.rows cimport (
    KIND_I64, KIND_ID, KIND_SECONDS, KIND_TEXT, KIND_TEXT_MAP, KIND_TEXTS_MAP, KIND_U32, KIND_U64, KIND_WORD,
    UUID_CHARS, get_i64, get_id, get_seconds, get_text, get_u32, get_varuint, write_uuid,
)
from cpro._fast.words cimport forget_words, release_words, word_of

import os

cdef enum:
    NOT_A_VALUE = -1
    NO_MEMORY = -2

cdef enum:
    KEPT_BYTES = 1 << 24            # of a buffer, from batch to batch

cdef uint64_t DICTIONARY_VERSION = 1
cdef uint64_t DICTIONARY_FLAGS = 0x600  # additional keys in the block, and they are to be read anew

TYPES = {
    KIND_TEXT: b"String",
    KIND_WORD: b"LowCardinality(String)",
    KIND_ID: b"String",
    KIND_U32: b"UInt32",
    KIND_U64: b"UInt64",
    KIND_I64: b"Int64",
    KIND_SECONDS: b"DateTime",
    KIND_TEXT_MAP: b"Map(String, String)",
    KIND_TEXTS_MAP: b"Map(String, Array(String))",
}


# Values of one record. 0, NOT_A_VALUE or NO_MEMORY.

cdef inline int add_text(Buffer* buffer, const uint8_t** at, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* text
    cdef uint64_t size
    if get_text(at, end, &text, &size) < 0:
        return NOT_A_VALUE
    return NO_MEMORY if append_text(buffer, text, size) < 0 else 0


cdef int add_id(Buffer* buffer, const uint8_t** at, const uint8_t* end) noexcept nogil:
    """UUIDs become their text again."""
    cdef const uint8_t* text
    cdef uint64_t size
    cdef int form = get_id(at, end, &text, &size)
    if form < 0:
        return NOT_A_VALUE
    if form == 0:
        return NO_MEMORY if append_text(buffer, text, size) < 0 else 0
    if reserve(buffer, UUID_CHARS + 1) < 0:
        return NO_MEMORY
    buffer.at[buffer.used] = UUID_CHARS
    write_uuid(buffer.at + buffer.used + 1, text)
    buffer.used += UUID_CHARS + 1
    return 0


cdef int add_word(Column* column, const SipKey* key, const uint8_t** at, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* text
    cdef uint64_t size
    if get_text(at, end, &text, &size) < 0:
        return NOT_A_VALUE
    return put_word(column, key, text, size)


cdef int put_word(Column* column, const SipKey* key, const uint8_t* text, uint64_t size) noexcept nogil:
    cdef int number = word_of(&column.words, key, text, size)
    cdef uint32_t wide = <uint32_t>number
    if number < 0 or append(&column.data, &wide, 4) < 0:
        return NO_MEMORY
    return 0


cdef int add_number(Column* column, const uint8_t** at, const uint8_t* end) noexcept nogil:
    cdef uint64_t wide = 0
    cdef uint32_t narrow = 0
    cdef int64_t number = 0
    if column.kind == KIND_U64:
        if get_varuint(at, end, &wide) < 0:
            return NOT_A_VALUE
        return NO_MEMORY if append(&column.data, &wide, 8) < 0 else 0
    if column.kind == KIND_I64:
        if get_i64(at, end, &number) < 0:
            return NOT_A_VALUE
        return NO_MEMORY if append(&column.data, &number, 8) < 0 else 0
    if column.kind == KIND_U32:
        if get_u32(at, end, &narrow) < 0:
            return NOT_A_VALUE
    elif get_seconds(at, end, &narrow) < 0:
        return NOT_A_VALUE
    return NO_MEMORY if append(&column.data, &narrow, 4) < 0 else 0


cdef int add_map(Column* column, const uint8_t** at, const uint8_t* end) noexcept nogil:
    """Of texts, or of lists of texts. Each pair takes a byte at least, so a wrong count soon meets the end."""
    cdef uint64_t pairs, items
    cdef int found
    if get_varuint(at, end, &pairs) < 0:
        return NOT_A_VALUE
    column.pairs += pairs
    if append(&column.data, &column.pairs, 8) < 0:
        return NO_MEMORY
    for _ in range(pairs):
        found = add_text(&column.keys, at, end)
        items = 1
        if found == 0 and column.kind == KIND_TEXTS_MAP:
            found = NOT_A_VALUE if get_varuint(at, end, &items) < 0 else 0
        if found == 0:
            found = add_items(column, items, at, end)
        if found < 0:
            return found
    return 0


cdef int add_items(Column* column, uint64_t items, const uint8_t** at, const uint8_t* end) noexcept nogil:
    cdef int found
    column.items += items
    for _ in range(items):
        found = add_text(&column.values, at, end)
        if found < 0:
            return found
    if column.kind == KIND_TEXTS_MAP and append(&column.ends, &column.items, 8) < 0:
        return NO_MEMORY
    return 0


cdef int add_value(Column* column, const SipKey* key, const uint8_t** at, const uint8_t* end) noexcept nogil:
    if column.kind == KIND_TEXT:
        return add_text(&column.data, at, end)
    if column.kind == KIND_WORD:
        return add_word(column, key, at, end)
    if column.kind == KIND_ID:
        return add_id(&column.data, at, end)
    if column.kind == KIND_TEXT_MAP or column.kind == KIND_TEXTS_MAP:
        return add_map(column, at, end)
    return add_number(column, at, end)


cdef int add_default(Column* column, const SipKey* key) noexcept nogil:
    """Zero, or empty."""
    cdef uint64_t zero = 0
    if column.kind == KIND_WORD:
        return put_word(column, key, <const uint8_t*>&zero, 0)
    if column.kind == KIND_TEXT or column.kind == KIND_ID:
        return NO_MEMORY if append_varuint(&column.data, 0) < 0 else 0
    if column.kind == KIND_TEXT_MAP or column.kind == KIND_TEXTS_MAP:
        zero = column.pairs
    return NO_MEMORY if append(&column.data, &zero, 4 if is_narrow(column.kind) else 8) < 0 else 0


cdef inline bint is_narrow(int kind) noexcept nogil:
    return kind == KIND_U32 or kind == KIND_SECONDS


# Rows.

cdef inline void mark(Column* column) noexcept nogil:
    column.before.data = column.data.used
    if column.kind == KIND_WORD:
        column.before.words = column.words.count
    elif column.kind >= KIND_TEXT_MAP:
        column.before.keys, column.before.values = column.keys.used, column.values.used
        column.before.ends = column.ends.used
        column.before.pairs, column.before.items = column.pairs, column.items


cdef void go_back(Column* column) noexcept nogil:
    column.data.used = column.before.data
    if column.kind == KIND_WORD:
        forget_words(&column.words, column.before.words)
    elif column.kind >= KIND_TEXT_MAP:
        column.keys.used, column.values.used = column.before.keys, column.before.values
        column.ends.used = column.before.ends
        column.pairs, column.items = column.before.pairs, column.before.items


cdef int add_row(Table* table, const SipKey* key, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The values of one record. Not 0: there is no row."""
    cdef int place, undone, found
    cdef Column* column
    for place in range(table.width):
        column = table.columns + place
        mark(column)
        found = add_value(column, key, &at, end) if at < end else add_default(column, key)
        if found < 0:
            for undone in range(place + 1):
                go_back(table.columns + undone)
            return found
    table.rows += 1
    return 0


# Native.

cdef inline int key_bytes(const Column* column) noexcept nogil:
    return 1 if column.words.count <= 0x100 else 2 if column.words.count <= 0x10000 else 4


cdef size_t size_of(const Column* column, size_t rows) noexcept nogil:
    if column.kind == KIND_WORD:
        return 4 * 8 + column.words.texts.used + rows * key_bytes(column)
    return column.data.used + column.keys.used + column.ends.used + column.values.used


cdef inline uint8_t* put(uint8_t* to, const void* data, size_t size) noexcept nogil:
    if size:
        memcpy(to, data, size)
    return to + size


cdef inline uint8_t* put_u64(uint8_t* to, uint64_t value) noexcept nogil:
    return put(to, &value, 8)


cdef uint8_t* put_words(uint8_t* to, const Column* column, size_t rows) noexcept nogil:
    """A prefix; the dictionary; one key per row, as narrow as they all fit."""
    cdef const uint32_t* numbers = <const uint32_t*>column.data.at
    cdef int width = key_bytes(column)
    cdef size_t row
    to = put_u64(to, DICTIONARY_VERSION)
    to = put_u64(to, DICTIONARY_FLAGS | (width >> 1))
    to = put_u64(to, column.words.count)
    to = put(to, column.words.texts.at, column.words.texts.used)
    to = put_u64(to, rows)
    if width == 1:
        for row in range(rows):
            to[row] = <uint8_t>numbers[row]
    elif width == 2:
        for row in range(rows):
            memcpy(to + 2 * row, numbers + row, 2)
    else:
        memcpy(to, numbers, rows * 4)
    return to + rows * width


cdef uint8_t* put_column(uint8_t* to, const Column* column, size_t rows) noexcept nogil:
    if column.kind == KIND_WORD:
        return put_words(to, column, rows)
    to = put(to, column.data.at, column.data.used)
    to = put(to, column.keys.at, column.keys.used)
    to = put(to, column.ends.at, column.ends.used)
    return put(to, column.values.at, column.values.used)


cdef inline void empty(Buffer* buffer) noexcept nogil:
    if buffer.room > KEPT_BYTES:
        release(buffer)
    buffer.used = 0


cdef void empty_column(Column* column) noexcept nogil:
    empty(&column.data)
    empty(&column.keys)
    empty(&column.ends)
    empty(&column.values)
    if column.words.texts.room > KEPT_BYTES or column.words.entries.room > KEPT_BYTES:
        release_words(&column.words)
    else:
        forget_words(&column.words, 0)
    column.pairs = column.items = 0


cdef void release_column(Column* column) noexcept nogil:
    release(&column.data)
    release(&column.keys)
    release(&column.ends)
    release(&column.values)
    release_words(&column.words)


cdef bytes native_text(bytes text):
    cdef uint8_t head[10]
    return PyBytes_FromStringAndSize(<char*>head, put_varuint(head, PyBytes_GET_SIZE(text)) - head) + text


cdef class Blocks:
    """The rows of one batch. `tables`: (number from 1 to 255, columns as (name, kind)).

    The caller bounds a batch: at most 1,000,000 rows and 200 MB (`size`) make one insert that is seen at once."""

    def __cinit__(self, tables):
        cdef int place, column
        cdef Table* table
        cdef bytes seed = os.urandom(16)
        self.key.k0 = read_word(<const uint8_t*>PyBytes_AS_STRING(seed))
        self.key.k1 = read_word(<const uint8_t*>PyBytes_AS_STRING(seed) + 8)
        self.heads = []
        self.tables = <Table*>calloc(max(len(tables), 1), sizeof(Table))
        if self.tables == NULL:
            raise MemoryError
        for place, (number, columns) in enumerate(tables):
            self.heads.append([native_text(name.encode()) + native_text(TYPES[kind]) for name, kind in columns])
            if not 0 < number < 256 or not columns or self.by_number[number] != NULL:
                raise ValueError("a table has a number of its own, from 1 to 255, and columns")
            table = self.tables + place
            table.columns = <Column*>calloc(len(columns), sizeof(Column))
            if table.columns == NULL:
                raise MemoryError
            table.number, table.width = number, len(columns)
            self.count += 1
            for column, (_, kind) in enumerate(columns):
                table.columns[column].kind = kind
            self.by_number[number] = table

    def __dealloc__(self):
        cdef int place, column
        for place in range(self.count):
            for column in range(self.tables[place].width):
                release_column(self.tables[place].columns + column)
            free(self.tables[place].columns)
        free(self.tables)

    cdef Table* _table(self, int number) except NULL:
        if not 0 < number < 256 or self.by_number[number] == NULL:
            raise KeyError(number)
        return self.by_number[number]

    def add(self, SegmentReader reader not None, uint64_t start, uint64_t end) -> int:
        """Every good record from `start` that ends by `end`; returns how many became rows.

        MemoryError: some did, the one that found no room left nothing behind."""
        cdef Record record
        cdef int found = 0
        cdef uint64_t added = 0
        reader.open_memory()
        with nogil:
            while found != NO_MEMORY and reader.next_good(start, end, &record):
                start = record.next
                found = NOT_A_VALUE
                if self.by_number[record.table & 255] != NULL:
                    found = add_row(self.by_number[record.table & 255], &self.key, record.values, record.end)
                if found == 0:
                    added += 1
                else:
                    self.bad += 1
        if found == NO_MEMORY:
            raise MemoryError
        return added

    def add_record(self, int table, bytes values not None) -> bool:
        """One record that is at hand; False: it is bad, and counted."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(values)
        cdef int found = add_row(self._table(table), &self.key, at, at + PyBytes_GET_SIZE(values))
        if found == NO_MEMORY:
            raise MemoryError
        self.bad += found != 0
        return found == 0

    def rows(self, int table) -> int:
        return self._table(table).rows

    def size(self, int table) -> int:
        """Bytes of its block, but for the heads."""
        cdef Table* found = self._table(table)
        cdef size_t total = 0
        cdef int place
        for place in range(found.width):
            total += size_of(found.columns + place, found.rows)
        return total

    def block(self, int table) -> bytes:
        """All rows so far, or nothing for no rows: a block of none would end ClickHouse's reading without an error."""
        cdef Table* found = self._table(table)
        cdef list heads = self.heads[found - self.tables]
        cdef uint8_t head[20]
        cdef uint8_t* to = put_varuint(put_varuint(head, found.width), found.rows)
        cdef size_t size = (to - head) + self.size(table) + sum(map(len, heads))
        cdef int place
        cdef bytes block, name
        if found.rows == 0:
            return b""
        block = PyBytes_FromStringAndSize(NULL, size)
        to = put(<uint8_t*>PyBytes_AS_STRING(block), head, to - head)
        for place in range(found.width):
            name = heads[place]
            to = put(to, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            with nogil:
                to = put_column(to, found.columns + place, found.rows)
        if to != <uint8_t*>PyBytes_AS_STRING(block) + size:
            raise AssertionError("a block of another size than was reckoned")
        return block

    def clear(self):
        """Start the next batch."""
        cdef int place, column
        for place in range(self.count):
            self.tables[place].rows = 0
            for column in range(self.tables[place].width):
                empty_column(self.tables[place].columns + column)
