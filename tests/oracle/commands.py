"""The plain-Python twin of how Centrifugo reads JSON commands: its decoder (segmentio/encoding), then its dispatcher.

`read_line` is what one line means to Centrifugo, `compare` holds the real reader to it. The twin merges what comes
twice and folds keys letter by letter, as Go's `unicode.SimpleFold` goes: one step along the circle of letters that are
the same, so that in a key which is not all ASCII `s` becomes the long one and `k` the Kelvin sign, and match nothing.
"""

from typing import Any, NamedTuple

from cpro._fast.command import Command
from cpro._fast.commands import BAD_REQUEST, MALFORMED, parse_commands

KINDS = (
    *("connect", "ping", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history"),
    *("rpc", "send", "refresh", "sub_refresh"),
)
"""In the order in which Centrifugo looks for a request."""

INT32, INT64, UINT32 = (-(1 << 31), (1 << 31) - 1), (-(1 << 63), (1 << 63) - 1), (0, (1 << 32) - 1)
REQUESTS: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS} | {
    "connect": {"token": str, "data": bytes, "name": str, "version": str, "headers": dict, "flag": INT64, "dict": str},
    "subscribe": {
        "channel": str,
        "token": str,
        "recover": bool,
        "data": bytes,
        "flag": INT64,
        "type": INT32,
        "phase": INT32,
        "cursor": str,
        "limit": INT32,
    },
    "unsubscribe": {"channel": str},
    "publish": {"channel": str, "data": bytes, "type": INT32, "removed": bool},
    "presence": {"channel": str},
    "presence_stats": {"channel": str},
    "history": {"channel": str, "limit": INT32},
    "rpc": {"data": bytes, "method": str},
    "send": {"data": bytes},
    "refresh": {"token": str},
    "sub_refresh": {"channel": str, "token": str, "type": INT32},
}
SHAPE = {"id": UINT32, **REQUESTS}
MAX_DEPTH = 512


class GoRefuses(Exception):  # noqa: N818
    """Go's decoder returns an error."""


class Member(NamedTuple):
    key: str
    value: Any
    size: int


class Number(str):
    """As spelt."""


class Members(list):
    """Of an object, in order."""


class Meaning(NamedTuple):
    kind: str
    id: int
    request: dict[str, Any]
    """Fields of the request that wins; `data` as its size."""
    is_plain: bool
    """It takes no merging and no folding beyond ASCII to say so."""


