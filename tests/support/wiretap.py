"""Somebody in the middle of a TCP connection who passes everything on and writes down what was said."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from cpro._fast.wsframe import BINARY, TEXT, ClientFrames
from cpro._fast.wsscan import ServerScan

Side = Literal["client", "server"]
MOST = 1 << 26


@dataclass
class Take:
    """One WebSocket: the heads of its upgrade, and what was said on it in the order it passed."""

    request: bytes = b""
    response: bytes = b""
    frames: list[tuple[Side, int, bytes]] = field(default_factory=list)
    """Who, opcode, payload (unmasked). A fragmented message is one."""
    bytes_of_server: bytes = b""
    """All that the server sent after the upgrade."""

    def messages(self, side: Side) -> list[bytes]:
        return [payload for who, opcode, payload in self.frames if who == side and opcode in (TEXT, BINARY)]


class _Reader:
    """Takes one direction of a connection apart."""

    def __init__(self, take: Take, side: Side) -> None:
        self._take, self._side = take, side
        self._head = b""
        self._is_open = False
        self._frames = ClientFrames(MOST) if side == "client" else ServerScan(False, MOST, holds=True)

    def feed(self, data: bytes) -> None:
        if not self._is_open:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._is_open = True
            if self._side == "client":
                self._take.request = head
            else:
                self._take.response = head
        if self._side == "server":
            self._take.bytes_of_server += data
        for event in self._frames.feed(data) or []:
            self._take.frames.append((self._side, event.opcode, event.payload))


class Wiretap:
    """Listens at `url` and passes on to `target`. An asynchronous context manager.

    `takes` are all connections so far, in the order they were made in.
    """

    def __init__(self, target: str = "ws://127.0.0.1:0") -> None:
        self.aim(target)
        self.takes: list[Take] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()

    def aim(self, target: str) -> None:
        """Pass what comes from now on to there."""
        address = urlsplit(target)
        self._host, self._port, self._path = address.hostname, address.port, address.path

    async def __aenter__(self) -> "Wiretap":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._own_port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._own_port}{self._path}"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._own_port}"

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self._may_pass.set()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()
        if self._serving:
            await asyncio.wait(self._serving)

    async def while_cut(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        """Break all connections; new ones get no further until `meanwhile` is over."""
        self._may_pass.clear()
        for writer in list(self._open):
            writer.transport.abort()
        await meanwhile()
        self._may_pass.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._open.add(writer)
        await self._may_pass.wait()
        if self._server.is_serving():
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._open.add(far_writer)
        take = Take()
        self.takes.append(take)
        ways = [
            asyncio.create_task(_relay(reader, far_writer, _Reader(take, "client"))),
            asyncio.create_task(_relay(far_reader, writer, _Reader(take, "server"))),
        ]
        await asyncio.wait(ways)
        for one in (writer, far_writer):
            self._open.discard(one)
            one.close()
            with suppress(OSError):
                await one.wait_closed()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notes: _Reader) -> None:
    """One way, until it ends; then the other side hears so."""
    with suppress(OSError):
        while data := await reader.read(65536):
            notes.feed(data)
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
