"""Accepting from proxies: the header first, however slow, and what follows untouched."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvloop

from cpro.http import proxied
from cpro.http.proxied import ProxiedListener

PATIENCE_S = 20.0
HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"


class Scene:
    """A listener on loopback, clients to it, and what was handed on."""

    def __init__(
        self, *, is_proxy: bool = True, header_timeout_s: float = 60.0, listener: socket.socket | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.handed_on: asyncio.Queue[tuple[socket.socket, str | None]] = asyncio.Queue()
        listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.asked: list[str] = []
        self._clients: list[socket.socket] = []

        def knows(address: str) -> bool:
            self.asked.append(address)
            return is_proxy

        self.listener = ProxiedListener(listener, knows, self._serve, header_timeout_s)
        self.listener.start(16)

    async def _serve(self, connection: socket.socket, address: str | None) -> None:
        self.handed_on.put_nowait((connection, address))

    async def client(self) -> socket.socket:
        client = socket.socket()
        self._clients.append(client)
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.loop.sock_connect(client, self.address)
        return client

    async def next(self) -> tuple[bytes, str | None]:
        """What the next connection handed on says first, and whose it is."""
        connection, address = await asyncio.wait_for(self.handed_on.get(), PATIENCE_S)
        data = await asyncio.wait_for(self.loop.sock_recv(connection, 4096), PATIENCE_S)
        connection.close()
        return data, address

    def close(self) -> None:
        self.listener.close()
        for client in self._clients:
            client.close()

    async def is_hung_up(self, client: socket.socket) -> bool:
        with suppress(ConnectionResetError):
            return await asyncio.wait_for(self.loop.sock_recv(client, 1), PATIENCE_S) == b""
        return True


def play(act: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await act()

    uvloop.run(run())


def test_what_follows_the_header_is_left_for_others():
    async def act() -> None:
        scene = Scene()
        client = await scene.client()
        await scene.loop.sock_sendall(client, HEADER + b"GET / HTTP/1.1\r\n")
        assert await scene.next() == (b"GET / HTTP/1.1\r\n", "192.0.2.1")
        assert scene.asked == ["127.0.0.1"]
        scene.close()

    play(act)


def test_a_header_may_come_byte_by_byte_while_others_are_served():
    async def act() -> None:
        scene = Scene()
        slow, fast = await scene.client(), await scene.client()
        for byte in HEADER[:-1]:
            await scene.loop.sock_sendall(slow, bytes([byte]))
            await asyncio.sleep(0)
        await scene.loop.sock_sendall(fast, b"PROXY UNKNOWN\r\nfast")
        assert await scene.next() == (b"fast", "")
        await scene.loop.sock_sendall(slow, HEADER[-1:] + b"slow")
        assert await scene.next() == (b"slow", "192.0.2.1")
        scene.close()

    play(act)


def test_whoever_is_no_proxy_is_handed_on_at_once():
    async def act() -> None:
        scene = Scene(is_proxy=False)
        client = await scene.client()
        await scene.loop.sock_sendall(client, HEADER)
        assert await scene.next() == (HEADER, None)
        scene.close()

    play(act)


def test_a_proxy_without_a_header_is_hung_up_on():
    async def act() -> None:
        scene = Scene()
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 nobody\r\n"):
            client = await scene.client()
            await scene.loop.sock_sendall(client, data)
            assert await scene.is_hung_up(client)
        gone = await scene.client()
        await scene.loop.sock_sendall(gone, HEADER[:10])
        gone.close()
        client = await scene.client()
        await scene.loop.sock_sendall(client, HEADER + b"x")
        assert await scene.next() == (b"x", "192.0.2.1")
        scene.close()

    play(act)


def test_a_proxy_that_never_finishes_its_header_is_hung_up_on():
    async def act() -> None:
        scene = Scene(header_timeout_s=0.05)
        client = await scene.client()
        await scene.loop.sock_sendall(client, HEADER[:-1])
        assert await scene.is_hung_up(client)
        scene.close()

    play(act)


class Exhausted(socket.socket):
    """A listening socket in a process that has no file left, for a while."""

    failures = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_process_without_files_accepts_again_when_it_has_some(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proxied, "NO_FILES_WAIT_S", 0.01)

    async def act() -> None:
        listener = Exhausted()
        listener.bind(("127.0.0.1", 0))
        scene = Scene(listener=listener)
        client = await scene.client()
        await scene.loop.sock_sendall(client, HEADER + b"x")
        assert await scene.next() == (b"x", "192.0.2.1")
        assert listener.failures == 0
        scene.close()

    play(act)


def test_closing_hangs_up_on_those_that_wait():
    async def act() -> None:
        scene = Scene()
        client, other = await scene.client(), await scene.client()
        await scene.loop.sock_sendall(client, HEADER[:-1])
        await scene.loop.sock_sendall(other, HEADER + b"x")
        await scene.next()
        scene.listener.close()
        assert await scene.is_hung_up(client)
        assert scene.handed_on.empty()
        scene.close()

    play(act)