class Parser:
    """Values of JSON by segmentio's rules."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.depth, self.deepest = data, 0, 0, 0

    def peek(self) -> bytes:
        return self.data[self.at : self.at + 1]

    def space(self) -> None:
        while self.peek() and self.peek() in b" \t\r\n":
            self.at += 1

    def expect(self, word: bytes) -> None:
        if not self.data.startswith(word, self.at):
            raise GoRefuses(f"no {word!r} at {self.at}")
        self.at += len(word)

    def value(self) -> Any:
        for word, value in ((b"null", None), (b"true", True), (b"false", False)):
            if self.data.startswith(word, self.at):
                self.at += len(word)
                return value
        first = self.peek()
        if first == b'"':
            return self.string()
        if first in (b"{", b"["):
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            value = self.members() if first == b"{" else self.elements()
            self.depth -= 1
            return value
        return self.number()

    def members(self) -> Members:
        found = Members()
        self.expect(b"{")
        self.space()
        while self.peek() != b"}":
            if found:
                self.expect(b",")
                self.space()
            key = self.string()
            self.space()
            self.expect(b":")
            self.space()
            start = self.at
            value = self.value()
            found.append(Member(key, value, self.at - start))
            self.space()
        self.at += 1
        return found

    def elements(self) -> list:
        found: list = []
        self.expect(b"[")
        self.space()
        while self.peek() != b"]":
            if found:
                self.expect(b",")
                self.space()
            found.append(self.value())
            self.space()
        self.at += 1
        return found

    def digits(self) -> None:
        start = self.at
        while self.peek().isdigit():
            self.at += 1
        if self.at == start:
            raise GoRefuses(f"no digit at {self.at}")

    def number(self) -> Number:
        start = self.at
        if self.peek() == b"-":
            self.at += 1
        if self.peek() == b"0":
            self.at += 1
        else:
            self.digits()
        if self.peek() == b".":
            self.at += 1
            self.digits()
        if self.peek() in (b"e", b"E"):
            self.at += 1
            if self.peek() in (b"+", b"-"):
                self.at += 1
            self.digits()
        return Number(self.data[start : self.at].decode())

    def string(self) -> str:
        self.expect(b'"')
        text = ""
        while self.peek() != b'"':
            if not self.peek() or self.peek() < b" ":
                raise GoRefuses(f"bad string at {self.at}")
            text += self.escape() if self.peek() == b"\\" else self.rune()
        self.at += 1
        return text

    def rune(self) -> str:
        for size in (1, 2, 3, 4):
            try:
                rune = self.data[self.at : self.at + size].decode()
            except UnicodeDecodeError:
                continue
            self.at += size
            return rune[0]
        self.at += 1
        return "\ufffd"

    def escape(self) -> str:
        escape = self.data[self.at + 1 : self.at + 2]
        self.at += 2
        if escape == b"u":
            return self.code_points(self.unit())
        if not escape or escape not in b'"\\/bfnrt':
            raise GoRefuses(f"bad escape at {self.at}")
        return {b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}.get(escape, escape.decode())

    def unit(self) -> int:
        digits = self.data[self.at : self.at + 4]
        if len(digits) < 4 or any(c not in b"0123456789abcdefABCDEF" for c in digits):
            raise GoRefuses(f"bad code point at {self.at}")
        self.at += 4
        return int(digits, 16)

    def code_points(self, high: int) -> str:
        if not 0xD800 <= high <= 0xDFFF:
            return chr(high)
        if self.data.startswith(b"\\u", self.at):
            at = self.at
            self.at += 2
            low = self.unit()
            if high < 0xDC00 and 0xDC00 <= low <= 0xDFFF:
                return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
            self.at = at
        return "\ufffd"


def fold(key: str) -> str:
    """segmentio's appendToLower."""
    if key.isascii():
        return key.lower()
    steps = {"s": "\u017f", "\u017f": "s", "S": "s", "k": "\u212a", "\u212a": "k", "K": "k"}
    return "".join(steps.get(c, c.lower() if c.isascii() else "?") for c in key)


def generous_fold(key: str) -> str:
    return key.replace("\u017f", "s").replace("\u212a", "k").lower()


class Reader:
    def __init__(self) -> None:
        self.is_plain = True

    def read_object(self, found: dict, members: Any, shape: dict) -> dict:
        if not isinstance(members, Members):
            raise GoRefuses("not an object")
        known = [generous_fold(m.key) for m in members if generous_fold(m.key) in shape]
        if len(known) != len(set(known)) or any(not m.key.isascii() and generous_fold(m.key) in shape for m in members):
            self.is_plain = False
        for member in members:
            name = member.key if member.key in shape else fold(member.key)
            if name in shape:
                self.read_member(found, name, member, shape[name])
        return found

    def read_member(self, found: dict, name: str, member: Member, kind: Any) -> None:
        value = member.value
        if kind is bytes:
            found[name] = member.size
        elif isinstance(kind, dict):
            found[name] = None if value is None else self.read_object(found.get(name) or {}, value, kind)
        elif value is None:
            if kind is dict:
                found[name] = None
        elif isinstance(kind, tuple):
            found[name] = self.integer(value, *kind)
        elif type(value) is not {str: str, bool: bool, dict: Members}[kind]:
            raise GoRefuses(f"{name} is {value!r}")
        else:
            found[name] = value

    def integer(self, value: Any, lowest: int, highest: int) -> int:
        if not isinstance(value, Number) or any(c in value for c in ".eE") or (lowest == 0 and value.startswith("-")):
            raise GoRefuses(f"{value!r} is no integer")
        if (lowest, highest) == INT64 and len(value.lstrip("-")) > 18:
            self.is_plain = False  # Go's own check for overflow lets some through
            return 0
        if not lowest <= int(value) <= highest:
            raise GoRefuses(f"{value} is out of range")
        return int(value)


