"""A WebSocket client that sends whatever bytes it is told to."""

import base64
import os
import socket
from urllib.parse import urlsplit

from cpro._fast.wsframe import CLOSE, TEXT, Event, build_frame
from cpro._fast.wsscan import ServerScan

PATIENCE_S = 5.0


class RawWebSocket:
    """Connects; use as a context manager."""

    def __init__(self, url: str, protobuf: bool = False) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), PATIENCE_S)
        self._scan = ServerScan(protobuf, 1 << 20, holds=True)
        self._events: list[Event] = []
        query = "?format=protobuf" if protobuf else f"?{address.query}" if address.query else ""
        self._upgrade(address.netloc, address.path + query)

    def _upgrade(self, host: str, target: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(1)
        if not head.startswith(b"HTTP/1.1 101 "):
            self._socket.close()
            raise AssertionError(head)

    def __enter__(self) -> "RawWebSocket":
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def send_text(self, payload: bytes) -> None:
        self.send(build_frame(TEXT, payload, mask_key=0x01020304))

    def next_event(self) -> Event | None:
        """The next message or control frame; None when the server has closed the TCP connection."""
        while not self._events:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._events += self._scan.feed(data) or []
            assert not self._scan.fault, self._scan.fault
        return self._events.pop(0)

    def next_close(self) -> tuple[int, bytes]:
        """Code and reason of the server's close frame, skipping everything before; (0, b"") when it just hangs up."""
        while (event := self.next_event()) is not None:
            if event.opcode == CLOSE:
                return event.code, event.reason
        return 0, b""
