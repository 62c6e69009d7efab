"""Asking for the upgrade to WebSocket, whatever the answer."""

import socket
from contextlib import ExitStack

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