def read_line(line: bytes) -> Meaning:
    """Raises GoRefuses where Centrifugo disconnects 3501 for what it cannot decode."""
    parser, reader = Parser(line), Reader()
    parser.space()
    if parser.peek() not in (b"{", b"n"):
        raise GoRefuses("not an object")
    value = parser.value()
    command: dict[str, Any] = {} if value is None else reader.read_object({}, value, SHAPE)
    requests = [kind for kind in KINDS if command.get(kind) is not None]
    is_plain = reader.is_plain and len(requests) < 2 and parser.deepest <= MAX_DEPTH
    kind, request = (requests[0], command[requests[0]]) if requests else ("none", {})
    command_id = command.get("id", 0)
    if command_id == 0 and "send" not in requests:
        kind = "pong"
    return Meaning(operation(kind, request), command_id, request, is_plain)


def operation(kind: str, request: dict[str, Any]) -> str:
    if kind == "publish" and request.get("type") == 1:
        return "map_remove" if request.get("removed") else "map_publish"
    if kind == "sub_refresh":
        return {1: "track", 2: "untrack"}.get(request.get("type", 0), kind)
    return kind


def lines_of(payload: bytes) -> list[bytes]:
    """A LF at the end ends the last line; nothing at all is one bad line."""
    return payload.removesuffix(b"\n").split(b"\n")


DEFAULTS = {str: "", bool: False, bytes: 0}


def meaning_of(line: bytes) -> Meaning | None:
    try:
        return read_line(line)
    except GoRefuses:
        return None


def compare(payload: bytes) -> None:
    """Raises AssertionError where a command could get past the limits, or would be refused for nothing."""
    commands = parse_commands(payload, False)
    lines = lines_of(payload)
    for number, command in enumerate(commands):
        assert payload[command.start : command.end] == lines[number]
        meaning = meaning_of(lines[number])
        if command.fault:
            compare_fault(command, meaning)
            if command.fault == MALFORMED:
                assert number == len(commands) - 1
                return
            continue
        assert meaning is not None
        assert meaning.is_plain
        compare_meaning(command, meaning)
        assert is_canonical(lines[number] if command.encoded is None else command.encoded)
        if command.encoded is not None:
            (again,) = parse_commands(command.encoded, False)
            assert (again.fault, again.encoded) == (0, None)
            compare_meaning(again, meaning)
            assert read_line(command.encoded) == meaning
    assert len(commands) == len(lines)


def is_canonical(line: bytes) -> bool:
    """One object, nothing behind it, and all that means something to Centrifugo in its proper spelling."""
    parser = Parser(line)
    parser.space()
    value = parser.value()
    parser.space()
    if parser.at < len(line):
        return False
    return all(is_proper(member, SHAPE) and is_proper_request(member) for member in value or ())


def is_proper_request(member: Member) -> bool:
    shape = REQUESTS.get(member.key)
    return shape is None or all(is_proper(inner, shape) for inner in member.value or ())


def is_proper(member: Member, shape: dict) -> bool:
    return member.key in shape or generous_fold(member.key) not in shape


def compare_fault(command: Command, meaning: Meaning | None) -> None:
    if meaning is None:
        assert command.fault == MALFORMED
        return
    assert not meaning.is_plain
    if command.fault == BAD_REQUEST:
        assert command.id > 0


def compare_meaning(command: Command, meaning: Meaning) -> None:
    assert (command.kind, command.id) == (meaning.kind, meaning.id)
    if meaning.kind in ("pong", "none"):
        return
    request = dict(meaning.request)
    if meaning.kind == "connect":
        wants = bool(request.get("flag", 0) & 1 or request.get("dict"))
        assert command.wants_dictionary == wants
        assert command.has_headers == (request.get("headers") is not None)
    for name in {"channel", "token", "data", "name", "version", "flag", "type", "phase", "cursor", "limit", "recover"}:
        expected = request.get(name, DEFAULTS.get(kind_of(name), 0))
        assert getattr(command, "data_size" if name == "data" else name) == expected, name
    assert command.method == request.get("method", "")


def kind_of(name: str) -> object:
    return next(shape[name] for shape in REQUESTS.values() if name in shape)
