"""The Protobuf envelope of commands that come by POST /emulation: node=1, session=2, data=3.

Read by protoscan's rules: the last of a repeated field counts, unknown ones are skipped. Nothing is kept.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from cpro._fast.protoscan cimport WIRE_BYTES, Field, bytes_field, read_field

cdef enum:
    NODE = 1, SESSION = 2, DATA = 3


def parse_emulation(bytes body not None) -> tuple[bytes, bytes, bytes] | None:
    """Node, session, commands; see the pyi."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(body)
    cdef Py_ssize_t i = 0, end = PyBytes_GET_SIZE(body)
    cdef bytes node = b"", session = b"", data = b""
    cdef Field f
    while i < end:
        i = read_field(p, i, end, &f)
        if i < 0 or (f.number <= DATA and f.wire != WIRE_BYTES):
            return None
        if f.number == NODE:
            node = p[f.start:f.end]
        elif f.number == SESSION:
            session = p[f.start:f.end]
        elif f.number == DATA:
            data = p[f.start:f.end]
    return node, session, data


def build_emulation(bytes node not None, bytes session not None, bytes commands not None) -> bytes:
    """The same, encoded."""
    return bytes_field(NODE, node) + bytes_field(SESSION, session) + bytes_field(DATA, commands)
