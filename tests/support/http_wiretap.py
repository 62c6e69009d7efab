"""The same for SSE and HTTP-stream, where one session is a stream and many posts: put together again."""

import asyncio
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs

from cpro._fast.emulation import parse_emulation
from cpro._fast.http1 import Request, RequestParser
from cpro._fast.replies import parse_replies
from cpro._fast.wsframe import BINARY, TEXT
from tests.support.wiretap import Take, Wiretap

MOST = 1 << 26
OCTETS = b"application/octet-stream"


@dataclass
class Exchange:
    """A request, and its answer as far as it has come."""

    request: Request
    body: bytes = b""

    @property
    def is_stream(self) -> bool:
        return self.request.path.startswith(b"/connection/") and self.request.method in (b"GET", b"POST")

    @property
    def is_protobuf(self) -> bool:
        return self.request.header(b"content-type") == OCTETS

    @property
    def said(self) -> bytes:
        """The commands of a request that opens a stream."""
        if self.request.is_post:
            return self.request.body
        return parse_qs(self.request.query.decode())["cf_connect"][0].encode()

    @property
    def content(self) -> bytes:
        """The replies of a stream, whole ones only."""
        if self.is_protobuf:
            return self.body
        whole, _, _ = self.body.rpartition(b"\n")
        return b"\n".join(line.removeprefix(b"data: ") for line in whole.splitlines() if line)

    @property
    def posted(self) -> tuple[str, bytes]:
        """Session and commands of a post."""
        if self.is_protobuf:
            _, session, commands = parse_emulation(self.request.body)
            return session.decode(), commands
        read = json.loads(self.request.body)
        return read["session"], read["data"].encode()


class HttpWiretap(Wiretap):
    """`takes` are the streams so far, each with the posts of its session."""

    def __init__(self, target: str = "ws://127.0.0.1:0") -> None:
        super().__init__(target)
        self._exchanges: list[Exchange] = []

    @property
    def takes(self) -> list[Take]:
        posts = [one.posted for one in self._exchanges if not one.is_stream and one.request.is_post]
        return [self._take(one, posts) for one in self._exchanges if one.is_stream]

    @takes.setter
    def takes(self, none: list[Take]) -> None:
        """They are made from what was exchanged."""

    def _take(self, stream: Exchange, posts: list[tuple[str, bytes]]) -> Take:
        opcode = BINARY if stream.is_protobuf else TEXT
        session = next((one.session for one in parse_replies(stream.content, stream.is_protobuf) if one.session), None)
        said = [stream.said, *(commands for name, commands in posts if name == session)]
        frames = [("client", opcode, one) for one in said]
        return Take(frames=[*frames, ("server", opcode, stream.content)])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._open.add(far_writer)
        owed: deque[Exchange] = deque()
        ways = [
            asyncio.create_task(_relay(reader, far_writer, _Asked(self._exchanges, owed))),
            asyncio.create_task(_relay(far_reader, writer, _Answered(owed))),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, far_writer):
            self._open.discard(one)
            one.close()
        await asyncio.wait(ways)


class _Asked:
    """Requests of one connection."""

    def __init__(self, exchanges: list[Exchange], owed: deque[Exchange]) -> None:
        self._exchanges, self._owed = exchanges, owed
        self._parser = RequestParser(MOST, MOST)

    def feed(self, data: bytes) -> None:
        self._parser.feed(data)
        while (request := self._parser.next_request()) is not None:
            self._exchanges.append(Exchange(request))
            self._owed.append(self._exchanges[-1])


class _Answered:
    """Their answers, whose bodies come as they come."""

    def __init__(self, owed: deque[Exchange]) -> None:
        self._owed = owed
        self._data = b""
        self._is_chunked = False
        self._left = 0  # of a body, or of a chunk with its line break
        self._in_body = False

    def feed(self, data: bytes) -> None:
        self._data += data
        while self._step():
            pass

    def _step(self) -> bool:
        if not self._in_body:
            return self._head()
        if self._is_chunked and self._left == 0:
            return self._chunk()
        taken, self._data = self._data[: self._left], self._data[self._left :]
        self._left -= len(taken)
        self._owed[0].body += taken
        if self._left == 0:
            self._end_of_piece()
        return bool(taken)

    def _head(self) -> bool:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        self._data, self._in_body = rest, True
        lower = head.lower()
        self._is_chunked = b"transfer-encoding: chunked" in lower
        _, _, length = lower.partition(b"content-length: ")
        self._left = int(length.split(b"\r\n")[0]) if length else 0
        if not self._is_chunked and not self._left:
            self._done()
        return True

    def _chunk(self) -> bool:
        size, end, rest = self._data.partition(b"\r\n")
        if not end or (size == b"0" and len(rest) < 2):
            return False
        self._left = int(size, 16) + 2
        self._data = rest
        if size == b"0":
            self._data, self._left = rest[2:], 0
            self._done()
        return True

    def _end_of_piece(self) -> None:
        if self._is_chunked:
            self._owed[0].body = self._owed[0].body[:-2]
        else:
            self._done()

    def _done(self) -> None:
        self._in_body = False
        self._owed.popleft()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notes: _Asked | _Answered) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            notes.feed(data)
            writer.write(data)
            await writer.drain()
