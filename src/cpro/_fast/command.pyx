"""A command of Centrifugo's client protocol: a few numbers, and offsets into the payload that it came in.

The payload is referenced, not copied; a text becomes a `str` when it is asked for. Filled in by the two readers,
command_json and command_proto.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t

from cpro._fast.jsonscan cimport Text, text_of

cdef tuple _kinds = (
    "none", "pong", "connect", "ping", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history",
    "rpc", "send", "refresh", "sub_refresh", "map_publish", "map_remove", "track", "untrack",
)


@cython.freelist(64)
@cython.no_gc
@cython.auto_pickle(False)
cdef class Command:
    """One command of a payload. Made by `parse_commands` only."""

    def __init__(self):
        raise TypeError("commands are made by parse_commands")

    cdef str text(self, const Text *text):
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(self.payload)
        if text.how == STRING_BYTES:
            return PyUnicode_DecodeUTF8(<const char *>p + text.start, text.end - text.start, "replace")
        return text_of(p, text)

    def __repr__(self) -> str:
        return f"<Command {self.id} {self.kind} {self.channel!r}, fault {self.fault}>"

    @property
    def kind(self) -> str:
        return <str>_kinds[self.op]

    @property
    def channel(self) -> str:
        return self.text(&self.channel_text)

    @property
    def method(self) -> str:
        return self.text(&self.word_text) if self.op == KIND_RPC else ""

    @property
    def cursor(self) -> str:
        return self.text(&self.word_text) if self.op == KIND_SUBSCRIBE else ""

    @property
    def token(self) -> str:
        return self.text(&self.token_text)

    @property
    def name(self) -> str:
        return self.text(&self.name_text)

    @property
    def version(self) -> str:
        return self.text(&self.version_text)

    @property
    def wants_dictionary(self) -> bool:
        return self.op == KIND_CONNECT and (self.names_dictionary or self.flag & 1 != 0)


cdef Command new_command(bytes payload, Py_ssize_t start, Py_ssize_t end, bint protobuf):
    cdef Command c = Command.__new__(Command)
    c.payload = payload
    c.start = start
    c.end = end
    c.protobuf = protobuf
    return c


cdef int fail(Command c) noexcept nogil:
    c.fault = MALFORMED
    return -1


cdef void settle(Command c) noexcept nogil:
    if c.id == 0 and c.op != KIND_SEND:
        c.op = KIND_PONG
    elif c.op == KIND_PUBLISH and c.type == 1:
        c.op = KIND_MAP_REMOVE if c.removed else KIND_MAP_PUBLISH
    elif c.op == KIND_SUB_REFRESH and c.type == 1:
        c.op = KIND_TRACK
    elif c.op == KIND_SUB_REFRESH and c.type == 2:
        c.op = KIND_UNTRACK
