"""HTTP transports of Centrifugo's by hand, for what no SDK would say."""

import json
from urllib.parse import quote

from tests.support.wire import Wire, post

JSON = b"Content-Type: application/json\r\n"


class Stream:
    """A JSON stream that a connect has opened. Use as a context manager.

    `address` is host:port; `kind` a transport's name; `connect` what the request says, as text."""

    def __init__(self, address: str, connect: str, kind: str = "http_stream"):
        self.address = address
        self._wire = Wire(address, timeout_s=15.0)
        self._content = b""
        path = f"/connection/{kind}".encode()
        if kind.endswith("sse"):
            target = b"%b?cf_connect=%b" % (path, quote(connect).encode())
            self._wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        else:
            self._wire.send(post(connect.encode(), path, JSON))
        head = self._wire._until(b"\r\n\r\n")
        self.status = int(head.split()[1])

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc: object) -> None:
        self._wire.socket.close()

    def opened(self) -> "Stream":
        """Take the reply to the connect."""
        connect = self.next()["connect"]
        self.session, self.node = connect["session"], connect.get("node", "")
        return self

    def next(self) -> dict | None:
        """The next message that is no ping; None at the end of the stream."""
        while True:
            while b"\n" not in self._content:
                if not self._take_chunk():
                    return None
            line, _, self._content = self._content.partition(b"\n")
            line = line.strip().removeprefix(b"data: ")
            if line and line != b"{}":
                return json.loads(line)

    def rest(self) -> list[dict]:
        """All that comes until the end."""
        found = []
        while (message := self.next()) is not None:
            found.append(message)
        return found

    def _take_chunk(self) -> bool:
        try:
            size = int(self._wire._until(b"\r\n"), 16)
            while len(self._wire._data) < size + 2:
                self._wire._more()
        except (EOFError, ConnectionResetError):
            return False
        self._content += self._wire._data[:size]
        self._wire._data = self._wire._data[size + 2 :]
        return size > 0

    def post(self, *commands: str, to: str = "") -> int:
        """Send commands over a connection of their own, maybe to another server; the status."""
        body = {"session": self.session, "node": self.node, "data": "\n".join(commands)}
        return emulate(to or self.address, json.dumps(body).encode())


def emulate(address: str, body: bytes, content_type: bytes = b"application/json") -> int:
    """Post to `/emulation`; the status."""
    with Wire(address, timeout_s=15.0) as wire:
        head = wire.send(post(body, b"/emulation", b"Content-Type: %b\r\n" % content_type))._until(b"\r\n\r\n")
        return int(head.split()[1])
