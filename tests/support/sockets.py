"""Clients of Centrifugo made of a socket each, as many as a test wants, that do nothing but what they are told."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit

import jwt

from cpro._fast.wsframe import CLOSE, TEXT, build_frame
from cpro._fast.wsscan import ServerScan

KEY = "a key that only the application and Centrifugo have"
PATIENCE_S = 20.0
MASK = 0x5A5A0FF0


def token_of(user: str, key: str = KEY, *, lasts_s: int = 3600, **claims: object) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + lasts_s, **claims}, key, algorithm="HS256")


class ClosedError(Exception):
    """The server has ended the connection: `code` is that of its close frame, 0 when it just hung up."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        super().__init__(f"closed: {code} {reason}")
        self.code, self.reason = code, reason


class Socket:
    """A WebSocket in JSON, upgraded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._scan = ServerScan(False, 1 << 26, holds=True)
        self._payloads: list[bytes] = []
        self._closed: ClosedError | None = None
        self._ids = 0
        self.pushes: list[dict] = []

    @classmethod
    async def open(cls, url: str, *, source: str | None = None) -> Self:
        """Raises ClosedError with the HTTP status when it isn't upgraded, OSError when nobody is there."""
        address = urlsplit(url)
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, local_addr=local)
        socket = cls(reader, writer)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await socket._upgrade(address.netloc, address.path)
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _upgrade(self, host: str, path: str) -> None:
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ClosedError from None
        status = int(head.split(b" ")[1])
        if status != 101:
            raise ClosedError(status)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    # -- speaking

    def say(self, command: dict) -> None:
        self.writer.write(build_frame(TEXT, json.dumps(command).encode(), mask_key=MASK))

    async def ask(self, kind: str, **fields: object) -> dict:
        """The reply to a command; what is pushed meanwhile is in `pushes`."""
        self._ids += 1
        self.say({"id": self._ids, kind: fields})
        return await self.reply(self._ids)

    async def connect(self, user: str) -> Self:
        reply = await self.ask("connect", token=token_of(user))
        assert "connect" in reply, reply
        return self

    async def reply(self, number: int) -> dict:
        while True:
            message = await self.next()
            if message.get("id") == number:
                return message

    async def push(self) -> dict:
        """The next push, or the oldest that came while something else was waited for."""
        while not self.pushes:
            await self.next()
        return self.pushes.pop(0)

    async def next(self) -> dict:
        """The next line, pings answered."""
        while True:
            message = json.loads(await self._line())
            if not message:
                self.say({})
                continue
            if "push" in message:
                self.pushes.append(message["push"])
            return message

    async def until_closed(self) -> ClosedError:
        """How the server ends it."""
        try:
            while True:
                await self._line()
        except ClosedError as closed:
            return closed

    async def _line(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            while not self._payloads:
                if self._closed is not None:
                    raise self._closed
                await self._read()
        return self._payloads.pop(0)

    async def _read(self) -> None:
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        for event in self._scan.feed(data) or []:
            if event.opcode == CLOSE:
                self._closed = ClosedError(event.code, event.reason.decode())
            else:
                self._payloads += event.payload.split(b"\n")
        assert not self._scan.fault, self._scan.fault
        if not data:
            self._closed = self._closed or ClosedError()


async def open_many(url: str, count: int, *, at_a_time: int = 50) -> list[Socket]:
    """Connected ones, of as many users, from several addresses of this machine."""
    gate = asyncio.Semaphore(at_a_time)

    async def one(number: int) -> Socket:
        async with gate:
            socket = await Socket.open(url, source=f"127.0.0.{2 + number % 20}")
            return await socket.connect(f"user-{number}")

    return list(await asyncio.gather(*(one(number) for number in range(count))))


@asynccontextmanager
async def many(url: str, count: int) -> AsyncIterator[list[Socket]]:
    sockets = await open_many(url, count)
    try:
        yield sockets
    finally:
        await asyncio.gather(*(one.close() for one in sockets))
