"""Reads commands from JSON as Centrifugo does, or refuses to.

Centrifugo reads a payload line by line, and of a line the first value, with a decoder (segmentio/encoding) that takes
keys in any case, folds U+017F and U+212A, and merges what comes twice. We follow it exactly where a line is spelt as
every SDK spells it, rewrite keys that are merely spelt otherwise, and refuse what would take a merge to understand:
the table is in commands.pyi. Sources: protocol/decode_stream.go, json/decode.go, centrifuge/client.go
(`dispatchCommand` for which of several requests wins).

One pass over the payload; nothing is allocated but the commands and their list. What is known about the line being read
lies in a `Scan` on the stack.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, UINT32_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from cpro._fast.command cimport BAD_REQUEST, KIND_NONE, Command, fail, new_command, settle
from cpro._fast.jsonscan cimport (
    STRING_PLAIN, TOO_DEEP, Text, has_literal, next_rune, read_int, skip_space, skip_string, skip_value,
)


cdef extern from "command_members.h":
    enum:
        F_ID, F_CHANNEL, F_TOKEN, F_DATA, F_NAME, F_VERSION, F_HEADERS, F_FLAG, F_DICT, F_WORD, F_TYPE, F_PHASE
        F_LIMIT, F_RECOVER, F_REMOVED, F_UNKNOWN, F_END, F_FAULT, F_REFUSED
    ctypedef struct Name:
        const char *text
        uint8_t size
        uint8_t field
        uint8_t number
    ctypedef struct Names:
        const Name *names
        int count
    const Names[14] MEMBERS

cdef enum:
    MAX_EDITS = 32                  # known keys of a command and of one request: 22; with more it is refused
    LONGEST_NAME = 14               # presence_stats

cdef struct Edit:
    int start
    int end
    const Name *name

cdef struct Scan:                   # of one JSON command
    const uint8_t *p
    Py_ssize_t i
    Py_ssize_t end
    int edit_count
    bint refused
    bint id_twice
    Edit[MAX_EDITS] edits


# -- keys -----------------------------------------------------------------------------------------------------------

cdef const Name *find_spelt(const Names *known, const uint8_t *word, Py_ssize_t size) noexcept nogil:
    cdef int k
    for k in range(known.count):
        if known.names[k].size == size and memcmp(known.names[k].text, word, size) == 0:
            return &known.names[k]
    return NULL


cdef int find_folded(Scan *s, const Names *known, Py_ssize_t start, Py_ssize_t end, const Name **found) noexcept nogil:
    """A known name in another spelling. REFUSED when it takes more than ASCII; 0 when found, else UNKNOWN.

    Folds more than Go does, which takes `s` and `k` for no letters of theirs in a key that is not all ASCII."""
    cdef uint8_t[LONGEST_NAME] word
    cdef int size = 0, rune
    cdef bint is_ascii = True
    cdef Py_ssize_t at = start
    while at < end:
        rune = next_rune(s.p, &at, end)
        if size == LONGEST_NAME:
            return F_UNKNOWN
        if rune == 0x17F or rune == 0x212A:
            is_ascii = False
            rune = c's' if rune == 0x17F else c'k'
        elif rune >= 0x80:
            return F_UNKNOWN
        word[size] = <uint8_t>(rune | 0x20 if c'A' <= rune <= c'Z' else rune)
        size += 1
    found[0] = find_spelt(known, word, size)
    if found[0] == NULL:
        return F_UNKNOWN
    return 0 if is_ascii else F_REFUSED


cdef int find_key(Scan *s, const Names *known, Py_ssize_t start, Py_ssize_t end, int how, uint32_t *seen) noexcept nogil:
    """Which field a key between its quotes is; notes what is to be rewritten or refused."""
    cdef const Name *name = NULL
    cdef Edit *edit
    cdef int verdict
    if how == STRING_PLAIN:
        name = find_spelt(known, s.p + start, end - start)
    if name == NULL:
        if known.count == 0:
            return F_UNKNOWN
        verdict = find_folded(s, known, start, end, &name)
        if verdict == F_UNKNOWN:
            return F_UNKNOWN
        if verdict == F_REFUSED:
            s.refused = True
        elif not s.refused and not seen[0] >> name.field & 1:
            edit = &s.edits[s.edit_count]
            edit.start = <int>start
            edit.end = <int>end
            edit.name = name
            s.edit_count += 1
    if seen[0] >> name.field & 1:
        s.refused = True
        if name.field == F_ID:
            s.id_twice = True
    seen[0] |= <uint32_t>1 << name.field
    return name.field


cdef int next_member(Scan *s, const Names *known, uint32_t *seen, bint is_first) noexcept nogil:
    """The field of the next member, whose value is at s.i then; UNKNOWN, END or FAULT."""
    cdef Py_ssize_t i = skip_space(s.p, s.i, s.end), stop
    cdef int how = 0
    if i < s.end and s.p[i] == c'}':
        s.i = i + 1
        return F_END
    if not is_first:
        if i == s.end or s.p[i] != c',':
            return F_FAULT
        i = skip_space(s.p, i + 1, s.end)
    stop = skip_string(s.p, i, s.end, &how)
    if stop < 0:
        return F_FAULT
    s.i = skip_space(s.p, stop, s.end)
    if s.i == s.end or s.p[s.i] != c':':
        return F_FAULT
    s.i = skip_space(s.p, s.i + 1, s.end)
    return find_key(s, known, i + 1, stop - 1, how, seen)


# -- values ---------------------------------------------------------------------------------------------------------

cdef inline bint is_null(const Scan *s) noexcept nogil:
    return has_literal(s.p, s.i, s.end, b"null", 4)


cdef int skip(Scan *s) noexcept nogil:
    """-1: malformed, or too deep to tell; then the command counts as refused."""
    cdef Py_ssize_t after = skip_value(s.p, s.i, s.end)
    if after == TOO_DEEP:
        s.refused = True
        return TOO_DEEP
    if after < 0:
        return -1
    s.i = after
    return 0


cdef int read_text(Scan *s, Text *text) noexcept nogil:
    cdef Py_ssize_t after
    if is_null(s):
        s.i += 4
        return 0
    after = skip_string(s.p, s.i, s.end, &text.how)
    if after < 0:
        return -1
    text.start = <int>(s.i + 1)
    text.end = <int>(after - 1)
    s.i = after
    return 0


cdef int read_number(Scan *s, int64_t *value, int64_t lowest, int64_t highest) noexcept nogil:
    cdef Py_ssize_t after
    cdef int64_t number = 0
    if is_null(s):
        s.i += 4
        return 0
    after = read_int(s.p, s.i, s.end, &number)
    if after < 0 or not lowest <= number <= highest or (lowest == 0 and s.p[s.i] == c'-'):
        return -1
    value[0] = number
    s.i = after
    return 0


cdef int read_int32(Scan *s, int *value) noexcept nogil:
    cdef int64_t number = value[0]
    if read_number(s, &number, INT32_MIN, INT32_MAX) < 0:
        return -1
    value[0] = <int>number
    return 0


cdef int read_flag(Scan *s, Command c) noexcept nogil:
    """A number too long to be told from one that overflows (where Go's decoder lets some through) is refused."""
    cdef int64_t ignored = 0
    cdef Py_ssize_t at = s.i
    if not is_null(s) and read_int(s.p, s.i, s.end, &ignored) == TOO_DEEP:
        s.refused = True
        return skip(s)
    if read_number(s, &c.flag, INT64_MIN, INT64_MAX) < 0:
        return -1
    c.flag_at = <int>at
    c.flag_end = <int>s.i
    return 0


cdef int read_bool(Scan *s, bint *value) noexcept nogil:
    if has_literal(s.p, s.i, s.end, b"true", 4):
        value[0] = True
        s.i += 4
    elif has_literal(s.p, s.i, s.end, b"false", 5):
        value[0] = False
        s.i += 5
    elif is_null(s):
        s.i += 4
    else:
        return -1
    return 0


cdef int read_headers(Scan *s, Command c) noexcept nogil:
    if s.i < s.end and s.p[s.i] == c'{':
        c.has_headers = True
    elif not is_null(s):
        return -1
    return skip(s)


cdef int read_dict(Scan *s, Command c) noexcept nogil:
    cdef Text text
    cdef Py_ssize_t at = s.i
    text.start = text.end = 0
    if read_text(s, &text) < 0:
        return -1
    c.names_dictionary = text.end > text.start
    c.dict_at = <int>at
    c.dict_end = <int>s.i
    return 0


cdef int read_member(Scan *s, Command c, int field) noexcept nogil:
    """Member of a request object. 0, or what `skip` returns."""
    cdef Py_ssize_t at = s.i
    cdef int verdict
    if field == F_CHANNEL:
        return read_text(s, &c.channel_text)
    if field == F_DATA:
        verdict = skip(s)
        c.data_size = <int>(s.i - at)
        return verdict
    if field == F_TOKEN:
        return read_text(s, &c.token_text)
    if field == F_WORD:
        return read_text(s, &c.word_text)
    if field == F_NAME:
        return read_text(s, &c.name_text)
    if field == F_VERSION:
        return read_text(s, &c.version_text)
    if field == F_TYPE:
        return read_int32(s, &c.type)
    if field == F_PHASE:
        return read_int32(s, &c.phase)
    if field == F_LIMIT:
        return read_int32(s, &c.limit)
    if field == F_FLAG:
        return read_flag(s, c)
    if field == F_RECOVER:
        return read_bool(s, &c.recover)
    if field == F_REMOVED:
        return read_bool(s, &c.removed)
    if field == F_HEADERS:
        return read_headers(s, c)
    if field == F_DICT:
        return read_dict(s, c)
    return skip(s)


cdef int read_request(Scan *s, Command c, int kind) noexcept nogil:
    """A request object, or null for none. 0, or what `skip` returns."""
    cdef uint32_t seen = 0
    cdef int field, verdict
    cdef bint is_first = True
    if is_null(s):
        s.i += 4
        return 0
    if s.i == s.end or s.p[s.i] != c'{':
        return -1
    if c.op != KIND_NONE:
        s.refused = True
    c.op = <uint8_t>kind
    s.i += 1
    while True:
        field = next_member(s, &MEMBERS[kind], &seen, is_first)
        is_first = False
        if field == F_END:
            return 0
        if field == F_FAULT:
            return -1
        verdict = read_member(s, c, field)
        if verdict < 0:
            return verdict


cdef int read_command(Scan *s, Command c) noexcept nogil:
    """The object at s.i, or null, which Go takes for an empty one. 0, or what `skip` returns."""
    cdef uint32_t seen = 0
    cdef int64_t number = 0
    cdef int field, verdict
    cdef bint is_first = True
    if is_null(s):
        s.i += 4
        return 0
    if s.i == s.end or s.p[s.i] != c'{':
        return -1
    s.i += 1
    while True:
        field = next_member(s, &MEMBERS[0], &seen, is_first)
        is_first = False
        if field == F_END:
            c.id = <uint32_t>number
            return 0
        if field == F_FAULT:
            return -1
        if field == F_ID:
            verdict = read_number(s, &number, 0, UINT32_MAX)
            c.id = <uint32_t>number
        elif field == F_UNKNOWN:
            verdict = skip(s)
        else:
            verdict = read_request(s, c, field)
        if verdict < 0:
            return verdict


cdef int read_line(Command c) except -2:
    """One JSON command. -1: it is malformed, and nothing behind it counts."""
    cdef Scan s
    cdef Py_ssize_t first
    cdef int verdict
    s.p = <const uint8_t *>PyBytes_AS_STRING(c.payload)
    s.end = c.end
    s.i = first = skip_space(s.p, c.start, c.end)
    s.edit_count = 0
    s.refused = s.id_twice = False
    verdict = read_command(&s, c)
    if verdict < 0 and verdict != TOO_DEEP:
        return fail(c)
    if s.refused:
        if s.id_twice or c.id == 0:
            return fail(c)
        c.fault = BAD_REQUEST
        return 0
    settle(c)
    if s.edit_count or skip_space(s.p, s.i, s.end) != s.end:
        c.encoded = rewritten(&s, first)
    return 0


cdef bytes rewritten(const Scan *s, Py_ssize_t first):
    """The object that begins at `first` and ends at s.i, with every edited key in its proper spelling."""
    cdef list pieces = []
    cdef const Edit *edit
    cdef Py_ssize_t at = first
    cdef int k
    for k in range(s.edit_count):
        edit = &s.edits[k]
        pieces.append(s.p[at:edit.start])
        pieces.append(edit.name.text[:edit.name.size])
        at = edit.end
    pieces.append(s.p[at:s.i])
    return b"".join(pieces)


cdef list parse_lines(bytes payload):
    cdef const char *p = PyBytes_AS_STRING(payload)
    cdef Py_ssize_t start = 0, end, size = PyBytes_GET_SIZE(payload)
    cdef const char *newline
    cdef list commands = []
    cdef Command c
    while start < size:
        newline = <const char *>memchr(p + start, c'\n', size - start)
        end = size if newline == NULL else newline - p
        c = new_command(payload, start, end, False)
        commands.append(c)
        if read_line(c) < 0:
            break
        start = end + 1
    return commands
