"""Raw bytes over a socket, for peers that no HTTP library would be."""

import socket


class Wire:
    """A TCP connection on which a test says exactly what it wants. Use as a context manager."""

    def __init__(self, address: str, timeout_s: float = 5.0):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self._data = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers with names in lower case, body by Content-Length."""
        head = self._until(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        length = int(headers.get(b"content-length", b"0"))
        while len(self._data) < length:
            self._more()
        body, self._data = self._data[:length], self._data[length:]
        return int(status_line.split()[1]), headers, body

    def is_closed(self) -> bool:
        """Whether the peer closes without saying more; waits for it."""
        try:
            return not self._data and self.socket.recv(65536) == b""
        except ConnectionResetError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._more()
        found, _, self._data = self._data.partition(mark)
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._data!r}")
        self._data += data


def post(body: bytes, path: bytes = b"/centrifugo/publish", headers: bytes = b"") -> bytes:
    """A well-formed request, with more header lines if wanted (each ending in CRLF)."""
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)
