"""Commands of Centrifugo's client protocol: what a client asks for, read as Centrifugo itself would read it.

The readers are command_json and command_proto; here is what a door calls, and what it forwards.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.limits cimport INT_MAX
from libc.stdint cimport int64_t, uint8_t, uint64_t

from cpro._fast cimport command
from cpro._fast.command cimport KIND_CONNECT, Command, fail, new_command
from cpro._fast.command_json cimport parse_lines
from cpro._fast.command_proto cimport parse_messages
from cpro._fast.protoscan cimport Field, bytes_field, delimited, read_field, read_length, varint

BAD_REQUEST = command.BAD_REQUEST
MALFORMED = command.MALFORMED

def parse_commands(bytes payload not None, bint protobuf) -> list[Command]:
    """All commands of a message, in order; see the pyi."""
    cdef Command c
    if 0 < PyBytes_GET_SIZE(payload) < INT_MAX:
        return parse_messages(payload) if protobuf else parse_lines(payload)
    c = new_command(payload, 0, PyBytes_GET_SIZE(payload), protobuf)
    fail(c)
    return [c]


cdef bytes wire_of(Command c):
    if c.encoded is not None:
        return c.encoded
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(c.payload) + c.start, c.end - c.start)


def build_payload(bytes payload not None, list commands not None, bint protobuf) -> bytes:
    """These commands as a payload; see the pyi."""
    cdef Command c
    cdef Py_ssize_t at = 0
    cdef bint is_whole = True
    for c in commands:
        if c.fault or c.payload is not payload:
            raise ValueError("a command with a fault, or of another payload, cannot be forwarded")
        is_whole = is_whole and c.start == at and c.encoded is None
        at = c.end + (not protobuf)
    if is_whole and commands and at >= PyBytes_GET_SIZE(payload):
        return payload
    return (b"" if protobuf else b"\n").join([wire_of(c) for c in commands])


def malformed(bint protobuf) -> bytes:
    """A length with too little behind it; an open object."""
    return b"\x02\x00" if protobuf else b"{"


def without_dictionary(Command command not None) -> bytes:
    """A connect with bit 0 of `flag` cleared and without `dict`; see the pyi."""
    if command.op != KIND_CONNECT or command.fault:
        raise ValueError("not a connect that can be forwarded")
    if command.protobuf:
        return delimited(plain_message(command))
    if command.encoded is not None:             # its offsets are those of the payload it was rewritten from
        return without_dictionary(parse_lines(command.encoded)[0])
    return plain_line(command)


cdef bytes plain_line(Command c):
    """`dict` becomes an empty string, which to Go is the same as none."""
    cdef const char *p = PyBytes_AS_STRING(c.payload)
    cdef list edits = []
    cdef list pieces = []
    cdef Py_ssize_t at = c.start, start, end
    if c.flag & 1:
        edits.append((c.flag_at, c.flag_end, b"%d" % (c.flag & ~<int64_t>1)))
    if c.names_dictionary:
        edits.append((c.dict_at, c.dict_end, b'""'))
    for start, end, value in sorted(edits):
        pieces += (p[at:start], value)
        at = end
    pieces.append(p[at:c.end])
    return b"".join(pieces)


cdef bytes plain_message(Command c):
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(c.payload)
    cdef uint64_t length = 0
    cdef Py_ssize_t i = read_length(p, c.start, c.end, &length)
    cdef list fields = []
    cdef Field f
    while i < c.end:
        i = read_field(p, i, c.end, &f)
        if f.number == 4:
            fields.append(bytes_field(4, plain_connect(p, f.start, f.end)))
        else:
            fields.append(p[f.at:f.end])
    return b"".join(fields)


cdef bytes plain_connect(const uint8_t *p, Py_ssize_t i, Py_ssize_t end):
    cdef list fields = []
    cdef Field f
    while i < end:
        i = read_field(p, i, end, &f)
        if f.number == 7:
            fields.append(varint(7 << 3) + varint(f.value & ~<uint64_t>1))
        elif f.number != 8:
            fields.append(p[f.at:f.end])
    return b"".join(fields)
