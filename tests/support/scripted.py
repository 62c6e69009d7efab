"""A backend that misbehaves on purpose: plays a script on each connection and counts what reaches it."""

import json
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress


def reply(body: bytes = b'{"result":{}}', *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Visit:
    """One connection of cpro's to the backend, in the hands of the script."""

    def __init__(self, backend: "ScriptedBackend", connection: socket.socket, number: int):
        self.backend = backend
        self.socket = connection
        self.number = number
        self._data = b""

    def request(self) -> dict | None:
        """The next event, whole and counted; None when cpro has closed."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(self._data) < length:
            if not self._more():
                return None
        body, self._data = self._data[:length], self._data[length:]
        event = json.loads(body)
        with self.backend.lock:
            self.backend.arrived[event["client"]] += 1
        return event

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def trickle(self, data: bytes, pause_s: float) -> None:
        """Send byte by byte."""
        for byte in data:
            self.send(bytes([byte]))
            if pause_s:
                self.pause(pause_s)

    def pause(self, seconds: float) -> None:
        if self.backend.stopped.wait(seconds):
            raise ConnectionAbortedError

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._data:
            if not self._more():
                return None
        found, _, self._data = self._data.partition(mark)
        return found

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._data += data
        return bool(data)


Script = Callable[[Visit], object]


def echo(visit: Visit) -> None:
    """The script of a backend that works, and whose every answer differs."""
    while (event := visit.request()) is not None:
        visit.send(reply(json.dumps({"result": {"data": event["client"]}}).encode()))


class ScriptedBackend:
    """Use as a context manager. `arrived` counts whole requests by the `client` they name."""

    def __init__(self, script: Script = echo, port: int = 0, tls: ssl.SSLContext | None = None):
        self.script = script
        self.arrived: Counter[str] = Counter()
        self.connections = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/centrifugo"

    def __enter__(self) -> "ScriptedBackend":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection."""
        with self.lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections += 1
                self._open.add(connection)
                number = self.connections
            threading.Thread(target=self._play, args=(connection, number), daemon=True).start()

    def _play(self, connection: socket.socket, number: int) -> None:
        plain = connection
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.script(Visit(self, connection, number))
        except OSError:
            pass  # cpro hung up, or the test is over
        finally:
            with self.lock:
                self._open.discard(plain)
            connection.close()
            plain.close()
