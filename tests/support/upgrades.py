"""Asking for the upgrade to WebSocket, whatever the answer."""

import queue
import socket
import threading
from contextlib import ExitStack, suppress

PATIENCE_S = 20.0
HEAD = (
    "GET /connection/websocket HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Upgrades:
    """Opens connections and keeps those that are upgraded until the end; use as a context manager."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._address = (host, int(port))
        self._open = ExitStack()

    def ask(self, headers: dict[str, str] | None = None, before: bytes = b"") -> int:
        """The status that an upgrade is answered with; `before` is sent ahead of the request. 0: hung up."""
        connection = socket.create_connection(self._address, PATIENCE_S)
        try:
            lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
            connection.sendall(before + f"{HEAD}{lines}\r\n".encode())
            status = read_status(connection)
        except BaseException:
            connection.close()
            raise
        if status == 101:
            self._open.enter_context(connection)
        else:
            connection.close()
        return status

    def close(self) -> None:
        """Close all that are open."""
        self._open.close()

    def __enter__(self) -> "Upgrades":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_status(connection: socket.socket) -> int:
    head = b""
    try:
        while b"\r\n" not in head and (data := connection.recv(4096)):
            head += data
    except ConnectionResetError:
        pass
    return int(head.split(b" ", 2)[1]) if head else 0


class Recorder:
    """In Centrifugo's place: notes the heads of requests, and refuses them all; use as a context manager."""

    def __init__(self) -> None:
        self.heads: queue.Queue[dict[str, str]] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def next_head(self) -> dict[str, str]:
        """Headers of the next request, names in lower case."""
        return self.heads.get(timeout=PATIENCE_S)

    def __enter__(self) -> "Recorder":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as stream:
                    lines = iter(stream.readline, b"\r\n")
                    next(lines)
                    pairs = (line.decode().strip().partition(": ") for line in lines)
                    self.heads.put({name.lower(): value for name, _, value in pairs})
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
