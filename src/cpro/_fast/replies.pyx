"""Replies and pushes of Centrifugo's client protocol: what its server says, as far as bookkeeping needs it.

A `Reply` is numbers and offsets into the payload, which it keeps a reference to. What may stand where, in JSON and in
Protobuf, is one table per kind of object; the two readers walk by it. The server is trusted to spell keys as it does
and to mean one thing by a message; what cannot be read all the same is `other`, never an exception.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.limits cimport INT_MAX
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp

from cpro._fast.command cimport STRING_BYTES
from cpro._fast.jsonscan cimport Text, has_literal, read_int, skip_space, skip_string, skip_value, text_of
from cpro._fast.protoscan cimport (
    WIRE_BYTES, WIRE_VARINT, Field, bytes_field, delimited, read_field, read_length, varint,
)
from cpro._fast.wsscan cimport is_mere_push, is_mere_push_message


cdef extern from *:
    """
    enum { IS_TEXT = 0x00, IS_NUMBER = 0x20, IS_BOOL = 0x40, IS_SUBS = 0x60, IS_OBJECT = 0x80, IS_RAW = 0xA0, ROLE = 0xE0, SLOT = 0x1F };
    enum {                                              /* in the order of KINDS */
        K_OTHER, K_PING, K_CONNECT, K_SUBSCRIBE, K_UNSUBSCRIBE, K_PUBLISH, K_PRESENCE, K_PRESENCE_STATS, K_HISTORY,
        K_RPC, K_REFRESH, K_SUB_REFRESH, K_ERROR, K_PUSH_UNSUBSCRIBE, K_PUSH_SUBSCRIBE, K_PUSH_CONNECT,
        K_PUSH_DISCONNECT, K_PUSH_REFRESH, K_MERE_PUSH, K_PUSH
    };
    typedef struct { const char *text; uint8_t size; uint8_t what; uint8_t number; } Member;
    typedef struct { const Member *members; int count; } Members;
    #define M(text, what, number) {text, sizeof(text) - 1, what, number}
    static const Member REPLY[] = {
        M("id", IS_NUMBER + 0, 1), M("error", IS_OBJECT + K_ERROR, 2), M("push", IS_OBJECT + K_PUSH, 4),
        M("connect", IS_OBJECT + K_CONNECT, 5), M("subscribe", IS_OBJECT + K_SUBSCRIBE, 6),
        M("unsubscribe", IS_OBJECT + K_UNSUBSCRIBE, 7), M("publish", IS_OBJECT + K_PUBLISH, 8),
        M("presence", IS_OBJECT + K_PRESENCE, 9), M("presence_stats", IS_OBJECT + K_PRESENCE_STATS, 10),
        M("history", IS_OBJECT + K_HISTORY, 11), M("ping", IS_OBJECT + K_PING, 12), M("rpc", IS_OBJECT + K_RPC, 13),
        M("refresh", IS_OBJECT + K_REFRESH, 14), M("sub_refresh", IS_OBJECT + K_SUB_REFRESH, 15)};
    static const Member ERROR[] = {
        M("code", IS_NUMBER + 1, 1), M("message", IS_TEXT + 1, 2), M("temporary", IS_BOOL + 2, 3)};
    static const Member CONNECT[] = {
        M("client", IS_TEXT + 2, 1), M("version", IS_TEXT + 3, 2), M("expires", IS_BOOL + 6, 3),
        M("ttl", IS_NUMBER + 7, 4), M("data", IS_RAW + 7, 5), M("subs", IS_SUBS, 6), M("ping", IS_NUMBER + 4, 7), M("pong", IS_BOOL + 5, 8),
        M("session", IS_TEXT + 4, 9), M("node", IS_TEXT + 5, 10), M("flag", IS_NUMBER + 8, 12)};
    static const Member SUBSCRIBE[] = {
        M("expires", IS_BOOL + 6, 1), M("ttl", IS_NUMBER + 7, 2), M("id", IS_NUMBER + 3, 14),
        M("type", IS_NUMBER + 9, 15), M("phase", IS_NUMBER + 10, 16), M("cursor", IS_TEXT + 6, 17)};
    static const Member REFRESH[] = {M("expires", IS_BOOL + 6, 3), M("ttl", IS_NUMBER + 7, 4)};
    static const Member SUB_REFRESH[] = {M("expires", IS_BOOL + 6, 1), M("ttl", IS_NUMBER + 7, 2)};
    static const Member PUSH[] = {
        M("id", IS_NUMBER + 3, 1), M("channel", IS_TEXT + 0, 2), M("pub", IS_OBJECT + K_MERE_PUSH, 4),
        M("join", IS_OBJECT + K_MERE_PUSH, 5), M("leave", IS_OBJECT + K_MERE_PUSH, 6),
        M("unsubscribe", IS_OBJECT + K_PUSH_UNSUBSCRIBE, 7), M("message", IS_OBJECT + K_MERE_PUSH, 8),
        M("subscribe", IS_OBJECT + K_PUSH_SUBSCRIBE, 9), M("connect", IS_OBJECT + K_PUSH_CONNECT, 10),
        M("disconnect", IS_OBJECT + K_PUSH_DISCONNECT, 11), M("refresh", IS_OBJECT + K_PUSH_REFRESH, 12)};
    static const Member PUSH_UNSUBSCRIBE[] = {M("code", IS_NUMBER + 1, 2), M("reason", IS_TEXT + 1, 3)};
    static const Member PUSH_DISCONNECT[] = {M("code", IS_NUMBER + 1, 1), M("reason", IS_TEXT + 1, 2)};
    #define MEMBERS(table) {table, sizeof(table) / sizeof(Member)}
    #define NOTHING {NULL, 0}
    static const Members SHAPES[] = {                   /* by kind */
        MEMBERS(REPLY), NOTHING, MEMBERS(CONNECT), MEMBERS(SUBSCRIBE), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING,
        NOTHING, MEMBERS(REFRESH), MEMBERS(SUB_REFRESH), MEMBERS(ERROR), MEMBERS(PUSH_UNSUBSCRIBE), NOTHING, NOTHING,
        MEMBERS(PUSH_DISCONNECT), NOTHING, NOTHING, MEMBERS(PUSH)};
    """
    enum:
        IS_TEXT, IS_NUMBER, IS_BOOL, IS_SUBS, IS_OBJECT, IS_RAW, ROLE, SLOT
        K_OTHER, K_PING, K_CONNECT, K_ERROR, K_MERE_PUSH, K_PUSH
    ctypedef struct Member:
        const char *text
        uint8_t size
        uint8_t what
        uint8_t number
    ctypedef struct Members:
        const Member *members
        int count
    const Members[20] SHAPES

cdef enum:
    CONNECT_FIELD = 5, DATA_FIELD = 5, SUBS_FIELD = 6, SESSION_FIELD = 9, NODE_FIELD = 10

cdef tuple _kinds = (
    "other", "ping", "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc",
    "refresh", "sub_refresh", "error", "push_unsubscribe", "push_subscribe", "push_connect", "push_disconnect",
    "push_refresh", "other", "other",
)


@cython.freelist(64)
@cython.no_gc
@cython.auto_pickle(False)
cdef class Reply:
    """One reply or push. Made by `parse_replies` only."""

    def __init__(self):
        raise TypeError("replies are made by parse_replies")

    cdef str text(self, int slot):
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(self.payload)
        cdef const Text *text = &self.texts[slot]
        if text.how == STRING_BYTES:
            return PyUnicode_DecodeUTF8(<const char *>p + text.start, text.end - text.start, "replace")
        return text_of(p, text)

    def __repr__(self) -> str:
        return f"<Reply {self.id} {self.kind}>"

    @property
    def kind(self) -> str:
        return <str>_kinds[self.op]

    @property
    def id(self) -> int:
        return self.numbers[ID]

    @property
    def code(self) -> int:
        return self.numbers[CODE]

    @property
    def reason(self) -> str:
        return self.text(REASON)

    @property
    def temporary(self) -> bool:
        return self.numbers[TEMPORARY] != 0

    @property
    def channel(self) -> str:
        return self.text(CHANNEL)

    @property
    def number(self) -> int:
        return self.numbers[NUMBER]

    @property
    def client(self) -> str:
        return self.text(CLIENT)

    @property
    def version(self) -> str:
        return self.text(VERSION)

    @property
    def data(self) -> bytes:
        cdef const Text *text = &self.texts[DATA]
        return self.payload[text.start:text.end]

    @property
    def session(self) -> str:
        return self.text(SESSION)

    @property
    def node(self) -> str:
        return self.text(NODE)

    @property
    def ping(self) -> int:
        return self.numbers[PING]

    @property
    def pong(self) -> bool:
        return self.numbers[PONG] != 0

    @property
    def expires(self) -> bool:
        return self.numbers[EXPIRES] != 0

    @property
    def ttl(self) -> int:
        return self.numbers[TTL]

    @property
    def flag(self) -> int:
        return self.numbers[FLAG]

    @property
    def type(self) -> int:
        return self.numbers[TYPE]

    @property
    def phase(self) -> int:
        return self.numbers[PHASE]

    @property
    def cursor(self) -> str:
        return self.text(CURSOR)

    @property
    def subs(self) -> list[str]:
        return subs_in_message(self) if self.protobuf else subs_in_line(self)


cdef Reply new_reply(bytes payload, Py_ssize_t start, Py_ssize_t end, bint protobuf):
    cdef Reply r = Reply.__new__(Reply)
    r.payload = payload
    r.start = start
    r.end = end
    r.protobuf = protobuf
    return r


# -- JSON -----------------------------------------------------------------------------------------------------------

cdef const Member *find_key(const Members *shape, const uint8_t *word, Py_ssize_t size) noexcept nogil:
    cdef int k
    for k in range(shape.count):
        if shape.members[k].size == size and memcmp(shape.members[k].text, word, size) == 0:
            return &shape.members[k]
    return NULL


cdef Py_ssize_t next_key(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, Text *key, bint is_first) noexcept nogil:
    """Where the value of an object's next key begins; 0 at the object's end, -1 for a fault. `i`: behind the last."""
    i = skip_space(p, i, end)
    if i < end and p[i] == c'}':
        return 0
    if not is_first:
        if i == end or p[i] != c',':
            return -1
        i = skip_space(p, i + 1, end)
    key.start = <int>(i + 1)
    i = skip_string(p, i, end, &key.how)
    key.end = <int>(i - 1)
    if i < 0:
        return -1
    i = skip_space(p, i, end)
    if i == end or p[i] != c':':
        return -1
    return skip_space(p, i + 1, end)


cdef Py_ssize_t read_object(Reply r, const uint8_t *p, Py_ssize_t i, int kind) noexcept:
    """The object at i; index behind it, or -1."""
    cdef Text key
    cdef Py_ssize_t at
    cdef const Member *member
    cdef bint is_first = True
    if SHAPES[kind].count == 0:
        return skip_value(p, i, r.end)
    if i == r.end or p[i] != c'{':
        return -1
    i += 1
    while True:
        at = next_key(p, i, r.end, &key, is_first)
        is_first = False
        if at == 0:
            return skip_space(p, i, r.end) + 1
        if at < 0:
            return -1
        member = find_key(&SHAPES[kind], p + key.start, key.end - key.start)
        i = skip_value(p, at, r.end) if member == NULL else read_member(r, p, at, member.what)
        if i < 0:
            return -1


cdef Py_ssize_t read_member(Reply r, const uint8_t *p, Py_ssize_t i, int what) noexcept:
    cdef int slot = what & SLOT
    cdef Py_ssize_t after
    if has_literal(p, i, r.end, b"null", 4):
        return i + 4
    if what & ROLE == IS_OBJECT:
        if slot != K_PUSH:
            r.op = <uint8_t>slot
        return read_object(r, p, i, slot)
    if what & ROLE == IS_TEXT:
        after = skip_string(p, i, r.end, &r.texts[slot].how)
        if after > 0:
            r.texts[slot].start = <int>(i + 1)
            r.texts[slot].end = <int>(after - 1)
        return after
    if what & ROLE == IS_RAW:
        after = skip_value(p, i, r.end)
        if after > 0:
            r.texts[slot].start = <int>i
            r.texts[slot].end = <int>after
        return after
    if what & ROLE == IS_NUMBER:
        return read_int(p, i, r.end, &r.numbers[slot])
    if what & ROLE == IS_BOOL:
        r.numbers[slot] = has_literal(p, i, r.end, b"true", 4)
    else:
        r.subs_at = <int>i
    return skip_value(p, i, r.end)


cdef list parse_lines(bytes payload):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef Py_ssize_t start = 0, i, end, size = PyBytes_GET_SIZE(payload)
    cdef const uint8_t *newline
    cdef list replies = []
    cdef Reply r
    while start < size:
        newline = <const uint8_t *>memchr(p + start, c'\n', size - start)
        end = size if newline == NULL else newline - p
        if not is_mere_push(p, start, end):
            r = new_reply(payload, start, end, False)
            i = skip_space(p, start, end)
            if end - i == 2 and p[i] == c'{' and p[i + 1] == c'}':
                r.op = K_PING
            elif read_object(r, p, i, K_OTHER) < 0:
                r.op = K_OTHER
            if r.op != K_MERE_PUSH:
                replies.append(r)
        start = end + 1
    return replies


cdef list subs_in_line(Reply r):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(r.payload)
    cdef Py_ssize_t i = r.subs_at + 1, at
    cdef list channels = []
    cdef Text key
    if r.subs_at == 0 or p[r.subs_at] != c'{':
        return channels
    while True:
        at = next_key(p, i, r.end, &key, not channels)
        if at <= 0:
            return channels
        channels.append(text_of(p, &key))
        i = skip_value(p, at, r.end)
        if i < 0:
            return channels


# -- Protobuf -------------------------------------------------------------------------------------------------------

cdef const Member *find_number(const Members *shape, int number) noexcept nogil:
    cdef int k
    for k in range(shape.count):
        if shape.members[k].number == number:
            return &shape.members[k]
    return NULL


cdef int read_fields(Reply r, const uint8_t *p, Py_ssize_t i, Py_ssize_t end, int kind) noexcept:
    cdef const Member *member
    cdef Field f
    cdef int slot, role
    if kind == K_CONNECT:
        r.result_at, r.result_end = <int>i, <int>end
    while i < end:
        i = read_field(p, i, end, &f)
        if i < 0:
            return -1
        member = find_number(&SHAPES[kind], f.number)
        if member == NULL:
            continue
        slot = member.what & SLOT
        role = member.what & ROLE
        if f.wire != (WIRE_VARINT if role == IS_NUMBER or role == IS_BOOL else WIRE_BYTES):
            return -1
        if role == IS_OBJECT:
            if slot != K_PUSH:
                r.op = <uint8_t>slot
            if SHAPES[slot].count and read_fields(r, p, f.start, f.end, slot) < 0:
                return -1
        elif role == IS_TEXT or role == IS_RAW:
            r.texts[slot].start, r.texts[slot].end, r.texts[slot].how = <int>f.start, <int>f.end, STRING_BYTES
        elif role != IS_SUBS:
            r.numbers[slot] = <int64_t>f.value
    return 0


cdef list parse_messages(bytes payload):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(payload)
    cdef Py_ssize_t start = 0, first, end, size = PyBytes_GET_SIZE(payload)
    cdef uint64_t length = 0
    cdef list replies = []
    cdef Reply r
    while start < size:
        first = read_length(p, start, size, &length)
        if first < 0:
            break
        length = min(length, <uint64_t>(size - first))
        end = first + <Py_ssize_t>length
        if not is_mere_push_message(p, first, end):
            r = new_reply(payload, start, end, True)
            if length == 0:
                r.op = K_PING
            elif read_fields(r, p, first, end, K_OTHER) < 0:
                r.op = K_OTHER
            if r.op != K_MERE_PUSH:
                replies.append(r)
        start = end
    return replies


cdef list subs_in_message(Reply r):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(r.payload)
    cdef Py_ssize_t i = r.result_at
    cdef list channels = []
    cdef Field f, entry
    while i < r.result_end:
        i = read_field(p, i, r.result_end, &f)
        if i < 0:
            break
        if f.number != SUBS_FIELD or f.wire != WIRE_BYTES:
            continue
        if f.start < f.end and read_field(p, f.start, f.end, &entry) > 0 and entry.number == 1:
            channels.append(p[entry.start:entry.end].decode(errors="replace"))
        else:
            channels.append("")     # a map's entry leaves out a key that is empty
    return channels


# -- building -------------------------------------------------------------------------------------------------------

def parse_replies(bytes payload not None, bint protobuf) -> list[Reply]:
    """What a message says, in order; see the pyi."""
    if PyBytes_GET_SIZE(payload) >= INT_MAX:
        return []
    return parse_messages(payload) if protobuf else parse_lines(payload)


cdef bytes json_string(str text):
    """With quotes; what must be escaped is, the rest is UTF-8."""
    cdef list pieces = []
    cdef Py_UCS4 c
    for c in text:
        if c == c'"' or c == c'\\':
            pieces.append("\\")
        pieces.append(f"\\u{<int>c:04x}" if c < 0x20 else chr(c))
    return b'"' + "".join(pieces).encode("utf-8", "replace") + b'"'


def build_error_reply(
    int64_t command_id, int64_t code, str message not None, bint temporary, bint protobuf
) -> bytes:
    """A reply with an error; see the pyi."""
    cdef bytes error
    if not (0 <= command_id <= UINT32_MAX and 0 <= code <= UINT32_MAX):
        raise ValueError("id and code have 32 bits")
    if not protobuf:
        error = b'{"code":%d,"message":%b%b}' % (code, json_string(message), b',"temporary":true' if temporary else b"")
        return b'{"id":%d,"error":%b}' % (command_id, error)
    error = varint(1 << 3) + varint(code) + bytes_field(2, message.encode("utf-8", "replace"))
    if temporary:
        error += varint(3 << 3) + b"\x01"
    return delimited(varint(1 << 3) + varint(command_id) + bytes_field(2, error))


def build_connect(Reply reply not None, str session=None, str node=None, bytes data=None) -> bytes:
    """A connect reply with another session, node or data; see the pyi."""
    if reply.op != K_CONNECT:
        raise ValueError("not a connect result")
    return replaced_message(reply, session, node, data) if reply.protobuf else replaced_line(reply, session, node, data)


cdef bytes replaced_line(Reply r, str session, str node, bytes data):
    cdef const char *p = PyBytes_AS_STRING(r.payload)
    cdef list edits = []
    cdef list pieces = []
    cdef Py_ssize_t at = r.start, start, end
    if session is not None and r.texts[SESSION].start:
        edits.append((r.texts[SESSION].start - 1, r.texts[SESSION].end + 1, json_string(session)))
    if node is not None and r.texts[NODE].start:
        edits.append((r.texts[NODE].start - 1, r.texts[NODE].end + 1, json_string(node)))
    if data is not None and r.texts[DATA].start:
        start, end = r.texts[DATA].start, r.texts[DATA].end
        if not data and p[start - 8:start] == b',"data":':
            start -= 8                              # the client stands before it, so there is a comma
        edits.append((start, end, data or (b"" if p[start] == c"," else b"null")))
    for start, end, value in sorted(edits):
        pieces += (p[at:start], value)
        at = end
    pieces.append(p[at:r.end])
    return b"".join(pieces)


cdef bytes replaced_message(Reply r, str session, str node, bytes data):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(r.payload)
    cdef uint64_t length = 0
    cdef Py_ssize_t i = read_length(p, r.start, r.end, &length)
    cdef list fields = []
    cdef Field f
    while i < r.end:
        i = read_field(p, i, r.end, &f)
        if f.number == CONNECT_FIELD:
            fields.append(bytes_field(CONNECT_FIELD, replaced_result(p, f.start, f.end, session, node, data)))
        else:
            fields.append(p[f.at:f.end])
    return delimited(b"".join(fields))


cdef bytes replaced_result(const uint8_t *p, Py_ssize_t i, Py_ssize_t end, str session, str node, bytes data):
    cdef list fields = []
    cdef Field f
    while i < end:
        i = read_field(p, i, end, &f)
        if f.number == SESSION_FIELD and session is not None:
            fields.append(bytes_field(SESSION_FIELD, session.encode()))
        elif f.number == NODE_FIELD and node is not None:
            fields.append(bytes_field(NODE_FIELD, node.encode()))
        elif f.number == DATA_FIELD and data is not None:
            fields.append(bytes_field(DATA_FIELD, data) if data else b"")
        else:
            fields.append(p[f.at:f.end])
    return b"".join(fields)
