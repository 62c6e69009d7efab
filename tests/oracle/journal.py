"""Records and segments in plain Python: what `cpro._fast.rows` and `cpro._fast.journal` must write and read."""

import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cpro.analytics.schema import Kind

START = 4096
MARKS_AT = 2048


def crc32c(data: bytes, seed: int = 0) -> int:
    """Bit by bit (RFC 3720 appendix B.4: polynomial 0x1edc6f41, reflected)."""
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varuint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def as_bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).encode()


def sized(text: str | bytes) -> bytes:
    data = as_bytes(text)
    return varuint(len(data)) + data


def is_canonical_uuid(data: bytes) -> bool:
    try:
        return str(uuid.UUID(data.decode())).encode() == data
    except ValueError:
        return False


def encode_value(kind: int, value) -> bytes:
    match kind:
        case Kind.TEXT | Kind.WORD:
            return sized(value)
        case Kind.ID:
            data = as_bytes(value)
            if is_canonical_uuid(data):
                return b"\0" + uuid.UUID(data.decode()).bytes
            return varuint(len(data) + 1) + data
        case Kind.U32 | Kind.U64:
            return varuint(value)
        case Kind.I64:
            return varuint(value * 2 if value >= 0 else -value * 2 - 1)
        case Kind.SECONDS:
            return struct.pack("<I", value)
        case Kind.TEXT_MAP:
            return varuint(len(value)) + b"".join(sized(k) + sized(v) for k, v in value.items())
        case Kind.TEXTS_MAP:
            lists = (sized(k) + varuint(len(v)) + b"".join(map(sized, v)) for k, v in value.items())
            return varuint(len(value)) + b"".join(lists)
    raise AssertionError(kind)


def encode(kinds: Sequence[int], values: Sequence) -> bytes:
    return b"".join(map(encode_value, kinds, values))


@dataclass
class Bytes:
    """What is still to be decoded; every method raises ValueError when it is not there."""

    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def varuint(self) -> int:
        number = 0
        for place in range(10):
            byte = self.take(1)[0]
            number |= (byte & 127) << 7 * place
            if byte < 128:
                break
        else:
            raise ValueError("too long")
        if number >= 1 << 64:
            raise ValueError("too large")
        return number

    def text(self) -> str:
        return self.take(self.varuint()).decode(errors="replace")

    def value(self, kind: int):
        match kind:
            case Kind.TEXT | Kind.WORD:
                return self.text()
            case Kind.ID:
                size = self.varuint()
                if size == 0:
                    return str(uuid.UUID(bytes=self.take(16)))
                return self.take(size - 1).decode(errors="replace")
            case Kind.U64:
                return self.varuint()
            case Kind.U32:
                number = self.varuint()
                if number >= 1 << 32:
                    raise ValueError("too large")
                return number
            case Kind.I64:
                number = self.varuint()
                return -(number + 1) // 2 if number & 1 else number // 2
            case Kind.SECONDS:
                return int.from_bytes(self.take(4), "little")
            case Kind.TEXT_MAP:
                return {self.text(): self.text() for _ in counted(self.varuint())}
            case Kind.TEXTS_MAP:
                return {self.text(): [self.text() for _ in counted(self.varuint())] for _ in counted(self.varuint())}
        raise AssertionError(kind)


def counted(number: int) -> Iterator[int]:
    """range() does not take all 64 bits."""
    done = 0
    while done < number:
        yield done
        done += 1


def decode(kinds: Sequence[int], data: bytes) -> tuple:
    rest = Bytes(data)
    values = tuple(rest.value(kind) for kind in kinds)
    if rest.at != len(data):
        raise ValueError("more bytes than values")
    return values


@dataclass
class Segment:
    """A whole segment file, its records read strictly: the first that is bad ends it."""

    data: bytes
    id: bytes = field(init=False)
    committed: int = field(init=False)
    sealed_at: int = field(init=False)

    def __post_init__(self) -> None:
        magic, form, version, name, size, _, check = struct.unpack_from("<8sII16sQII", self.data)
        assert (magic, form, check) == (b"cprojrnl", 1, crc32c(self.data[:44]))
        assert self.data[1024:1072] == self.data[:48]
        self.id, self.version, self.size = name, version, size
        self.committed, self.sealed_at = (
            int.from_bytes(self.data[at : at + 8], "little") for at in (MARKS_AT, MARKS_AT + 64)
        )

    def records(self) -> list[tuple[int, bytes]]:
        found, at, seed = [], START, crc32c(self.id)
        while at < self.committed:
            size, check = struct.unpack_from("<II", self.data, at)
            body = self.data[at + 8 : at + 8 + size]
            if not body or len(body) < size or crc32c(body, seed) != check:
                break
            found.append((body[0], body[1:]))
            at += 8 + size
        return found


@dataclass
class Damage:
    """What a reader passed over."""

    places: int = 0
    bytes: int = 0


def good_records(data: bytes, name: bytes, limit: int, damage: Damage) -> list[tuple[int, bytes]]:
    """The good records before `limit` in the file `data` of the segment `name`, passing over what is bad.

    Behind a bad one every later place is tried. Without the budget that ends the search in a segment made to be slow.
    """
    found, at, seed = [], START, crc32c(name)

    def good(at: int) -> bytes | None:
        size, check = struct.unpack_from("<II", data, at) if at <= limit - 9 else (0, 0)
        body = data[at + 8 : at + 8 + size]
        return body if 0 < size <= limit - at - 8 and crc32c(body, seed) == check else None

    while at < limit:
        if (body := good(at)) is not None:
            found.append((body[0], body[1:]))
            at += 8 + len(body)
            continue
        after = next((place for place in range(at + 1, limit - 8) if good(place)), limit)
        damage.places += 1
        damage.bytes += after - at
        at = after
    return found
