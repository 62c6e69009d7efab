"""Scripted-bytes peers on loopback sockets, and the house in which a client meets them."""

import asyncio
import inspect
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

import uvloop

from cpro._fast.http1 import Request, RequestParser
from cpro.http.client import Failure, HttpClient, Outcome, Route

PATIENCE_S = 3.0  # for what must happen; nothing waits this long when all is well


def make_request(body: bytes = b"{}", headers: bytes = b"") -> Request:
    parser = RequestParser(65536, 1 << 22)
    parser.feed(
        b"POST /centrifugo/publish HTTP/1.1\r\nHost: cpro\r\nContent-Type: application/json\r\n"
        + headers
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )
    request = parser.next_request()
    assert request is not None
    return request


def reply(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class PeerConnection:
    """One accepted connection, in the hands of the peer's script."""

    def __init__(self, peer: "Peer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self.reader = reader
        self.writer = writer
        self.number = len(peer.connections)  # 0 for the first

    async def request(self) -> bytes:
        """One whole request, counted by the peer; b"" when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            message = head + await self.reader.readexactly(int(length.split(b":")[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        self.peer.requests.append(message)
        return message

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def answer(self, data: bytes) -> None:
        """Wait for a request, then send this."""
        assert await self.request()
        self.send(data)

    async def gone(self) -> None:
        """Returns when the client has closed the connection."""
        try:
            while await asyncio.wait_for(self.reader.read(65536), PATIENCE_S):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self.writer.close()

    def socket(self) -> socket.socket:
        """A duplicate, to do at once what the loop would do later."""
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))

    def close_now(self) -> None:
        with self.socket() as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        with self.socket() as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[PeerConnection], Awaitable[None]]


async def answering(connection: PeerConnection) -> None:
    """The script of a backend that works."""
    while await connection.request():
        connection.send(reply(b'{"result":{}}'))


class Peer:
    """A listening socket that plays its script on every connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections: list[PeerConnection] = []
        self.requests: list[bytes] = []
        self.plays: list[asyncio.Task[None]] = []
        self.accepted = asyncio.Event()

    async def listen(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.scheme = "https" if tls else "http"
        self.server = await asyncio.start_server(self._on_connection, "127.0.0.1", port, ssl=tls)
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self, path: str = "/centrifugo/publish") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = PeerConnection(self, reader, writer)
        self.connections.append(connection)
        self.accepted.set()
        self.plays.append(asyncio.ensure_future(self._play(connection)))

    async def _play(self, connection: PeerConnection) -> None:
        try:
            await self.script(connection)
            await connection.gone()
        except ConnectionError:
            pass
        finally:
            connection.close()

    async def close(self) -> None:
        """Stop, and raise what a script has raised, or a TimeoutError when a connection is left open."""
        self.server.close()
        await asyncio.wait_for(asyncio.gather(*self.plays), PATIENCE_S)


class House:
    """A client, its peers and what came of each send; `close` checks that nothing is left."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.clients: list[HttpClient] = []
        self.peers: list[Peer] = []
        self.outcomes: list[list[Outcome]] = []
        self.held: list[socket.socket] = []

    def client(self, timeout_s: float = 1.0, connect_timeout_s: float = 0.5, **options) -> HttpClient:
        options.setdefault("max_reply_bytes", 4096)
        client = HttpClient(self.loop, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, **options)
        self.clients.append(client)
        return client

    async def peer(self, script: Script = answering, port: int = 0, tls: ssl.SSLContext | None = None) -> Peer:
        peer = Peer(script)
        await peer.listen(port, tls)
        self.peers.append(peer)
        return peer

    def dead_port(self) -> int:
        """A port that refuses connections, held so that nobody else gets it."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self.held.append(held)
        return held.getsockname()[1]

    def deaf_port(self) -> int:
        """A port whose backlog is full: connects hang."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        self.held.append(held)
        for _ in range(2):
            knock = socket.socket()
            knock.setblocking(False)
            knock.connect_ex(held.getsockname())
            self.held.append(knock)
        return held.getsockname()[1]

    def send(self, client: HttpClient, route: Route, request: Request | None = None) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self.loop.create_future()
        outcomes: list[Outcome] = []
        self.outcomes.append(outcomes)

        def on_done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if not future.done():
                future.set_result(outcome)

        route.send(request or make_request(), on_done)
        assert not outcomes, "on_done was called before send returned"
        return future

    async def ask(self, client: HttpClient, route: Route, request: Request | None = None) -> Outcome:
        return await asyncio.wait_for(self.send(client, route, request), PATIENCE_S)

    async def close(self) -> None:
        for client in self.clients:
            await asyncio.wait_for(client.close(0), PATIENCE_S)
            assert client.in_flight == 0
            assert client._timer is None
            for pool in client._pools.values():
                assert not any((pool._connections, pool._dials, pool.idle, pool.waiting, pool._waiting_for_fresh))
        for peer in self.peers:
            await peer.close()
        for held in self.held:
            held.close()
        assert [len(outcomes) for outcomes in self.outcomes] == [1] * len(self.outcomes)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def abandon(self) -> None:
        """Close whatever a failed test left open: uvloop can't close a loop with open transports quietly."""
        for client in self.clients:
            for pool in client._pools.values():
                for connection in pool._connections:
                    connection.drop()
        for peer in self.peers:
            peer.server.close()
            for connection in peer.connections:
                connection.writer.transport.abort()
        for held in self.held:
            held.close()
        await asyncio.sleep(0.01)


def in_a_house(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test(house, …) on uvloop and close the house behind it."""

    async def main(parameters: dict) -> None:
        house = House()
        complaints: list[dict] = []
        house.loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            await test(house, **parameters)
            await house.close()
        finally:
            await house.abandon()
        assert not complaints

    def run(**parameters) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(parameters))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return run


def body_of(outcome: Outcome) -> bytes:
    assert not isinstance(outcome, Failure), outcome
    return outcome.body
