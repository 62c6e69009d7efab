"""Connections that bring no request: they stay, or are closed where peers are not known to behave."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvloop

from cpro.http import server
from cpro.http.server import Server
from cpro.operation import Reply

PATIENCE_S = 20.0
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class House:
    """A server on loopback, and its clients."""

    def __init__(self, **options: float) -> None:
        self.held: asyncio.Queue = asyncio.Queue()
        self.holds = False
        self.server = Server(self._handle, max_body_bytes=100, **options)
        self._clients: list[asyncio.StreamWriter] = []

    def _handle(self, request, connection, now_ns):
        if self.holds:
            self.held.put_nowait(connection)
            return None
        return Reply(b"{}")

    async def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._address = listener.getsockname()
        await self.server.listen(listener)

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        self._clients.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._clients:
            writer.close()
        await self.server.drain(0.0)


async def is_hung_up(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
    return True


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST)
    answer = await asyncio.wait_for(reader.readuntil(b"{}"), PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 200 ")


def play(act: Callable[[House], Awaitable[None]], **options: float) -> None:
    async def run() -> None:
        house = House(**options)
        await house.open()
        try:
            await act(house)
        finally:
            await house.close()

    uvloop.run(run())


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "SWEEP_S", 0.01)

    async def act(house: House) -> None:
        reader, _ = await house.client()
        assert await is_hung_up(reader)

    play(act, idle_limit_s=0.1)


def test_who_asks_now_and_then_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "SWEEP_S", 1e6)

    async def act(house: House) -> None:
        idle, busy = await house.client(), await house.client()
        await ask(*idle)
        for now_s in range(0, 31, 10):
            await ask(*busy)
            house.server.close_idle(now_s)
        assert await is_hung_up(idle[0])
        await ask(*busy)
        for now_s in range(40, 71, 10):
            house.server.close_idle(now_s)
        assert await is_hung_up(busy[0])

    play(act, idle_limit_s=30.0)


def test_who_waits_for_an_answer_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "SWEEP_S", 1e6)

    async def act(house: House) -> None:
        reader, writer = await house.client()
        house.holds = True
        writer.write(REQUEST)
        connection = await asyncio.wait_for(house.held.get(), PATIENCE_S)
        for now_s in (0, 30, 60):
            house.server.close_idle(now_s)
        connection.answer(Reply(b"{}"))
        answer = await asyncio.wait_for(reader.readuntil(b"{}"), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 200 ")
        house.server.close_idle(90)
        house.server.close_idle(119)
        house.holds = False
        await ask(reader, writer)

    play(act, idle_limit_s=30.0)


def test_centrifugo_stays_as_long_as_it_likes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "SWEEP_S", 0.01)

    async def act(house: House) -> None:
        client = await house.client()
        await ask(*client)
        for _ in range(20):
            await asyncio.sleep(0.01)  # a sweep
        await ask(*client)

    play(act)
