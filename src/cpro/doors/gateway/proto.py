"""Protobuf by hand, for the few messages that the gateway writes itself and that are not worth a schema."""

_BYTES = 2  # wire type
_MOST_BITS = 63


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def int_field(number: int, value: int) -> bytes:
    """Nothing for a zero, as proto3 has it."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def delimited(message: bytes) -> bytes:
    """A message with its length in front."""
    return varint(len(message)) + message


def take_varint(buffer: bytes, at: int) -> tuple[int, int] | None:
    """The value at `at`, and where it ends; None where the buffer ends before it, ValueError where it never would."""
    value = shift = 0
    while at < len(buffer):
        value |= (buffer[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if buffer[at - 1] < 128:
            return value, at
        if shift > _MOST_BITS:
            raise ValueError("has a number without end")
    return None
