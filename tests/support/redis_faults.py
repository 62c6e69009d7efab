"""Peers that misbehave: a proxy that swallows replies, and a server that says what a script tells it to."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from hiredis import Reader, pack_command


class Listener:
    """Accepts on a free port, each connection in a thread of its own; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.accepted = 0
        self._open: list[socket.socket] = [self._socket]
        self._threads: list[threading.Thread] = []

    def __enter__(self):
        self._go(self._accept)
        return self

    def __exit__(self, *_) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def visit(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def _go(self, run: Callable, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.accepted += 1
                self._open.append(connection)
                self._go(self._visit, connection)

    def _visit(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self.visit(connection)
        connection.close()


class Proxy(Listener):
    """Passes everything on to a port; with `swallowing` set, requests arrive and replies are lost."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self.swallowing = False
        self.cutting = False  # the connection breaks where the reply should be

    def visit(self, connection: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open.append(server)
        self._go(self._pump, server, connection)
        while data := connection.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)

    def _pump(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cutting:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if not self.swallowing:
                    client.sendall(data)


class ScriptedRedis(Listener):
    """Says HELLO as Redis does, and answers every other command with what `answer(command)` returns: raw RESP."""

    def __init__(self, answer: Callable[[list[bytes]], bytes]) -> None:
        super().__init__()
        self.answer = answer
        self.commands: list[list[bytes]] = []

    def visit(self, connection: socket.socket) -> None:
        reader = Reader()
        while data := connection.recv(65536):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                connection.sendall(self._reply(command))

    def _reply(self, command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        if command[0] == b"CLIENT":
            return b"+OK\r\n"
        self.commands.append(command)
        return self.answer(command)


def resp(value) -> bytes:
    """Lists, bytes and integers as a server sends them."""
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(resp(item) for item in value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    return pack_command((value,)).partition(b"\r\n")[2]
