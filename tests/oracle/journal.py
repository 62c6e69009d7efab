"""Records and segments in plain Python: what `cpro._fast.rows` and `cpro._fast.journal` must write and read."""

import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cpro.analytics.schema import Kind

START = 4096
MARKS_AT = 2048


def _step(crc: int) -> int:
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


STEPS = [_step(byte) for byte in range(256)]


def crc32c(data: bytes, seed: int = 0) -> int:
    """RFC 3720 appendix B.4: polynomial 0x1edc6f41, reflected."""
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc = STEPS[(crc ^ byte) & 255] ^ (crc >> 8)
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


def identity(name: bytes, size: int, version: int = 1) -> bytes:
    """The 48 bytes that stand at 0 and at 1024."""
    head = struct.pack("<8sII16sQI", b"cprojrnl", 1, version, name, size, 0)
    return head + struct.pack("<I", crc32c(head))


def mark(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


@dataclass
class Segment:
    """A file as `SegmentReader` must read it once its writer is gone. ValueError: it is none."""

    data: bytes
    name: bytes = field(init=False)
    version: int = field(init=False)
    size: int = field(init=False)
    bad: int = 0
    lost_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.data) < START:
            raise ValueError("too short")
        copies = [self.data[at : at + 48] for at in (0, 1024)]
        whole = [copy for copy in copies if copy[44:] == struct.pack("<I", crc32c(copy[:44]))]
        if not whole or struct.unpack_from("<8sI", whole[0]) != (b"cprojrnl", 1):
            raise ValueError("no segment")
        _, _, self.version, self.name, size = struct.unpack_from("<8sII16sQ", whole[0])
        self.size = min(size, len(self.data))

    def good(self, at: int, limit: int) -> bytes | None:
        """Table and values of a good record at `at` that ends by `limit`."""
        if at > limit - 9:
            return None
        size, check = struct.unpack_from("<II", self.data, at)
        if not 0 < size <= limit - at - 8:
            return None
        body = self.data[at + 8 : at + 8 + size]
        return body if crc32c(body, crc32c(self.name)) == check else None

    def chain(self, at: int) -> int:
        """Where good records that follow each other without a gap end."""
        while (body := self.good(at, self.size)) is not None:
            at += 8 + len(body)
        return at

    @property
    def end(self) -> int:
        marks = [mark(self.data, at) for at in (MARKS_AT, MARKS_AT + 64)]
        plausible = max((one for one in marks if START <= one <= self.size), default=0)
        if marks[1]:
            return plausible or self.size
        return self.chain(max(self.chain(START), plausible))

    def records(self, limit: int | None = None) -> list[tuple[int, bytes]]:
        """The good ones; what is between them is counted."""
        limit = self.end if limit is None else limit
        found, at = [], START
        while at < limit:
            if (body := self.good(at, limit)) is not None:
                found.append((body[0], body[1:]))
                at += 8 + len(body)
            else:
                after = self.skip(at, limit)
                self.bad += 1
                self.lost_bytes += after - at
                at = after
        return found

    def skip(self, bad: int, limit: int) -> int:
        """The next place with a good record; after too many candidates, the one that the bad record's length names."""
        budget = 4 * self.size
        for at in range(bad + 1, limit - 8):
            size = int.from_bytes(self.data[at : at + 4], "little")
            if not 0 < size <= limit - at - 8:
                continue
            if size > budget:
                named = bad + 8 + int.from_bytes(self.data[bad : bad + 4], "little")
                return limit if self.good(named, limit) is None else named
            budget -= size
            if self.good(at, limit) is not None:
                return at
        return limit
