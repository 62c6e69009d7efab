"""The plain-Python twin of `cpro._fast.wsframe.ClientFrames`: one stream, by RFC 6455 and Centrifugo."""

from typing import NamedTuple

from cpro._fast.wsframe import CLOSE, DROP, NO_STATUS, PROTOCOL_ERROR, TOO_BIG, ClientFrames

NAMES = {0x40: b"RSV1 set", 0x20: b"RSV2 set", 0x10: b"RSV3 set"}
SENT_CODES = {*range(1000, 1004), *range(1007, 1014), *range(3000, 5000)}


class Seen(NamedTuple):
    opcode: int
    payload: bytes
    compressed: bool
    code: int
    reason: bytes


class Outcome(NamedTuple):
    seen: list[Seen]
    code: int
    reason: bytes


class Fault(Exception):  # noqa: N818
    pass


class MoreInput(Exception):  # noqa: N818
    pass


class Reader:
    def __init__(self, stream: bytes, limit: int, allow_compressed: bool) -> None:
        self.stream, self.at, self.limit, self.allow_compressed = stream, 0, limit, allow_compressed
        self.seen: list[Seen] = []
        self.message: tuple[int, bool, bytes] | None = None

    def take(self, size: int) -> bytes:
        if len(self.stream) - self.at < size:
            raise MoreInput
        self.at += size
        return self.stream[self.at - size : self.at]

    def faults(self, first: int, second: int) -> list[bytes]:
        opcode, final = first & 15, first & 0x80
        may_be_compressed = self.allow_compressed and opcode in (1, 2)
        wrong = [text for bit, text in NAMES.items() if first & bit and not (bit == 0x40 and may_be_compressed)]
        if opcode in (8, 9, 10):
            wrong += [b"len > 125 for control"] if second & 127 > 125 else []
            wrong += [] if final else [b"FIN not set on control"]
        elif opcode in (1, 2):
            wrong += [b"data before FIN"] if self.message else []
        elif opcode == 0:
            wrong += [] if self.message else [b"continuation after FIN"]
        else:
            wrong.append(b"bad opcode %d" % opcode)
        return wrong if second & 0x80 else [*wrong, b"bad MASK"]

    def frame(self) -> None:
        first, second = self.take(2)
        if wrong := self.faults(first, second):
            raise Fault(PROTOCOL_ERROR, b", ".join(wrong))
        length = second & 127
        if length > 125:
            length = int.from_bytes(self.take(2 if length == 126 else 8))
        key = self.take(4)
        if length >= 1 << 63:
            raise Fault(DROP, b"")
        opcode = first & 15
        if opcode < 8:
            so_far = len(self.message[2]) if self.message else 0
            if so_far + length >= 1 << 63:
                raise Fault(DROP, b"")
            if so_far + length > self.limit:
                raise Fault(TOO_BIG, b"")
        payload = bytes(c ^ key[i & 3] for i, c in enumerate(self.take(length)))
        if opcode < 8:
            self.data(first, payload)
        else:
            self.control(opcode, payload)

    def data(self, first: int, payload: bytes) -> None:
        opcode, compressed, so_far = self.message or (first & 15, bool(first & 0x40), b"")
        self.message = (opcode, compressed, so_far + payload)
        if first & 0x80:
            self.seen.append(Seen(opcode, so_far + payload, compressed, 0, b""))
            self.message = None

    def control(self, opcode: int, payload: bytes) -> None:
        code, reason = 0, b""
        if opcode == CLOSE:
            code = NO_STATUS
            if len(payload) > 1:
                code, reason = int.from_bytes(payload[:2]), payload[2:]
                if code not in SENT_CODES:
                    raise Fault(PROTOCOL_ERROR, b"bad close code %d" % code)
                try:
                    reason.decode()
                except UnicodeDecodeError:
                    raise Fault(PROTOCOL_ERROR, b"invalid utf8 payload in close frame") from None
        self.seen.append(Seen(opcode, payload, False, code, reason))


def read_frames(stream: bytes, limit: int, allow_compressed: bool) -> Outcome:
    reader = Reader(stream, limit, allow_compressed)
    try:
        while not (reader.seen and reader.seen[-1].opcode == CLOSE):
            reader.frame()
    except MoreInput:
        pass
    except Fault as fault:
        return Outcome(reader.seen, *fault.args)
    return Outcome(reader.seen, 0, b"")


def drive(pieces: list[bytes], limit: int, allow_compressed: bool) -> Outcome:
    """What the real reader makes of them."""
    frames = ClientFrames(limit, allow_compressed)
    seen = [
        Seen(event.opcode, event.payload, event.compressed, event.code, event.reason)
        for piece in pieces
        for event in frames.feed(piece)
    ]
    return Outcome(seen, frames.fault_code, frames.fault_reason)
