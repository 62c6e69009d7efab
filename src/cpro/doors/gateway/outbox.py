"""What a session lets pass on its way to Centrifugo's `/emulation`: one post at a time, which keeps its order."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

ROOM_BYTES: Final = 64 * 1024
"""More than this waiting, and the client's posts wait, too."""


class Send(Protocol):
    def __call__(self, data: bytes, on_done: Callable[[bool], object], /) -> None:
        """Post `data` of an EmulationRequest; `on_done` hears whether Centrifugo has taken it."""


class Outbox:
    """Belongs to its stream. `on_change` is called when `is_full` may have changed, `on_failure` when a post failed."""

    def __init__(
        self,
        send: Send,
        on_change: Callable[[], object],
        on_failure: Callable[[], object],
        *,
        protobuf: bool,
        most_bytes: int,
    ) -> None:
        """`most_bytes`: of the data of one post, if it holds more than one message."""
        self._send = send
        self._on_change = on_change
        self._on_failure = on_failure
        self._protobuf = protobuf
        self._most_bytes = most_bytes
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_posting = False

    @property
    def is_full(self) -> bool:
        return self._waiting_bytes > ROOM_BYTES

    def put(self, commands: bytes) -> None:
        """Send a message's commands once all before them have gone."""
        part = commands if self._protobuf else _quoted(commands)
        self._waiting.append(part)
        self._waiting_bytes += len(part)
        self._post()

    def _post(self) -> None:
        if self._is_posting or not self._waiting:
            return
        self._is_posting = True
        count, size = 1, len(self._waiting[0])
        while count < len(self._waiting) and size + len(self._waiting[count]) + 2 <= self._most_bytes:
            size += len(self._waiting[count]) + 2
            count += 1
        parts, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_bytes -= sum(map(len, parts))
        self._send(b"".join(parts) if self._protobuf else b'"%b"' % rb"\n".join(parts), self._on_sent)

    def _on_sent(self, is_taken: bool) -> None:
        self._is_posting = False
        if not is_taken:
            self._waiting.clear()
            self._on_failure()
            return
        self._post()
        self._on_change()


def _quoted(commands: bytes) -> bytes:
    """As what stands between the quotes of a JSON string."""
    return msgspec.json.encode(commands.decode("utf-8", "replace"))[1:-1]
