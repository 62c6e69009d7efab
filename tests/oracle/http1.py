"""The plain-Python twin of `cpro._fast.http1`'s request side: reads byte by byte, keeps nothing clever.

`read_requests` is what a parser should see in `data`; `drive` is what the real one sees when fed in pieces.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from cpro._fast.http1 import BODY, HEAD, IDLE, Request, RequestParser
from cpro.errors import ProtocolError

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
HEXDIGITS = b"0123456789abcdefABCDEF"
BLANK = b" \t"
REQUEST_LINE = re.compile(rb"(%s) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])" % TOKEN)
FIELD = re.compile(rb"(%s):[ \t]*(.*?)[ \t]*" % TOKEN, re.DOTALL)
REG_NAME = rb"(?:[-._~0-9A-Za-z!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
HOST = rb"(?:\[[-._~0-9A-Za-z!$&'()*+,;=:]+\]|" + REG_NAME + rb")"
HOST_PORT = re.compile(HOST + rb"(?::[0-9]*)?")
AUTHORITY_FORM = re.compile(HOST + rb":[0-9]+")
ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?]*)((?:[/?].*)?)")
MAX_FIELDS = 256


class Seen(NamedTuple):
    method: bytes
    target: bytes
    path: bytes
    query: bytes
    minor_version: int
    keep_alive: bool
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Outcome(NamedTuple):
    seen: list[Seen]
    end: int | str  # status of the fault, or the state in which more input is awaited


class Fault(Exception):  # noqa: N818
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class MoreInput(Exception):  # noqa: N818
    pass


class Reader:
    def __init__(self, data: bytes, max_head: int, max_body: int) -> None:
        self.data, self.at, self.max_head, self.max_body = data, 0, max_head, max_body
        self.state = "idle"

    def take(self) -> bytes:
        if self.at == len(self.data):
            raise MoreInput
        self.at += 1
        return self.data[self.at - 1 : self.at]

    # -- head

    def line(self, head_start: int) -> bytes:
        line = b""

        def take() -> bytes:
            c = self.take()
            if self.at - head_start > self.max_head:
                raise Fault(431)
            return c

        while (c := take()) != b"\r":
            if (c < b" " and c != b"\t") or c == b"\x7f":
                raise Fault(400)
            line += c
        require(take() == b"\n")
        return line

    def request(self) -> Seen:
        self.state = "idle"
        if self.take() == b"\r":
            require(self.take() == b"\n")
            self.take()
        self.at -= 1
        self.state = "head"
        start = self.at
        first = REQUEST_LINE.fullmatch(self.line(start))
        require(first)
        method, target, minor = first[1], first[2], int(first[3])
        path, query = split_target(method, target)
        headers: list[tuple[bytes, bytes]] = []
        while line := self.line(start):
            field = FIELD.fullmatch(line)
            require(field)
            if len(headers) == MAX_FIELDS:
                raise Fault(431)
            headers.append((field[1], field[2]))
            check_field(headers)
        length, chunked = check_head(headers, minor)
        if length > self.max_body:
            raise Fault(413)
        options = [o.strip(BLANK).lower() for v in values(headers, b"connection") for o in v.split(b",")]
        keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
        self.state = "body"
        body = self.chunks() if chunked else b"".join(self.take() for _ in range(length))
        return Seen(method, target, path, query, minor, keep_alive, headers, body)

    # -- chunked body

    def chunks(self) -> bytes:
        self.purse = self.max_head
        body = b""
        while size := self.chunk_line():
            if size > self.max_body - len(body):
                raise Fault(413)
            body += b"".join(self.take() for _ in range(size))
            require(self.take() == b"\r")
            require(self.take() == b"\n")
        while (c := self.take()) != b"\r":
            c = self.token(c)
            require(c == b":")
            while c != b"\r":
                self.charge()
                c = self.take()
                require(c in (b"\t", b"\r") or (c >= b" " and c != b"\x7f"))
            require(self.take() == b"\n")
        require(self.take() == b"\n")
        return body

    def charge(self) -> None:
        self.purse -= 1
        if self.purse < 0:
            raise Fault(431)

    def chunk_line(self) -> int:
        digits = b""
        c = self.take()
        require(c in HEXDIGITS)
        while c in HEXDIGITS:
            if c == b"0" and not digits:
                self.charge()
            else:
                digits += c
                require(len(digits) <= 16)
            c = self.take()
        c, spaced = self.blanks(c)
        while c == b";":
            c, spaced = self.extension()
        require(c == b"\r" and not spaced)
        require(self.take() == b"\n")
        return int(digits or b"0", 16)

    def extension(self) -> tuple[bytes, bool]:
        self.charge()
        c, _ = self.blanks(self.take())
        c, spaced = self.blanks(self.token(c))
        if c != b"=":
            return c, spaced
        self.charge()
        c, _ = self.blanks(self.take())
        return self.blanks(self.quoted() if c == b'"' else self.token(c))

    def quoted(self) -> bytes:
        self.charge()
        while (c := self.take()) != b'"':
            if c == b"\\":
                self.charge()
                c = self.take()
            require(c == b"\t" or (c >= b" " and c != b"\x7f"))
            self.charge()
        self.charge()
        return self.take()

    def blanks(self, c: bytes) -> tuple[bytes, bool]:
        spaced = False
        while c in BLANK:
            self.charge()
            spaced = True
            c = self.take()
        return c, spaced

    def token(self, c: bytes) -> bytes:
        require(re.fullmatch(TOKEN, c))
        while re.fullmatch(TOKEN, c):
            self.charge()
            c = self.take()
        return c


def require(condition: object) -> None:
    if not condition:
        raise Fault(400)


def values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [v for n, v in headers if n.lower() == name]


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    if method == b"CONNECT":
        require(AUTHORITY_FORM.fullmatch(target))
        return b"", b""
    if target.startswith(b"*"):
        require(target == b"*" and method == b"OPTIONS")
        return b"*", b""
    rest = target
    if not target.startswith(b"/"):
        absolute = ABSOLUTE_FORM.fullmatch(target)
        require(absolute and HOST_PORT.fullmatch(absolute[1]))
        rest = absolute[2]
    path, _, query = rest.partition(b"?")
    return path or b"/", query


def check_field(headers: list[tuple[bytes, bytes]]) -> None:
    """What is refused as soon as the line of the last field is complete."""
    name, value = headers[-1][0].lower(), headers[-1][1]
    if name in (b"content-length", b"transfer-encoding"):
        require(len(values(headers, name)) == 1)
    if name == b"content-length":
        require(re.fullmatch(rb"[0-9]+", value) and len(value.lstrip(b"0")) <= 18)
    if name == b"transfer-encoding":
        require(value.lower() == b"chunked")
    if name == b"connection" and sum(v.count(b",") + 1 for v in values(headers, name)) > MAX_FIELDS:
        raise Fault(431)


def check_head(headers: list[tuple[bytes, bytes]], minor: int) -> tuple[int, bool]:
    hosts = values(headers, b"host")
    require(len(hosts) == 1 or (not hosts and minor == 0))
    require(not hosts or not hosts[0] or HOST_PORT.fullmatch(hosts[0]))
    lengths = values(headers, b"content-length")
    chunked = bool(values(headers, b"transfer-encoding"))
    require(not chunked or (not lengths and minor == 1))
    if any(v.lower() != b"100-continue" for v in values(headers, b"expect")):
        raise Fault(417)
    return int(lengths[0]) if lengths else 0, chunked


def read_requests(data: bytes, max_head: int, max_body: int) -> Outcome:
    reader = Reader(data, max_head, max_body)
    seen: list[Seen] = []
    try:
        while True:
            seen.append(reader.request())
    except MoreInput:
        return Outcome(seen, reader.state)
    except Fault as fault:
        return Outcome(seen, fault.status)


def as_seen(r: Request) -> Seen:
    assert r.is_post is (r.method == b"POST")
    return Seen(r.method, r.target, r.path, r.query, r.minor_version, r.keep_alive, r.headers(), r.body)


def drive(pieces: Iterable[bytes], max_head: int, max_body: int) -> Outcome:
    parser = RequestParser(max_head, max_body)
    seen: list[Seen] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (request := parser.next_request()) is not None:
                seen.append(as_seen(request))
    except ProtocolError as fault:
        return Outcome(seen, fault.status)
    return Outcome(seen, {IDLE: "idle", HEAD: "head", BODY: "body"}[parser.state])
